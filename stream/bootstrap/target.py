"""SHELL: an application id that a replay's state goes into: is it new, its topics, its changelogs.

What :mod:`stream.bootstrap.load` asks of Kafka, in the order in which it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from stream.bootstrap.split import first_progress
from stream.errors import BrokerError, ConfigError, FencedError, StateError
from stream.events.records import COEFFICIENTS, INPUTS, WRITTEN, TopicNames
from stream.kafka.cluster import Cluster, client_settings, look_at_cluster
from stream.partitions.job import JobPartition
from stream.partitions.member import MemberPartition
from stream.partitions.progress import Identity, identity_entry, progress_entry
from stream.policy import LabelPolicy
from stream.worker.changelog import (
    MARK,
    MAX_VALUE_BYTES,
    STAGES,
    UNFINISHED,
    Changelog,
    Mark,
    changelog_of,
)
from stream.worker.crashpoints import crash_point
from stream.worker.data_folder import PartitionId
from stream.worker.session import session_of
from stream.worker.topics import (
    create_topics,
    has_records,
    ids_of_application,
    plans,
    remove_topics,
)
from stream.worker.transactions import Transactions

_ANSWER_S = 10.0
_GROUPS_S = 20.0
_PAUSE_S = 0.5
_COMMIT_TRY_S = 5.0  # Ctrl-C takes effect between two
_COMMIT_S = 60.0
_QUEUE_S = 0.05  # between two looks at a full queue
_RECORDS = 5_000  # in one transaction
_BYTES = 8 << 20  # in one transaction, about
_OVERHEAD_BYTES = 64 << 10  # of a record's key and framing, generously
_YES = b"\x01"
_TOPICS = {"member": MemberPartition.topics, "job": JobPartition.topics}
_FENCED = {
    KafkaError._FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
}

EARLIEST, LATEST = "earliest", "end"

Start = str | int
"""Where inputs are read from: :data:`EARLIEST`, :data:`LATEST`, or a record time (ms)."""

Positions = dict[tuple[str, int], int]
"""Next offset by input topic and partition."""


class Target:
    """The application id that history goes into. All methods block.

    Args:
        broker: where to. application_id: the new one.
        labels: the label policy.
        start: where the inputs are to be read from.
        replication: copies of new topics; None: as ``hearback topics create`` chooses.

    """

    def __init__(
        self,
        broker: str,
        application_id: str,
        labels: LabelPolicy,
        start: Start,
        replication: int | None,
    ) -> None:
        self._broker = broker
        self._id = application_id
        self._labels = labels
        self._start = start
        self._replication = replication
        self.names = TopicNames.own(self._id)
        self.partitions = 0
        self._changelogs = {stage: changelog_of(self._id, stage) for stage in STAGES}
        self._ids: dict[str, str] = {}
        self._positions: Positions = {}
        self._records = self._bytes = 0
        self._failed: KafkaError | None = None
        self._producer: Producer | None = None

    # -- before ------------------------------------------------------------------------------

    @property
    def places(self) -> list[PartitionId]:
        """All partitions of both stages."""
        return [(stage, number) for stage in STAGES for number in range(self.partitions)]

    def prepare(self) -> None:
        """Look whether the application id is new, make its topics, and take it.

        Raises:
            BrokerError: the broker does not answer. ConfigError: it is not new.

        """
        cluster = look_at_cluster(self._broker, _ANSWER_S)
        if cluster.embedded:
            raise ConfigError(
                "the embedded broker keeps only the newest 5 MB of a changelog: bootstrap needs a"
                " real Kafka"
            )
        missing = [topic for topic in INPUTS if topic not in cluster.partitions]
        if missing:
            raise ConfigError(
                f"there is no topic {', '.join(missing)} at {self._broker}: hearback topics create"
                f" --broker {self._broker}"
            )
        self._check_group()
        self._check_topics(cluster)
        create_topics(
            self._broker,
            self._id,
            self._labels.window_ms,
            replication=self._replication,
            names=self.names,
        )
        self.partitions = cluster.partitions[INPUTS[0]]
        self._ids = ids_of_application(self._broker, self._id, self.names)
        self._positions = self._where_to_start()
        self._take()

    def _check_group(self) -> None:
        """Refuse an application id whose consumer group has members or offsets."""
        deadline = time.monotonic() + _GROUPS_S
        while True:
            try:
                members, offsets = self._look_at_group()
            except KafkaException as error:
                if time.monotonic() < deadline:
                    time.sleep(_PAUSE_S)  # a new cluster has no coordinator for a moment
                    continue
                raise BrokerError(
                    f"group {self._id} cannot be read: {error.args[0].name()}"
                ) from None
            break
        if members:
            raise ConfigError(
                f"workers of application id {self._id} are running: bootstrap goes into a new one,"
                " name another --app-id"
            )
        if offsets:
            raise ConfigError(
                f"application id {self._id} has read from topics before: bootstrap goes into a new"
                " one, name another --app-id"
            )

    def _look_at_group(self) -> tuple[int, int]:
        """Count the group's members, and the partitions of which it has read something."""
        client = AdminClient(client_settings(self._broker))
        try:
            groups = client.describe_consumer_groups([self._id], request_timeout=_ANSWER_S)
            members = len(groups[self._id].result().members)
            asked = [ConsumerGroupTopicPartitions(self._id)]
            found = client.list_consumer_group_offsets(asked, request_timeout=_ANSWER_S)
            offsets = found[self._id].result().topic_partitions or []
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return 0, 0
            raise
        return members, sum(at.offset >= 0 for at in offsets)

    def _check_topics(self, cluster: Cluster) -> None:
        """Refuse an application id that has anything; remove what an unfinished bootstrap left."""
        for stage, topic in self._changelogs.items():
            for number in range(cluster.partitions.get(topic, 0)):
                changelog = Changelog(self._broker, topic, "", number)
                unfinished = _is_unfinished(changelog)
                if not unfinished and not _is_used(changelog):
                    continue
                if not unfinished:
                    raise ConfigError(
                        f"application id {self._id} has state already ({stage}-{number}), from a"
                        " worker or a bootstrap that came to its end: name another --app-id"
                    )
                wanted = plans(self._id, self._labels.window_ms, self.names)
                remove_topics(
                    self._broker,
                    [
                        plan.name
                        for plan in wanted
                        if plan.name in cluster.partitions and plan.name not in INPUTS
                    ],
                )
                return
        for name in map(self.names.of, WRITTEN):
            if has_records(self._broker, name, cluster.partitions.get(name, 0)):
                raise ConfigError(
                    f"topic {name} holds records, but application id {self._id} has no state:"
                    " delete the topic, or name another --app-id"
                )

    def _where_to_start(self) -> Positions:
        """Ask where the inputs are to be read from."""
        start = self._start
        places = [TopicPartition(topic, n) for topic in INPUTS for n in range(self.partitions)]
        consumer = Consumer(client_settings(self._broker) | {"group.id": "hearback-bootstrap"})
        try:
            spans = {
                (at.topic, at.partition): consumer.get_watermark_offsets(at, timeout=_ANSWER_S)
                for at in places
            }
            if isinstance(start, int):
                asked = [TopicPartition(at.topic, at.partition, start) for at in places]
                found = consumer.offsets_for_times(asked, timeout=_ANSWER_S)
                return {
                    (at.topic, at.partition): at.offset
                    if at.offset >= 0  # below: nothing is as late
                    else spans[at.topic, at.partition][1]
                    for at in found
                }
            which = 0 if start == EARLIEST else 1
            return {place: int(span[which]) for place, span in spans.items()}
        except KafkaException as error:
            raise BrokerError(f"the inputs cannot be read: {error.args[0].str()}") from None
        finally:
            consumer.close()

    def _take(self) -> None:
        """Mark all partitions as unfinished; end whoever had one."""
        self._producer = Producer(
            client_settings(self._broker)
            | {
                "transactional.id": f"{self._id}-bootstrap",
                "transaction.timeout.ms": int(_COMMIT_S * 1000),
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": 50,
                "retry.backoff.ms": 2,  # a transaction that follows at once asks more than once
                "message.max.bytes": MAX_VALUE_BYTES + _OVERHEAD_BYTES,
                "queue.buffering.max.kbytes": 64 << 10,
            }
        )
        try:
            self._producer.init_transactions(_COMMIT_S)
        except KafkaException as error:
            raise _said(error, "an earlier bootstrap cannot be fenced") from None
        ends = self._together({place: [(UNFINISHED, _YES)] for place in self.places})
        crash_point("marked")
        for place in self.places:
            stage, number = place
            topic = self._changelogs[stage]
            session = Transactions(self._broker, session_of(self._id, place), topic, number)
            session.fence()
            session.close()
            changelog = Changelog(self._broker, topic, "", number)
            _, end = changelog.span()
            if end > ends[place] + 1 and _is_used(changelog):  # the mark's transaction has an end
                raise ConfigError(
                    f"a worker of application id {self._id} has begun meanwhile: stop it, and begin"
                    " the bootstrap again under another --app-id"
                )

    # -- meanwhile ---------------------------------------------------------------------------

    def put(self, place: PartitionId, key: bytes, value: bytes) -> None:
        """Write an entry into a partition's changelog."""
        stage, number = place
        self._send(self._changelogs[stage], number, key, value)

    def publish(self, key: bytes, value: bytes) -> None:
        """Write coefficients."""
        self._send(self.names.of(COEFFICIENTS), None, key, value)

    def flush(self) -> None:
        """Commit what was written."""
        if self._records:
            self._commit()

    def _send(self, topic: str, number: int | None, key: bytes, value: bytes) -> None:
        if not self._records:
            self._begin()
        self._produce(topic, number, key, value)
        self._records += 1
        self._bytes += len(key) + len(value)
        if self._records >= _RECORDS or self._bytes >= _BYTES:
            self._commit()

    def _begin(self) -> None:
        try:
            self._client.begin_transaction()
        except KafkaException as error:
            raise _said(error, "the state cannot be written") from None

    def _commit(self) -> None:
        crash_point("committing")
        deadline = time.monotonic() + _COMMIT_S
        while True:
            try:
                self._client.commit_transaction(_COMMIT_TRY_S)
            except KafkaException as error:
                found: KafkaError = error.args[0]
                again = found.retriable() and not found.txn_requires_abort()
                if again and time.monotonic() < deadline:
                    continue  # whether it took place is not known; asked again, it is
                raise _said(error, "the state cannot be written") from None
            else:
                break
        self._records = self._bytes = 0

    def _produce(
        self,
        topic: str,
        number: int | None,
        key: bytes,
        value: bytes | None,
        on_delivery: Callable[..., None] | None = None,
    ) -> None:
        while True:
            try:
                self._client.produce(
                    topic, value, key, -1 if number is None else number, on_delivery=on_delivery
                )
            except BufferError:
                self._client.poll(_QUEUE_S)
            except KafkaException as error:
                raise _said(error, "the state cannot be written") from None
            else:
                return

    def _together(
        self, writes: dict[PartitionId, list[tuple[bytes, bytes | None]]]
    ) -> dict[PartitionId, int]:
        """Write into all partitions in one transaction; return the offset after each one's last."""
        ends: dict[PartitionId, int] = {}
        self._begin()
        for place, records in writes.items():
            stage, number = place

            def delivered(error: object, message: object, place: PartitionId = place) -> None:
                if error is None:
                    ends[place] = int(getattr(message, "offset")()) + 1  # noqa: B009

            for key, value in records:
                self._produce(self._changelogs[stage], number, key, value, delivered)
        self._commit()
        self._client.poll(0)
        if ends.keys() != writes.keys():
            raise BrokerError("the broker did not say where the changelogs' records are")
        return ends

    # -- in the end --------------------------------------------------------------------------

    def own(
        self, place: PartitionId, identity: Identity, watermark_ms: int | None
    ) -> list[tuple[bytes, bytes]]:
        """What a partition says of itself: whose it is, and how far it is."""
        stage, number = place
        topics = _TOPICS[stage]
        progress = first_progress(stage, self.partitions, watermark_ms)
        for topic in topics:
            progress.positions[topic] = self._positions.get((topic, number), 0)
        whose = msgspec.structs.replace(
            identity,
            partitions=self.partitions,
            topic_ids={topic: self._ids[topic] for topic in topics},
        )
        return [identity_entry(whose), progress_entry(progress)]

    def finish(self, own: dict[PartitionId, list[tuple[bytes, bytes]]]) -> dict[PartitionId, int]:
        """Make all partitions complete at once; return the offset after each one's last record."""
        return self._together({place: [(UNFINISHED, None), *each] for place, each in own.items()})

    def mark(self, place: PartitionId, offset: int, now_ms: int) -> Mark:
        """Return the mark of a store that holds all that was written."""
        topic = self._changelogs[place[0]]
        return Mark(topic, self._ids[topic], offset, now_ms)

    def close(self) -> None:
        """Give up what is on its way."""
        if self._producer is not None:
            with suppress(KafkaException):
                self._producer.purge(in_queue=True, in_flight=True, blocking=False)
                self._producer.poll(0)
            self._producer = None

    @property
    def _client(self) -> Producer:
        if self._producer is None:
            raise StateError("the bootstrap has not begun")
        return self._producer


def _is_unfinished(changelog: Changelog) -> bool:
    """Whether all that a changelog holds is of a bootstrap that did not come to its end."""
    mark: bytes | None = None
    for _, key, value in changelog.records():
        if key == UNFINISHED:
            mark = value
    return mark is not None


def _is_used(changelog: Changelog) -> bool:
    """Whether it holds more than marks: a refused worker, or an aborted transaction, is none."""
    return any(key not in {UNFINISHED, MARK} for _, key, _ in changelog.records())


def _said(error: KafkaException, what: str) -> BrokerError:
    found: KafkaError = error.args[0]
    if found.code() in _FENCED:
        return FencedError("another bootstrap of this application id has begun")
    return BrokerError(f"{what}: {found.str()}; begin the bootstrap again")
