"""SHELL: one assignment of one partition of one stage: fence, recover, go on, flush.

Every assignment makes a session of its own, of a partition that stays too. In order:

1. **Fence**: no earlier owner of the partition, frozen or not, can write to Kafka any more; and
   sweep: what it had not committed is aborted everywhere.
2. **Recover**: the store is brought up to the changelog's end, which nobody can move now.
3. **Go on** from the positions in the state. After each unit of work **flush**: outputs and
   changelog in one Kafka transaction, then, when it is committed, the store in one batch that also
   says how far in the changelog it is. Only then may the input be acknowledged.

A session has a :class:`Status`, which decides what may be done with it. A flush that does not come
to its end makes it *lost*: memory and store may be behind the changelog, so nothing more is done
with it; the next session recovers from the changelog.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import NamedTuple

from stream.errors import InterruptedSessionError, NotOpenError, StateError, TooLargeError
from stream.events.records import refused_message
from stream.partitions.base import Partition, Unit
from stream.partitions.job import JobPartition
from stream.partitions.member import MemberPartition
from stream.state.overlay import Overlay
from stream.state.store import Store, Writes
from stream.worker.changelog import END, UNFINISHED, Changelog, Mark, apply
from stream.worker.contract import PartitionId
from stream.worker.crashpoints import crash_point
from stream.worker.limits import TopicLimits
from stream.worker.settings import Resources
from stream.worker.transactions import Transactions

_log = logging.getLogger(__name__)

_PARTITIONS: dict[str, type[MemberPartition | JobPartition]] = {
    "member": MemberPartition,
    "job": JobPartition,
}


def session_of(application_id: str, place: PartitionId) -> str:
    """Name the transactional producer of a partition's sessions."""
    stage, number = place
    return f"{application_id}-{stage}-{number}"


class Recovery(NamedTuple):
    """What it took to open a session."""

    records: int
    seconds: float


class FlushTimes(NamedTuple):
    """What a flush took, in Kafka and in the store."""

    commit_s: float
    write_s: float


class Status(Enum):
    """What may be done with a session: NEW → OPEN ⇄ FLUSHING, LOST from each, ENDED in the end."""

    NEW = "not open yet"
    OPEN = "open"
    FLUSHING = "being flushed"
    LOST = "lost"  # something did not come to its end: what the changelog says is not known here
    ENDED = "ended"


