"""The Faust application: an agent per input topic, and its start and stop.

Who calls what: the command line calls :func:`run` with settings and a function that makes the
handler; Faust assigns partitions and brings record batches; the handler, which knows nothing of
Faust, does the work. What a handler may count on:

- ``assigned`` → ``process``, ``tick`` → ``revoked`` → ``assigned`` → …, ``stop`` at the end.
  ``assigned`` and ``revoked`` never run together with each other, with ``tick`` or ``process``.
- ``process`` gets the batches of one topic partition one after the other and without a gap, from
  the position that ``assigned`` sought, or else from the group's committed offset. Batches of
  different topic partitions run at the same time.
- A batch is acknowledged when ``process`` returns True, unless its partition was sought meanwhile;
  otherwise it comes again.
- ``leaving`` is called at any time, when a rebalance or the end begins, before the batches in
  flight are waited for.
- Any error that leaves the handler stops the worker, with exit code 1 and nothing acknowledged of
  that batch: events that cannot be used are the handler's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import faust
import msgspec
from faust.types import TP, StreamT

from stream.errors import ConfigError, HearbackError
from stream.events.records import PLAIN, TopicNames
from stream.kafka.cluster import look_at_cluster
from stream.kafka.connection import security_of, tls_context
from stream.worker.batch import RecordBatch
from stream.worker.crashpoints import crash_point
from stream.worker.logs import formatter
from stream.worker.transport import BatchConsumer, BatchSchema, install_transport

_log = logging.getLogger(__name__)

_REQUEST_TIMEOUT_S = 30.0  # Kafka's own default; Faust's is 90
_REPEAT_S = 10.0  # the same line of a library is logged again after so long

InputPartition = tuple[str, int]
"""A topic and the number of one of its partitions."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker has to know before it can start."""

    broker: str
    """Comma-separated ``host:port``, as for every Kafka client."""
    application_id: str
    """The consumer group; with it begin the names of all that the worker owns in Kafka."""
    data_dir: Path
    """The folder that belongs to this worker alone."""
    topics: tuple[str, ...]
    """The input topics, by their plain names."""
    names: TopicNames = PLAIN
    """What Kafka calls them."""
    partitions: int
    """How many partitions each input topic must have."""
    embedded: bool = False
    """The broker is the embedded one, whose checksums are wrong."""
    max_poll_records: int = 1500
    """The most records in one batch."""
    buffered_batches: int = 1
    """The most batches of one partition that wait for their turn."""
    fetch_max_wait_ms: int = 100
    """How long a fetch may wait at the broker; with one idle partition, new records of another
    wait as long before they can be asked for."""
    commit_interval_s: float = 1.0
    tick_s: float = 0.25
    session_timeout_s: float = 10.0
    """After how long a silent worker loses its partitions."""
    rebalance_timeout_s: float = 60.0
    """How long ``revoked`` may take together with the batches in flight."""
    stop_timeout_s: float = 20.0
    """How long a graceful stop may take; after that the process exits with code 1."""
    broker_timeout_s: float = 10.0
    """How long to wait for the broker's first answer."""
    log_level: str = "WARNING"
    log_format: str = "text"


class Handler(Protocol):
    """What does the work; the module's docstring says when each method is called."""

    def leaving(self) -> None:
        """Let go of what waits: the batches in flight are to end soon."""

    async def process(self, batch: RecordBatch) -> bool:
        """Handle one batch; True: it is acknowledged, False: it comes again."""

    async def tick(self) -> None:
        """Do what is due without input; called every ``tick_s`` while partitions are owned."""

    async def assigned(self, partitions: frozenset[InputPartition]) -> None:
        """Take over these partitions, which are all that this worker owns from now on."""

    async def revoked(self, partitions: frozenset[InputPartition]) -> None:
        """Give up these partitions, which are all that it owned."""

    async def stop(self) -> None:
        """Release everything; called once, also after an error."""


