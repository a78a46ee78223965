"""The configuration's own sections: each field is a setting.

``labels``, ``effects.*`` and ``gate`` are declared by :mod:`stream.policy`, most of ``kafka`` by
:mod:`stream.kafka.connection`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from stream.errors import ConfigError
from stream.kafka.connection import Broker, Security
from stream.policy import MINUTE_MS, Policy
from stream.units import Setting

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["text", "json"]


class KafkaSection(Security, frozen=True, kw_only=True):
    """``[kafka]``: where the brokers are, and how to talk to them."""

    broker: Annotated[
        str | None, Setting("host:port of the brokers, several with commas", example="kafka:9092")
    ] = None


class WorkerSection(msgspec.Struct, frozen=True, kw_only=True):
    """``[worker]``: who a worker is, and when it is given up."""

    application_id: Annotated[
        str, Setting("the consumer group, and the beginning of the names of the worker's topics")
    ] = "hearback"
    model: Annotated[
        Path | None, Setting("folder of the frozen global model", "/var/lib/hearback/model")
    ] = None
    data: Annotated[Path, Setting("folder for the state, of this worker alone")] = Path(
        "hearback-data"
    )
    idle_timeout_ms: Annotated[
        int,
        Setting(
            "each time that an input has brought nothing for so long, it follows the others'"
            " event time; allowed_lateness at most"
        ),
    ] = 30 * MINUTE_MS
    session_timeout_ms: Annotated[
        int, Setting("after so long a silent worker loses its partitions")
    ] = 10_000
    accept_lost_records: Annotated[
        bool,
        Setting("go on where records were deleted before they were read; false: stop"),
    ] = False

    def __post_init__(self) -> None:
        """Refuse a worker without a name."""
        if not self.application_id:
            raise ConfigError("[worker] application_id is empty")


class ConsoleSection(msgspec.Struct, frozen=True, kw_only=True):
    """``[console]``: where the worker's page, probes and metrics listen."""

    host: Annotated[
        str, Setting("where the page, the probes and the metrics listen; they have no password")
    ] = "127.0.0.1"
    port: Annotated[int, Setting("their port; 0: any free one")] = 9464

    def __post_init__(self) -> None:
        """Refuse what is no port."""
        if not 0 <= self.port <= 65_535:
            raise ConfigError("[console] port must lie between 0 and 65535")


class ServingSection(msgspec.Struct, frozen=True, kw_only=True):
    """``[serving]``: where ``hearback serve`` listens, and to whom."""

    host: Annotated[
        str,
        Setting("where scores are served; one for other machines needs a token_file, and TLS"),
    ] = "127.0.0.1"
    port: Annotated[int, Setting("its port; 0: any free one")] = 9465
    snapshot: Annotated[
        Path | None,
        Setting(
            "file to begin from and to write to, so that a restart reads only the rest",
            "/var/lib/hearback/serving.snapshot",
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        Setting("each of its lines is a token that may ask", "/run/secrets/hearback-tokens"),
    ] = None
    certificate_file: Annotated[
        Path | None, Setting("PEM of the service's certificate", "/etc/hearback/serve.pem")
    ] = None
    key_file: Annotated[Path | None, Setting("PEM of its key", "/etc/hearback/serve.key")] = None
    behind_proxy: Annotated[
        bool, Setting("serve other machines without TLS: a proxy in front has it")
    ] = False

    def __post_init__(self) -> None:
        """Refuse what is no port."""
        if not 0 <= self.port <= 65_535:
            raise ConfigError("[serving] port must lie between 0 and 65535")


class LogSection(msgspec.Struct, frozen=True, kw_only=True):
    """``[log]``: what goes to stderr."""

    level: Annotated[LogLevel, Setting("what goes to stderr")] = "WARNING"
    format: Annotated[LogFormat, Setting("how it is written; json: one object a line")] = "text"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything, checked."""

    kafka: KafkaSection = KafkaSection()
    worker: WorkerSection = WorkerSection()
    console: ConsoleSection = ConsoleSection()
    serving: ServingSection = ServingSection()
    log: LogSection = LogSection()
    policy: Policy = Policy()
    sources: dict[str, str] = {}
    """Setting → where its value is from, of those that are not the default."""

    @property
    def broker(self) -> Broker:
        """The address with how to talk to it; empty where none was named."""
        return Broker(self.kafka.broker or "", self.kafka)
