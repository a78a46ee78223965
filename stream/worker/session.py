"""SHELL: the partitions that this worker owns, between Faust and the stages.

For each batch, under one lock per stage and partition: stage → send the outputs and wait until the
broker has them → write the state, positions included, in one RocksDB batch → acknowledge. Positions
are part of the state and partitions are sought there after every assignment, so that what a crash
repeats is skipped where its effects were written; a crash between sending and writing sends the
outputs of that batch again (the ladder of kinds keeps readers of labels right).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivery

from stream.errors import BrokerError, ConfigError, StateError
from stream.global_model import GlobalModel
from stream.metrics import WorkerMetrics
from stream.partitions import JobPartition, MemberPartition, Partition, Unit
from stream.policy import Policy
from stream.records import CONSUMED, Message
from stream.state.overlay import Overlay
from stream.state.store import RocksStore
from stream.worker.app import Partition as TopicPartition
from stream.worker.transport import RecordBatch

_DELIVERY_TIMEOUT_MS = 60_000
_POLL_S = 0.1
_QUEUE_PAUSE_S = 0.01  # when the producer's queue is full
_CACHE_BYTES = 16 << 20  # RocksDB block cache of one partition of one stage


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a session needs besides model and policy."""

    broker: str
    data_dir: Path
    partitions: int
    idle_timeout_ms: int = 60_000


class _Owned:
    """One partition of one stage: its store, and a lock around load → stage → flush."""

    def __init__(self, partition: Partition, overlay: Overlay, store: RocksStore) -> None:
        self.partition = partition
        self.overlay = overlay
        self.store = store
        self.lock = asyncio.Lock()
        self.failed = False  # a unit of work did not get to its flush: nothing more of this one


class Sender(Protocol):
    """Makes messages safe."""

    async def send(self, messages: Sequence[Message]) -> None:
        """Return when all are safe; raise when one is not."""

    def close(self) -> None:
        """Release what is held."""


class Positions(Protocol):
    """What a session asks of the worker (:class:`stream.worker.app.Control`)."""

    async def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Continue partitions from these offsets."""

    def positions(self) -> dict[TopicPartition, int]:
        """Where each owned partition stands."""

    def high_watermark(self, partition: TopicPartition) -> int | None:
        """Return a partition's end."""


class Outbox:
    """Sends the messages of a unit of work and waits until the broker has all of them.

    One producer for all partitions; a thread serves its delivery reports, so that each unit waits
    for its own messages alone.
    """

    def __init__(self, broker: str) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": broker,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 0,
                "compression.type": "lz4",
                "delivery.timeout.ms": _DELIVERY_TIMEOUT_MS,
                "log_level": 0,
            }
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="deliveries", daemon=True)
        self._thread.start()

    async def send(self, messages: Sequence[Message]) -> None:
        """Return when every message is acknowledged.

        Raises:
            BrokerError: one was not delivered within a minute, whatever librdkafka tried.

        """
        awaited = _Awaited(len(messages), asyncio.get_running_loop())
        for message in messages:
            while not self._enqueue(message, awaited):
                await asyncio.sleep(_QUEUE_PAUSE_S)
        await awaited.done

    def close(self) -> None:
        """End the thread; what was sent and not waited for is given up."""
        self._ended.set()
        self._thread.join()

    def _enqueue(self, message: Message, awaited: _Awaited) -> bool:
        """Hand a message to librdkafka; False when its queue is full."""
        try:
            self._producer.produce(
                message.topic,
                value=message.value,
                key=message.key,
                partition=-1 if message.partition is None else message.partition,
                timestamp=message.timestamp_ms,
                headers=list(message.headers),
                on_delivery=awaited.delivered,
            )
        except BufferError:
            return False
        except KafkaException as error:
            raise BrokerError(f"outputs could not be sent: {error}") from None
        return True

    def _serve(self) -> None:
        while not self._ended.is_set():
            self._producer.poll(_POLL_S)