class GroupMembership:
    """What a handler may ask of the worker that calls it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def seek(self, positions: Mapping[InputPartition, int]) -> None:
        """Continue these partitions from these offsets.

        Within ``assigned``: where they start. Within ``process``, for its own partition: the batch
        is not acknowledged, and what comes next begins there. A partition that is not owned any
        more is left alone.
        """
        await self._worker.consumer.seek_to(
            {self._worker.kafkas(key): at for key, at in positions.items()}
        )

    def positions(self) -> dict[InputPartition, int]:
        """Return where each owned partition stands: the end of its newest acknowledged batch."""
        return {self._worker.plain(tp): at for tp, at in self._worker.consumer.positions().items()}

    def high_watermark(self, partition: InputPartition) -> int | None:
        """Return the partition's end as the newest fetch told it, or None before the first."""
        return self._worker.consumer.high_watermark(self._worker.kafkas(partition))

    def standbys(self) -> frozenset[InputPartition]:
        """Return the input partitions that this worker is to take over when their owner is gone."""
        return frozenset(map(self._worker.plain, self._worker.app.assignor.assigned_standbys()))

    async def begun(self, partitions: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Return the committed offsets of those partitions of which the group has read something.

        Raises:
            BrokerError: the broker does not tell.

        """
        found = await self._worker.consumer.begun(map(self._worker.kafkas, partitions))
        return {self._worker.plain(tp): offset for tp, offset in found.items()}

    def settled(self) -> bool:
        """Whether no rebalance has begun since the newest assignment, and the end neither.

        May be called from any thread.
        """
        return self._worker.settled

    async def confirm(self) -> bool:
        """Commit all positions now; True proves that the group still counts on this worker."""
        return await self._worker.consumer.confirm()

    def fail(self, error: Exception) -> None:
        """Stop the worker with this error; for tasks of the handler's own."""
        self._worker.fail(error)


HandlerFactory = Callable[[GroupMembership], Handler]


def make_app(
    settings: WorkerSettings,
    on_failure: Callable[[Exception], None],
    on_leaving: Callable[[], None],
) -> faust.App:
    """Make the Faust app, without agents; it has to be made inside the running event loop.

    ``on_failure`` is told when the transport cannot go on, ``on_leaving`` that a rebalance begins.

    Raises:
        ConfigError: the installed Faust or aiokafka is not one that the transport knows.

    """
    app = faust.App(
        settings.application_id,
        broker=[f"kafka://{host.strip()}" for host in settings.broker.split(",")],
        datadir=settings.data_dir,
        autodiscover=False,
        web_enabled=False,
        # Topics are created beforehand with the right partitions; Faust must not add its own.
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=settings.partitions,
        # More than 0 makes Faust use its own assignor even without a table: only that one gives
        # the same partition of all topics to the same worker, and says who stands by.
        table_standby_replicas=1,
        stream_buffer_maxsize=settings.buffered_batches,
        # A rebalance and the end wait for the batches in flight.
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
        broker_commit_interval=settings.commit_interval_s,
        broker_max_poll_records=settings.max_poll_records,
        broker_request_timeout=max(_REQUEST_TIMEOUT_S, settings.session_timeout_s + 5.0),
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 4,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        broker_check_crcs=not settings.embedded,
        worker_redirect_stdouts=False,
        **_security(settings.broker),
    )
    # Nothing is sent through Faust: outputs go in the handler's own transactions.
    app.boot_strategy.enable_kafka_producer = False
    app.boot_strategy.enable_web = False
    install_transport(
        app,
        fetch_max_wait_ms=settings.fetch_max_wait_ms,
        on_failure=on_failure,
        on_leaving=on_leaving,
    )
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


def check_broker(settings: WorkerSettings) -> None:
    """Ask the broker for the input topics.

    Raises:
        BrokerError: it does not answer.
        ConfigError: a topic is missing or has another number of partitions.

    """
    found = look_at_cluster(settings.broker, settings.broker_timeout_s).partitions
    for topic in map(settings.names.of, settings.topics):
        count = found.get(topic, 0)
        if count != settings.partitions:
            raise ConfigError(
                f"topic {topic} has {count} partitions at {settings.broker}, "
                f"not {settings.partitions}: create all topics with the same number"
                if count
                else f"topic {topic} does not exist at {settings.broker}: create the topics first"
            )


def run(settings: WorkerSettings, handler_factory: HandlerFactory) -> int:
    """Run a worker until SIGTERM, SIGINT or an error, and return the exit code.

    Blocks; to be called from the main thread, which gets the signals. The first signal stops
    gracefully: batches in flight are finished and committed. Errors are one line on stderr.
    """
    plain = logging.StreamHandler()
    if logging.getLevelNamesMapping()[settings.log_level] > logging.INFO:
        plain.addFilter(_Terse())
    plain.setFormatter(formatter(settings.log_format))
    logging.basicConfig(level=settings.log_level, handlers=[plain])
    watch = _Deadline(settings.stop_timeout_s)
    try:
        asyncio.run(_until_signalled(settings, handler_factory, watch))
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # one line for any error
        _say(_in_words(error))
        return 1
    finally:
        watch.cancel()
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
            _say(_in_words(self.worker.error))
        _say(
            f"not stopped within {self._after_s:g} s, a batch does not end or the broker does not "
            "answer: ending without, the next start goes on from the state"
        )
        os._exit(1)


async def _until_signalled(
    settings: WorkerSettings, handler_factory: HandlerFactory, watch: _Deadline
) -> None:
    worker = watch.worker = Worker(settings, handler_factory, on_stopping=watch.start)
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def on_signal() -> None:
        worker.request_stop()
        for number in signals:
            loop.remove_signal_handler(number)  # the next one has its usual effect

    for number in signals:
        loop.add_signal_handler(number, on_signal)
    await worker.run()


def _in_words(error: BaseException) -> str:
    if isinstance(error, HearbackError):
        return str(error)
    where = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
    return f"unexpected {type(error).__name__}{where}: {error} (log level INFO shows more)"


class _Terse(logging.Filter):
    """Keeps the log readable: no tracebacks, nothing of routine, no flood from the libraries.

    While a broker is away aiokafka logs twenty errors a second; and each of Faust's services logs
    the error that ends the worker, which is told once, at the end.
    """

    _ROUTINE = (
        "Crashed reason=",
        "because it is rebalancing",
        "RebalanceInProgressError",
        "is overlapping",  # Faust's timers notice that a unit of work took long
        "Missing sensor state",
    )

    def __init__(self) -> None:
        super().__init__()
        self._logged_s: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        message = record.getMessage()
        if any(routine in message for routine in self._ROUTINE):
            return False
        if record.name.startswith("stream."):
            return True
        kind = (record.name, str(record.msg))
        before = self._logged_s.get(kind)
        if before is not None and record.created - before < _REPEAT_S:
            return False
        self._logged_s[kind] = record.created
        return True


def _say(message: str) -> None:
    sys.stderr.write(f"hearback worker: {message}\n")
    sys.stderr.flush()
