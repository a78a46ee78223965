"""Record batches through Faust: one message for what one fetch brought of one partition.

Faust's cost is per message, so this driver, a subclass of Faust's aiokafka one, hands it whole
batches; assignment, agents and table recovery stay Faust's. Everything that leans on private
parts of Faust, mode or aiokafka is in this file; :mod:`stream.worker.faust_internals` lists them
and says when one of them has changed. What differs from Faust's own driver:

- **Membership.** A batch says where its fetch began and where it ended, past transaction markers
  and aborted records. A fetch that moved without a record is an empty batch. The Kafka message
  that carries a batch has the offset ``end - 1``, so that recovery, which waits for a changelog's
  last offset, also sees one that is a marker.
- **Acknowledging is explicit**, :meth:`BatchConsumer.acknowledge`: Faust acknowledges also what
  raised. The end of the newest acknowledged batch is what is committed.
- **A set of partitions that is empty means none.** aiokafka's own fetch takes it for all of them,
  and Faust's set empties whenever all buffers are full.
- **A position that the topic no longer has is an error**, never a jump.
- **Between a rebalance's start and its end no input is fetched**, also where Faust's recovery of
  the rebalance before lets it flow: those batches would be lost, and the last of a topic with them.
- All is read ``read_committed``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, TypeAlias, cast

import aiokafka
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust import App
from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as faust_driver
from faust.types import TP, AppT, ConsumerMessage, Message
from faust.types.transports import ConsumerT, ProducerT
from mode import Service, ServiceT

from stream.errors import BrokerError, StateError
from stream.events.records import Record
from stream.worker.batch import RecordBatch
from stream.worker.faust_internals import check_faust_internals

_log = logging.getLogger(__name__)

Untyped: TypeAlias = Any
"""An object of aiokafka, which has no types."""

FETCH_WAIT_S = 1.0
"""The longest that one call into the consumer's thread waits for records, in seconds."""

GROUP_CHECK_S = 0.5
"""How often to ask whether joining the group has met an error, in seconds."""

LEAVE_WAIT_S = 5.0
"""The longest that leaving the group may take, in seconds."""

GAP_CHECK_S = 5.0
"""How often to look for batches that were fetched and not handled, in seconds."""

MAX_GROUP_ERRORS = 10
"""After so many in a row the worker stops."""

COMMIT_WAIT_S = 5.0
"""The longest that a commit may take, in seconds: aiokafka itself tries for ever."""


class BatchSchema(Schema[Any, Any]):
    """The schema of topics whose messages are batches already: nothing is decoded."""

    def compile(
        self,
        app: AppT,
        *,
        on_key_decode_error: object = None,
        on_value_decode_error: object = None,
        default_propagate: bool = False,
    ) -> Callable[..., Any]:
        """Return the function by which Faust turns a message of the topic into an event."""
        del on_key_decode_error, on_value_decode_error, default_propagate  # nothing can go wrong
        create_event = app.create_event

        async def decode(message: Message, **_: bool) -> Any:
            return create_event(message.key, message.value, message.headers, message)

        return decode


