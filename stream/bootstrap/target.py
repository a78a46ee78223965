"""SHELL: an application id that a replay's state goes into: is it new, its topics, its changelogs.

What :mod:`stream.bootstrap.load` asks of Kafka, in the order in which it does.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from stream.bootstrap.split import first_progress
from stream.errors import BrokerError, ConfigError, FencedError, StateError
from stream.events.records import INPUTS, WRITTEN, Message, TopicNames
from stream.kafka.cluster import Cluster, client_settings, look_at_cluster
from stream.kafka.reader import Reader
from stream.partitions.job import JobPartition
from stream.partitions.member import MemberPartition
from stream.partitions.progress import Identity, identity_entry, progress_entry
from stream.policy import LabelPolicy
from stream.state.store import Writes
from stream.worker.changelog import (
    MARK,
    STAGES,
    UNFINISHED,
    Changelog,
    Mark,
    changelog_of,
)
from stream.worker.contract import PartitionId
from stream.worker.crashpoints import crash_point
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
_COMMIT_S = 60.0
_NOW = 0  # a record's timestamp: when it is sent
_RECORDS = 5_000  # in one transaction
_BYTES = 8 << 20  # in one transaction, about
_YES = b"\x01"
_TOPICS = {"member": MemberPartition.topics, "job": JobPartition.topics}

EARLIEST, LATEST = "earliest", "end"

Start = str | int
"""Where inputs are read from: :data:`EARLIEST`, :data:`LATEST`, or a record time (ms)."""

Positions = dict[tuple[str, int], int]
"""Next offset by input topic and partition."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of ``hearback bootstrap``.

    ``start``: where inputs are read from. ``data``: a data folder to make; None: workers recover
    from the changelogs. ``replication``: copies of new topics; None: as ``topics create`` does.
    """

    run: Path
    broker: str
    application_id: str
    labels: LabelPolicy
    start: Start = EARLIEST
    data: Path | None = None
    replication: int | None = None


class Target:
    """The application id that history goes into. All methods block."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._broker = settings.broker
        self._id = settings.application_id
        self.names = TopicNames.own(self._id)
        self.partitions = 0
        self._ids: dict[str, str] = {}
        self._positions: Positions = {}
        self._writes: defaultdict[PartitionId, dict[bytes, bytes | None]] = defaultdict(dict)
        self._messages: list[Message] = []
        self._records = self._bytes = 0  # that wait
        self._transactions: Transactions | None = None

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
            self._settings.labels.window_ms,
            replication=self._settings.replication,
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
        for stage in STAGES:
            for number in range(cluster.partitions.get(changelog_of(self._id, stage), 0)):
                changelog = self._changelog((stage, number))
                unfinished = _is_unfinished(changelog)
                if not unfinished and not _is_used(changelog):
                    continue
                if not unfinished:
                    raise ConfigError(
                        f"application id {self._id} has state already ({stage}-{number}), from a"
                        " worker or a bootstrap that came to its end: name another --app-id"
                    )
                wanted = plans(self._id, self._settings.labels.window_ms, self.names)
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
        start = self._settings.start
        places = [(topic, n) for topic in INPUTS for n in range(self.partitions)]
        with Reader(self._broker) as reader:
            if isinstance(start, int):
                return {place: reader.offset_at(*place, start) for place in places}
            which = 0 if start == EARLIEST else 1
            return {place: reader.span(*place)[which] for place in places}

    def _take(self) -> None:
        """Mark all partitions as unfinished; end whoever had one."""
        self._transactions = Transactions(self._broker, f"{self._id}-bootstrap", self.names)
        with _explained():
            self._transactions.fence()
        ends = self._send({place: {UNFINISHED: _YES} for place in self.places})
        crash_point("marked")
        for place in self.places:
            session = Transactions(self._broker, session_of(self._id, place))
            session.fence()
            session.close()
            changelog = self._changelog(place)
            _, end = changelog.span()
            if end > ends[place] + 1 and _is_used(changelog):  # the mark's transaction has an end
                raise ConfigError(
                    f"a worker of application id {self._id} has begun meanwhile: stop it, and begin"
                    " the bootstrap again under another --app-id"
                )

    # -- meanwhile ---------------------------------------------------------------------------

    def put(self, place: PartitionId, key: bytes, value: bytes) -> None:
        """Write an entry into a partition's changelog."""
        self._writes[place][key] = value
        self._waits(key, value)

    def publish(self, topic: str, key: bytes, value: bytes) -> None:
        """Write coefficients, or preferences."""
        self._messages.append(Message(topic, key, value, None, _NOW))
        self._waits(key, value)

    def flush(self) -> None:
        """Commit what was written."""
        if self._records:
            self._send(self._writes)

    def _waits(self, key: bytes, value: bytes) -> None:
        """Count a record; commit when there are enough for a transaction."""
        self._records += 1
        self._bytes += len(key) + len(value)
        if self._records >= _RECORDS or self._bytes >= _BYTES:
            self.flush()

    def _send(self, writes: Mapping[PartitionId, Writes]) -> dict[PartitionId, int]:
        """Write into partitions in one transaction; return the offset after each one's last."""
        if self._transactions is None:
            raise StateError("the bootstrap has not begun")
        of_place = {place: self._changelog(place).at for place in writes}
        deadline_s = time.monotonic() + _COMMIT_S
        with _explained():
            ends = self._transactions.send(
                self._messages,
                {of_place[place]: records for place, records in writes.items()},
                lambda: time.monotonic() < deadline_s,
            )
        self._messages.clear()
        self._writes.clear()
        self._records = self._bytes = 0
        return {place: ends[at] for place, at in of_place.items()}

    def _changelog(self, place: PartitionId) -> Changelog:
        return Changelog(self._broker, self._id, place, topic_ids=self._ids)

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

    def finish(self, own: dict[PartitionId, list[tuple[bytes, bytes]]]) -> dict[PartitionId, Mark]:
        """Make all partitions complete at once; return the marks of stores that hold all of it."""
        ends = self._send({place: {UNFINISHED: None, **dict(each)} for place, each in own.items()})
        now_ms = time.time_ns() // 1_000_000
        return {
            place: self._changelog(place).fresh(now_ms).at(end, now_ms)
            for place, end in ends.items()
        }

    def close(self) -> None:
        """Give up what is on its way."""
        if self._transactions is not None:
            self._transactions.close()
            self._transactions = None


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


@contextmanager
def _explained() -> Iterator[None]:
    """Say what an error of a transaction means here."""
    try:
        yield
    except FencedError:
        raise FencedError("another bootstrap of this application id has begun") from None
    except BrokerError as error:
        raise BrokerError(f"{error}; begin the bootstrap again") from None
