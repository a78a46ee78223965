"""SHELL: one run of a worker as a member of the consumer group, from Faust's start to its end.

An agent for each input topic brings batches to the handler; Faust's rebalances become its
``assigned`` and ``revoked`` (:mod:`stream.worker.contract` says what a handler may count on).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import msgspec
from faust.types import TP, StreamT

from stream.worker.app import WorkerSettings, check_broker, make_app
from stream.worker.batch import InputPartition, RecordBatch
from stream.worker.consumer import BatchConsumer
from stream.worker.contract import HandlerFactory
from stream.worker.crashpoints import crash_point
from stream.worker.transport import BatchSchema

_log = logging.getLogger(__name__)


class GroupMembership:
    """What a handler may ask of its worker (:class:`stream.worker.contract.Membership`)."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def seek(self, positions: Mapping[InputPartition, int]) -> None:
        """Continue these partitions from these offsets."""
        await self._worker.consumer.seek_to(
            {self._worker.kafkas(key): at for key, at in positions.items()}
        )

    def positions(self) -> dict[InputPartition, int]:
        """Return where each owned partition stands."""
        return {self._worker.plain(tp): at for tp, at in self._worker.consumer.positions().items()}

    def high_watermark(self, partition: InputPartition) -> int | None:
        """Return the partition's end, or None before the first fetch."""
        return self._worker.consumer.high_watermark(self._worker.kafkas(partition))

    def standbys(self) -> frozenset[InputPartition]:
        """Return the input partitions of which this worker is the standby."""
        return frozenset(map(self._worker.plain, self._worker.app.assignor.assigned_standbys()))

    async def begun(self, partitions: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Return the committed offsets of those of which the group has read something."""
        found = await self._worker.consumer.begun(map(self._worker.kafkas, partitions))
        return {self._worker.plain(tp): offset for tp, offset in found.items()}

    def settled(self) -> bool:
        """Whether the newest assignment stands, and the end has not begun."""
        return self._worker.settled

    async def confirm(self) -> bool:
        """Commit all positions now; True proves that this worker is still in the group."""
        return await self._worker.consumer.confirm()

    def fail(self, error: Exception) -> None:
        """Stop the worker with this error."""
        self._worker.fail(error)


class Worker:
    """One run of the worker, from the first look at the broker to the exit code."""

    def __init__(
        self,
        settings: WorkerSettings,
        handler_factory: HandlerFactory,
        on_stopping: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._on_stopping = on_stopping
        self._handler = handler_factory(GroupMembership(self))
        self.app = make_app(settings, self.fail, self._handler.leaving)
        """Faust's part of it."""
        self._owned: frozenset[InputPartition] = frozenset()
        self._turn = asyncio.Lock()  # assigned, revoked, tick, stop: one at a time
        self._done = asyncio.Event()
        self.error: BaseException | None = None
        """What the worker stops for, if it is not a signal."""
        self._plain = {settings.names.of(topic): topic for topic in settings.topics}
        for name in self._plain:
            channel = self.app.topic(name, schema=BatchSchema())
            self.app.agent(channel, name=f"on-{name}", isolated_partitions=True)(self._consume)
        self.app.on_rebalance_complete.connect(self._on_assigned)
        self.app.on_partitions_revoked.connect(self._on_revoked)

    @property
    def consumer(self) -> BatchConsumer:
        """The consumer, which knows the positions."""
        return cast("BatchConsumer", self.app.consumer)

    def kafkas(self, partition: InputPartition) -> TP:
        """Tell what Kafka calls a partition."""
        topic, number = partition
        return TP(self._settings.names.of(topic), number)

    def plain(self, tp: TP) -> InputPartition:
        """Tell what the handler calls a partition."""
        return self._plain.get(tp.topic, tp.topic), tp.partition

    @property
    def settled(self) -> bool:
        """Whether the newest assignment stands, and the worker is not about to stop."""
        return self.consumer.assigned and not self._done.is_set()

    def fail(self, error: BaseException) -> None:
        """Stop with this error, if there was none before."""
        if self.error is None:
            self.error = error
            _log.info("stopping after an error", exc_info=error)
        self.request_stop()

    def request_stop(self) -> None:
        """Stop gracefully."""
        if not self._done.is_set():
            self._done.set()
            self._on_stopping()
            self._handler.leaving()

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            HearbackError: the worker could not start or had to stop; any other exception left the
                handler or Faust.

        """
        try:
            await asyncio.to_thread(check_broker, self._settings)
            await self._until_done()
        finally:
            await self._release()
        if self.error is not None:
            raise self.error

    async def _release(self) -> None:
        async with self._turn:
            try:
                await self._handler.stop()
            except Exception as error:  # noqa: BLE001 - the error before it is the cause
                self.fail(error)

    async def _until_done(self) -> None:
        app = self.app
        done = asyncio.create_task(self._done.wait(), name="done")
        tick = asyncio.create_task(self._tick(), name="tick")
        start = asyncio.create_task(app.start(), name="start")
        stopped = asyncio.create_task(app.wait_until_stopped(), name="stopped")
        await asyncio.wait({start, stopped, done}, return_when=asyncio.FIRST_COMPLETED)
        if start.done() and start.exception() is None:
            await asyncio.wait({stopped, done}, return_when=asyncio.FIRST_COMPLETED)
        failure = app.crash_reason or (start.exception() if start.done() else None)
        if failure is not None:
            self.fail(failure)
        self.request_stop()
        await app.stop()
        for task in (start, stopped):
            task.cancel()
        await asyncio.gather(start, stopped, tick, done, return_exceptions=True)

    async def _consume(self, stream: StreamT[RecordBatch]) -> None:
        """Handle one topic partition: the body of every agent."""
        async for batch in stream:
            # After an error nothing more is handled: the order within a partition counts.
            if self.error is not None:
                continue
            accepted = await self.consumer.accept(batch)
            if accepted is None:
                continue
            try:
                plain = msgspec.structs.replace(accepted, topic=self._plain[accepted.topic])
                if await self._handler.process(plain):
                    self.consumer.acknowledge(accepted)
                    crash_point("acknowledged")
                else:
                    await self.consumer.give_back(accepted)
            except Exception as error:  # noqa: BLE001  # Faust would acknowledge it and go on
                error.add_note(f"in {accepted.topic}-{accepted.partition} from {accepted.begin}")
                self.fail(error)

    async def _on_assigned(self, *_: Any, **__: Any) -> None:
        if not self.consumer.assigned:
            return  # the next rebalance has begun already
        inputs = {tp for tp in self.consumer.assignment() if tp.topic in self._plain}
        # Faust cancels this when the next rebalance begins; taking over is not to be cut in half.
        await asyncio.shield(self._take_over(frozenset(map(self.plain, inputs))))

    async def _take_over(self, partitions: frozenset[InputPartition]) -> None:
        async with self._turn:
            self._owned = partitions
            try:
                await self._handler.assigned(partitions)
            except Exception as error:  # noqa: BLE001
                self.fail(error)

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        async with self._turn:
            partitions, self._owned = self._owned, frozenset()
            try:
                if partitions:
                    await self._handler.revoked(partitions)
            except Exception as error:  # noqa: BLE001
                self.fail(error)

    async def _tick(self) -> None:
        while not self._done.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), self._settings.tick_s)
            async with self._turn:
                if self._owned and not self._done.is_set():
                    try:
                        await self._handler.tick()
                    except Exception as error:  # noqa: BLE001
                        self.fail(error)
