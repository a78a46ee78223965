"""SHELL: copies of partitions that another worker owns, kept close behind their changelogs.

Faust's assignor gives every partition a second worker, and to that one first when the owner is
gone. It follows the changelogs of both stages in a thread, so that taking over means to read what
the owner wrote last, not everything. A copy is never in the way: whatever is wrong with one is
said and tried again later, and the session that takes over judges for itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from stream.errors import BrokerError, DamagedStateError, StateError
from stream.kafka.cluster import ids_of_topics
from stream.state.store import Store
from stream.worker.changelog import STAGES, Changelog, Mark, apply, changelog_of, consumer_settings
from stream.worker.data_folder import DataFolder, PartitionId
from stream.worker.session import SessionSettings

_log = logging.getLogger(__name__)

_ANSWER_S = 10.0
_POLL_S = 0.1
_RECORDS = 2_000
_AGAIN_S = 5.0  # before what failed is tried again
_LOST = {KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART}  # begun once more
_FRESH_S = 600.0  # a copy at the end says so, or it would pass for old


class _Copy:
    """A store that follows a changelog."""

    def __init__(self, changelog: Changelog, store: Store, mark: Mark) -> None:
        self.changelog = changelog
        self.store = store
        self.mark = mark
        self.at_end = False


class Standbys:
    """The copies of one worker; one thread follows them all.

    Args:
        settings: broker and application id; on the embedded broker nothing is followed.
        data: where the stores are.
        now_ms: the wall clock.

    """

    def __init__(
        self,
        settings: SessionSettings,
        data: DataFolder,
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._data = data
        self._now_ms = now_ms
        self._places: frozenset[PartitionId] = frozenset()
        self._copies: dict[tuple[str, int], _Copy] = {}
        self._complained: dict[PartitionId, str] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def count(self) -> int:
        """How many copies there are."""
        return len(self._places)

    def behind(self) -> int:
        """How many copies are not at the end of their changelogs, or not followed yet."""
        copies = list(self._copies.values())
        return max(0, len(self._places) - sum(copy.at_end for copy in copies))

    def follow(self, places: Iterable[PartitionId], fail: Callable[[Exception], object]) -> None:
        """Follow these until :meth:`stop`, which has to come first where some are followed.

        ``fail`` is told, from the thread, when a store cannot be written.
        """
        if self._settings.embedded:
            return
        self._places = frozenset(places)
        if self._places:
            self._ended = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(fail,), name="standbys", daemon=True
            )
            self._thread.start()

    def begin_stop(self) -> None:
        """Begin to stop; does not block."""
        self._ended.set()

    def stop(self) -> None:
        """Let go of all stores; they stay open. Blocks for a moment, or for a broker's answer."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        self._places = frozenset()
        self._copies = {}

    def _run(self, fail: Callable[[Exception], object]) -> None:
        while not self._ended.is_set():
            try:
                self._follow()
            except (BrokerError, KafkaException) as error:
                _log.warning("standbys wait for the broker: %s", error)
            except Exception as error:  # noqa: BLE001 - such as a full disk: the worker has to stop
                fail(error)
                return
            self._copies = {}
            self._ended.wait(_AGAIN_S)

    def _follow(self) -> None:
        """Follow for as long as all goes well."""
        settings = self._settings
        topics = {stage: changelog_of(settings.application_id, stage) for stage in STAGES}
        ids = ids_of_topics(settings.broker, topics.values(), _ANSWER_S)
        consumer = Consumer(consumer_settings(settings.broker))
        missing: set[PartitionId] = set(self._places)
        tried_s = refreshed_s = 0.0
        try:
            while not self._ended.is_set():
                now_s = time.monotonic()
                if missing and (not tried_s or now_s - tried_s > _AGAIN_S):
                    tried_s = now_s
                    for stage, number in sorted(missing):
                        if self._ended.is_set():
                            return
                        topic = topics[stage]
                        changelog = Changelog(settings.broker, topic, ids.get(topic, ""), number)
                        if self._begin((stage, number), changelog, consumer):
                            missing.discard((stage, number))
                if now_s - refreshed_s > _FRESH_S:
                    refreshed_s = now_s
                    self._refresh(consumer)
                for topic, number in self._apply(consumer.consume(_RECORDS, _POLL_S)):
                    stage = next(stage for stage in STAGES if topics[stage] == topic)
                    missing.add((stage, number))
                    del self._copies[topic, number]
                    consumer.incremental_unassign([TopicPartition(topic, number)])
        finally:
            consumer.close()

    def _begin(self, place: PartitionId, changelog: Changelog, consumer: Consumer) -> bool:
        """Follow one more, from where its store stands."""
        try:
            store, mark = changelog.begin(
                consumer, self._data.store(place), lambda: self._data.renew(place), self._now_ms
            )
        except DamagedStateError:
            self._data.renew(place)  # it is followed at the next try
            return False
        except (StateError, KafkaException) as error:
            self._complain(place, error)
            return False
        self._complained.pop(place, None)
        self._copies[changelog.topic, changelog.partition] = _Copy(changelog, store, mark)
        consumer.incremental_assign(
            [TopicPartition(changelog.topic, changelog.partition, mark.offset or OFFSET_BEGINNING)]
        )
        return True

    def _complain(self, place: PartitionId, error: Exception) -> None:
        if self._complained.get(place) != str(error):
            self._complained[place] = str(error)
            _log.warning("%s-%d is not kept as a standby: %s", *place, error)

    def _apply(self, found: Collection[Message]) -> list[tuple[str, int]]:
        """Write what came into the stores; return the copies that cannot be followed on."""
        writes: defaultdict[tuple[str, int], dict[bytes, bytes | None]] = defaultdict(dict)
        at: dict[tuple[str, int], int] = {}
        lost: list[tuple[str, int]] = []
        for message in found:
            key = message.topic() or "", message.partition() or 0
            error = message.error()
            if error is None:
                writes[key][message.key() or b""] = message.value()
                at[key] = (message.offset() or 0) + 1
                self._copies[key].at_end = False
            elif error.code() == KafkaError._PARTITION_EOF:
                at[key] = message.offset() or 0
                self._copies[key].at_end = True
            elif error.code() in _LOST and key in self._copies:
                lost.append(key)
            elif error.fatal():
                raise KafkaException(error)
            else:
                _log.info("standbys: %s", error)  # librdkafka goes on by itself
        for key, offset in at.items():
            copy = self._copies[key]
            now_ms = self._now_ms() if copy.at_end else copy.mark.applied_ms
            copy.mark = apply(copy.store, writes[key], copy.mark.at(offset, now_ms))
        return lost

    def _refresh(self, consumer: Consumer) -> None:
        """Let the copies that are at the end say so; a silent broker does not tell who is."""
        for (topic, number), copy in self._copies.items():
            if copy.at_end and not self._ended.is_set():
                at = TopicPartition(topic, number)
                _, end = consumer.get_watermark_offsets(at, timeout=_ANSWER_S)
                if end <= copy.mark.offset:
                    mark = copy.mark.at(copy.mark.offset, self._now_ms(), own=copy.mark.own)
                    copy.mark = apply(copy.store, {}, mark)