class BatchConsumerThread(faust_driver.AIOKafkaConsumerThread):
    """The thread in which aiokafka runs: fetches batches, commits positions."""

    _consumer: Untyped

    def _create_worker_consumer(
        self, transport: faust_driver.Transport
    ) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust has no settings for these three; aiokafka reads them when it starts.
        consumer._isolation_level = "read_committed"
        consumer._auto_offset_reset = "none"
        consumer._fetch_max_wait_ms = cast("BatchTransport", transport).fetch_max_wait_ms
        return consumer

    async def fetch(self, generation: int) -> list[RecordBatch]:
        """Return one batch for each partition that has something, or nothing after a while.

        Nothing also when the group has come to another generation: a fetch may outlive the
        rebalance that it began before, and what it took after the seek would come to nobody.
        """
        batches: list[RecordBatch] = await self.call_thread(
            self._fetch, self._ensure_consumer(), generation
        )
        return batches

    async def _fetch(self, consumer: Untyped, generation: int) -> list[RecordBatch]:
        owner = cast("BatchConsumer", self.consumer)
        fetcher = consumer._fetcher
        subscriptions = fetcher._subscriptions
        deadline = time.monotonic() + FETCH_WAIT_S
        with subscriptions.fetch_context():
            while owner.flow_active and self.app.consumer_generation_id == generation:
                if consumer._closed or fetcher._closed:
                    raise ConsumerStoppedError
                # Asked anew in every round: a buffer may have emptied in the meantime.
                wanted = owner.fetchable()
                if wanted and not subscriptions.reassignment_in_progress:
                    batches = _take(fetcher, wanted, consumer._max_poll_records)
                    if batches:
                        return batches
                waiter = fetcher._create_fetch_waiter()
                done, _ = await asyncio.wait(
                    {waiter}, timeout=max(0.0, deadline - time.monotonic())
                )
                if not done:
                    waiter.cancel()
                    break
                if waiter.exception() is not None:
                    break  # trouble with the group: see group_error
        return []

    def wake(self) -> None:
        """Let a waiting fetch look again at what it may take; callable from any thread."""
        self.thread_loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._consumer is not None and self._consumer._fetcher is not None:
            fetcher = self._consumer._fetcher
            for waiter in fetcher._fetch_waiters:
                fetcher._notify(waiter)

    async def group_error(self) -> KafkaError | None:
        """Return what keeps aiokafka from joining the group, and let it try again.

        Raises:
            KafkaError: it has given up.

        """
        error: KafkaError | None = await self.call_thread(self._group_error)
        return error

    async def _group_error(self) -> KafkaError | None:
        coordinator: Untyped = self._ensure_consumer()._coordinator
        if coordinator._coordination_task.done():
            coordinator.check_errors()
        try:
            coordinator.check_errors()
        except KafkaError as error:
            return error
        return None

    async def committed(self, partitions: Iterable[TP]) -> dict[TP, int | None]:
        """Return the group's committed offset of each partition, None where there is none."""
        committed: dict[TP, int | None] = await self.call_thread(
            self._committed, self._ensure_consumer(), tuple(partitions)
        )
        return committed

    async def _committed(
        self, consumer: Untyped, partitions: tuple[TP, ...]
    ) -> dict[TP, int | None]:
        offsets = await asyncio.gather(
            *(consumer.committed(_for_aiokafka(tp)) for tp in partitions)
        )
        return dict(zip(partitions, offsets, strict=True))

    def high_watermark(self, tp: TP) -> int | None:
        """Return the partition's end as the newest answer of the broker told it."""
        state = self._state(tp)
        return cast("int | None", state.highwater) if state else None

    def fetched_to(self, tp: TP) -> int | None:
        """Return where aiokafka's next batch of the partition begins, None if it does not know."""
        state = self._state(tp)
        return cast("int | None", state._position) if state else None

    def _state(self, tp: TP) -> Untyped:
        assigned = self._ensure_consumer()._subscription.subscription
        return assigned and assigned.assignment and assigned.assignment.state_value(tp)

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Subscribe, unless it is so already.

        Faust subscribes anew 45 s after it lost a partition, to the same topics, which would make
        the whole group rebalance again.
        """
        wanted = set(topics)
        consumer: Untyped = self._ensure_consumer()
        if consumer.subscription() != wanted:
            await super().subscribe(wanted)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit; a failure is no reason to stop, since positions are kept with the state too."""
        commit = {_for_aiokafka(tp): OffsetAndMetadata(end, "") for tp, end in offsets.items()}
        consumer: Untyped = self._ensure_consumer()
        try:
            await asyncio.wait_for(consumer.commit(commit), COMMIT_WAIT_S)
        except (CommitFailedError, IllegalStateError):
            return False  # the group has rebalanced: the partitions may be another worker's
        except (KafkaError, TimeoutError) as error:
            _log.warning("offsets could not be committed, trying again later: %r", error)
            return False
        return True

    async def on_thread_stop(self) -> None:
        """Leave the group; not for long, and not in pieces, if the broker is away."""
        try:
            await asyncio.wait_for(super().on_thread_stop(), LEAVE_WAIT_S)
        except (KafkaError, TimeoutError, asyncio.CancelledError) as error:
            # aiokafka cancels a fetch that is in trouble, and then lets the cancellation escape.
            _log.warning("the group could not be left, its broker is away: %r", error)

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Say nothing: the worker prints the one line, mode would print a traceback too."""


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

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

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

    def positions(self) -> dict[TP, int]:
        """Return where each owned partition stands."""
        return dict(self._position)

    def high_watermark(self, tp: TP) -> int | None:
        """Return the partition's end as last told by the broker, None if not owned or not yet."""
        return self._thread.high_watermark(tp)

    async def confirm(self) -> bool:
        """Commit all positions again: True proves that the group still counts on this worker."""
        return await self._commit_positions(self.positions())

    # What Faust calls

    def fetchable(self) -> frozenset[TP]:
        """Return the partitions to fetch from now; empty means none. Called from the thread."""
        active = frozenset(self._active_partitions or ())
        if self._delivers:
            return active
        return frozenset(tp for tp in active if self._is_changelog_tp(tp))

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
        cast("BatchTransport", self.transport).on_leaving()
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

        The end of a rebalance. Changelogs are left alone: Faust's recovery has placed them.
        """
        if not self.assigned:
            return  # the next rebalance has begun already
        wait_s = self.app.conf.broker_request_timeout - 1.0
        try:
            # Were Faust's own limit for this reached it would end recovery, without a word and for
            # ever, while the group goes on to count on this worker.
            await asyncio.wait_for(self._seek_inputs(), wait_s)
        except TimeoutError:
            cast("BatchTransport", self.transport).on_failure(
                BrokerError(f"the broker did not tell the committed offsets within {wait_s:g} s")
            )

    async def _seek_inputs(self) -> None:
        assignment = self._assignments
        inputs = {tp for tp in self.assignment() if not self._is_changelog_tp(tp)}
        committed = await self._thread.committed(inputs)
        begin = {tp: offset for tp, offset in committed.items() if offset is not None}
        begin |= {tp: start for tp, start in self._starts.items() if tp in inputs}
        new = inputs - begin.keys()
        if new:
            begin |= await self.earliest_offsets(*new)
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
                for batch in await self._thread.fetch(generation):
                    if not self.flow_active or generation != self.app.consumer_generation_id:
                        break  # a rebalance seeks all partitions
                    message = _message(batch, generation)
                    # A full buffer must not hold up a rebalance.
                    await self.wait_first(self.callback(message), self.suspend_flow.wait())
        except (ConsumerStoppedError, asyncio.CancelledError):
            if not self.app.should_stop:
                raise
        except OffsetOutOfRangeError as error:
            cast("BatchTransport", self.transport).on_failure(await self._lost(error))

    @Service.task
    async def _watch_group(self) -> None:
        """Let aiokafka join again after an answer that it did not expect.

        It waits for somebody to ask for the error; Faust never asks, and the worker would stay
        without partitions for ever, in silence. (Seen when two workers join at the same time.)
        """
        while not self.should_stop:
            await self.sleep(GROUP_CHECK_S)
            error = await self._thread.group_error()
            if error is None:
                continue
            self._group_errors += 1
            _log.warning("joining the group %s again after %r", self.app.conf.id, error)
            if self._group_errors == MAX_GROUP_ERRORS:
                cast("BatchTransport", self.transport).on_failure(
                    BrokerError(
                        f"the broker does not let this worker into the consumer group "
                        f"{self.app.conf.id}: {error!r}"
                    )
                )

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

    async def _lost(self, error: OffsetOutOfRangeError) -> StateError:
        tp, position = next(iter(error.args[0].items()))
        first = (await self.earliest_offsets(tp))[tp]
        end = (await self.highwaters(tp))[tp]
        return StateError(
            f"{tp.topic}-{tp.partition}: position {position} is not in the topic, which keeps "
            f"{first} to {end}: records are missing, or the topic was made anew; "
            "start over with an empty data folder and another application id"
        )

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
        self.app.tables.on_commit(positions)
        for tp in positions.keys() & self._position.keys():
            self._committed[tp] = positions[tp]
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust's check for stalls counts messages; the worker's metrics tell it."""


