"""SHELL: puts a worker together: broker, model, policy, metrics, session."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from stream.errors import BrokerError, ConfigError
from stream.global_model import load_model
from stream.metrics import WorkerMetrics, serve
from stream.partitions import MemberPartition
from stream.policy import Policy
from stream.records import APPLICATIONS, COEFFICIENTS, CONSUMED, TOPICS
from stream.updaters.newton import warm_up
from stream.worker.app import Control, WorkerSettings, run
from stream.worker.cluster import look_at_cluster
from stream.worker.session import Session, SessionSettings

NOT_THERE_YET = (
    "not there yet: transactions, a changelog and several workers. The state lives in the data"
    " folder alone: keep it, and run one worker for an application id. After a crash the last"
    " batch's outputs may be sent twice."
)
_ANSWER_S = 10.0
_LEAVING_S = 5.0  # beyond the session timeout


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What ``hearback worker`` was told."""

    broker: str
    model: Path
    data_dir: Path
    policy: Policy
    application_id: str
    metrics_host: str
    metrics_port: int
    idle_timeout_ms: int
    session_timeout_ms: int
    log_level: str


def run_worker(options: WorkerOptions, say: Callable[[str], None]) -> int:
    """Run a worker until it is told to stop; return the exit code.

    Raises:
        HearbackError: it cannot start.

    """
    model = load_model(options.model)
    partitions, embedded = look_at_topics(options.broker)
    wait_until_alone(options.broker, options.application_id, options.session_timeout_ms, say)
    check_state_is_there(options.broker, options.application_id, options.data_dir, partitions)
    own_folder = options.data_dir / "faust"
    try:
        own_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{options.data_dir} cannot be made: {error.strerror}") from None
    warm_up()
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    metrics = WorkerMetrics(registry, model.version)
    server = serve(registry, options.metrics_host, options.metrics_port)
    try:
        say(NOT_THERE_YET)
        say(
            f"worker {options.application_id} on {options.broker}: {partitions} partitions, model"
            f" {model.version}, state in {options.data_dir}, metrics on"
            f" http://{options.metrics_host}:{server.server_port}/metrics"
        )
        settings = SessionSettings(
            broker=options.broker,
            data_dir=options.data_dir,
            partitions=partitions,
            idle_timeout_ms=options.idle_timeout_ms,
        )

        # What is loaded by now stays: a full collection would walk it for a tenth of a second.
        gc.collect()
        gc.freeze()

        def make_session(control: Control) -> Session:
            return Session(control, settings, model, options.policy, metrics)

        return run(
            WorkerSettings(
                broker=options.broker,
                application_id=options.application_id,
                data_dir=own_folder,
                topics=CONSUMED,
                partitions=partitions,
                embedded=embedded,
                session_timeout_s=options.session_timeout_ms / 1000.0,
                log_level=options.log_level,
            ),
            make_session,
        )
    finally:
        server.shutdown()


def check_state_is_there(broker: str, application_id: str, data_dir: Path, partitions: int) -> None:
    """Refuse to go on in the middle of the topics without the state of their beginning.

    Raises:
        ConfigError: the group has read records of a partition that the data folder knows nothing
            of. BrokerError: no answer.

    """
    consumer = Consumer({"bootstrap.servers": broker, "group.id": application_id, "log_level": 0})
    places = [TopicPartition(topic, n) for topic in CONSUMED for n in range(partitions)]
    try:
        committed = consumer.committed(places, timeout=_ANSWER_S)
    except KafkaException as error:
        raise BrokerError(f"no answer from {broker}: {error.args[0].str()}") from None
    finally:
        consumer.close()
    for place in committed:
        stage = "member" if place.topic in MemberPartition.topics else "job"
        folder = data_dir / f"{stage}-{place.partition}"
        if place.offset > 0 and not folder.is_dir():
            raise ConfigError(
                f"application id {application_id} has read {place.topic}-{place.partition} up to"
                f" {place.offset}, but {data_dir} has no state of it: use the data folder that"
                " belongs to it, or start over with an empty one under another --app-id"
            )


def wait_until_alone(
    broker: str, application_id: str, session_timeout_ms: int, say: Callable[[str], None]
) -> None:
    """Refuse to be the second worker of a group: it would learn with half of the state.

    A worker that was killed stays a member until its session is over, so that is waited for.

    Raises:
        ConfigError: another worker of this application id is running.

    """
    client = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    deadline = time.monotonic() + session_timeout_ms / 1000.0 + _LEAVING_S
    said = False
    while True:
        try:
            group = client.describe_consumer_groups([application_id])[application_id].result(
                _ANSWER_S
            )
        except TimeoutError:
            raise BrokerError(f"the broker at {broker} does not answer") from None
        except KafkaException:
            return  # the embedded broker cannot tell, and a group that is not there has nobody
        if not group.members:
            return
        if time.monotonic() > deadline:
            raise ConfigError(
                f"another worker of application id {application_id} is running"
                f" ({group.members[0].host}): stop it, or give this one another --app-id and --data"
            )
        if not said:
            said = True
            say("waiting for an earlier worker of this application id to leave the group")
        time.sleep(0.5)


def look_at_topics(broker: str) -> tuple[int, bool]:
    """Return the partition count of the topics and whether the broker is the embedded one.

    Raises:
        BrokerError: no broker answers.
        ConfigError: a topic is missing, or the counts differ.

    """
    cluster = look_at_cluster(broker, _ANSWER_S)
    missing = [topic for topic in TOPICS if not cluster.partitions.get(topic)]
    if missing:
        raise ConfigError(
            f"there is no topic {', '.join(missing)} at {broker}: create all of"
            f" {', '.join(TOPICS)}, with one partition count"
        )
    counts = {topic: cluster.partitions[topic] for topic in (*CONSUMED, COEFFICIENTS)}
    if len(set(counts.values())) > 1:
        raise ConfigError(f"the topics' partition counts differ: {counts}; they must be the same")
    return counts[APPLICATIONS], cluster.embedded
