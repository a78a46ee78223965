"""A host and its sessions: nothing reaches state or Kafka but whole units, and all of them do."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from confluent_kafka import Consumer, TopicPartition
from prometheus_client import CollectorRegistry

from stream.errors import BrokerError, ConfigError, FencedError, MisroutedProducerError, StateError
from stream.events import wire
from stream.events.records import CONSUMED, LABELS, Record
from stream.events.structs import ScoredApplication
from stream.kafka.embedded import EmbeddedBroker
from stream.metrics.worker import WorkerMetrics
from stream.partitions.base import Unit
from stream.partitions.commands import GateCommand
from stream.partitions.job import JobPartition
from stream.partitions.progress import load_progress
from stream.policy import DAY_MS, Policy
from stream.state.store import RocksStore
from stream.worker import owned as owned_module
from stream.worker.contract import InputPartition, RecordBatch
from stream.worker.data_folder import Checkpointed, DataFolder, partition_ids_in, whose
from stream.worker.host import Host
from stream.worker.requests import SOCKET, Requests, ask_checkpoint
from stream.worker.settings import Resources, WorkerSettings
from stream.worker.topics import plans
from stream.worker.transactions import Transactions
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
        self.commands: list[GateCommand] = []
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


@pytest.fixture
def bench(embedded_broker: EmbeddedBroker, tmp_path: Path) -> Bench:
    """Everything that a host needs."""
    return Bench(embedded_broker, tmp_path / "data")


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owned_module, "_FIRST_PAUSE_S", 0.01)


def run(bench: Bench, scenario: Callable[[Host], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario with a host of its own, stopped at the end."""

    async def whole() -> None:
        host = bench.host()
        try:
            await scenario(host)
        finally:
            await host.stop()

    asyncio.run(asyncio.wait_for(whole(), 60))


def batch(topic: str, begin: int, value: bytes) -> RecordBatch:
    """Make a batch of one record."""
    return RecordBatch(topic, 0, begin, begin + 1, begin + 1, (Record(begin, b"j", value, 1),))


ANSWER = batch("engagements", 0, kit.to_json(engagement("e", "a", DAY_MS + 5)))
APPLIED = batch("applications-by-job", 0, BY_JOB)
CLOSED = batch("engagements", 1, kit.to_json(closing("c", DAY_MS + 6)))


def failing(
    error: Exception, at: str, monkeypatch: pytest.MonkeyPatch, times: int = 1
) -> list[Exception]:
    """Let a method of the producer fail so many times; return what it raised."""
    method: Any = getattr(Transactions, at)
    raised: list[Exception] = []

    def fail_at_first(self: Transactions, *arguments: Any) -> Any:
        if len(raised) < times:
            raised.append(error)
            raise error
        return method(self, *arguments)

    monkeypatch.setattr(Transactions, at, fail_at_first)
    return raised


@pytest.mark.parametrize("error", [BrokerError("away"), FencedError("fenced")])
def test_a_lost_unit_is_done_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: BrokerError
) -> None:
    """Whatever a session had not sent is done by the next one, which seeks back to it."""

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        assert await host.process(ANSWER)
        raised = failing(error, "send", monkeypatch)
        outcomes = await asyncio.gather(host.process(APPLIED), host.process(CLOSED))
        assert list(outcomes) == [False, False]
        assert len(raised) == 1
        assert await host.process(APPLIED)
        assert await host.process(CLOSED)
        assert bench.group.sought == {("engagements", 0): 1}
        assert bench.count(LABELS) == 1

    run(bench, scenario)


def test_a_unit_whose_commit_was_not_answered_is_not_done_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the commit took place, but the session did not learn of it, the changelog tells."""
    send = Transactions.send
    lost = False

    def lose_the_answer(self: Transactions, *arguments: Any) -> dict[tuple[str, int], int]:
        nonlocal lost
        ends = send(self, *arguments)
        if not lost:
            lost = True
            raise BrokerError("no answer")
        return ends

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        await host.process(ANSWER)
        monkeypatch.setattr(Transactions, "send", lose_the_answer)
        assert not await host.process(APPLIED)
        while ("applications-by-job", 0) not in bench.group.sought:
            await asyncio.sleep(0.01)
        assert bench.group.sought == {("engagements", 0): 1, ("applications-by-job", 0): 1}
        assert await host.process(APPLIED)  # skipped
        assert bench.count(LABELS) == 1

    run(bench, scenario)


def test_no_new_session_while_the_group_counts_on_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fenced session is followed by another only when the group confirms this worker."""

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        failing(FencedError("fenced"), "send", monkeypatch)
        bench.group.counts_on_us = False
        assert not await host.process(ANSWER)
        waiting = asyncio.create_task(host.process(ANSWER))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        bench.group.counts_on_us = True
        assert await waiting is False or await host.process(ANSWER)

    run(bench, scenario)


