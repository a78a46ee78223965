"""SHELL: the partitions that this worker owns, between Faust and their sessions.

For each batch, under one lock per stage and partition: stage → flush through the session → next
unit of work; when all are safe the batch is acknowledged. A partition whose session is lost
(fenced, or the broker was away too long) gets a new one while the group still counts on this
worker, with growing pauses; meanwhile its batches wait. What was read under one session is never
flushed through another: a new session seeks its topics to where its state stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from stream.errors import (
    BrokerError,
    ConfigError,
    InterruptedSessionError,
    StateError,
)
from stream.events.records import CONSUMED
from stream.metrics.worker import WorkerMetrics
from stream.model.linear import GlobalModel
from stream.partitions.base import Unit
from stream.partitions.commands import GateCommand
from stream.partitions.member import MemberPartition
from stream.policy import Policy
from stream.worker.app import InputPartition
from stream.worker.batch import RecordBatch
from stream.worker.changelog import STAGES
from stream.worker.checkpoint_folder import Checkpointed, CheckpointFolder
from stream.worker.crashpoints import crash_point
from stream.worker.data_folder import DataFolder, PartitionId
from stream.worker.requests import Requests
from stream.worker.session import Session, SessionSettings
from stream.worker.standby import Standbys
from stream.worker.topics import ids_of_application

_log = logging.getLogger(__name__)

_THREADS = 64  # for what blocks: fences, recoveries, commits
_FIRST_PAUSE_S = 0.25  # before a lost session is followed by a new one
_LONGEST_PAUSE_S = 30.0
_SIZES_S = 10.0  # between two looks at the sizes of the stores
_HANGS_S = 5.0  # a flush that takes longer waits for its broker


class Membership(Protocol):
    """What a host asks of the worker (:class:`stream.worker.app.GroupMembership`)."""

    async def seek(self, positions: Mapping[InputPartition, int]) -> None:
        """Continue partitions from these offsets."""

    def positions(self) -> dict[InputPartition, int]:
        """Where each owned partition stands."""

    def high_watermark(self, partition: InputPartition) -> int | None:
        """Return a partition's end."""

    def standbys(self) -> frozenset[InputPartition]:
        """Return what this worker is to take over when its owner is gone."""

    async def begun(self, partitions: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Return how far the group has read of those that it has read anything of."""

    async def confirm(self) -> bool:
        """Ask whether the group still counts on this worker."""

    def settled(self) -> bool:
        """Whether no rebalance has begun since the newest assignment, and the end neither."""

    def fail(self, error: Exception) -> None:
        """Stop the worker with this error."""


class _Owned:
    """One partition of one stage, and the session that works on it, if there is one."""

    def __init__(self, place: PartitionId) -> None:
        self.place = place
        self.session: Session | None = None
        self.ended = False
        self.lost_at: float | None = time.monotonic()  # since when nobody works on it
        self.lock = asyncio.Lock()
        self.tasks: set[asyncio.Task[None]] = set()  # renewal, tick
        self.ticking = False
        self._changed = asyncio.Event()

    def unattended_s(self) -> float:
        """For how long nothing has come forward here: no session, or a flush that hangs."""
        since = self.lost_at
        if since is None and self.session is not None:
            since = self.session.flushing_since
            if since is not None and time.monotonic() - since < _HANGS_S:
                return 0.0
        return 0.0 if since is None else time.monotonic() - since

    async def ready(self, settled: Callable[[], bool]) -> Session | None:
        """Wait for a session; None: there will be none under this assignment."""
        while self.session is None:
            if self.ended or not settled():
                return None
            self._changed.clear()
            await self._changed.wait()
        return self.session

    def opened(self, session: Session) -> None:
        """Let batches go on, with this session."""
        self.session = session
        self.lost_at = None
        self.wake()

    def wake(self) -> None:
        """Let waiting batches look again."""
        self._changed.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that has to be over before the partition is given up."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def pause(self, seconds: float) -> None:
        """Wait, but not longer than something changes."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)


class Host:
    """Runs the stages of the partitions that Faust assigns (:class:`stream.worker.app.Handler`).

    Args:
        control: the worker's positions and seeks.
        settings: of the sessions.
        model: the frozen global model. policy: labels and effects.
        metrics: what Prometheus is told.
        data: the worker's folder; released by :meth:`stop`.
        now_ms: the wall clock.
        commands: what workers were told; each partition obeys each once.

    """

    def __init__(
        self,
        control: Membership,
        settings: SessionSettings,
        model: GlobalModel,
        policy: Policy,
        metrics: WorkerMetrics,
        data: DataFolder,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        commands: Callable[[], Iterable[GateCommand]] = tuple,
    ) -> None:
        self._commands = commands
        self._membership = control
        self._settings = settings
        self._model = model
        self._policy = policy
        self._metrics = metrics
        self._data = data
        self._now_ms = now_ms
        self._standbys = Standbys(settings, data, now_ms)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="session")
        self._owned: dict[PartitionId, _Owned] = {}
        self._assigned = False  # this worker belongs to the group, with or without partitions
        self._sized_s = -_SIZES_S
        self._requests = Requests(data.path, self.checkpoint)
        self._topic_ids: dict[str, str] | None = None  # asked for anew in every assignment
        self._not_told: tuple[float, str] | None = None  # when it was asked in vain, and why
        self._asking = asyncio.Lock()
        self._unassigned_since: float | None = time.monotonic()
        metrics.unassigned(self._unassigned_s)
        metrics.standbys(lambda: self._standbys.count, self._standbys.behind)

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
        return None

    # -- what the worker calls ---------------------------------------------------------------

    def leaving(self) -> None:
        """Let go of what waits: a rebalance or the end has begun."""
        self._standbys.begin_stop()
        for owned in self._owned.values():
            owned.wake()

    async def assigned(self, partitions: frozenset[InputPartition]) -> None:
        """Open a session for each partition and continue where its state says."""
        crash_point("assigned")
        numbers = sorted({number for _, number in partitions})
        for number in numbers:
            missing = [topic for topic in CONSUMED if (topic, number) not in partitions]
            if missing:
                raise ConfigError(
                    f"partition {number} came without {', '.join(missing)}: all input topics must"
                    " have the same number of partitions"
                )
        await self._end_sessions()
        await self._in_thread(self._standbys.stop)
        places = [(stage, number) for number in numbers for stage in STAGES]
        copies = [
            (stage, number)
            for number in {number for _, number in self._membership.standbys()}.difference(numbers)
            for stage in STAGES
        ]
        await self._in_thread(self._data.keep_only, [*places, *copies])
        owned = [_Owned(place) for place in places]
        self._owned = {each.place: each for each in owned}
        self._assigned = True
        if places:
            self._unassigned_since = None
        self._topic_ids = None
        await self._requests.open()
        watch = asyncio.create_task(self._tell_unattended())
        outcomes = await asyncio.gather(*map(self._begin, owned), return_exceptions=True)
        watch.cancel()
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        loop = asyncio.get_running_loop()
        self._standbys.follow(
            copies, lambda error: loop.call_soon_threadsafe(self._membership.fail, error)
        )
        self._tell_owned()

    async def revoked(self, partitions: frozenset[InputPartition]) -> None:
        """End all sessions; the batches in flight are done. Stores stay open for the next."""
        del partitions
        crash_point("revoked")
        await self._end_sessions()
        self._unassigned_since = time.monotonic()
        self._tell_owned()

    async def process(self, batch: RecordBatch) -> bool:
        """Run one batch through its stage; False: nothing is known to have come of it."""
        stage = "member" if batch.topic in MemberPartition.topics else "job"
        owned = self._owned.get((stage, batch.partition))
        if owned is None:
            return False
        session = await owned.ready(self._membership.settled)
        if session is None:
            return False
        async with owned.lock:
            if session is not owned.session:
                return False  # the one after it has sought the partition
            position = session.partition.position(batch.topic)
            if position is not None and batch.begin > position:
                await self._membership.seek({(batch.topic, batch.partition): position})
                return False
            units = session.partition.process(batch.topic, batch.records, batch.end, self._now_ms())
            return await self._work(owned, session, units)

    async def tick(self) -> None:
        """Idleness, bare watermarks, windows that close by the wall clock; lags."""
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
        for owned in self._owned.values():
            stage, number = owned.place
            self._metrics.unattended(stage, number, owned.unattended_s())
            if not owned.ticking and owned.session is not None:
                owned.ticking = True
                owned.spawn(self._tick(owned, positions))

    async def stop(self) -> None:
        """Release everything."""
        await self._requests.close()
        await self._in_thread(self._standbys.stop)
        await self._end_sessions()
        self._owned = {}
        self._assigned = False
        await self._in_thread(self._data.release)
        self._threads.shutdown()

    # -- what a person asks of it --------------------------------------------------------------

    async def checkpoint(self, out: Path) -> Checkpointed:
        """Copy the stores of all partitions that are worked on here, each between two flushes.

        Raises:
            ConfigError: the folder cannot be made.
            StateError: it cannot be written, or a partition is not worked on now.

        """
        copy = await self._in_thread(CheckpointFolder, out, self._settings.application_id)
        try:
            for owned in list(self._owned.values()):
                async with owned.lock:  # nothing is flushed, and the store stays open
                    if owned.session is None:
                        raise StateError(
                            f"{owned.place[0]}-{owned.place[1]} is being taken over or given up:"
                            " ask again in a moment"
                        )
                    store = self._data.store(owned.place)
                    await self._in_thread(copy.add, owned.place, store)
            if not self._owned:
                raise StateError("this worker has no partitions now: ask again in a moment")
            done: Checkpointed = await self._in_thread(copy.finish)
        except BaseException:
            copy.abandon()
            raise
        return done

    # -- sessions ----------------------------------------------------------------------------

    async def _begin(self, owned: _Owned) -> None:
        """Open the first session of an assignment; where the broker is away, later ones follow."""
        try:
            await self._open(owned)
        except InterruptedSessionError:
            pass
        except BrokerError as error:
            self._renew_later(owned, error)

    async def _open(self, owned: _Owned) -> None:
        """Open a session, and seek the partition to where its state stands.

        Raises:
            BrokerError: it could not be opened now. Other errors: it can't be.

        """

        def go_on() -> bool:
            return not owned.ended and self._membership.settled()

        stage, number = owned.place
        session = await self._in_thread(
            Session,
            owned.place,
            self._settings,
            self._model,
            self._policy,
            await self._ids(),
            self._data,
            self._threads,
            go_on,
            self._now_ms,
            partial(self._metrics.recovering, stage, number),
        )
        try:
            recovery = await self._in_thread(session.open)
            positions = {
                (topic, number): session.partition.position(topic)
                for topic in session.partition.topics
            }
            known = {at: position for at, position in positions.items() if position is not None}
            await self._check_not_lost(session, positions.keys() - known.keys())
            await self._membership.seek(known)
        except BaseException:
            await asyncio.shield(session.end())
            raise
        self._metrics.recovered(stage, recovery.records, recovery.seconds)
        owned.opened(session)

    async def _ids(self) -> dict[str, str]:
        """Ask once per assignment what Kafka calls the topics."""
        began = time.monotonic()
        async with self._asking:
            if self._topic_ids is None:
                if self._not_told is not None and self._not_told[0] > began:
                    raise BrokerError(self._not_told[1])  # every place would wait as long again
                try:
                    self._topic_ids = (
                        {} if self._settings.embedded else await self._in_thread(self._ask_ids)
                    )
                except BrokerError as error:
                    self._not_told = time.monotonic(), str(error)
                    raise
            return self._topic_ids

    def _ask_ids(self) -> dict[str, str]:
        settings = self._settings
        return ids_of_application(settings.broker, settings.application_id, settings.names)

    async def _check_not_lost(self, session: Session, fresh: Iterable[InputPartition]) -> None:
        """Refuse to begin in the middle of a topic, without the state of its beginning.

        Raises:
            StateError: the group has read records of which the state knows nothing.
            FencedError: another worker has read them, which took the partition over meanwhile.

        """
        fresh = list(fresh)
        begun = await self._membership.begun(fresh) if fresh else {}
        if begun:
            await self._in_thread(session.check_owner)
        for (topic, number), position in begun.items():
            raise StateError(
                f"application id {self._settings.application_id} has read {topic}-{number} up to"
                f" {position}, but neither {self._data.path} nor the changelog has any state of"
                " it: was the changelog deleted? Start over with an empty data folder under another"
                " --app-id"
            )

    def _renew_later(self, owned: _Owned, error: BrokerError) -> None:
        stage, number = owned.place
        if owned.lost_at is None:
            owned.lost_at = time.monotonic()
        self._metrics.lost(stage, error.reason)
        if not owned.ended and self._membership.settled():
            _log.warning("%s-%d is taken up again: %s", stage, number, error)
            owned.spawn(self._renew(owned))

    async def _renew(self, owned: _Owned) -> None:
        """Follow a lost session with a new one, while the group counts on this worker."""
        pause = _FIRST_PAUSE_S
        while not owned.ended and self._membership.settled():
            await owned.pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)
            try:
                if not await self._membership.confirm():
                    continue
                await self._open(owned)
            except BrokerError as error:
                _log.warning("%s-%d: trying again in %g s: %s", *owned.place, pause, error)
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker has to stop
                self._membership.fail(error)
            else:
                _log.warning("%s-%d goes on", *owned.place)
                self._tell_owned()
            return

    async def _end_sessions(self) -> None:
        await asyncio.gather(*map(self._end, self._owned.values()))

    async def _end(self, owned: _Owned) -> None:
        owned.ended = True
        owned.wake()
        if owned.tasks:
            await asyncio.wait(owned.tasks)
        async with owned.lock:
            session, owned.session = owned.session, None
        if session is not None:
            await asyncio.shield(session.end())

    # -- work --------------------------------------------------------------------------------

    async def _work(self, owned: _Owned, session: Session, units: Iterable[Unit]) -> bool:
        """Do and flush units of work; False: the session was lost on the way."""
        try:
            for unit in units:
                start = time.monotonic()
                took = await session.flush(unit)
                self._metrics.flushed(
                    unit,
                    time.monotonic() - start,
                    took.commit_s,
                    took.write_s,
                    self._now_ms(),
                )
                await asyncio.sleep(0)  # there may be a thousand units: others have their turn
        except BrokerError as error:
            owned.session = None
            owned.lost_at = session.flushing_since  # since then nothing has come forward
            await asyncio.shield(session.end())
            self._renew_later(owned, error)
            return False
        except BaseException:
            # The actor of the partition's other topic waits for the lock: it must not flush what
            # was not done in full.
            owned.session = None
            await asyncio.shield(session.end())
            raise
        self._metrics.applied(session.partition)
        return True

    async def _tick(self, owned: _Owned, positions: Mapping[InputPartition, int]) -> None:
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
                now_ms = self._now_ms()
                partition.clock.observe_end(lags.get(partition.input_topic) == 0, now_ms)
                units = chain(partition.obey(self._commands(), now_ms), partition.tick(now_ms))
                await self._work(owned, session, units)
                self._metrics.standing(partition, lags, now_ms)
        except Exception as error:  # noqa: BLE001 - nobody waits for this task
            self._membership.fail(error)
        finally:
            owned.ticking = False

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
            [owned.session.partition for owned in self._owned.values() if owned.session is not None]
        )
        for path in self._data.damaged:
            _log.warning("a damaged store was put aside and made again: %s", path)
        self._data.damaged.clear()

    async def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