class _Awaited:
    """The messages of one unit that the broker has not acknowledged yet."""

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self._left = count
        self._loop = loop

    def delivered(self, error: KafkaError | None, _: Delivery) -> None:
        """Count a message; called by the one thread that serves deliveries."""
        self._left -= 1
        if error is not None:
            self._end(BrokerError(f"outputs could not be delivered: {error.str()}"))
        elif self._left == 0:
            self._end(None)

    def _end(self, error: BrokerError | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._set, error)

    def _set(self, error: BrokerError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


def _check_alive(owned: _Owned) -> None:
    if owned.failed:
        partition = owned.partition
        raise StateError(
            f"partition {partition.number} of the {partition.stage} stage was given up after an"
            " error: the worker goes on where its state stands when it is started again"
        )


class Session:
    """Runs the stages of the partitions that Faust assigns (:class:`stream.worker.app.Handler`).

    Args:
        control: the worker's positions and seeks.
        settings: broker, folder, partitions.
        model: the frozen global model. policy: labels and effects.
        metrics: what Prometheus is told.
        outbox: sends messages; None: to the broker. now_ms: the wall clock.

    """

    def __init__(
        self,
        control: Positions,
        settings: SessionSettings,
        model: GlobalModel,
        policy: Policy,
        metrics: WorkerMetrics,
        outbox: Sender | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._control = control
        self._settings = settings
        self._model = model
        self._policy = policy
        self._metrics = metrics
        self._now_ms = now_ms
        self._outbox: Sender = outbox or Outbox(settings.broker)
        self._owned: dict[tuple[str, int], _Owned] = {}

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Open the state of what is owned now and continue where it says."""
        numbers = sorted({number for _, number in partitions})
        for number in numbers:
            missing = [topic for topic in CONSUMED if (topic, number) not in partitions]
            if missing:
                raise ConfigError(
                    f"partition {number} came without {', '.join(missing)}: all input topics must"
                    " have the same number of partitions"
                )
        wanted = {(stage, number) for number in numbers for stage in ("member", "job")}
        self._close(self._owned.keys() - wanted)
        for stage, number in sorted(wanted - self._owned.keys()):
            self._owned[stage, number] = await asyncio.to_thread(self._open, stage, number)
        positions = {
            (topic, owned.partition.number): position
            for owned in self._owned.values()
            for topic in owned.partition.topics
            if (position := owned.partition.position(topic)) is not None
        }
        await self._control.seek(positions)
        self._metrics.owned([owned.partition for owned in self._owned.values()])

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Release the state: the batches in flight are done."""
        del partitions
        self._close(list(self._owned))
        self._metrics.owned([])

    async def process(self, batch: RecordBatch) -> None:
        """Run one batch through its stage."""
        stage = "member" if batch.topic in MemberPartition.topics else "job"
        owned = self._owned.get((stage, batch.partition))
        if owned is None:
            # To return would be to acknowledge it.
            raise StateError(f"{batch.topic}-{batch.partition} is not owned by this worker")
        async with owned.lock:
            _check_alive(owned)
            units = owned.partition.process(batch.topic, batch.records, batch.end, self._now_ms())
            await self._work(owned, units)

    async def tick(self) -> None:
        """Idleness, bare watermarks, windows that close by the wall clock; lags."""
        positions = self._control.positions()
        for owned in list(self._owned.values()):
            partition = owned.partition
            lags = {}
            for topic in partition.topics:
                at = positions.get((topic, partition.number))
                end = self._control.high_watermark((topic, partition.number))
                if at is not None and end is not None:
                    lags[topic] = max(end - at, 0)
            now_ms = self._now_ms()
            async with owned.lock:
                _check_alive(owned)
                partition.observe_end(lags.get(partition.input_topic) == 0, now_ms)
                await self._work(owned, partition.tick(now_ms))
            self._metrics.standing(partition, lags, now_ms)

    async def stop(self) -> None:
        """Release everything."""
        self._close(list(self._owned))
        await asyncio.to_thread(self._outbox.close)

    async def _work(self, owned: _Owned, units: Iterable[Unit]) -> None:
        try:
            for unit in units:
                start = time.monotonic()
                if unit:
                    await self._outbox.send(unit)
                owned.overlay.flush()
                self._metrics.flushed(unit, time.monotonic() - start, self._now_ms())
                await asyncio.sleep(0)  # there may be a thousand units: others have their turn
        except BaseException:
            # The actor of the partition's other topic waits for the lock: it must not flush what
            # was never sent.
            owned.failed = True
            owned.overlay.discard()
            raise
        self._metrics.applied(owned.partition)

    def _open(self, stage: str, number: int) -> _Owned:
        settings = self._settings
        store = RocksStore(settings.data_dir / f"{stage}-{number}", cache_bytes=_CACHE_BYTES)
        overlay = Overlay(store)
        partition: Partition
        try:
            if stage == "member":
                partition = MemberPartition(
                    number,
                    settings.partitions,
                    overlay,
                    self._model.space,
                    self._policy,
                    self._model.version,
                    settings.idle_timeout_ms,
                )
            else:
                partition = JobPartition(
                    number,
                    settings.partitions,
                    overlay,
                    self._policy,
                    self._model,
                    settings.idle_timeout_ms,
                )
        except BaseException:
            store.close()
            raise
        return _Owned(partition, overlay, store)

    def _close(self, which: Iterable[tuple[str, int]]) -> None:
        for key in list(which):
            self._owned.pop(key).store.close()