class Session:
    """One assignment of one partition; :meth:`open` comes first, and must be called once.

    Whatever its status does not allow raises NotOpenError, and changes nothing.

    Args:
        place: stage and number of the partition.
        resources: what it shares with others.
        topic_ids: what Kafka calls the topics; empty on the embedded broker.
        limits: what they take at once.
        go_on: False once a rebalance or the end has begun; called from any thread.
        on_remaining: called, from any thread, with how much of the changelog is left to apply.

    """

    def __init__(
        self,
        place: PartitionId,
        resources: Resources,
        *,
        topic_ids: Mapping[str, str],
        limits: TopicLimits,
        go_on: Callable[[], bool],
        on_remaining: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.place = place
        self._limits = limits
        self._on_remaining = on_remaining
        self.status = Status.NEW
        self._refused = 0  # messages that became dead letters, and were not asked for yet
        self.flushing_since: float | None = None
        """When the flush began that is under way, or was and is lost, by the monotonic clock."""
        self._resources = resources
        settings = self._settings = resources.settings
        self._topic_ids = topic_ids
        self._go_on = go_on
        self._in_flight: asyncio.Future[FlushTimes] | None = None
        self._store: Store
        self._mark: Mark
        self._overlay: Overlay
        self._partition: Partition
        self._changelog = Changelog(
            *(settings.broker, settings.application_id, place),
            topic_ids=topic_ids,
            whole_units=settings.embedded,
        )
        self._transactions = Transactions(
            settings.broker,
            session_of(settings.application_id, place),
            settings.names,
            limits.at_once,
        )

    def open(self) -> Recovery:
        """Fence and recover; blocks.

        Raises:
            BrokerError: the broker does not answer. InterruptedSessionError: ``go_on`` said no.
            StateError: the state does not fit the changelog, the topics or the model.

        """
        self._require(Status.NEW)
        self.status = Status.LOST  # until all is done
        began = time.monotonic()
        self._check_go_on()
        self._transactions.fence()
        crash_point("fenced")
        self._check_go_on()
        outputs = _PARTITIONS[self.place[0]].outputs
        swept = not self._settings.embedded and self._transactions.sweep(
            self._changelog.at, outputs, self._go_on
        )
        crash_point("swept")
        self._check_go_on()
        end = self._transmit([], END)
        self._check_go_on()
        data = self._resources.data
        with self._resources.recoveries.take(self._go_on):
            self._store, self._mark, records = self._changelog.bring_up(
                data.store(self.place),
                renew=lambda: data.renew(self.place),
                go_on=self._go_on,
                now_ms=self._resources.now_ms,
                end=end,
                on_remaining=self._on_remaining,
                swept=swept,
            )
        self._on_remaining(0)
        crash_point("recovered")
        if self._store.get(UNFINISHED) is not None:
            data.renew(self.place)  # begun again, the changelog will be another one
            application_id = self._settings.application_id
            raise StateError(
                f"the state of application id {application_id} is being loaded, or was not to its"
                " end: wait for hearback bootstrap, or begin it again"
            )
        self._overlay = Overlay(self._store)
        self._partition = self._make_partition()
        writes = self._overlay.drain()
        if writes:
            self._send([], writes)
            self._overlay.settle()
        crash_point("opened")
        self.status = Status.OPEN
        return Recovery(records, time.monotonic() - began)

    @property
    def partition(self) -> Partition:
        """The stage's partition; while it is flushed it may be looked at, not worked with."""
        self._require(Status.OPEN, Status.FLUSHING)
        return self._partition

    def check_owner(self) -> None:
        """Make sure that no later owner of the partition has begun; blocks.

        Raises:
            FencedError: one has. BrokerError: the broker does not answer.

        """
        self._require(Status.OPEN)
        self._transmit([], END)

    async def flush(self, unit: Unit) -> FlushTimes:
        """Make a unit of work safe, in Kafka and in the store; return what that took.

        Raises:
            BrokerError: it is not known to be safe; the session is lost.
            StateError: the store cannot be written; the session is lost.

        """
        self._require(Status.OPEN)
        crash_point("processed")
        self.status = Status.FLUSHING
        self.flushing_since = time.monotonic()
        try:
            writes = self._overlay.drain()
            loop, threads = asyncio.get_running_loop(), self._resources.threads
            self._in_flight = loop.run_in_executor(threads, self._send, unit, writes)
            # Whoever waits for this may be cancelled; commit and write go on together.
            times = await asyncio.shield(self._in_flight)
            self._overlay.settle()
        except BaseException:
            self._leave(Status.FLUSHING, Status.LOST)
            raise
        self._leave(Status.FLUSHING, Status.OPEN)
        self.flushing_since = None
        crash_point("flushed")
        return times

    def take_refused(self) -> int:
        """How many messages topics did not take, since this was asked last: dead letters now."""
        count, self._refused = self._refused, 0
        return count

    async def end(self) -> None:
        """Wait for a flush in flight, then release everything but the store; again: nothing."""
        if self.status is Status.ENDED:
            return
        self.status = Status.ENDED
        if self._in_flight is not None:
            await asyncio.wait({self._in_flight})
            self._in_flight.exception()  # whoever waited has it
        loop, threads = asyncio.get_running_loop(), self._resources.threads
        await loop.run_in_executor(threads, self._transactions.close)

    def _send(self, unit: Unit, writes: Writes) -> FlushTimes:
        began = time.monotonic()
        offset = self._transmit(unit, writes)
        committed = time.monotonic()
        crash_point("committed")
        mark = self._mark.at(offset, self._resources.now_ms(), own=True)
        self._mark = apply(self._store, writes, mark)
        crash_point("written")
        return FlushTimes(committed - began, time.monotonic() - committed)

    def _transmit(self, unit: Unit, writes: Writes) -> int:
        at = self._changelog.at
        refused = self._limits.refused(unit)
        sent = self._with_letters(unit, refused) if refused else unit
        offset = self._transactions.send(sent, {at: writes}, self._go_on)[at]
        self._refused += len(refused)
        return offset

    def _with_letters(self, unit: Unit, refused: Mapping[int, str]) -> Unit:
        """Put dead letters in place of the messages that are refused."""
        cause = self._partition.cause
        _log.warning(
            "%d messages become dead letters, caused by %s-%d up to offset %d: %s",
            *(len(refused), cause.topic, cause.partition, cause.offset),
            next(iter(refused.values())),
        )
        return [
            message
            if (why := refused.get(number)) is None
            else refused_message(message, TooLargeError.reason, why, cause)
            for number, message in enumerate(unit)
        ]

    def _check_go_on(self) -> None:
        if not self._go_on():
            raise InterruptedSessionError("a rebalance has begun")

    def _require(self, *wanted: Status) -> None:
        if self.status not in wanted:
            stage, number = self.place
            raise NotOpenError(
                f"the session of {stage}-{number} is {self.status.value}, not {wanted[0].value}"
            )

    def _leave(self, status: Status, following: Status) -> None:
        if self.status is status:  # it may have ended meanwhile
            self.status = following

    def _make_partition(self) -> Partition:
        stage, number = self.place
        kind = _PARTITIONS[stage]
        return kind(
            number,
            partitions=self._settings.partitions,
            overlay=self._overlay,
            model=self._resources.model,
            policy=self._resources.policy,
            idle_timeout_ms=self._settings.idle_timeout_ms,
            topic_ids={
                topic: self._topic_ids[topic] for topic in kind.topics if topic in self._topic_ids
            },
        )