def test_a_rebalance_lets_waiting_batches_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that waits for a session gives up, unacknowledged, when a rebalance begins."""

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        failing(BrokerError("away"), "send", monkeypatch)
        failing(BrokerError("away"), "fence", monkeypatch, times=1000)
        assert not await host.process(ANSWER)
        waiting = asyncio.create_task(host.process(ANSWER))
        await asyncio.sleep(0.1)
        bench.group.standing = False
        host.leaving()
        assert await asyncio.wait_for(waiting, 5) is False
        await asyncio.wait_for(host.revoked(ALL), 5)

    run(bench, scenario)


def test_an_error_that_nobody_can_help_stops_the_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stage refuses leaves the host, and nothing is done with that partition any more."""

    def refuse(*_: object) -> Iterator[Unit]:
        yield from ()
        raise MisroutedProducerError("use murmur2")

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        with patch.object(JobPartition, "process", refuse), pytest.raises(MisroutedProducerError):
            await host.process(ANSWER)
        bench.group.standing = False  # as the worker says while it stops
        assert await host.process(ANSWER) is False
        assert bench.count(LABELS) == 0

    run(bench, scenario)


def test_an_error_in_a_tick_stops_the_worker(bench: Bench) -> None:
    """Nobody waits for a tick: what it raises is told to the worker."""

    def refuse(*_: object) -> Iterator[Unit]:
        yield from ()
        raise StateError("the disk is full")

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        with patch.object(JobPartition, "tick", refuse):
            await host.tick()
            while bench.group.error is None:
                await asyncio.sleep(0.01)
        assert str(bench.group.error) == "the disk is full"

    run(bench, scenario)


def test_others_have_their_turn_between_units(bench: Bench) -> None:
    """A batch of many units of work lets the event loop go on after each, also after empty ones."""

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        def units(partition: JobPartition, *_: object) -> Iterator[Unit]:
            for _number in range(50):
                yield partition._finish()

        with patch.object(JobPartition, "process", units):
            other = asyncio.create_task(count())
            await host.process(ANSWER)
        other.cancel()
        assert turns >= 50

    run(bench, scenario)


def test_positions_are_written_with_the_state(bench: Bench) -> None:
    """After a rebalance or a restart partitions are sought to where their state stands."""

    async def first(host: Host) -> None:
        await host.assigned(ALL)
        assert bench.group.sought == {}
        assert await host.process(ANSWER)
        assert await host.process(APPLIED)
        await host.revoked(ALL)
        assert await host.process(CLOSED) is False
        await host.assigned(ALL)
        assert bench.group.sought == {("engagements", 0): 1, ("applications-by-job", 0): 1}
        assert await host.process(ANSWER)  # skipped

    async def second(host: Host) -> None:
        bench.group.sought.clear()
        await host.assigned(ALL)
        assert bench.group.sought == {("engagements", 0): 1, ("applications-by-job", 0): 1}

    run(bench, first)
    run(bench, second)
    shutil.rmtree(bench.folder)
    run(bench, second)
    assert bench.count(LABELS) == 1


def test_a_gap_is_sought_back(bench: Bench) -> None:
    """A batch that begins behind the position in the state is not taken: the gap is read first."""

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        assert await host.process(ANSWER)
        later = batch("engagements", 5, ANSWER.records[0].value or b"")
        assert await host.process(later) is False
        assert bench.group.sought == {("engagements", 0): 1}

    run(bench, scenario)


def test_partitions_come_with_all_their_topics(bench: Bench) -> None:
    """A partition of one topic without its companions is refused; an unowned batch not taken."""

    async def scenario(host: Host) -> None:
        with pytest.raises(ConfigError, match="same number of partitions"):
            await host.assigned(frozenset({("applications", 0)}))
        assert await host.process(ANSWER) is False

    run(bench, scenario)


