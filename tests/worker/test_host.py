"""A host and its sessions: nothing reaches state or Kafka but whole units, and all of them do."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from stream.errors import (
    BrokerError,
    ConfigError,
    DamagedStateError,
    FencedError,
    MisroutedProducerError,
    StateError,
)
from stream.events.records import CONSUMED, DEAD_LETTERS, LABELS
from stream.metrics.worker import WorkerMetrics
from stream.partitions.base import Unit
from stream.partitions.job import JobPartition
from stream.partitions.progress import load_progress
from stream.policy import DAY_MS
from stream.stages.job import JobStage
from stream.state.store import RocksStore
from stream.worker.contract import InputPartition
from stream.worker.host import Host
from stream.worker.logs import Terse
from stream.worker.transactions import Transactions
from tests import kit
from tests.kit import closing
from tests.worker.bench import ALL, ANSWER, APPLIED, CLOSED, Bench, Group, batch, run


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


def test_the_worker_times_its_own_takeovers(bench: Bench) -> None:
    """Each assignment that is worked on in full counts once, however briefly nobody had it."""

    async def scenario(host: Host) -> None:
        def counted() -> float | None:
            registry = host._metrics.registry
            return registry.get_sample_value("hearback_takeover_seconds_count")

        await host.assigned(ALL)
        assert counted() == 1
        await host.revoked(ALL)
        assert counted() == 1
        await host.assigned(ALL)
        assert counted() == 2

    run(bench, scenario)


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


def test_batches_that_wait_for_each_other_are_one_unit_of_work(bench: Bench) -> None:
    """What one fetch brought of both topics, and what waits for a flush, costs one transaction."""

    async def scenario(host: Host) -> None:
        def flushes() -> float | None:
            registry = host._metrics.registry
            return registry.get_sample_value("hearback_flush_seconds_count")

        await host.assigned(ALL)
        assert all(await asyncio.gather(host.process(ANSWER), host.process(APPLIED)))
        assert flushes() == 1
        assert bench.count(LABELS) == 1
        assert await host.process(CLOSED)
        assert flushes() == 2

    run(bench, scenario)


def test_a_batch_that_does_not_go_on_comes_again_without_the_other(bench: Bench) -> None:
    """Of two that wait, one that leaves a gap is sought back, and the other is done."""

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        assert await host.process(ANSWER)
        late = batch("engagements", 3, kit.to_json(closing("c", DAY_MS + 6)))
        outcomes = await asyncio.gather(host.process(late), host.process(APPLIED))
        assert list(outcomes) == [False, True]
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


def damage_table(bench: Bench) -> Path:
    """Damage the first block of the one table of the job partition's store."""
    (table,) = (bench.folder / "job-0").glob("*.sst")
    data = bytearray(table.read_bytes())
    data[20] ^= 1
    table.write_bytes(data)
    return table


def test_a_block_that_cannot_be_read_costs_a_recovery(bench: Bench) -> None:
    """The store is put aside, the changelog makes another, and the record is read again."""

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        await host.process(ANSWER)
        host._data.store(("job", 0)).flush()
        table = damage_table(bench)
        assert not await host.process(APPLIED)
        while not bench.group.sought:
            await asyncio.sleep(0.01)
        assert await host.process(APPLIED)
        assert bench.count(LABELS) == 1
        assert host._data.damaged_stores == 1
        assert list(bench.folder.glob(f"damaged-job-0-*/{table.name}"))

    run(bench, scenario)


def test_a_store_that_is_damaged_before_its_session_is_renewed_is_rebuilt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker was away, and the disk failed meanwhile: the next try finds an empty folder."""

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        await host.process(ANSWER)
        failing(BrokerError("away"), "send", monkeypatch)
        assert not await host.process(APPLIED)
        host._data.store(("job", 0)).flush()
        damage_table(bench)
        while not bench.group.sought and bench.group.error is None:
            await asyncio.sleep(0.01)
        assert bench.group.error is None
        assert await host.process(APPLIED)
        assert bench.count(LABELS) == 1
        assert host._data.damaged_stores == 1

    run(bench, scenario)


def test_a_batch_that_is_done_again_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the traceback of what failed first, at WARNING, and counted."""
    apply = JobStage.apply
    failed = False

    def fail_once(self: JobStage, *arguments: Any) -> Any:
        nonlocal failed
        if not failed:
            failed = True
            raise ZeroDivisionError("boom")
        return apply(self, *arguments)

    monkeypatch.setattr(JobStage, "apply", fail_once)

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        assert await host.process(ANSWER)
        assert await host.process(APPLIED)
        assert bench.count(LABELS) == 1
        redone = host._metrics.registry.get_sample_value(
            "hearback_batches_redone_total", {"stage": "job"}
        )
        assert redone == 1

    run(bench, scenario)
    (told,) = [record for record in caplog.records if "done again" in record.message]
    assert told.levelname == "WARNING"
    assert told.message == "engagements-0: the batch from 0 on is done again, record by record"
    assert Terse().filter(told)
    assert "ZeroDivisionError: boom" in logging.Formatter().format(told)


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


