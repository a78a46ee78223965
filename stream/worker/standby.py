"""SHELL: copies of partitions that another worker owns, kept close behind their changelogs.

Faust's assignor gives every partition a second worker, and to that one first when the owner is
gone. It follows the changelogs of both stages in a thread, so that taking over means to read what
the owner wrote last, not everything. A copy is never in the way: whatever is wrong with one is
logged and tried again later, and the session that takes over judges for itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

import msgspec

from stream.errors import BrokerError, DamagedStateError, StateError
from stream.kafka.cluster import ids_of_topics
from stream.kafka.reader import Chunk, Reader
from stream.state.store import Store, Writes
from stream.worker.changelog import STAGES, Changelog, Mark, apply, changelog_of
from stream.worker.contract import PartitionId
from stream.worker.settings import Resources

_log = logging.getLogger(__name__)

_ANSWER_S = 10.0
_POLL_S = 0.1
_AGAIN_S = 5.0  # before what failed is tried again
_AHEAD_BYTES = 8 << 20  # read for all copies before it is applied
_FRESH_S = 600.0  # a copy at the end says so, or it would pass for old


class _Copy(msgspec.Struct):
    """A store that follows a changelog."""

    place: PartitionId
    store: Store
    mark: Mark
    at_end: bool = False


class Standbys:
    """The copies of one worker; one thread follows them all.

    On the embedded broker nothing is followed.
    """

    def __init__(self, resources: Resources) -> None:
        self._settings = resources.settings
        self._data = resources.data
        self._now_ms = resources.now_ms
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

        ``fail`` is called, from the thread, when a store cannot be written.
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
        """Stop following; the stores stay open. Blocks for a moment, or for a broker's answer."""
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
            except BrokerError as error:
                _log.warning("standbys wait for the broker: %s", error)
            except Exception as error:  # noqa: BLE001 - such as a full disk: the worker has to stop
                fail(error)
                return
            self._copies = {}
            self._ended.wait(_AGAIN_S)

    def _follow(self) -> None:
        """Follow for as long as all goes well."""
        settings = self._settings
        topics = [changelog_of(settings.application_id, stage) for stage in STAGES]
        ids = ids_of_topics(settings.broker, topics, _ANSWER_S)
        missing: set[PartitionId] = set(self._places)
        tried_s = refreshed_s = 0.0
        with Reader(settings.broker, _AHEAD_BYTES) as reader:
            while not self._ended.is_set():
                now_s = time.monotonic()
                if missing and (not tried_s or now_s - tried_s > _AGAIN_S):
                    tried_s = now_s
                    for place in sorted(missing):
                        if self._ended.is_set():
                            return
                        changelog = Changelog(
                            settings.broker, settings.application_id, place, topic_ids=ids
                        )
                        if self._begin(place, changelog, reader):
                            missing.discard(place)
                if now_s - refreshed_s > _FRESH_S:
                    refreshed_s = now_s
                    for at in self._refresh(reader):
                        self._leave(at, missing, reader)
                for chunk in reader.poll(_POLL_S):
                    copy = self._copies.get((chunk.topic, chunk.partition))
                    if copy is None:  # left a moment ago, or of no partition
                        self._heed(chunk)
                    elif not self._take(copy, chunk):
                        self._leave((chunk.topic, chunk.partition), missing, reader)

    def _take(self, copy: _Copy, chunk: Chunk) -> bool:
        """Take what came of a partition; False: the copy has to be begun again, at its mark."""
        if chunk.lost:  # of what came with it, nobody knows what is missing before it
            if chunk.damaged:
                self._complain(copy.place, chunk.error)
            return False
        if (chunk.records or chunk.at_end) and not self._apply(copy, chunk):
            return False
        self._heed(chunk)
        return True

    def _leave(self, at: tuple[str, int], missing: set[PartitionId], reader: Reader) -> None:
        """Follow a copy no longer; it is begun again later."""
        missing.add(self._copies.pop(at).place)
        reader.leave(*at)

    def _heed(self, chunk: Chunk) -> None:
        """Go by what the broker says, if anything.

        Raises:
            BrokerError: this client has come to its end.

        """
        if chunk.error is not None and chunk.error.fatal():
            raise BrokerError(f"standbys cannot be followed: {chunk.error}")
        if chunk.error is not None:
            _log.info("standbys: %s", chunk.error)  # librdkafka goes on by itself

    def _begin(self, place: PartitionId, changelog: Changelog, reader: Reader) -> bool:
        """Follow one more, from where its store stands."""
        try:
            store, mark = changelog.begin(
                reader, self._data.store(place), lambda: self._data.renew(place), self._now_ms
            )
        except DamagedStateError as error:
            self._data.set_aside(place, error)  # it is followed at the next try
            return False
        except (StateError, BrokerError) as error:
            self._complain(place, error)
            return False
        self._copies[changelog.at] = _Copy(place, store, mark)
        reader.follow(*changelog.at, mark.offset)
        return True

    def _complain(self, place: PartitionId, error: object) -> None:
        if self._complained.get(place) != str(error):
            self._complained[place] = str(error)
            _log.warning("%s-%d is not kept as a standby: %s", *place, error)

    def _apply(self, copy: _Copy, chunk: Chunk) -> bool:
        """Write what came into a store; False: it is damaged, and was put aside."""
        copy.at_end = chunk.at_end
        if copy.at_end:
            self._complained.pop(copy.place, None)
        now_ms = self._now_ms() if copy.at_end else copy.mark.applied_ms
        writes = {key: value for _, key, value in chunk.records}
        return self._write(copy, writes, copy.mark.at(chunk.next, now_ms))

    def _write(self, copy: _Copy, writes: Writes, mark: Mark) -> bool:
        try:
            copy.mark = apply(copy.store, writes, mark)
        except DamagedStateError as error:
            self._data.set_aside(copy.place, error)
            return False
        return True

    def _refresh(self, reader: Reader) -> list[tuple[str, int]]:
        """Let the copies that are at the end say so; a silent broker does not tell who is.

        Returns:
            Those that were found damaged, and put aside.

        """
        damaged = []
        for at, copy in self._copies.items():
            if copy.at_end and not self._ended.is_set():
                _, end = reader.span(*at)
                if end <= copy.mark.offset:
                    mark = copy.mark.at(copy.mark.offset, self._now_ms(), own=copy.mark.own)
                    if not self._write(copy, {}, mark):
                        damaged.append(at)
        return damaged
