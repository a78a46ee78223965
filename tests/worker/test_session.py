"""A session: nothing reaches the state whose outputs were not sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from prometheus_client import CollectorRegistry

from stream import wire
from stream.errors import BrokerError, ConfigError, StateError
from stream.events import ScoredApplication
from stream.metrics import WorkerMetrics
from stream.partitions import JobPartition
from stream.policy import DAY_MS, Policy
from stream.records import CONSUMED, LABELS, Message, Record
from stream.state.partition_state import load_progress
from stream.state.store import RocksStore
from stream.worker.app import Partition
from stream.worker.session import Session, SessionSettings
from stream.worker.transport import RecordBatch
from tests import kit
from tests.kit import application, closing, engagement


class Positions:
    """Control without a worker: keeps what was sought."""

    def __init__(self) -> None:
        self.sought: dict[Partition, int] = {}

    async def seek(self, positions: Mapping[Partition, int]) -> None:
        """Keep the positions."""
        self.sought |= positions

    def positions(self) -> dict[Partition, int]:
        """Nothing is read."""
        return {}

    def high_watermark(self, partition: Partition) -> int | None:
        """Nothing is known."""
        return None


class Sink:
    """An outbox that keeps messages, and fails when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.failing = False

    async def send(self, messages: Sequence[Message]) -> None:
        """Take messages, after a moment in which others may run."""
        await asyncio.sleep(0.02)
        if self.failing:
            self.failing = False
            raise BrokerError("not delivered")
        self.sent += messages

    def close(self) -> None:
        """Nothing is held."""


def make(folder: Path) -> tuple[Session, Positions, Sink]:
    """Make a session of one partition."""
    control, sink = Positions(), Sink()
    session = Session(
        control,
        SessionSettings(broker="nowhere", data_dir=folder, partitions=1),
        kit.model(),
        Policy(),
        WorkerMetrics(CollectorRegistry(), "test"),
        outbox=sink,
        now_ms=lambda: kit.NOW_MS,
    )
    return session, control, sink


ALL = frozenset((topic, 0) for topic in CONSUMED)
BY_JOB = wire.encode_by_job(ScoredApplication(application("a", DAY_MS), 0.0, 0, None))


def batch(topic: str, begin: int, value: bytes) -> RecordBatch:
    """Make a batch of one record."""
    return RecordBatch(topic, 0, begin, begin + 1, begin + 1, (Record(begin, b"j", value, 1),))


ANSWER = batch("engagements", 0, kit.to_json(engagement("e", "a", DAY_MS + 5)))
APPLIED = batch("applications-by-job", 0, BY_JOB)
CLOSED = batch("engagements", 1, kit.to_json(closing("c", DAY_MS + 6)))


def test_what_was_not_sent_is_never_written(tmp_path: Path) -> None:
    """When a send fails, an actor that waited for the partition writes nothing of it either."""

    async def scenario() -> None:
        session, _, sink = make(tmp_path)
        await session.assigned(ALL)
        await session.process(ANSWER)
        sink.failing = True
        outcomes = await asyncio.gather(
            session.process(APPLIED), session.process(CLOSED), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [BrokerError, StateError]
        with pytest.raises(StateError, match="given up"):
            await session.tick()
        await session.stop()

        session, control, sink = make(tmp_path)
        await session.assigned(ALL)
        assert control.sought == {("engagements", 0): 1}
        await session.process(APPLIED)
        await session.process(CLOSED)
        assert [message.topic for message in sink.sent].count(LABELS) == 1
        await session.stop()

    asyncio.run(scenario())


def test_others_have_their_turn_between_units(tmp_path: Path) -> None:
    """A batch of many units of work lets the event loop go on after each, also after empty ones."""

    async def scenario() -> None:
        session, _, _ = make(tmp_path)
        await session.assigned(ALL)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        with patch.object(JobPartition, "process", lambda *_: iter([[] for _ in range(50)])):
            other = asyncio.create_task(count())
            await session.process(ANSWER)
        other.cancel()
        assert turns >= 50
        await session.stop()

    asyncio.run(scenario())


def test_positions_are_written_with_the_state(tmp_path: Path) -> None:
    """After a restart partitions are sought to where their state stands."""

    async def scenario() -> None:
        session, control, _ = make(tmp_path)
        await session.assigned(ALL)
        assert control.sought == {}
        await session.process(ANSWER)
        await session.process(APPLIED)
        await session.revoked(ALL)
        await session.assigned(ALL)
        assert control.sought == {("engagements", 0): 1, ("applications-by-job", 0): 1}
        await session.process(batch("engagements", 0, ANSWER.records[0].value or b""))
        await session.stop()

    asyncio.run(scenario())


def test_partitions_come_with_all_their_topics(tmp_path: Path) -> None:
    """A partition of one topic without its companions is refused; so is an unowned batch."""

    async def scenario() -> None:
        session, _, _ = make(tmp_path)
        with pytest.raises(ConfigError, match="same number of partitions"):
            await session.assigned(frozenset({("applications", 0)}))
        with pytest.raises(StateError, match="not owned"):
            await session.process(ANSWER)
        await session.stop()

    asyncio.run(scenario())


def test_a_fresh_partition_has_no_positions(tmp_path: Path) -> None:
    """A store that has read nothing says so."""

    async def scenario() -> None:
        session, _, _ = make(tmp_path)
        await session.assigned(ALL)
        await session.stop()

    asyncio.run(scenario())
    store = RocksStore(tmp_path / "job-0", read_only=True)
    assert load_progress(store) is None
    store.close()
