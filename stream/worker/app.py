"""SHELL: the Faust application of a worker: its settings, and how it is made from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
import msgspec

from stream.errors import ConfigError
from stream.events.records import PLAIN, TopicNames
from stream.kafka.cluster import look_at_cluster
from stream.kafka.connection import security_of, tls_context
from stream.worker.fetching import Hooks
from stream.worker.transport import install_transport

_REQUEST_TIMEOUT_S = 30.0  # Kafka's own default; Faust's is 90


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker has to know before it can start."""

    broker: str
    """Comma-separated ``host:port``, as for every Kafka client."""
    application_id: str
    """The consumer group; with it begin the names of all that the worker owns in Kafka."""
    data_dir: Path
    """The folder that belongs to this worker alone."""
    topics: tuple[str, ...]
    """The input topics, by their plain names."""
    names: TopicNames = PLAIN
    """What Kafka calls them."""
    partitions: int
    """How many partitions each input topic must have."""
    embedded: bool = False
    """The broker is the embedded one, whose checksums are wrong."""
    max_poll_records: int = 1500
    """The most records in one batch."""
    buffered_batches: int = 1
    """The most batches of one partition that wait for their turn."""
    fetch_max_wait_ms: int = 100
    """How long a fetch may wait at the broker; with one idle partition, new records of another
    wait as long before they can be asked for."""
    commit_interval_s: float = 1.0
    tick_s: float = 0.25
    session_timeout_s: float = 10.0
    """After how long a silent worker loses its partitions."""
    rebalance_timeout_s: float = 60.0
    """How long ``revoked`` may take together with the batches in flight."""
    stop_timeout_s: float = 20.0
    """How long a graceful stop may take; after that the process exits with code 1."""
    broker_timeout_s: float = 10.0
    """How long to wait for the broker's first answer."""
    log_level: str = "WARNING"
    log_format: str = "text"


def check_broker(settings: WorkerSettings) -> None:
    """Ask the broker for the input topics.

    Raises:
        BrokerError: it does not answer.
        ConfigError: a topic is missing or has another number of partitions.

    """
    found = look_at_cluster(settings.broker, settings.broker_timeout_s).partitions
    for topic in map(settings.names.of, settings.topics):
        count = found.get(topic, 0)
        if count != settings.partitions:
            raise ConfigError(
                f"topic {topic} has {count} partitions at {settings.broker}, "
                f"not {settings.partitions}: create all topics with the same number"
                if count
                else f"topic {topic} does not exist at {settings.broker}: create the topics first"
            )


def make_app(
    settings: WorkerSettings,
    on_failure: Callable[[Exception], None],
    on_leaving: Callable[[], None],
) -> faust.App:
    """Make the Faust app, without agents; it has to be made inside the running event loop.

    ``on_failure`` is told when the transport cannot go on, ``on_leaving`` that a rebalance begins.

    Raises:
        ConfigError: the installed Faust or aiokafka is not one that the transport knows.

    """
    app = faust.App(
        settings.application_id,
        broker=[f"kafka://{host.strip()}" for host in settings.broker.split(",")],
        datadir=settings.data_dir,
        autodiscover=False,
        web_enabled=False,
        # Topics are created beforehand; Faust must not add its own.
        topic_allow_declare=False,
        topic_disable_leader=True,
        # More than 0 makes Faust use its own assignor even without a table: only that one gives
        # the same partition of all topics to the same worker, and says who stands by.
        table_standby_replicas=1,
        stream_buffer_maxsize=settings.buffered_batches,
        # A rebalance and the end wait for the batches in flight.
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
        broker_commit_interval=settings.commit_interval_s,
        broker_max_poll_records=settings.max_poll_records,
        broker_request_timeout=max(_REQUEST_TIMEOUT_S, settings.session_timeout_s + 5.0),
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 4,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        broker_check_crcs=not settings.embedded,
        worker_redirect_stdouts=False,
        **_security(settings.broker),
    )
    # Nothing is sent through Faust: outputs go in the handler's own transactions.
    app.boot_strategy.enable_kafka_producer = False
    app.boot_strategy.enable_web = False
    install_transport(
        app,
        Hooks(
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            on_failure=on_failure,
            on_leaving=on_leaving,
        ),
    )
    return app


def _security(broker: str) -> dict[str, Any]:
    """Settings of Faust that say how to talk to the broker."""
    security = security_of(broker)
    context = tls_context(security)
    if not security.sasl:
        return {} if context is None else {"ssl_context": context}
    credentials = faust.SASLCredentials(
        username=security.username,
        password=security.password,
        ssl_context=context,
        mechanism=security.mechanism,
    )
    return {"broker_credentials": credentials}
