"""SHELL: the thread that feeds a store from its topics, and keeps its snapshot.

It reads what is committed, of all partitions, without a consumer group: any number of processes
follow a topic, and none of them is missed when it ends. Once a second it asks for the ends of the
partitions; when all up to there was read, the store has everything as of the question. That is how
old a score may be, whether the broker is there or not.

Labels are read once applicants are read to where they ended: then those of whom no applicant is
held need not be kept, and a topic has many.

Kafka lets a compacted topic's tombstones go after a day (``delete.retention.ms``). Whoever was away
for longer than half of that may have missed one, so it begins anew: an old snapshot is left aside,
and so is what is held after an outage of that length.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from stream.errors import BrokerError, ConfigError, HearbackError, StateError
from stream.events.records import (
    APPLICANTS,
    APPLICATIONS_BY_JOB,
    COEFFICIENTS,
    LABELS,
    PLAIN,
    PREFERENCES,
    TopicNames,
)
from stream.events.structs import CONTROL
from stream.events.wire import coefficients_key
from stream.kafka.cluster import TopicEnds, ids_of_topics, look_at_cluster
from stream.kafka.reader import Chunk, Reader
from stream.policy import HOUR_MS
from stream.serving.embedded import EmbeddedStore
from stream.serving.memory import give_back
from stream.serving.snapshot import Place, load_snapshot, save_snapshot

_log = logging.getLogger(__name__)

_CONTROL = coefficients_key(CONTROL, "")
_ANSWER_S = 5.0
_ENDS_S = 2.0
_ASK_S = 1.0
_POLL_S = 0.02
_AHEAD_BYTES = 8 << 20
_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)  # between tries, while no broker answers
_SNAPSHOT_S = 600.0
_MOST_AWAY_MS = 12 * HOUR_MS
_MODELS_S = 5.0  # that a rolled model is waited for at the start, when all else was read


class Follower:
    """Feeds a store from a thread of its own.

    Args:
        broker: where the topics are. application_id: whose.
        store: what it feeds; nobody else writes to it.
        snapshot: the file to begin from and to write to; None: all is read at each start.
        served: is given the seconds from the event that led to coefficients, as Kafka has its
            time, to their being in the store.
        now_ms: the wall clock.

    """

    def __init__(
        self,
        broker: str,
        application_id: str,
        store: EmbeddedStore,
        *,
        snapshot: Path | None = None,
        served: Callable[[list[float]], None] = lambda _: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._broker = broker
        self._application_id = application_id
        self._store = store
        self._path = snapshot
        self._served = served
        self._now_ms = now_ms
        self._places: dict[str, Place] = {}
        """By plain name of the topic, how far it is read."""
        self._names = PLAIN
        self._targets: dict[str, list[int]] = {}
        """Ends of the partitions; once they are reached all is read as of ``_asked_ms``."""
        self._asked_ms = 0
        self._asked_s = -_ASK_S
        self._saved_s = time.monotonic()
        self._models_by_s = self._saved_s + _MODELS_S
        self._began_ms: int | None = None
        """When all was there for the first time."""
        self._at_hand = False
        """A snapshot has all: it is served where no broker answers."""
        self._changed = False
        self._stop = Event()
        self._thread = Thread(target=self._run, name="follower", daemon=True)
        self.failed: HearbackError | None = None
        """Why it has given up: what no further try makes good."""

    def start(self) -> None:
        """Begin with the snapshot, then follow."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no more; write the snapshot."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._begin()
            tries = 0
            while not self._stop.is_set():
                try:
                    self._connect()
                    tries = 0
                    self._follow()
                except BrokerError as error:
                    self._say(str(error))
                    self._stop.wait(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
                    tries += 1
        except HearbackError as error:
            self.failed = error
            self._say(str(error))
            _log.error("%s", error)
        except Exception as error:  # noqa: BLE001 - what is known is served on
            self.failed = StateError(f"coefficients are no longer followed: {error!r}")
            self._say(str(self.failed))
            _log.exception("coefficients are no longer followed")
        finally:
            self._save()

    def _say(self, why_not: str | None) -> None:
        """Note that it is not up to date, and why; a snapshot is served until it can be."""
        self._store.stands(why_not, ready=self._at_hand or self._store.standing().ready)

    def _begin(self) -> None:
        """Take the snapshot, if there is one that can be gone on from."""
        if self._path is None:
            return
        try:
            header = load_snapshot(self._path, self._store)
        except FileNotFoundError:
            return
        except (StateError, OSError) as error:
            self._store.clear()
            _log.warning("%s: all is read from its start", error)
            return
        if self._now_ms() - header.current_ms > _MOST_AWAY_MS:
            self._store.clear()
            _log.warning("%s is too old: all is read from its start", self._path)
            return
        topics = self._store.topics.keys()
        self._places = {plain: place for plain, place in header.places.items() if plain in topics}
        if PREFERENCES not in topics:
            self._store.preferences.clear()
        self._store.partitions = len(header.places[COEFFICIENTS].offsets)
        self._at_hand = self._places.keys() == topics
        self._store.stands(
            "what followed the snapshot is being read", ready=False, current_ms=header.current_ms
        )

    def _connect(self) -> None:
        """Find the topics; begin anew where they are others than were followed."""
        cluster = look_at_cluster(self._broker, _ANSWER_S)
        names = self._names = TopicNames.among(self._application_id, cluster.partitions)
        found = {plain: names.of(plain) for plain in self._store.topics}
        for topic in found.values():
            if not cluster.partitions.get(topic):
                raise ConfigError(
                    f"there is no topic {topic} at {self._broker}: hearback topics create makes it"
                )
        ids = dict.fromkeys(found.values(), "")
        if not cluster.embedded:
            ids = ids_of_topics(self._broker, found.values(), _ANSWER_S)
        places = {
            plain: Place(topic, ids[topic], [0] * cluster.partitions[topic])
            for plain, topic in found.items()
        }
        same = all(places[plain] == place.at_start() for plain, place in self._places.items())
        if not self._places or not same or self._was_away():
            self._anew(places)
        self._places = places | self._places
        self._store.partitions = len(places[COEFFICIENTS].offsets)

    def _was_away(self) -> bool:
        current_ms = self._store.standing().current_ms
        return current_ms is not None and self._now_ms() - current_ms > _MOST_AWAY_MS

    def _anew(self, places: dict[str, Place]) -> None:
        """Forget everything and read from the start."""
        if any(any(place.offsets) for place in self._places.values()):
            _log.warning("%s: read from the start", ", ".join(self._store.topics))
            self._store.clear()
        self._at_hand = False
        self._store.stands("the topics are being read", ready=False)
        self._places = places

    def _follow(self) -> None:
        """Read on until it is to stop, or the topics have to be looked at again.

        A model that is rolled in may take what another topic says.
        """
        places = {place.topic: place for place in self._places.values()}
        plains = {place.topic: plain for plain, place in self._places.items()}
        takes = self._store.topics
        applicants = self._store.applicants
        later = set() if applicants is None else {self._places[LABELS].topic}
        ends = {
            plain: TopicEnds(self._broker, place.topic, len(place.offsets))
            for plain, place in self._places.items()
        }
        between = {
            plain: TopicEnds(self._broker, self._names.of(plain), self._store.partitions)
            for plain in (APPLICATIONS_BY_JOB, LABELS)
        }
        self._targets = {}
        self._asked_s = -_ASK_S
        with Reader(self._broker, _AHEAD_BYTES, times=True) as reader:
            for topic in places.keys() - later:
                _read_on(reader, places[topic])
            while not self._stop.is_set() and self._store.topics.keys() == self._places.keys():
                self._look(ends)
                for chunk in reader.poll(_POLL_S):
                    if chunk.lost:
                        self._anew(
                            {plain: place.at_start() for plain, place in self._places.items()}
                        )
                        raise BrokerError(f"{chunk.topic}-{chunk.partition} cannot be read on")
                    if chunk.records:
                        plain = plains[chunk.topic]
                        if applicants is not None and plain == LABELS:
                            applicants.expects = not self._are_known(chunk)
                        takes[plain]([(key, value) for _, key, value in chunk.records])
                        self._changed = True
                        if plain == COEFFICIENTS:
                            self._observe(chunk)
                    if chunk.next:
                        places[chunk.topic].offsets[chunk.partition] = chunk.next
                if later and self._reached(APPLICANTS):
                    _read_on(reader, places[later.pop()])
                self._check()
                self._attend(ends, between)
                if time.monotonic() - self._saved_s > _SNAPSHOT_S:
                    self._save()

    def _look(self, ends: dict[str, TopicEnds]) -> None:
        """Ask for the ends once a second, when those of the last time are reached."""
        now_s = time.monotonic()
        if self._targets or now_s - self._asked_s < _ASK_S:
            return
        self._asked_s = now_s
        asked_ms = self._now_ms()
        try:
            self._targets = {plain: each.of_each(_ENDS_S) for plain, each in ends.items()}
        except BrokerError as error:
            self._say(str(error))
            return
        self._asked_ms = asked_ms
        if self._was_away():
            raise BrokerError("the broker was away for too long")  # and is connected to anew

    def _check(self) -> None:
        """Note that the store is up to date, once all is read as of the question."""
        if self._targets and all(map(self._reached, self._targets)):
            first = not self._store.standing().ready
            if first and self._store.models.lacking and time.monotonic() < self._models_by_s:
                return
            self._targets = {}
            self._store.stands(None, ready=True, current_ms=self._asked_ms)
            self._began_ms = self._began_ms or self._asked_ms
            if first:
                give_back()

    def _reached(self, plain: str) -> bool:
        """Whether all of a topic was read that was there when its ends were asked for."""
        ends = self._targets.get(plain)
        if ends is None:
            return False
        return all(map(int.__ge__, self._places[plain].offsets, ends))

    def _are_known(self, chunk: Chunk) -> bool:
        """Whether the applications of all these labels have been read, if they are published."""
        return self._reached(APPLICANTS) and chunk.next <= self._targets[LABELS][chunk.partition]

    def _observe(self, chunk: Chunk) -> None:
        """Tell how long it took until what has come is served."""
        began_ms, now_ms = self._began_ms, self._now_ms()
        if began_ms is not None:
            self._served(
                [
                    (now_ms - time_ms) / 1000.0
                    for (_, key, _), time_ms in zip(chunk.records, chunk.times_ms, strict=True)
                    if time_ms >= began_ms and not key.startswith(_CONTROL)
                ]
            )

    def _attend(self, ends: dict[str, TopicEnds], between: dict[str, TopicEnds]) -> None:
        """See to those who wait for what they have written."""
        read = _by_partition({plain: each.offsets for plain, each in self._places.items()})
        try:
            self._store.waits.go_on(
                read,
                lambda: _by_partition({plain: of.of_each(_ENDS_S) for plain, of in ends.items()}),
                lambda plain: between[plain].of_each(_ENDS_S),
            )
        except BrokerError as error:
            self._say(str(error))

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        standing = self._store.standing()
        if self._path is None or not self._changed or not standing.ready:
            return
        try:
            save_snapshot(
                self._path, self._store, self._places, current_ms=standing.current_ms or 0
            )
            self._changed = False
        except OSError as error:
            _log.warning("no snapshot is written: %s", error)


def _read_on(reader: Reader, place: Place) -> None:
    for number, offset in enumerate(place.offsets):
        reader.follow(place.topic, number, offset)


def _by_partition(offsets: dict[str, list[int]]) -> dict[str, int]:
    """Give offsets of topics their names, ``topic/partition``."""
    return {f"{plain}/{n}": at for plain, of in offsets.items() for n, at in enumerate(of)}