class BatchTransport(faust_driver.Transport):
    """The driver to set as ``app.transport``."""

    Consumer: ClassVar[type[ConsumerT]] = BatchConsumer
    Producer: ClassVar[type[ProducerT]] = faust_driver.Producer

    fetch_max_wait_ms: int = 100
    """How long the broker may hold a fetch without records; it delays the other partitions'."""

    on_leaving: Callable[[], None]
    """Told that a rebalance begins, before the batches in flight are waited for."""

    on_failure: Callable[[Exception], None]
    """Told what the worker must stop for. Raised, it would take Faust's own services down first,
    and with them the orderly end."""


def install_transport(
    app: App,
    *,
    fetch_max_wait_ms: int,
    on_failure: Callable[[Exception], None],
    on_leaving: Callable[[], None],
) -> None:
    """Check Faust's internals and make the app use record batches; before it starts."""
    check_faust_internals()
    transport = BatchTransport(app.conf.broker_consumer, app)
    transport.fetch_max_wait_ms = fetch_max_wait_ms
    transport.on_failure = on_failure
    transport.on_leaving = on_leaving
    app.transport = transport


def _take(fetcher: Untyped, wanted: frozenset[TP], max_records: int) -> list[RecordBatch]:
    """Take at most one batch of each wanted partition from what aiokafka has fetched.

    Fetcher.fetched_records, but with positions, with empty batches, and with an empty set of
    partitions meaning none.
    """
    batches: list[RecordBatch] = []
    for tp in list(fetcher._records):
        if tp not in wanted:
            if not fetcher._subscriptions.is_assigned(tp):
                del fetcher._records[tp]
            continue
        fetched: Untyped = fetcher._records[tp]
        if not isinstance(fetcher._records[tp], FetchResult):
            if batches:
                break  # raised by the next call
            del fetcher._records[tp]
            fetcher._notify(fetcher._wait_consume_future)
            # A group that has committed nothing yet: perform_seek is about to say where to begin.
            with suppress(NoOffsetForPartitionError):
                fetched.check_raise()
            continue
        if fetched.has_more() and fetched.check_assignment(tp):
            state = fetched._assignment.state_value(tp)
            begin = state.position
            # Straight to our record: aiokafka's own has eleven fields.
            fetched._partition_records._consumer_record = _record
            records = tuple(fetched.getall(max_records))
            if state.position > begin:
                batches.append(
                    RecordBatch(
                        tp.topic, tp.partition, begin, state.position, state.highwater, records
                    )
                )
        if not fetched.has_more():
            del fetcher._records[tp]
            fetcher._notify(fetcher._wait_consume_future)
    return batches


def _record(_: TopicPartition, record: Any) -> Record:
    return Record(record.offset, record.key, record.value, record.timestamp or 0)


def _message(batch: RecordBatch, generation: int) -> ConsumerMessage:
    """Wrap a batch into the message that Faust delivers."""
    return ConsumerMessage(
        batch.topic,
        batch.partition,
        batch.end - 1,
        timestamp=0.0,
        timestamp_type=0,
        headers=None,
        key=None,
        value=cast("bytes", batch),  # BatchSchema passes it on as it is
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        tp=TP(batch.topic, batch.partition),
        generation_id=generation,
    )


def _for_aiokafka(tp: TP) -> TopicPartition:
    return TopicPartition(tp.topic, tp.partition)
