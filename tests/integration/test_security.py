"""Every command talks to a broker with TLS and a password; nothing ever shows the password."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from deploy.kafka import MissingError
from stream.cli import PROGRAM
from stream.events.records import LABELS
from tests.integration.secure import PASSWORD, USER, SecureKafka
from tests.integration.workers import hearback
from tests.integration.world import Market

PARTITIONS = 2
_ENOUGH = 200
_PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """Return a Kafka with SASL_SSL of its own."""
    try:
        made = SecureKafka(tmp_path_factory.mktemp("secure"))
    except MissingError as missing:
        pytest.skip(f"no real Kafka: {missing}")
    made.start()
    yield made
    made.kill()


def configuration(kafka: SecureKafka, folder: Path, mechanism: str, model: Path) -> Path:
    """Write a configuration file and the password's."""
    (folder / "password").write_text(f"{PASSWORD}\n")
    path = folder / "hearback.toml"
    path.write_text(
        f"""
        [kafka]
        broker = "{kafka.secure_address}"
        security = "sasl_ssl"
        sasl_mechanism = "{mechanism}"
        username = "{USER}"
        password_file = "{folder / "password"}"
        ca_file = "{kafka.ca_file}"
        [worker]
        application_id = "secure-{mechanism.lower()}"
        model = "{model}"
        data = "{folder / "data"}"
        [console]
        port = 0
        [log]
        format = "json"
        """
    )
    return path


class Listener:
    """Reads the labels that are written from now on, past all security."""

    def __init__(self, address: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": address, "group.id": "listener", "log_level": 0,
             "isolation.level": "read_committed", "enable.auto.commit": False}
        )  # fmt: skip
        ends = []
        for number in range(PARTITIONS):
            at = TopicPartition(LABELS, number)
            _, at.offset = self._consumer.get_watermark_offsets(at, timeout=10)
            ends.append(at)
        self._consumer.assign(ends)

    def wait_for(self, count: int) -> list[str]:
        """Wait for so many; return whose they were."""
        found: list[str] = []
        deadline = time.monotonic() + _PATIENCE_S
        while len(found) < count and time.monotonic() < deadline:
            messages = self._consumer.consume(1000, timeout=0.5)
            found += [(each.key() or b"").decode() for each in messages if each.error() is None]
        self._consumer.close()
        return found


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_all_commands_work_with_a_password_over_tls(
    kafka: SecureKafka, small_market: Market, tmp_path: Path, mechanism: str
) -> None:
    """Config, topics, worker, producer, gate, upkeep; the password is in nothing that they say."""
    model = small_market.folder / "model"
    config = configuration(kafka, tmp_path, mechanism, model)
    said = [
        hearback(*words, "--config", config)
        for words in (
            ("config", "show"),
            ("config", "check"),
            ("topics", "create", "--partitions", PARTITIONS),
        )
    ]
    listener = Listener(kafka.address)
    log = tmp_path / "worker.log"
    with log.open("wb") as stderr:
        worker = subprocess.Popen([*PROGRAM, "worker", "--config", str(config)], stderr=stderr)
    try:
        said.append(hearback("produce", small_market.log, "--config", config))
        labelled = listener.wait_for(_ENOUGH)
        assert len(labelled) >= _ENOUGH, log.read_text()
        known = labelled[0]
        said += [
            hearback(*words, "--config", config)
            for words in (
                ("gate", "open", "all"),
                ("checkpoint", "--out", tmp_path / "copy"),
                ("state", "verify", "--checkpoint", tmp_path / "copy"),
                ("inspect", "member", known, "--broker", kafka.secure_address),
                ("forget", "member", "nobody"),  # the other user's worker reads it too
            )
        ]
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0, log.read_text()
    finally:
        worker.kill()
        worker.wait()
    for done in said:
        assert done.returncode == 0, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
    assert PASSWORD not in log.read_text()


def test_a_wrong_password_is_one_line(
    kafka: SecureKafka, small_market: Market, tmp_path: Path
) -> None:
    """Exit code 1, without the password and without a traceback."""
    config = configuration(kafka, tmp_path, "PLAIN", small_market.folder / "model")
    wrong = {"HEARBACK_KAFKA_PASSWORD": "s3cret-but-wrong"}
    for command in (["topics", "create"], ["worker"]):
        done = hearback(*command, "--config", config, **wrong)
        assert done.returncode == 1
        assert "s3cret" not in done.stderr
        assert "Traceback" not in done.stderr