def test_a_group_that_has_read_without_a_state_is_refused(bench: Bench) -> None:
    """Where neither folder nor changelog know of what the group has read, nobody goes on."""

    async def scenario(host: Host) -> None:
        bench.group.read = {("labels", 0): 17}
        with pytest.raises(StateError, match="has read labels-0 up to 17, but neither"):
            await host.assigned(ALL)

    run(bench, scenario)


def test_what_a_later_owner_has_read_is_not_missed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is fenced just after it recovered an empty state does not take it for lost."""

    async def begun(partitions: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Say what the later owner has read since; there is none the next time."""
        del partitions
        monkeypatch.setattr(bench.group, "begun", Group().begun)
        failing(FencedError("fenced"), "send", monkeypatch)
        return {("labels", 0): 17}

    async def scenario(host: Host) -> None:
        monkeypatch.setattr(bench.group, "begun", begun)
        await host.assigned(ALL)
        assert await host.process(ANSWER)
        assert bench.group.error is None

    run(bench, scenario)


def test_a_fresh_partition_has_no_positions(bench: Bench) -> None:
    """A store that has read nothing says so."""

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)

    run(bench, scenario)
    store = RocksStore(bench.folder / "job-0", read_only=True)
    assert load_progress(store) is None
    store.close()


def test_a_checkpoint_is_a_data_folder(bench: Bench, tmp_path: Path) -> None:
    """A copy of a running worker's state; a host on it goes on where the copy was made."""
    out = tmp_path / "copy"

    async def scenario(host: Host) -> None:
        with pytest.raises(ConfigError, match="no worker answers in"):
            await asyncio.to_thread(ask_checkpoint, bench.folder, out)
        await host.assigned(ALL)
        await host.process(ANSWER)
        done = await asyncio.to_thread(ask_checkpoint, bench.folder, out)
        assert done.stores == 2
        assert done.size_bytes > 0
        await host.process(APPLIED)
        with pytest.raises(StateError, match="copy is there already"):
            await asyncio.to_thread(ask_checkpoint, bench.folder, out)
        await host.revoked(ALL)
        with pytest.raises(StateError, match="is being taken over or given up"):
            await asyncio.to_thread(ask_checkpoint, bench.folder, tmp_path / "other")
        assert not list(tmp_path.glob("other*"))

    run(bench, scenario)
    assert partition_ids_in(out) == [("job", 0), ("member", 0)]
    assert whose(out) == "test"
    assert not (bench.folder / SOCKET).exists()
    store = RocksStore(out / "job-0", read_only=True)
    progress = load_progress(store)
    store.close()
    assert progress is not None
    assert progress.positions == {"engagements": 1}
    bench.folder = out

    async def go_on(host: Host) -> None:
        await host.assigned(ALL)
        assert bench.group.sought == {("engagements", 0): 1, ("applications-by-job", 0): 1}

    run(bench, go_on)


def test_requests_reach_a_folder_with_a_long_name(tmp_path: Path) -> None:
    """The system's limit to a socket's path is no limit to the folder's."""
    folder = tmp_path / ("long-" * 40)
    folder.mkdir()

    async def refuse(out: Path) -> Checkpointed:
        raise StateError(f"not into {out.name}")

    async def scenario() -> None:
        requests = Requests(folder, refuse)
        await requests.open()
        with pytest.raises(StateError, match="not into copy"):
            await asyncio.to_thread(ask_checkpoint, folder, tmp_path / "copy")
        await requests.close()

    asyncio.run(scenario())
    with pytest.raises(ConfigError, match="there is no folder"):
        ask_checkpoint(tmp_path / "none", tmp_path / "copy")


def test_partitions_obey_commands(bench: Bench) -> None:
    """At the next tick, once, and durably: the session after it knows."""

    async def scenario(host: Host) -> None:
        bench.commands.append(GateCommand("per_job", None, 5))
        for _ in range(2):
            await host.assigned(ALL)
            session = host._owned["job", 0].session
            assert session is not None
            await host.tick()
            deadline = asyncio.get_running_loop().time() + 20
            while session.partition.judged.gate.command != 5:
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.01)
            await host.revoked(ALL)

    run(bench, scenario)


def test_ready_once_everything_is_worked_on(bench: Bench) -> None:
    """Not before the group has spoken, not while partitions are being taken over."""

    async def scenario(host: Host) -> None:
        assert host.why_not_ready() == "no partitions are assigned yet"
        await host.assigned(ALL)
        assert host.why_not_ready() is None
        await host.revoked(ALL)
        assert host.why_not_ready() == "2 of 2 partitions are being taken over"

    run(bench, scenario)