def test_a_host_that_has_learned_goes_on_without_misrouted_records(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch comes again and is set aside; readiness is red until records are right again."""
    other = kit.to_json(closing("c", DAY_MS, job="j9"))
    strays = batch("engagements", 1, *[other] * 40)

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        assert await host.process(ANSWER)
        assert await host.process(APPLIED)
        assert await host.process(strays) is False
        assert host.why_not_ready() is None
        assert await host.process(strays)
        assert bench.count(DEAD_LETTERS) == 40
        assert "40 of the newest 41 records of engagements-0 are misrouted" in str(
            host.why_not_ready()
        )
        await host.process(batch("engagements", 41, *[other] * 100, key=b"j9"))
        assert host.why_not_ready() is None

    run(bench, scenario)
    assert caplog.text.count("misrouted records become dead letters") == 1


def test_what_is_gone_is_passed_over_and_counted(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Not before what was fetched is done; then the position in the state moves, and stays."""

    async def first(host: Host) -> None:
        await host.assigned(ALL)
        assert await host.process(ANSWER)
        bench.group.sought.clear()
        await host.skip(("engagements", 0), 5, 100)  # records 1 to 4 are in flight
        assert bench.group.sought == {}
        await host.skip(("engagements", 0), 1, 100)
        assert bench.group.sought == {("engagements", 0): 100}
        assert await host.process(APPLIED)
        for topic in ("engagements", "labels"):
            await host.skip((topic, 7), 0, 100)  # not ours

    async def second(host: Host) -> None:
        await host.assigned(ALL)
        assert bench.group.sought["engagements", 0] == 100

    run(bench, first)
    run(bench, second)
    assert "engagements-0: 99 records were deleted before they were read" in caplog.text
    assert bench.count(LABELS) == 1


def test_partitions_that_are_added_are_refused(bench: Bench) -> None:
    """Keys move away from their state; the line says so, as readiness does meanwhile."""

    async def scenario(host: Host) -> None:
        with pytest.raises(
            ConfigError, match=r"had 1 partitions, now there is a partition 1: keys"
        ):
            await host.assigned(
                frozenset((topic, number) for topic in CONSUMED for number in (0, 1))
            )

    run(bench, scenario)


@pytest.mark.parametrize("at", ["fence", "send"])
def test_a_setting_that_is_in_the_way_stops_the_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Where no further try helps none is made, neither at the start of a session nor later."""
    error = ConfigError("set transaction.max.timeout.ms")

    async def scenario(host: Host) -> None:
        if at == "send":
            await host.assigned(ALL)
        raised = failing(error, at, monkeypatch, times=100)
        with pytest.raises(ConfigError, match=r"set transaction\.max"):
            await (host.assigned(ALL) if at == "fence" else host.process(ANSWER))
        assert len(raised) <= 2  # one for each stage

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


@pytest.mark.parametrize("where", ["units", "metrics"])
def test_damage_that_a_tick_finds_costs_a_recovery(bench: Bench, where: str) -> None:
    """In a unit of work as in what metrics read; nothing more is read of what was put aside."""

    def damaged(*_: object) -> Iterator[Unit]:
        yield from ()
        raise DamagedStateError("a block is damaged")

    def damaged_metrics(*_: object) -> None:
        raise DamagedStateError("a block is damaged")

    broken = (
        patch.object(JobPartition, "tick", damaged)
        if where == "units"
        else patch.object(WorkerMetrics, "_hold", damaged_metrics)
    )

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        assert await host.process(ANSWER)
        with broken:
            await host.tick()
            while not host._data.damaged_stores and bench.group.error is None:
                await asyncio.sleep(0.01)
        while not bench.group.sought and bench.group.error is None:
            await asyncio.sleep(0.01)
        assert bench.group.error is None
        assert await host.process(APPLIED)
        assert bench.count(LABELS) == 1

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
