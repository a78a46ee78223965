"""A broker of its own for each test, and what the tests of the worker ask of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from faust.tables.manager import TableManager

from stream.events.records import Record
from stream.kafka.embedded import EmbeddedBroker
from stream.worker import owned as owned_module
from stream.worker.app import Worker
from stream.worker.contract import InputPartition, Membership, RecordBatch
from stream.worker.settings import WorkerSettings
from tests.worker.bench import Bench

TOPICS = ("applications", "engagements")
PARTITIONS = 4
GROUP = "test"


class Recorder:
    """A handler that keeps what it was given; ``on_batch`` may do more with a batch."""

    def __init__(self, on_batch: Callable[[RecordBatch], Awaitable[None]] | None = None) -> None:
        self.control: Membership | None = None
        self.batches: dict[InputPartition, list[RecordBatch]] = defaultdict(list)
        self.hooks: list[str] = []
        self.ticks = 0
        self.starts: dict[InputPartition, int] = {}
        self._on_batch = on_batch

    def __call__(self, control: Membership) -> Recorder:
        """Be the factory of itself."""
        self.control = control
        return self

    def leaving(self) -> None:
        """Nothing waits."""

    async def process(self, batch: RecordBatch) -> bool:
        """Keep the batch."""
        if self._on_batch is not None:
            await self._on_batch(batch)
        self.batches[batch.topic, batch.partition].append(batch)
        return True

    async def tick(self) -> None:
        """Count the ticks."""
        self.ticks += 1

    async def assigned(self, partitions: frozenset[InputPartition]) -> None:
        """Note it, and start at ``starts`` where that says something."""
        self.hooks.append(f"assigned {len(partitions)}")
        if self.control is not None:
            await self.control.seek(self.starts)

    async def skip(self, partition: InputPartition, position: int, first: int) -> None:
        """Note it, and go on."""
        self.hooks.append(f"skip {partition} {position} {first}")
        if self.control is not None:
            await self.control.seek({partition: first})

    async def revoked(self, partitions: frozenset[InputPartition]) -> None:
        """Note it."""
        self.hooks.append(f"revoked {len(partitions)}")

    async def stop(self) -> None:
        """Note it."""
        self.hooks.append("stop")

    @property
    def count(self) -> int:
        """How many records were handled."""
        return sum(len(batch.records) for taken in self.batches.values() for batch in taken)

    def records(self, topic: str, partition: int) -> list[Record]:
        """Return all records of a partition, in the order in which they came."""
        return [record for batch in self.batches[topic, partition] for record in batch.records]

    def check_contiguous(self, begin: int = 0) -> None:
        """Each batch has to begin where the one before it ended."""
        for partition, batches in self.batches.items():
            ends = [begin] + [batch.end for batch in batches]
            assert [batch.begin for batch in batches] == ends[:-1], partition


class Kit:
    """An embedded broker with two topics of four partitions, and a folder for a worker."""

    def __init__(self, broker: EmbeddedBroker, folder: Path) -> None:
        self.broker = broker.bootstrap_servers
        self.folder = folder
        broker.create_topics(dict.fromkeys(TOPICS, PARTITIONS))
        self._clients: dict[str, Any] = {"bootstrap.servers": self.broker, "log_level": 0}

    def settings(self, **changes: Any) -> WorkerSettings:
        """Settings for a worker; short times, so that a second worker need not wait."""
        wanted: dict[str, Any] = {
            "broker": self.broker,
            "application_id": GROUP,
            "data_dir": self.folder,
            "topics": TOPICS,
            "partitions": PARTITIONS,
            "embedded": True,
            "session_timeout_s": 2.0,
            "commit_interval_s": 0.2,
            "tick_s": 0.05,
            "broker_timeout_s": 2.0,
        }
        return WorkerSettings(**(wanted | changes))

    def produce(self, count: int, *, topic: str | None = None) -> None:
        """Send ``count`` numbered records round-robin to all partitions of one or both topics."""
        producer = Producer(self._clients)
        topics = TOPICS if topic is None else (topic,)
        places = [(topic, partition) for partition in range(PARTITIONS) for topic in topics]
        for number in range(count):
            topic, partition = places[number % len(places)]
            producer.produce(topic, b"v%d" % number, b"k%d" % number, partition)
        assert producer.flush(10) == 0

    def drop(self, topic: str) -> None:
        """Write so much to the first partition of a topic that the broker drops the oldest."""
        producer = Producer(self._clients)
        for number in range(80):
            producer.produce(topic, b"x" * 100_000, b"k%d" % number, 0)
            producer.flush(10)

    def first(self, topic: str, partition: int) -> int:
        """Where a partition starts."""
        consumer = Consumer(self._clients | {"group.id": "first"})
        try:
            place = TopicPartition(topic, partition)
            return int(consumer.get_watermark_offsets(place, timeout=10)[0])
        finally:
            consumer.close()

    def transactions(self, outcomes: str, size: int) -> None:
        """Send one transaction of ``size`` records per letter: ``c`` committed, ``a`` aborted."""
        producer = Producer(self._clients | {"transactional.id": "test"})
        producer.init_transactions()
        for outcome in outcomes:
            producer.begin_transaction()
            for number in range(size):
                producer.produce(TOPICS[0], b"%d" % number, partition=number % PARTITIONS)
            producer.flush()
            if outcome == "c":
                producer.commit_transaction()
            else:
                producer.abort_transaction()

    def committed(self) -> dict[InputPartition, int]:
        """Offsets that the worker's group has committed."""
        consumer = Consumer(self._clients | {"group.id": GROUP})
        try:
            offsets = consumer.committed(self._partitions(), timeout=10)
        finally:
            consumer.close()
        return {(tp.topic, tp.partition): tp.offset for tp in offsets if tp.offset >= 0}

    def commit(self, offset: int) -> None:
        """Commit this offset for all partitions in the name of the worker's group."""
        consumer = Consumer(self._clients | {"group.id": GROUP})
        try:
            offsets = [TopicPartition(tp.topic, tp.partition, offset) for tp in self._partitions()]
            consumer.commit(offsets=offsets, asynchronous=False)
        finally:
            consumer.close()

    def ends(self) -> dict[InputPartition, int]:
        """Where each partition ends."""
        consumer = Consumer(self._clients | {"group.id": GROUP})
        try:
            return {
                (tp.topic, tp.partition): consumer.get_watermark_offsets(tp, timeout=10)[1]
                for tp in self._partitions()
            }
        finally:
            consumer.close()

    def topics(self) -> set[str]:
        """Names of all topics that the broker has."""
        return set(AdminClient(self._clients).list_topics(timeout=10).topics)

    def work(self, recorder: Recorder, until: Callable[[], bool], **changes: Any) -> None:
        """Run a worker in this process until the condition holds, 15 s at most."""
        asyncio.run(self.start(recorder, until, self.settings(**changes)))

    async def start(
        self, recorder: Recorder, until: Callable[[], bool], settings: WorkerSettings
    ) -> None:
        """Run a worker in the running event loop; see :meth:`work`."""
        worker = Worker(settings, recorder)
        reached = False

        async def stop_when_reached() -> None:
            nonlocal reached
            try:
                for _ in range(750):
                    reached = until()
                    if reached:
                        break
                    await asyncio.sleep(0.02)
            finally:
                worker.request_stop()

        watch = asyncio.create_task(stop_when_reached())
        try:
            await worker.run()
        finally:
            watch.cancel()
        await asyncio.gather(watch, return_exceptions=False)
        assert reached, "the worker was stopped after 15 s"

    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(topic, n) for topic in TOPICS for n in range(PARTITIONS)]


async def no_sleep(self: TableManager, seconds: float) -> None:
    """Stand in for the second that Faust's table manager waits at start, for late tables."""


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TableManager, "sleep", no_sleep)


@pytest.fixture
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """A Kafka broker in this process, without topics."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def kit(embedded_broker: EmbeddedBroker, tmp_path: Path) -> Kit:
    """The broker with the topics of the tests."""
    return Kit(embedded_broker, tmp_path)


@pytest.fixture
def bench(
    embedded_broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    """Everything that a host needs; it hurries to try again."""
    monkeypatch.setattr(owned_module, "_FIRST_PAUSE_S", 0.01)
    return Bench(embedded_broker, tmp_path / "data")
