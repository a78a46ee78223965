"""Record batches through Faust: one message for what one fetch brought of one partition.

Faust's cost is per message, so this driver, a subclass of Faust's aiokafka one, hands it whole
batches; assignment and agents stay Faust's. Everything that leans on private parts of Faust, mode
or aiokafka is here (membership and positions) and in :mod:`stream.worker.fetching` (the thread that
reads); :mod:`stream.worker.faust_internals` lists them and says when one of them has changed. What
differs from Faust's own driver:

- **Positions.** A batch says where its fetch began and where it ended, past transaction markers
  and aborted records. A fetch that moved without a record is an empty batch.
- **Acknowledging is explicit**, :meth:`BatchConsumer.acknowledge`: Faust acknowledges also what
  raised. The end of the newest acknowledged batch is what is committed.
- **A set of partitions that is empty means none.** aiokafka's own fetch takes it for all of them,
  and Faust's set empties whenever all buffers are full.
- **A position that the topic no longer has is told to the worker**, never a jump.
- **Between a rebalance's start and its end no input is fetched**, also where Faust's recovery of
  the rebalance before lets it flow: those batches would be lost, and the last of a topic with them.
- All is read ``read_committed``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, cast

from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    OffsetOutOfRangeError,
)
from faust import App
from faust.transport.drivers import aiokafka as faust_driver
from faust.types import TP
from faust.types.transports import ConsumerT, ProducerT
from mode import Service, ServiceT

from stream.errors import BrokerError
from stream.worker.contract import RecordBatch
from stream.worker.faust_internals import check_faust_internals
from stream.worker.fetching import BatchConsumerThread, Hooks, message_of

_log = logging.getLogger(__name__)

GROUP_CHECK_S = 0.5
"""How often to ask whether joining the group has met an error, in seconds."""

GAP_CHECK_S = 5.0
"""How often to look for batches that were fetched and not handled, in seconds."""

RANGE_PAUSE_S = 0.1
"""How long to wait after a fetch from where the topic has no records, in seconds."""

MAX_GROUP_ERRORS = 10
"""After so many in a row the worker stops."""


class BatchConsumer(faust_driver.Consumer):
    """The consumer as Faust sees it, and the positions of the partitions that it owns.

    A partition's *position* is where its next batch has to begin. It is set after every
    assignment, moves to the end of each acknowledged batch, and is what is committed.
    """

    _thread: BatchConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._position: dict[TP, int] = {}
        self._committed: dict[TP, int | None] = {}
        self._open: dict[TP, RecordBatch] = {}
        self._starts: dict[TP, int] = {}
        self._settling = True  # from the start of a rebalance to the end of perform_seek
        self._delivers = False  # from then on, after queues were cleared, to the next rebalance
        self._assignments = 0
        self._last_commit_failed = False
        self._group_errors = 0
        self.assigned = False
        """Whether the newest rebalance has got as far as an assignment."""
        super().__init__(*args, **kwargs)

    @property
    def _hooks(self) -> Hooks:
        return cast("BatchTransport", self.transport).hooks

    def _new_consumer_thread(self) -> BatchConsumerThread:
        thread = BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)
        thread.fetchable = self.fetchable
        return thread

    # Membership, for the worker

    async def seek_to(self, positions: Mapping[TP, int]) -> None:
        """Continue these partitions from there; a batch that is being handled is given up.

        While a rebalance is under way (between revoked and the end of assigned) the positions are
        kept for its end, in place of the group's committed offsets.
        """
        if self._settling:
            self._starts.update(positions)
            return
        for tp, position in positions.items():
            self._open.pop(tp, None)
            self._position[tp] = position
        try:
            await self.seek_wait(positions)
        except IllegalStateError:
            _log.info("not assigned any more, not sought: %s", sorted(positions))

    async def accept(self, batch: RecordBatch) -> RecordBatch | None:
        """Return the part of the batch that continues its partition, None if there is no such.

        A batch from before a seek, or of an older generation, does not begin at the position. What
        overlaps is cut off; after a gap the partition is sought back.
        """
        tp = TP(batch.topic, batch.partition)
        position = self._position.get(tp)
        if self._settling or position is None or batch.end <= position:
            return None
        if batch.begin > position:
            _log.info("%s-%d: back from %d to %d", *tp, batch.begin, position)
            await self.seek_to({tp: position})
            return None
        if batch.begin < position:
            batch = batch.since(position)
        self._open[tp] = batch
        return batch

    def acknowledge(self, batch: RecordBatch) -> None:
        """Move the position to the end of an accepted batch, unless it was sought meanwhile."""
        tp = TP(batch.topic, batch.partition)
        if self._open.get(tp) is batch:
            del self._open[tp]
            self._position[tp] = batch.end

    async def give_back(self, batch: RecordBatch) -> None:
        """Let an accepted batch come again, unless its partition was sought meanwhile."""
        tp = TP(batch.topic, batch.partition)
        if self.assigned and not self._settling and self._open.get(tp) is batch:
            await self.seek_to({tp: self._position[tp]})

    async def begun(self, partitions: Iterable[TP]) -> dict[TP, int]:
        """Return the committed offsets of those partitions whose first records were read.

        Raises:
            BrokerError: the broker does not tell.

        """
        try:
            committed = await self._thread.committed(partitions)
            some = {tp: offset for tp, offset in committed.items() if offset}
            first = await self.earliest_offsets(*some) if some else {}
        except KafkaError as error:
            raise BrokerError(f"the broker does not tell the group's offsets: {error!r}") from None
        return {tp: offset for tp, offset in some.items() if offset > first[tp]}

    async def span(self, tp: TP) -> tuple[int, int]:
        """Return where a partition starts and ends.

        Raises:
            BrokerError: the broker does not tell.

        """
        try:
            first, end = await self.earliest_offsets(tp), await self.highwaters(tp)
        except KafkaError as error:
            raise BrokerError(
                f"the broker does not tell what {tp.topic}-{tp.partition} keeps: {error!r}"
            ) from None
        return int(first[tp]), int(end[tp])

    def positions(self) -> dict[TP, int]:
        """Return where each owned partition stands."""
        return dict(self._position)

    def answer_age_s(self, tp: TP) -> float | None:
        """Return how old the newest answer of the broker for a partition is, in seconds."""
        return self._thread.answer_age_s(tp)

    def high_watermark(self, tp: TP) -> int | None:
        """Return the partition's end as of the newest fetch, None if not owned or not yet."""
        return self._thread.high_watermark(tp)

    async def confirm(self) -> bool:
        """Commit all positions again: True proves that the group still counts on this worker."""
        return await self._commit_positions(self.positions())

    # What Faust calls

    def fetchable(self) -> frozenset[TP]:
        """Return the partitions to fetch from now; empty means none. Called from the thread."""
        return frozenset(self._active_partitions or ()) if self._delivers else frozenset()

    def on_buffer_drop(self, tp: TP) -> None:
        """Fetch from a partition again, at once, when its buffer has room."""
        super().on_buffer_drop(tp)
        self._thread.wake()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Fetch from these partitions again, at once."""
        super().resume_partitions(tps)
        self._thread.wake()

    def stop_flow(self) -> None:
        """End a waiting fetch when a rebalance or the end of the worker begins."""
        super().stop_flow()
        self._thread.wake()

    def resume_flow(self) -> None:
        """Fetch the inputs again, if this ends the newest rebalance.

        Recovery of a rebalance that the next one has overtaken comes here as well. What was
        fetched then would be dropped or cleared away when the next one ends, after its seek, and
        its partition would stand still until another record came.
        """
        super().resume_flow()
        self._delivers = self.assigned and not self._settling
        self._thread.wake()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let Faust finish the batches in flight and commit, then forget all positions."""
        self.assigned = self._delivers = False
        self._hooks.on_leaving()
        await super().on_partitions_revoked(revoked)
        self._settling = True
        for of_partition in (self._position, self._committed, self._open, self._starts):
            of_partition.clear()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Note that a rebalance has come to its assignment; Faust's recovery does the rest."""
        self.assigned = True
        self._assignments += 1
        self._group_errors = 0
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Seek all inputs to where the state says, else to the committed offset, else the start.

        (What was committed before the start was not read: it says where a fresh topic began.)

        The end of a rebalance.
        """
        if not self.assigned:
            return  # the next rebalance has begun already
        wait_s = self.app.conf.broker_request_timeout - 1.0
        try:
            # Were Faust's own limit for this reached it would end recovery, without a word and for
            # ever, while the group goes on to count on this worker.
            await asyncio.wait_for(self._seek_inputs(), wait_s)
        except TimeoutError:
            self._hooks.on_failure(
                BrokerError(f"the broker did not tell the committed offsets within {wait_s:g} s")
            )

    async def _seek_inputs(self) -> None:
        assignment = self._assignments
        inputs = set(self.assignment())
        committed = await self._thread.committed(inputs)
        begin = {tp: start for tp, start in self._starts.items() if tp in inputs}
        new = inputs - begin.keys()
        if new:
            first = await self.earliest_offsets(*new)
            begin |= {tp: max(committed[tp] or 0, first[tp]) for tp in new}
        with suppress(IllegalStateError):  # not assigned any more
            await self.seek_wait(begin)
        if not self.assigned or assignment != self._assignments:
            return  # overtaken by the next rebalance, which seeks for itself
        self._position = dict(begin)
        self._committed = committed
        self._open.clear()
        self._starts.clear()
        self._settling = False

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Hand fetched batches to Faust's streams, until consumer or fetcher stops."""
        try:
            while not (self.should_stop or cast("Service", fetcher).should_stop):
                if not self.flow_active:
                    await self.can_resume_flow.wait()
                generation = self.app.consumer_generation_id
                try:
                    batches = await self._thread.fetch(generation)
                except OffsetOutOfRangeError as error:
                    # It comes again until the partition is sought, or the worker stops for it.
                    sought = self._hooks.on_out_of_range(error.args[0])
                    await self.wait_first(sought, self.suspend_flow.wait())
                    await self.sleep(RANGE_PAUSE_S)
                    continue
                # A full buffer must not hold up a rebalance.
                await self.wait_first(self._deliver(batches, generation), self.suspend_flow.wait())
        except (ConsumerStoppedError, asyncio.CancelledError):
            if not self.app.should_stop:
                raise
        except KafkaError as error:
            self._hooks.on_failure(BrokerError(f"what comes in cannot be read: {error!r}"))

    async def _deliver(self, batches: Iterable[RecordBatch], generation: int) -> None:
        """Put batches into the streams' buffers: all at once, if none is full."""
        for batch in batches:
            if not self.flow_active or generation != self.app.consumer_generation_id:
                break  # a rebalance seeks all partitions
            await self.callback(message_of(batch, generation))

    @Service.task
    async def _watch_group(self) -> None:
        """Let aiokafka join again after an answer that it did not expect.

        It waits for somebody to ask for the error; Faust never asks, and the worker would stay
        without partitions for ever, in silence. (Seen when two workers join at the same time.)
        """
        while not self.should_stop:
            await self.sleep(GROUP_CHECK_S)
            try:
                error = await self._thread.group_error()
            except KafkaError as last:
                self._group_errors, error = MAX_GROUP_ERRORS - 1, last  # it tries no more
            if error is None:
                continue
            self._group_errors += 1
            if self._group_errors < MAX_GROUP_ERRORS:
                _log.warning("joining the group %s again after %r", self.app.conf.id, error)
                continue
            self._hooks.on_failure(
                BrokerError(
                    f"the broker does not let this worker into the consumer group "
                    f"{self.app.conf.id}: {error!r}"
                )
            )
            return

    @Service.task
    async def _watch_gaps(self) -> None:
        """Seek back where batches were fetched that nobody handles.

        No way to lose one is known; but if there were, its partition would stand still until
        another record came, in silence.
        """
        before: dict[TP, tuple[int, int]] = {}
        while not self.should_stop:
            began = time.monotonic()
            await self.sleep(GAP_CHECK_S)
            gaps = self._gaps()
            if time.monotonic() - began < GAP_CHECK_S:
                break  # the end has cut the sleep short
            lost = {tp: gap[0] for tp, gap in gaps.items() if before.get(tp) == gap}
            before = gaps
            if lost:
                _log.warning("what was fetched did not come, fetching again: %s", lost)
                await self.seek_to(lost)

    def _gaps(self) -> dict[TP, tuple[int, int]]:
        """Return position and fetched end of partitions that handle none of what was fetched."""
        if not self._delivers:
            return {}
        found = {}
        for tp, position in self._position.items():
            fetched = self._thread.fetched_to(tp)
            if fetched is not None and fetched > position and tp not in self._open:
                found[tp] = (position, fetched)
        return found

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit the positions that moved; Faust's own lists of acknowledged offsets are unused."""
        del topics, start_new_transaction  # all positions; Faust's transactions are not used
        self._acked.clear()
        self._acked_index.clear()
        return await self._commit_positions(
            {tp: at for tp, at in self._position.items() if self._committed.get(tp) != at}
        )

    async def _commit_positions(self, positions: dict[TP, int]) -> bool:
        # After a crash the thread may be gone, and would not answer. At the end one attempt has to
        # do: Faust asks three times.
        if not positions or self.crashed or self._last_commit_failed:
            return False
        if not await self._commit(positions):
            self._last_commit_failed = self.app.should_stop
            return False
        for tp in positions.keys() & self._position.keys():
            self._committed[tp] = positions[tp]
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust's check for stalls counts messages; the worker's metrics tell it."""


class BatchTransport(faust_driver.Transport):
    """The driver to set as ``app.transport``."""

    Consumer: ClassVar[type[ConsumerT]] = BatchConsumer
    Producer: ClassVar[type[ProducerT]] = faust_driver.Producer

    hooks: Hooks


def install_transport(app: App, hooks: Hooks) -> None:
    """Check Faust's internals and make the app use record batches; before it starts."""
    check_faust_internals()
    transport = BatchTransport(app.conf.broker_consumer, app)
    transport.hooks = hooks
    app.transport = transport
