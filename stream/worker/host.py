"""SHELL: the partitions that this worker owns, between Faust and their sessions.

For each batch, under one lock per stage and partition: stage → flush through the session → next
unit of work; when all are safe the batch is acknowledged. What was read under one session is never
flushed through another: a new session seeks its topics to where its state stands.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path

from stream.errors import (
    BrokerError,
    ConfigError,
    DamagedStateError,
    MisroutedProducerError,
    StateError,
)
from stream.events.records import CONSUMED, Read
from stream.partitions.base import Partition, Unit
from stream.partitions.commands import Command
from stream.partitions.job import JobPartition
from stream.partitions.member import MemberPartition
from stream.worker.changelog import STAGES, anything_learned
from stream.worker.contract import InputPartition, Membership, PartitionId, RecordBatch
from stream.worker.crashpoints import crash_point
from stream.worker.data_folder import Checkpointed, CheckpointFolder
from stream.worker.ends import MOVED, engagements_written, topics_grown
from stream.worker.owned import Owned, Sessions, Turn
from stream.worker.requests import Requests
from stream.worker.session import Session, Status
from stream.worker.settings import Resources
from stream.worker.standby import Standbys

_log = logging.getLogger(__name__)

_SIZES_S = 10.0  # between two looks at the sizes of the stores
_TELL_MS = 1000  # between two looks at what a partition's scores and lags are
_TIDY_S = 3600.0  # between two looks at what has been kept for long enough
_COMPLAIN_S = 60.0  # between two warnings of the same
_FRESH_S = 10.0  # an answer of the broker that is older says nothing of a partition's end


def _stage_of(topic: str) -> str:
    return MemberPartition.stage if topic in MemberPartition.topics else JobPartition.stage


class Host:
    """Runs the stages of the partitions of this worker (:class:`stream.worker.contract.Handler`).

    Args:
        membership: the worker's positions and seeks.
        resources: what sessions share; released by :meth:`stop`.
        commands: those that there are; each partition obeys each once.

    """

    def __init__(
        self,
        membership: Membership,
        resources: Resources,
        commands: Callable[[], Iterable[Command]] = tuple,
    ) -> None:
        self._commands = commands
        self._membership = membership
        self._data = data = resources.data
        self._metrics = metrics = resources.metrics
        self._now_ms = resources.now_ms
        self._threads = resources.threads
        self._standbys = Standbys(resources)
        self._sessions = Sessions(membership, resources, self._tell_owned)
        self._owned: dict[PartitionId, Owned] = {}
        self._assigned = False  # this worker belongs to the group, with or without partitions
        self._sized_s = -_SIZES_S
        self._tidied_s = time.monotonic()
        self._settings = resources.settings
        self._engagements = engagements_written(resources.settings, resources.threads)
        self._grown = topics_grown(resources.settings, resources.threads)
        self._learned: bool | None = None  # whether the application id has; None: not asked yet
        self._learning = asyncio.Lock()
        self._complaints: dict[PartitionId, str] = {}  # of producers that misroute
        self._complained_s: dict[PartitionId, float] = {}
        self._requests = Requests(data.path, self.checkpoint)
        self._unassigned_since: float | None = time.monotonic()
        metrics.unassigned(self._unassigned_s)
        metrics.standbys(lambda: self._standbys.count, self._standbys.behind)
        metrics.damaged(lambda: data.damaged_stores)

    def why_not_ready(self) -> str | None:
        """Say why something that is assigned here is not worked on; None: all is.

        May be called from any thread.
        """
        owned = self._owned
        if not self._assigned:
            return "no partitions are assigned yet"
        waiting = sum(each.session is None for each in owned.values())
        if waiting:
            return f"{waiting} of {len(owned)} partitions are being taken over"
        return self._grown.answer or next(iter(list(self._complaints.values())), None)

    # -- what the worker calls ---------------------------------------------------------------

    def leaving(self) -> None:
        """Wake what waits: a rebalance or the end has begun."""
        self._standbys.begin_stop()
        for owned in self._owned.values():
            owned.wake()

    async def assigned(self, partitions: frozenset[InputPartition]) -> None:
        """Open a session for each partition and continue where its state says."""
        crash_point("assigned")
        began = time.monotonic()
        self._complaints.clear()
        numbers = sorted({number for _, number in partitions})
        for number in numbers:
            if number >= self._settings.partitions:
                raise ConfigError(
                    f"the topics had {self._settings.partitions} partitions, now there is a"
                    f" partition {number}: {MOVED}"
                )
            missing = [topic for topic in CONSUMED if (topic, number) not in partitions]
            if missing:
                raise ConfigError(
                    f"partition {number} came without {', '.join(missing)}: all input topics must"
                    " have the same number of partitions"
                )
        await self._sessions.end_all(self._owned.values())
        await self._sessions.in_thread(self._standbys.stop)
        places = [(stage, number) for number in numbers for stage in STAGES]
        copies = [
            (stage, number)
            for number in {number for _, number in self._membership.standbys()}.difference(numbers)
            for stage in STAGES
        ]
        await self._sessions.in_thread(self._data.keep_only, [*places, *copies])
        owned = [Owned(place) for place in places]
        self._owned = {each.place: each for each in owned}
        self._assigned = True
        if places:
            self._unassigned_since = None
        await self._requests.open()
        watch = asyncio.create_task(self._tell_unattended())
        try:
            await self._sessions.open_all(owned)
        finally:
            watch.cancel()
        if owned and all(each.session is not None for each in owned):
            self._metrics.taken_over(time.monotonic() - began)
        loop = asyncio.get_running_loop()
        self._standbys.follow(
            copies, lambda error: loop.call_soon_threadsafe(self._membership.fail, error)
        )
        self._tell_owned()

    async def revoked(self, partitions: frozenset[InputPartition]) -> None:
        """End all sessions; the batches in flight are done. Stores stay open for the next."""
        del partitions
        crash_point("revoked")
        await self._sessions.end_all(self._owned.values())
        self._unassigned_since = time.monotonic()
        self._tell_owned()

    async def process(self, batch: RecordBatch) -> bool:
        """Run one batch through its stage; False: nothing is known to have come of it."""
        owned = self._owned.get((_stage_of(batch.topic), batch.partition))
        if owned is None:
            return False
        session = await owned.ready(self._membership.settled)
        if session is None:
            return False
        turn = Turn(batch, session)
        owned.turns.append(turn)
        try:
            await asyncio.sleep(0)  # what the same fetch brought of the other topic comes along
            async with owned.lock:
                if turn in owned.turns:
                    await self._take_turns(owned)
        finally:
            if turn in owned.turns:
                owned.turns.remove(turn)
        return turn.done

    async def _take_turns(self, owned: Owned) -> None:
        """Do all batches that wait for their turn, together: a unit of work has its price."""
        turns, owned.turns = owned.turns, []
        ready, gaps = [], {}
        for turn in turns:
            batch = turn.batch
            if turn.session.status is not Status.OPEN:
                continue  # the one after it has sought the partition
            position = turn.session.partition.position(batch.topic)
            if position is not None and batch.begin > position:
                gaps[batch.topic, batch.partition] = position
            else:
                ready.append(turn)
        if ready:
            session = ready[0].session  # one of a partition's is open at a time
            reads = [Read(each.batch.topic, each.batch.records, each.batch.end) for each in ready]
            units = session.partition.process(reads, self._now_ms())
            if not await self._work(owned, session, units):
                return
            for turn in ready:
                turn.done = True
        if gaps:
            await self._membership.seek(gaps)

    async def skip(self, partition: InputPartition, position: int, first: int) -> None:
        """Go on from ``first``, once what was fetched before ``position`` is done."""
        topic, number = partition
        owned = self._owned.get((_stage_of(topic), number))
        if owned is None:
            return
        async with owned.lock:
            session = owned.session
            if session is None or (session.partition.position(topic) or position) != position:
                return
            if not await self._work(owned, session, session.partition.skip(topic, first)):
                return
            self._metrics.skipped(topic, number, first - position)
            _log.warning(
                "%s-%d: %d records were deleted before they were read; it goes on from %d",
                *(topic, number, first - position, first),
            )
            await self._membership.seek({partition: first})

    async def tick(self) -> None:
        """Idleness, bare watermarks, windows that idleness lets close; positions, lags, sizes."""
        positions = self._membership.positions()
        if time.monotonic() - self._sized_s >= _SIZES_S:
            self._sized_s = time.monotonic()
            stores = self._data.stores()
            worked_on = {
                each.place: stores[each.place]
                for each in self._owned.values()
                if each.session is not None and each.place in stores
            }
            self._metrics.stored(worked_on, self._data.cache_bytes)
            self._tell_damaged()
        if time.monotonic() - self._tidied_s >= _TIDY_S:
            self._tidied_s = time.monotonic()
            self._threads.submit(self._data.tidy)
        if self._owned:
            self._engagements.tick()
            self._grown.tick()
        for owned in self._owned.values():
            stage, number = owned.place
            self._metrics.unattended(stage, number, owned.unattended_s())
            if not owned.ticking and owned.session is not None:
                owned.ticking = True
                owned.spawn(self._tick(owned, positions))

    async def stop(self) -> None:
        """Release everything."""
        await self._requests.close()
        await self._engagements.stop()
        await self._grown.stop()
        await self._sessions.in_thread(self._standbys.stop)
        await self._sessions.end_all(self._owned.values())
        self._owned = {}
        self._assigned = False
        await self._sessions.in_thread(self._data.release)
        self._threads.shutdown()

    # -- what an operator asks of it -----------------------------------------------------------

    async def checkpoint(self, out: Path) -> Checkpointed:
        """Copy the stores of all partitions that are worked on here, each between two flushes.

        Raises:
            ConfigError: the folder cannot be made.
            StateError: it cannot be written, or a partition is not worked on now.

        """
        copy = await self._sessions.in_thread(CheckpointFolder, out, self._settings.application_id)
        try:
            for owned in list(self._owned.values()):
                async with owned.lock:  # nothing is flushed, and the store stays open
                    if owned.session is None:
                        raise StateError(
                            f"{owned.place[0]}-{owned.place[1]} is being taken over or given up:"
                            " ask again in a moment"
                        )
                    store = self._data.store(owned.place)
                    await self._sessions.in_thread(copy.add, owned.place, store)
            if not self._owned:
                raise StateError("this worker has no partitions now: ask again in a moment")
            done: Checkpointed = await self._sessions.in_thread(copy.finish)
        except BaseException:
            copy.abandon()
            raise
        return done

    # -- work --------------------------------------------------------------------------------

    async def _work(self, owned: Owned, session: Session, units: Iterable[Unit]) -> bool:
        """Do and flush units of work; False: the session was lost on the way."""
        partition = session.partition
        try:
            for unit in units:
                start = time.monotonic()
                took = await session.flush(unit)
                self._metrics.flushed(unit, time.monotonic() - start, *took, self._now_ms())
                self._metrics.refused(session.place[0], session.take_refused())
                await asyncio.sleep(0)  # there may be a thousand units: others have their turn
        except (BrokerError, DamagedStateError) as error:
            await self._sessions.lose(owned, session, error)
            return False
        except BaseException as error:
            if isinstance(error, MisroutedProducerError) and await self._goes_on(session):
                return False  # the batch comes again
            # The actor of the partition's other topic waits for the lock: it must not flush what
            # was not done in full.
            owned.session = None
            await asyncio.shield(session.end())
            raise
        finally:
            self._tell_redone(partition)
        self._metrics.applied(partition)
        monotonic_ms = round(time.monotonic() * 1000)
        self._complain(owned.place, partition.routing.complaint_at(monotonic_ms))
        return True

    def _tell_redone(self, partition: Partition) -> None:
        while partition.redone:
            topic, offset, error = partition.redone.pop(0)
            self._metrics.redone(partition.stage)
            _log.warning(
                "%s-%d: the batch from %d on is done again, record by record",
                *(topic, partition.number, offset),
                exc_info=error,
            )

    async def _goes_on(self, session: Session) -> bool:
        """Whether misrouted records are set aside, because something was learned without them."""
        settings = self._settings
        async with self._learning:  # all partitions may find it at once; one of them asks
            if self._learned is None:
                try:
                    self._learned = await self._sessions.in_thread(
                        anything_learned,
                        *(settings.broker, settings.application_id, settings.partitions),
                    )
                except BrokerError as error:
                    _log.info("asking again whether anything was learned: %s", error)
                    return True
        if self._learned:
            session.partition.go_on_misrouted()
        return self._learned

    def _complain(self, place: PartitionId, complaint: str | None) -> None:
        """Say what is wrong with a producer, at once and then now and again; None: nothing."""
        if complaint is None:
            self._complaints.pop(place, None)
            return
        self._complaints[place] = complaint
        if time.monotonic() - self._complained_s.get(place, -_COMPLAIN_S) >= _COMPLAIN_S:
            self._complained_s[place] = time.monotonic()
            _log.warning("%s; misrouted records become dead letters", complaint)

    async def _tick(self, owned: Owned, positions: Mapping[InputPartition, int]) -> None:
        try:
            async with owned.lock:
                session = owned.session
                if session is None:
                    return
                partition = session.partition
                lags = {}
                for topic in partition.topics:
                    at = positions.get((topic, partition.number))
                    end = self._membership.high_watermark((topic, partition.number))
                    if at is not None and end is not None:
                        lags[topic] = max(end - at, 0)
                now_ms, monotonic_ms = self._now_ms(), round(time.monotonic() * 1000)
                at_end = self._at_end(owned, partition, lags, monotonic_ms)
                written = self._engagements.answer
                partition.clock.observe_end(monotonic_ms, at_end=at_end, written=written)
                units = chain(
                    partition.obey(self._commands(), now_ms),
                    partition.tick(now_ms, monotonic_ms, written),
                )
                if not await self._work(owned, session, units):
                    return
                if monotonic_ms - owned.told_ms < _TELL_MS:
                    return
                owned.told_ms = monotonic_ms
                try:
                    self._metrics.standing(partition, lags, now_ms)
                except DamagedStateError as error:  # it reads tallies
                    await self._sessions.lose(owned, session, error)
        except Exception as error:  # noqa: BLE001 - nobody waits for this task
            self._membership.fail(error)
        finally:
            owned.ticking = False

    def _at_end(
        self, owned: Owned, partition: Partition, lags: Mapping[str, int], monotonic_ms: int
    ) -> bool | None:
        """Whether a partition's input is read to its end; None: not known, or not all the time."""
        looked_ms, owned.looked_ms = owned.looked_ms, monotonic_ms
        age_s = self._membership.answer_age_s((partition.input_topic, partition.number))
        lag = lags.get(partition.input_topic)
        if lag is None or age_s is None or age_s >= _FRESH_S:
            return None
        if looked_ms is not None and monotonic_ms - looked_ms >= _FRESH_S * 1000:
            return None  # this worker was frozen
        return lag == 0

    def _unassigned_s(self) -> float:
        since = self._unassigned_since
        return 0.0 if since is None else time.monotonic() - since

    async def _tell_unattended(self) -> None:
        """Say for how long nobody works where, while an assignment recovers: nothing ticks."""
        while True:
            for owned in self._owned.values():
                self._metrics.unattended(*owned.place, owned.unattended_s())
            await asyncio.sleep(1.0)

    def _tell_owned(self) -> None:
        self._metrics.owned(
            [
                owned.session.partition
                for owned in self._owned.values()
                if owned.session is not None
            ],
            {number for _, number in self._owned},
        )
        self._tell_damaged()

    def _tell_damaged(self) -> None:
        while self._data.damaged:
            aside, error = self._data.damaged.pop()
            _log.warning("%s (it was put aside as %s)", error, aside.name)
