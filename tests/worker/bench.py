"""A host without a worker: an embedded broker, a data folder, and what may be told to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from prometheus_client import CollectorRegistry

from stream.events import wire
from stream.events.records import CONSUMED, Record
from stream.events.structs import ScoredApplication
from stream.kafka.embedded import EmbeddedBroker
from stream.metrics.worker import WorkerMetrics
from stream.partitions.commands import Command
from stream.policy import DAY_MS, Policy
from stream.worker.contract import InputPartition, RecordBatch
from stream.worker.data_folder import DataFolder
from stream.worker.host import Host
from stream.worker.settings import Resources, WorkerSettings
from stream.worker.topics import plans
from tests import kit
from tests.kit import application, closing, engagement

ALL = frozenset((topic, 0) for topic in CONSUMED)
BY_JOB = wire.encode_by_job(ScoredApplication(application("a", DAY_MS), 0.0, 0, None))


class Group:
    """A membership without a worker: keeps what was sought, and is told what the group says."""

    def __init__(self) -> None:
        self.sought: dict[InputPartition, int] = {}
        self.read: dict[InputPartition, int] = {}
        self.error: Exception | None = None
        self.counts_on_us = True
        self.standing = True

    async def seek(self, positions: Mapping[InputPartition, int]) -> None:
        """Keep the positions."""
        self.sought |= positions

    def positions(self) -> dict[InputPartition, int]:
        """Nothing is read."""
        return {}

    def high_watermark(self, partition: InputPartition) -> int | None:
        """Nothing is known."""
        return None

    def answer_age_s(self, partition: InputPartition) -> float | None:
        """Nothing is known."""
        return None

    def standbys(self) -> frozenset[InputPartition]:
        """Nobody else is there."""
        return frozenset()

    async def begun(self, partitions: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Return what the test says that the group has read."""
        return {place: at for place, at in self.read.items() if place in partitions}

    async def confirm(self) -> bool:
        """Say what the test says."""
        return self.counts_on_us

    def settled(self) -> bool:
        """Say what the test says."""
        return self.standing

    def fail(self, error: Exception) -> None:
        """Keep the error."""
        self.error = error


class Bench:
    """An embedded broker, a data folder, and hosts of one partition on them."""

    def __init__(self, broker: EmbeddedBroker, folder: Path) -> None:
        self.address = broker.bootstrap_servers
        self.folder = folder
        self.group = Group()
        self.commands: list[Command] = []
        broker.create_topics({plan.name: 1 for plan in plans("test", DAY_MS)})

    def host(self) -> Host:
        """Make a host; one at a time, because it locks the folder."""
        return Host(
            self.group,
            Resources(
                settings=WorkerSettings(
                    broker=self.address,
                    application_id="test",
                    data_dir=self.folder / "faust",
                    partitions=1,
                    embedded=True,
                ),
                model=kit.model(),
                policy=Policy(),
                metrics=WorkerMetrics(CollectorRegistry(), "test"),
                data=DataFolder(self.folder, "test"),
                now_ms=lambda: kit.NOW_MS,
            ),
            lambda: self.commands,
        )

    def count(self, topic: str) -> int:
        """How many messages a topic has."""
        consumer = Consumer(
            {"bootstrap.servers": self.address, "group.id": "count", "enable.partition.eof": True}
        )
        consumer.assign([TopicPartition(topic, 0, 0)])
        count = 0
        try:
            while True:
                for message in consumer.consume(1000, 0.1):
                    if message.error() is not None:
                        return count
                    count += 1
        finally:
            consumer.close()


def run(bench: Bench, scenario: Callable[[Host], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario with a host of its own, stopped at the end."""

    async def whole() -> None:
        host = bench.host()
        try:
            await scenario(host)
        finally:
            await host.stop()

    asyncio.run(asyncio.wait_for(whole(), 60))


def batch(topic: str, begin: int, *values: bytes, key: bytes = b"j") -> RecordBatch:
    """Make a batch of records."""
    records = tuple(Record(begin + at, key, value, 1) for at, value in enumerate(values))
    end = begin + len(records)
    return RecordBatch(topic, 0, begin, end, end, records)


ANSWER = batch("engagements", 0, kit.to_json(engagement("e", "a", DAY_MS + 5)))
APPLIED = batch("applications-by-job", 0, BY_JOB)
CLOSED = batch("engagements", 1, kit.to_json(closing("c", DAY_MS + 6)))
