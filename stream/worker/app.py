"""SHELL: the Faust application, one run of it as a member of the consumer group, start and stop.

The command line calls :func:`run` with settings and a function that makes the handler. An agent for
each input topic brings batches to it; Faust's rebalances become its ``assigned`` and ``revoked``
(:mod:`stream.worker.contract` says what a handler may count on).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, cast

import faust
import msgspec
from aiokafka.structs import TopicPartition
from faust.types import TP, StreamT

from stream.errors import BrokerError, HearbackError, StateError
from stream.kafka.cluster import look_at_cluster
from stream.kafka.connection import security_of, tls_context
from stream.worker.contract import HandlerFactory, InputPartition, RecordBatch
from stream.worker.crashpoints import crash_point
from stream.worker.fetching import BatchSchema, Hooks
from stream.worker.logs import Terse, formatter
from stream.worker.settings import WorkerSettings
from stream.worker.transport import BatchConsumer, install_transport

_log = logging.getLogger(__name__)

_REBALANCE_TIMEOUT_S = 60.0  # for ``revoked`` together with the batches in flight
_START_S = 3.0  # for Faust to have started before it is stopped; longer it waits for its group
_REQUEST_TIMEOUT_S = 30.0  # Kafka's own default; Faust's is 90


def make_app(settings: WorkerSettings, hooks: Hooks) -> faust.App:
    """Make the Faust app, without agents; it has to be made inside the running event loop.

    Raises:
        ConfigError: the installed Faust or aiokafka is not one that the transport knows.

    """
    app = faust.App(
        settings.application_id,
        broker=[f"kafka://{host.strip()}" for host in settings.broker.split(",")],
        datadir=settings.data_dir,
        autodiscover=False,
        web_enabled=False,
        # Topics are created beforehand; Faust must not add its own.
        topic_allow_declare=False,
        topic_disable_leader=True,
        # More than 0 makes Faust use its own assignor even without a table: only that one gives
        # the same partition of all topics to the same worker, and says who stands by.
        table_standby_replicas=1,
        stream_buffer_maxsize=1,  # batches of one partition that wait for their turn
        # A rebalance and the end wait for the batches in flight.
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
        broker_commit_interval=settings.commit_interval_s,
        broker_max_poll_records=settings.max_poll_records,
        broker_request_timeout=max(_REQUEST_TIMEOUT_S, settings.session_timeout_s + 5.0),
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 4,
        broker_rebalance_timeout=_REBALANCE_TIMEOUT_S,
        broker_check_crcs=not settings.embedded,
        worker_redirect_stdouts=False,
        **_security(settings.broker),
    )
    # Nothing is sent through Faust: outputs go in the handler's own transactions.
    app.boot_strategy.enable_kafka_producer = False
    app.boot_strategy.enable_web = False
    install_transport(app, hooks)
    return app


def _security(broker: str) -> dict[str, Any]:
    """Settings of Faust that say how to talk to the broker."""
    security = security_of(broker)
    context = tls_context(security)
    if not security.sasl:
        return {} if context is None else {"ssl_context": context}
    credentials = faust.SASLCredentials(
        username=security.username,
        password=security.password,
        ssl_context=context,
        mechanism=security.mechanism,
    )
    return {"broker_credentials": credentials}


class Worker:
    """One run of a worker, from the first look at the broker to the exit code.

    For its handler it is the :class:`~stream.worker.contract.Membership`.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        handler_factory: HandlerFactory,
        on_stopping: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._on_stopping = on_stopping
        self._handler = handler_factory(self)
        hooks = Hooks(
            on_leaving=self._handler.leaving,
            on_out_of_range=self._out_of_range,
            on_failure=self.fail,
        )
        self.app = make_app(settings, hooks)
        """Faust's part of it."""
        self._owned: frozenset[InputPartition] = frozenset()
        self._assigned = False  # an assignment stands, though it may be of no partition
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

    # -- what the handler may ask ------------------------------------------------------------

    async def seek(self, positions: Mapping[InputPartition, int]) -> None:
        """Continue these partitions from these offsets."""
        await self.consumer.seek_to({self._in_kafka(key): at for key, at in positions.items()})

    def positions(self) -> dict[InputPartition, int]:
        """Return where each owned partition stands."""
        return {self._plain_name(tp): at for tp, at in self.consumer.positions().items()}

    def answer_age_s(self, partition: InputPartition) -> float | None:
        """As in the contract."""
        return self.consumer.answer_age_s(self._in_kafka(partition))

    def high_watermark(self, partition: InputPartition) -> int | None:
        """Return the partition's end, or None before the first fetch."""
        return self.consumer.high_watermark(self._in_kafka(partition))

    def standbys(self) -> frozenset[InputPartition]:
        """Return the input partitions of which this worker is the standby."""
        return frozenset(map(self._plain_name, self.app.assignor.assigned_standbys()))

    async def begun(self, partitions: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Return the committed offsets of those of which the group has read something."""
        found = await self.consumer.begun(map(self._in_kafka, partitions))
        return {self._plain_name(tp): offset for tp, offset in found.items()}

    def settled(self) -> bool:
        """Whether the newest assignment stands, and the worker is not about to stop."""
        return self.consumer.assigned and not self._done.is_set()

    async def confirm(self) -> bool:
        """Commit all positions now; True proves that this worker is still in the group."""
        return await self.consumer.confirm()

    def _in_kafka(self, partition: InputPartition) -> TP:
        topic, number = partition
        return TP(self._settings.names.of(topic), number)

    def _plain_name(self, tp: TP) -> InputPartition:
        return self._plain.get(tp.topic, tp.topic), tp.partition

    # -- start and stop ----------------------------------------------------------------------

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
            # Refused in one line, before Faust starts.
            settings = self._settings
            await asyncio.to_thread(look_at_cluster, settings.broker, settings.broker_timeout_s)
            if not self._done.is_set():
                await self._until_done()
        finally:
            async with self._turn_of_handler():
                await self._handler.stop()
        if self.error is not None:
            raise self.error

    @contextlib.asynccontextmanager
    async def _turn_of_handler(self) -> AsyncIterator[None]:
        """Let one call of the handler run at a time; an error stops the worker."""
        async with self._turn:
            try:
                yield
            except Exception as error:  # noqa: BLE001
                self.fail(error)

    async def _until_done(self) -> None:
        app = self.app
        done = asyncio.create_task(self._done.wait(), name="done")
        tick = asyncio.create_task(self._tick(), name="tick")
        start = asyncio.create_task(app.start(), name="start")
        stopped = asyncio.create_task(app.wait_until_stopped(), name="stopped")
        await asyncio.wait({start, stopped, done}, return_when=asyncio.FIRST_COMPLETED)
        if not start.done() and self.error is None:
            # Half started, Faust leaves threads behind. After an error it must not get on: it would
            # commit where it was about to begin, and the application id would look used.
            await asyncio.wait({start, stopped}, timeout=_START_S)
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

    async def _out_of_range(self, positions: Mapping[TopicPartition, int]) -> None:
        """Go on where records were deleted unread, if that was asked for; else stop."""
        try:
            for tp, position in positions.items():
                first, end = await self.consumer.span(TP(tp.topic, tp.partition))
                where = f"{tp.topic}-{tp.partition}"
                if position > end:
                    raise StateError(
                        f"{where}: position {position} is not in the topic, which keeps {first} to"
                        f" {end}: it was recreated, or has lost its end; start over with an empty"
                        " data folder and another application id"
                    )
                if position >= first:
                    continue  # the answer was an old one
                if not self._settings.accept_lost_records:
                    raise StateError(
                        f"{where}: records {position} to {first - 1} were deleted before they were"
                        f" read (retention). --accept-lost-records goes on from {first} with all"
                        " that was learned, and counts them in hearback_lost_records_total"
                    )
                partition = self._plain_name(TP(tp.topic, tp.partition))
                await self._handler.skip(partition, position, first)
        except BrokerError as error:
            _log.info("asking again what topics keep: %s", error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker has to stop
            self.fail(error)

    async def _on_assigned(self, *_: Any, **__: Any) -> None:
        if not self.consumer.assigned:
            return  # the next rebalance has begun already
        inputs = {tp for tp in self.consumer.assignment() if tp.topic in self._plain}
        # Faust cancels this when the next rebalance begins; taking over is not to be cut in half.
        await asyncio.shield(self._take_over(frozenset(map(self._plain_name, inputs))))

    async def _take_over(self, partitions: frozenset[InputPartition]) -> None:
        async with self._turn_of_handler():
            self._owned, self._assigned = partitions, True
            await self._handler.assigned(partitions)

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        async with self._turn_of_handler():
            partitions, self._owned = self._owned, frozenset()
            self._assigned = False
            if partitions:
                await self._handler.revoked(partitions)

    async def _tick(self) -> None:
        while not self._done.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), self._settings.tick_s)
            async with self._turn_of_handler():
                if self._assigned and not self._done.is_set():
                    await self._handler.tick()


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def heed_signals() -> threading.Event:
    """Note from now on that somebody asks the worker to stop; to be called before it says it is on.

    Its event loop takes the signals later (:func:`run`).
    """
    asked = threading.Event()
    for number in _SIGNALS:
        signal.signal(number, lambda *_: asked.set())
    return asked


def run(
    settings: WorkerSettings, handler_factory: HandlerFactory, asked: threading.Event | None = None
) -> int:
    """Run a worker until SIGTERM, SIGINT or an error, and return the exit code.

    Blocks; to be called from the main thread, which gets the signals. The first signal stops
    gracefully: batches in flight are finished and committed. Errors are one line on stderr.
    ``asked``: of :func:`heed_signals`.
    """
    plain = logging.StreamHandler()
    if logging.getLevelNamesMapping()[settings.log_level] > logging.INFO:
        plain.addFilter(Terse())
    plain.setFormatter(formatter(settings.log_format))
    logging.basicConfig(level=settings.log_level, handlers=[plain])
    watch = _Deadline(settings.stop_timeout_s)
    try:
        asyncio.run(_until_signalled(settings, handler_factory, watch, asked))
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # one line for any error
        _say(_line_of(error))
        return 1
    finally:
        if all(each.daemon or each is threading.main_thread() for each in threading.enumerate()):
            watch.cancel()  # else the process would wait for those threads, for ever if need be
    return 0


class _Deadline:
    """Ends the process when a stop takes too long, whatever still runs: state survives crashes."""

    def __init__(self, after_s: float) -> None:
        self.worker: Worker | None = None
        self._after_s = after_s
        self._timer = threading.Timer(after_s, self._give_up)
        self._timer.daemon = True
        self.start = self._timer.start
        self.cancel = self._timer.cancel

    def _give_up(self) -> None:
        if self.worker is not None and self.worker.error is not None:
            _say(_line_of(self.worker.error))
        _say(
            f"not stopped within {self._after_s:g} s, a batch does not end or the broker does not "
            "answer: ending without, the next start goes on from the state"
        )
        os._exit(1)


async def _until_signalled(
    settings: WorkerSettings,
    handler_factory: HandlerFactory,
    watch: _Deadline,
    asked: threading.Event | None,
) -> None:
    worker = watch.worker = Worker(settings, handler_factory, on_stopping=watch.start)
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        worker.request_stop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)  # the next one has its usual effect

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    if asked is not None and asked.is_set():
        on_signal()
    await worker.run()


def _line_of(error: BaseException) -> str:
    if isinstance(error, HearbackError):
        return str(error)
    where = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
    return f"unexpected {type(error).__name__}{where}: {error} (log level INFO shows more)"


def _say(message: str) -> None:
    sys.stderr.write(f"hearback worker: {message}\n")
    sys.stderr.flush()
