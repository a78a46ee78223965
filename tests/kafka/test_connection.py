"""How to talk to a broker: the same settings for librdkafka and for Faust."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.pretty import pretty_repr

from stream.errors import ConfigError
from stream.kafka.cluster import client_settings
from stream.kafka.connection import Broker, Security, client_security, security_of, tls_context
from stream.worker.app import make_app
from stream.worker.fetching import Hooks
from stream.worker.logs import formatter
from stream.worker.settings import WorkerSettings

SASL = Security(
    protocol="sasl_plaintext",
    mechanism="SCRAM-SHA-512",
    username="u",
    password="s3cret",  # noqa: S106 - a test's
)


def test_an_address_stays_an_address() -> None:
    """It goes wherever a text goes; a plain text is a broker in plain text."""
    broker = Broker("k:9092", SASL)
    assert broker == "k:9092"
    assert f"{broker}" == "k:9092"
    assert security_of(broker) is SASL
    assert client_security("k:9092") == {}


def test_librdkafka_gets_what_it_needs() -> None:
    """Every client of the worker is made with these settings."""
    found = client_settings(Broker("k:9092", SASL))
    assert found["bootstrap.servers"] == "k:9092"
    assert found["security.protocol"] == "sasl_plaintext"
    assert found["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (found["sasl.username"], found["sasl.password"]) == ("u", "s3cret")


@pytest.mark.parametrize(
    ("security", "wanted"),
    [
        (Security(), None),
        (SASL, ("SASL_PLAINTEXT", "SCRAM-SHA-512", "u", "s3cret", False)),
        (
            msgspec.structs.replace(SASL, protocol="sasl_ssl", mechanism="PLAIN"),
            ("SASL_SSL", "PLAIN", "u", "s3cret", True),
        ),
    ],
)
def test_faust_gets_the_same(
    tmp_path: Path, security: Security, wanted: tuple[Any, ...] | None
) -> None:
    """The app's credentials and TLS are those of the broker."""
    settings = WorkerSettings(
        broker=Broker("k:9092", security),
        application_id="x",
        data_dir=tmp_path,
        topics=("applications",),
        partitions=1,
    )

    async def nothing(_: object) -> None: ...

    hooks = Hooks(on_leaving=lambda: None, on_out_of_range=nothing, on_failure=lambda _: None)
    app = make_app(settings, hooks)
    credentials: Any = app.conf.broker_credentials
    if wanted is None:
        assert credentials is None
        return
    found = (
        credentials.protocol.value,
        credentials.mechanism.value,
        credentials.username,
        credentials.password,
        credentials.ssl_context is not None,
    )
    assert found == wanted


def test_secrets_are_in_no_text() -> None:
    """Neither repr nor rich's shows the password."""
    for text in (repr(SASL), str(SASL), pretty_repr(SASL), repr([SASL])):
        assert "s3cret" not in text
        assert "SCRAM" in text


def test_certificates_that_cannot_be_used_are_said_in_words(tmp_path: Path) -> None:
    """By what is wrong with them."""
    bad = tmp_path / "ca.pem"
    bad.write_text("no certificate")
    with pytest.raises(ConfigError, match="certificates cannot be used"):
        tls_context(Security(protocol="ssl", ca_file=bad))
    with pytest.raises(ConfigError, match="belong together"):
        Security(protocol="ssl", certificate_file=bad)
    assert tls_context(Security()) is None


def test_log_lines_as_json_are_one_object_each() -> None:
    """With what text has, the time, and the error where there is one."""
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        record = logging.LogRecord(
            "stream.x", logging.WARNING, "x.py", 1, "job-%d goes on", (3,), sys.exc_info()
        )
    line = formatter("json").format(record)
    assert "\n" not in line
    found = msgspec.json.decode(line)
    assert found["message"] == "job-3 goes on"
    assert found["level"] == "WARNING"
    assert "ValueError: broken" in found["error"]
    record.exc_info = None
    assert formatter("text").format(record) == "WARNING stream.x: job-3 goes on"
