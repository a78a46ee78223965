"""SHELL: the thread in which aiokafka runs, and record batches as Faust's messages.

:mod:`stream.worker.transport` says why there are batches, and what differs from Faust's driver.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias, cast

import aiokafka
import msgspec
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as faust_driver
from faust.types import TP, AppT, ConsumerMessage, Message

from stream.events.records import Record
from stream.worker.contract import RecordBatch

_log = logging.getLogger(__name__)

Untyped: TypeAlias = Any
"""An object of aiokafka, which has no types."""

FETCH_MAX_WAIT_MS = 100
"""How long the broker may hold a fetch without records: it delays the other partitions'."""

REST_OF_RECORD_S = 0.001
"""A fetch waits so long for each record that the one before brought. Every unit of work has its
price, a few milliseconds of CPU: where much comes in, fewer and larger ones leave time for more.
What comes alone makes the next
wait for a millisecond."""

REST_OF_PARTITION_S = 0.0125
"""... and no longer than that for each partition that is read, and each has a share in a unit."""

LONGEST_REST_S = 0.2
"""... nor than that, however many they are."""

FETCH_WAIT_S = 1.0
"""The longest that one call into the consumer's thread waits for records, in seconds."""

LEAVE_WAIT_S = 5.0
"""The longest that leaving the group may take, in seconds."""

COMMIT_WAIT_S = 5.0
"""The longest that a commit may take, in seconds: aiokafka itself tries for ever."""


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker adds to Faust's driver."""

    on_leaving: Callable[[], None]
    """Called when a rebalance begins, before the batches in flight are waited for."""
    on_out_of_range: Callable[[Mapping[TopicPartition, int]], Coroutine[Any, Any, None]]
    """Called with positions at which the topics have no records; raises nothing."""
    on_failure: Callable[[Exception], None]
    """Called with what the worker must stop for. Raised, it would take Faust's own services down
    first, and with them the orderly end."""


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


def rest_s(records: int, partitions: int) -> float:
    """Return how long to wait after a fetch, that the next brings enough to be worth its work.

    Args:
        records: how many it brought. partitions: how many are read.

    """
    return min(records * REST_OF_RECORD_S, partitions * REST_OF_PARTITION_S, LONGEST_REST_S)


class AnswerAges:
    """How old answers are, also where the wall clock is set: aiokafka notes its times by that."""

    def __init__(self) -> None:
        self._seen: dict[TP, tuple[int, float]] = {}  # when asked; monotonic, when first seen here

    def age_s(
        self, tp: TP, asked_ms: int | None, wall_s: float, monotonic_s: float
    ) -> float | None:
        """Return the age of an answer to what was asked then; None: there is none, or not known.

        Args:
            tp: the partition. asked_ms: wall clock. wall_s, monotonic_s: now.

        """
        if asked_ms is None:
            return None
        seen = self._seen.get(tp)
        if seen is None or seen[0] != asked_ms:
            seen = self._seen[tp] = asked_ms, monotonic_s
        age_s = wall_s - asked_ms / 1000
        return max(age_s, monotonic_s - seen[1]) if age_s >= 0 else None


class BatchConsumerThread(faust_driver.AIOKafkaConsumerThread):
    """The thread in which aiokafka runs: fetches batches, commits positions."""

    _consumer: Untyped

    fetchable: Callable[[], frozenset[TP]]
    """Tells the partitions to fetch from now; empty means none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answers = AnswerAges()
        self._rests_until_s = 0.0  # by the monotonic clock; until then nothing is asked for

    async def on_start(self) -> None:
        """Start aiokafka; what it asks for keeps to the pace from then on."""
        await super().on_start()
        fetcher: Untyped = self._ensure_consumer()._fetcher
        fetcher._proc_fetch_request = partial(self._rested, fetcher._proc_fetch_request)

    async def _rested(self, fetch: Untyped, *request: Untyped) -> bool:
        """Rest, then send a request; whether it brought something."""
        try:
            await asyncio.sleep(self._rests_until_s - time.monotonic())
        except asyncio.CancelledError:
            return False  # the assignment has ended; aiokafka's own does the same
        return cast("bool", await fetch(*request))

    def _create_worker_consumer(
        self, transport: faust_driver.Transport
    ) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust has no settings for these three; aiokafka reads them when it starts.
        consumer._isolation_level = "read_committed"
        consumer._auto_offset_reset = "none"
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
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
        owner = self.consumer
        fetcher = consumer._fetcher
        subscriptions = fetcher._subscriptions
        deadline = time.monotonic() + FETCH_WAIT_S
        with subscriptions.fetch_context():
            while owner.flow_active and self.app.consumer_generation_id == generation:
                if consumer._closed or fetcher._closed:
                    raise ConsumerStoppedError
                # Asked anew in every round: a buffer may have emptied in the meantime.
                wanted = self.fetchable()
                if wanted and not subscriptions.reassignment_in_progress:
                    batches = _take(fetcher, wanted, consumer._max_poll_records)
                    if batches:
                        self._rests_until_s = time.monotonic() + rest_s(
                            sum(len(batch.records) for batch in batches), len(wanted)
                        )
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
        """Return the partition's end as of the newest answer of the broker."""
        state = self._state(tp)
        return cast("int | None", state.highwater) if state else None

    def answer_age_s(self, tp: TP) -> float | None:
        """Return how old the newest answer of the broker is, in seconds; None: not known."""
        state = self._state(tp)
        asked_ms = cast("int | None", state.timestamp) if state else None
        return self._answers.age_s(tp, asked_ms, time.time(), time.monotonic())

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


def message_of(batch: RecordBatch, generation: int) -> ConsumerMessage:
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
