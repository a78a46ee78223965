"""Every setting: section, key, default and what it means.

``labels``, ``effects.*`` and ``gate`` are the policy's (:mod:`stream.policy`); only their texts are
here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from stream.kafka.connection import Broker, Mechanism, Protocol
from stream.policy import Policy

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["text", "json"]


class WorkerSection(msgspec.Struct, frozen=True, kw_only=True):
    """``[worker]`` as it is in force."""

    application_id: str = "hearback"
    model: Path | None = None
    data: Path = Path("hearback-data")
    idle_timeout_ms: int = 60_000
    session_timeout_ms: int = 10_000


class ConsoleSection(msgspec.Struct, frozen=True, kw_only=True):
    """``[console]``: where the worker's page, probes and metrics listen."""

    host: str = "127.0.0.1"
    port: int = 9464


class LogSection(msgspec.Struct, frozen=True, kw_only=True):
    """``[log]``: what goes to stderr."""

    level: LogLevel = "WARNING"
    format: LogFormat = "text"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything, checked. ``broker`` empty: none was named."""

    broker: Broker = Broker("")
    worker: WorkerSection = WorkerSection()
    console: ConsoleSection = ConsoleSection()
    log: LogSection = LogSection()
    policy: Policy = Policy()
    sources: dict[str, str] = {}
    """Setting → where its value is from, of those that are not the default."""
    secret_files: dict[str, str] = {}
    """Setting → the file that a secret was read from."""


class KafkaFile(msgspec.Struct, forbid_unknown_fields=True):
    """``[kafka]`` as it is written."""

    broker: str | None = None
    security: Protocol | None = None
    sasl_mechanism: Mechanism | None = None
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    key_password_file: str | None = None


class WorkerFile(msgspec.Struct, forbid_unknown_fields=True):
    """``[worker]`` as it is written."""

    application_id: str | None = None
    model: str | None = None
    data: str | None = None
    idle_timeout: str | None = None
    session_timeout: str | None = None


class ConsoleFile(msgspec.Struct, forbid_unknown_fields=True):
    """``[console]`` as it is written."""

    host: str | None = None
    port: int | None = None


class LogFile(msgspec.Struct, forbid_unknown_fields=True):
    """``[log]`` as it is written."""

    level: LogLevel | None = None
    format: LogFormat | None = None


SECRETS = ("kafka.password", "kafka.key_password")
"""From the environment (``HEARBACK_KAFKA_PASSWORD``) or from the file that ``…_file`` names."""

_EFFECT = {
    "prior_precision": "λ: the prior of every coefficient is N(0, 1/λ)",
    "half_life": 'an example loses half of its weight in this time; "off": never',
    "capacity": "final examples kept of an entity before the oldest are folded",
    "open_limit": "provisional examples kept of an entity",
    "full_up_to": "up to so many features the folded part is a full matrix, above it a diagonal",
    "coupled": "the other effect's score is part of the offset",
    "entity_ttl": "an entity goes when it has been quiet for so long, 4 label windows at least",
}

TEXTS: dict[str, dict[str, str]] = {
    "kafka": {
        "broker": "host:port of the brokers, several with commas",
        "security": "plaintext, ssl, sasl_plaintext or sasl_ssl",
        "sasl_mechanism": "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        "username": "of SASL; the password comes from HEARBACK_KAFKA_PASSWORD or password_file",
        "password_file": "a file whose first line is the password",
        "ca_file": "PEM of the CAs that are trusted; without it those of the system",
        "certificate_file": "PEM of the client's own certificate, where brokers ask for one",
        "key_file": "PEM of its key",
        "key_password_file": "a file whose first line is the key's password; or"
        " HEARBACK_KAFKA_KEY_PASSWORD",
    },
    "worker": {
        "application_id": "the consumer group, and the beginning of the names of its own topics",
        "model": "folder of the frozen global model",
        "data": "folder for the state, of this worker alone",
        "idle_timeout": "after so long at its end an input no longer holds event time back",
        "session_timeout": "after so long a silent worker loses its partitions",
    },
    "console": {
        "host": "where the page, the probes and the metrics listen; they have no password",
        "port": "0: any free one",
    },
    "log": {
        "level": "DEBUG, INFO, WARNING or ERROR",
        "format": "text, or json: one object a line",
    },
    "labels": {
        "positive_actions": "the recruiter answered",
        "negative_actions": "the recruiter declined",
        "neutral_actions": "known, no evidence",
        "window": "after it, no engagement means no",
        "later_response": "an answer to a later applicant is a no to the earlier ones",
        "min_age": "... who have waited at least so long",
        "job_closed": "so is the closing of the job",
        "allowed_lateness": "how far out of order events may arrive",
        "orphan_ttl": "how long an engagement waits for its application",
    },
    "effects.per_member": _EFFECT,
    "effects.per_job": _EFFECT,
    "gate": {
        "enabled": "false: judge and tell, but publish whatever it is",
        "age": "labels are judged as known at this age of their application, and in the end",
        "applications": "the newest so many of a partition are judged together",
        "margin": "nats by which an effect must make the mean log loss worse to be held back",
        "bucket": "applications of so much time are judged at once",
    },
}
"""What each setting means; the order of the example file."""

EXAMPLES = {
    "kafka.broker": "kafka:9092",
    "kafka.security": "sasl_ssl",
    "kafka.sasl_mechanism": "SCRAM-SHA-512",
    "kafka.username": "hearback",
    "kafka.password_file": "/run/secrets/kafka-password",
    "kafka.ca_file": "/etc/hearback/ca.pem",
    "kafka.certificate_file": "/etc/hearback/client.pem",
    "kafka.key_file": "/etc/hearback/client.key",
    "kafka.key_password_file": "/run/secrets/kafka-key-password",
    "worker.model": "/var/lib/hearback/model",
}
"""Of settings without a default: shown in the example file, switched off."""
