"""SHELL: the partitions that are assigned here, and the sessions that work on them.

A partition whose session is lost (fenced, or the broker was away too long) gets a new one while the
group still counts on this worker, with growing pauses; meanwhile its batches wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from stream.errors import (
    BrokerError,
    DamagedStateError,
    InterruptedSessionError,
    RefusedError,
    StateError,
)
from stream.worker.changelog import STAGES, changelog_of
from stream.worker.contract import InputPartition, Membership, PartitionId, RecordBatch
from stream.worker.limits import TopicLimits
from stream.worker.session import Session
from stream.worker.settings import Resources
from stream.worker.topics import ids_of_application

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.25  # before a lost session is followed by a new one
_LONGEST_PAUSE_S = 30.0
_HANGS_S = 5.0  # a flush that takes longer waits for its broker


class Turn:
    """A batch that waits for its turn under a session.

    Attributes:
        done: whether all that comes of it is safe.

    """

    def __init__(self, batch: RecordBatch, session: Session) -> None:
        self.batch = batch
        self.session = session
        self.done = False


class Owned:
    """One partition of one stage, and the session that works on it, if there is one."""

    def __init__(self, place: PartitionId) -> None:
        self.place = place
        self.session: Session | None = None
        self.ended = False
        self.lost_at: float | None = time.monotonic()  # since when nobody works on it
        self.lock = asyncio.Lock()
        self.turns: list[Turn] = []  # batches that wait for it, of one topic each
        self.tasks: set[asyncio.Task[None]] = set()  # renewal, tick
        self.ticking = False
        self.told_ms = -math.inf  # monotonic; when its metrics were told last
        self.looked_ms: int | None = None  # monotonic; when its input's end was looked at last
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


class Sessions:
    """Opens, renews and ends the sessions of owned partitions.

    Args:
        membership: the worker's positions and seeks.
        resources: what all of them share.
        on_renewed: called when a lost session has been followed by another.

    """

    def __init__(
        self, membership: Membership, resources: Resources, on_renewed: Callable[[], None]
    ) -> None:
        self._membership = membership
        self._resources = resources
        settings = self._settings = resources.settings
        self._metrics = resources.metrics
        self._on_renewed = on_renewed
        self._limits = TopicLimits(
            settings.broker,
            settings.names,
            [changelog_of(settings.application_id, stage) for stage in STAGES],
        )
        self._topic_ids: dict[str, str] | None = None  # asked once in each assignment
        self._not_told: tuple[float, str] | None = None  # when it was asked in vain, and why
        self._asking = asyncio.Lock()

    async def open_all(self, owned: Iterable[Owned]) -> None:
        """Open the first sessions of an assignment; where the broker is away, later ones follow.

        Raises:
            HearbackError: a session cannot be opened, and never will.

        """
        self._topic_ids = None
        outcomes = await asyncio.gather(*map(self._begin, owned), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def lose(
        self, owned: Owned, session: Session, error: BrokerError | DamagedStateError
    ) -> None:
        """End a session that a unit of work was lost with; a new one follows.

        A store that was found damaged is put aside; the new session rebuilds it.
        """
        owned.session = None
        owned.lost_at = session.flushing_since  # since then nothing has come forward
        await asyncio.shield(session.end())
        await self._set_aside(owned, error)
        self._renew_later(owned, error)

    async def end_all(self, owned: Iterable[Owned]) -> None:
        """End sessions; the batches in flight are done."""
        await asyncio.gather(*map(self._end, owned))

    async def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Run something that blocks."""
        return await asyncio.get_running_loop().run_in_executor(
            self._resources.threads, call, *arguments
        )

    async def _begin(self, owned: Owned) -> None:
        try:
            await self._open(owned)
        except InterruptedSessionError:
            pass
        except (BrokerError, DamagedStateError) as error:
            self._renew_later(owned, error)

    async def _set_aside(self, owned: Owned, error: BaseException) -> None:
        if isinstance(error, DamagedStateError):
            await self.in_thread(self._resources.data.set_aside, owned.place, error)

    async def _open(self, owned: Owned) -> None:
        """Open a session, and seek the partition to where its state stands.

        Raises:
            BrokerError, DamagedStateError: it could not be opened now; a damaged store was put
                aside. Other errors: it can't be.

        """

        def go_on() -> bool:
            return not owned.ended and self._membership.settled()

        if self._limits.doubtful:
            await self.in_thread(self._limits.ask)
        stage, number = owned.place
        make = partial(
            Session,
            owned.place,
            self._resources,
            topic_ids=await self._ids(),
            limits=self._limits,
            go_on=go_on,
            on_remaining=partial(self._metrics.recovering, stage, number),
        )
        session: Session = await self.in_thread(make)
        try:
            recovery = await self.in_thread(session.open)
            partition = session.partition
            positions = {(topic, number): partition.position(topic) for topic in partition.topics}
            known = {at: position for at, position in positions.items() if position is not None}
            await self._check_not_lost(session, positions.keys() - known.keys())
            await self._membership.seek(known)
        except BaseException as error:
            await asyncio.shield(session.end())
            await self._set_aside(owned, error)
            raise
        self._metrics.recovered(stage, *recovery)
        owned.session = session
        owned.lost_at = None
        owned.wake()

    async def _ids(self) -> dict[str, str]:
        """Ask once per assignment what Kafka calls the topics."""
        began = time.monotonic()
        async with self._asking:
            if self._topic_ids is None:
                if self._not_told is not None and self._not_told[0] > began:
                    raise BrokerError(self._not_told[1])  # every place would wait as long again
                settings = self._settings
                try:
                    self._topic_ids = (
                        {}
                        if settings.embedded
                        else await self.in_thread(
                            ids_of_application,
                            *(settings.broker, settings.application_id, settings.names),
                        )
                    )
                except BrokerError as error:
                    self._not_told = time.monotonic(), str(error)
                    raise
            return self._topic_ids

    async def _check_not_lost(self, session: Session, fresh: Iterable[InputPartition]) -> None:
        """Refuse to begin in the middle of a topic, without the state of its beginning.

        Raises:
            StateError: the group has read records of which the state knows nothing.
            FencedError: another worker has read them, which took the partition over meanwhile.

        """
        fresh = list(fresh)
        begun = await self._membership.begun(fresh) if fresh else {}
        if begun:
            await self.in_thread(session.check_owner)
        for (topic, number), position in begun.items():
            raise StateError(
                f"application id {self._settings.application_id} has read {topic}-{number} up to"
                f" {position}, but neither {self._resources.data.path} nor the changelog has any"
                " state of it: was the changelog deleted? Start over with an empty data folder"
                " under another --app-id"
            )

    def _renew_later(self, owned: Owned, error: BrokerError | DamagedStateError) -> None:
        stage, number = owned.place
        self._limits.doubtful |= isinstance(error, RefusedError)
        if owned.lost_at is None:
            owned.lost_at = time.monotonic()
        self._metrics.lost(stage, error.reason)
        if not owned.ended and self._membership.settled():
            _log.warning("%s-%d has lost its session, a new one follows: %s", stage, number, error)
            owned.spawn(self._renew(owned))

    async def _renew(self, owned: Owned) -> None:
        """Follow a lost session with a new one, while the group counts on this worker."""
        pause = _FIRST_PAUSE_S
        while not owned.ended and self._membership.settled():
            await owned.pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)
            try:
                if not await self._membership.confirm():
                    continue
                await self._open(owned)
            except (BrokerError, DamagedStateError) as error:
                self._limits.doubtful |= isinstance(error, RefusedError)
                _log.warning("%s-%d: trying again in %g s: %s", *owned.place, pause, error)
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker has to stop
                self._membership.fail(error)
            else:
                _log.warning("%s-%d goes on", *owned.place)
                self._on_renewed()
            return

    async def _end(self, owned: Owned) -> None:
        owned.ended = True
        owned.wake()
        if owned.tasks:
            await asyncio.wait(owned.tasks)
        async with owned.lock:
            session, owned.session = owned.session, None
        if session is not None:
            await asyncio.shield(session.end())
