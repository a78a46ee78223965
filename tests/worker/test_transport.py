"""Record batches: nothing lost, nothing twice, nothing out of order, and positions that tell so."""

from __future__ import annotations

import asyncio
import inspect
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import FetchError, FetchResult
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InvalidRequestError,
    NoOffsetForPartitionError,
    TopicAuthorizationFailedError,
)
from faust.transport import consumer as faust_consumer
from faust.types import TP

from stream.errors import BrokerError, ConfigError, StateError
from stream.events.records import Record
from stream.worker import fetching, transport
from stream.worker.app import Worker
from stream.worker.contract import InputPartition, RecordBatch
from stream.worker.faust_internals import check_faust_internals
from stream.worker.fetching import rest_s
from stream.worker.transport import BatchConsumer
from tests.worker.conftest import PARTITIONS, TOPICS, Kit, Recorder

ALL = {(topic, partition) for topic in TOPICS for partition in range(PARTITIONS)}


def test_every_record_comes_once_and_in_order(kit: Kit) -> None:
    """Batches join without a gap, hold each record once in its order, and are committed."""
    kit.produce(4000)
    recorder = Recorder()
    kit.work(recorder, lambda: recorder.count >= 4000, max_poll_records=100)
    recorder.check_contiguous()
    assert recorder.batches.keys() == ALL
    for topic, partition in ALL:
        records = recorder.records(topic, partition)
        first = TOPICS.index(topic) + len(TOPICS) * partition
        numbers = range(first, 4000, len(ALL))
        assert [(r.offset, r.key, r.value) for r in records] == [
            (offset, b"k%d" % number, b"v%d" % number) for offset, number in enumerate(numbers)
        ]
        assert all(record.timestamp_ms > 0 for record in records)
        assert all(len(batch.records) <= 100 for batch in recorder.batches[topic, partition])
        assert all(batch.high_watermark == 500 for batch in recorder.batches[topic, partition])
    assert kit.committed() == {key: batches[-1].end for key, batches in recorder.batches.items()}
    assert kit.committed() == kit.ends()


def test_a_restart_goes_on_at_the_committed_offset(kit: Kit) -> None:
    """A second worker gets what came after the first one stopped, and nothing before it."""
    kit.produce(80)
    first = Recorder()
    kit.work(first, lambda: first.count >= 80)
    kit.produce(160)
    second = Recorder()
    kit.work(second, lambda: second.count >= 160)
    second.check_contiguous(begin=10)
    assert second.count == 160


def test_positions_pass_transaction_markers(kit: Kit) -> None:
    """Positions reach the end of the topic, past the markers, and a marker alone moves them too."""
    kit.transactions("cac", size=40)
    ends = kit.ends()

    def at_end() -> bool:
        return recorder.control is not None and recorder.control.positions() == ends

    recorder = Recorder()
    kit.work(recorder, at_end)
    recorder.check_contiguous()
    assert kit.committed() == ends
    for partition in range(PARTITIONS):
        offsets = [record.offset for record in recorder.records(TOPICS[0], partition)]
        assert offsets == sorted(set(offsets))
        assert len(offsets) < ends[TOPICS[0], partition]


def test_new_records_come_without_delay_from_every_partition(kit: Kit) -> None:
    """A record reaches the handler within a second, however busy or idle the others are."""
    recorder = Recorder()
    sent = 0

    def all_came() -> bool:
        nonlocal sent
        if recorder.ticks and recorder.count == sent < 8:
            kit.produce(1, topic=TOPICS[sent % 2])
            sent += 1
        return recorder.count == 8

    async def in_time() -> None:
        await asyncio.wait_for(kit.start(recorder, all_came, kit.settings()), 8)

    asyncio.run(in_time())


def test_much_is_fetched_seldom(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fetch that brought much nothing is asked for until it has rested."""
    longest_s = 1.5
    monkeypatch.setattr(fetching, "LONGEST_REST_S", longest_s)
    monkeypatch.setattr(fetching, "REST_OF_PARTITION_S", longest_s)
    monkeypatch.setattr(fetching, "REST_OF_RECORD_S", longest_s)
    kit.produce(1)
    came_s: list[float] = []
    recorder = Recorder()

    def all_came() -> bool:
        if recorder.count > len(came_s):
            came_s.append(time.monotonic())
            kit.produce(1)
        return len(came_s) == 3

    kit.work(recorder, all_came)
    # The watch looks now and then, so that a time may be noted late, but not early by more.
    assert came_s[2] - came_s[0] > longest_s


def test_what_comes_alone_waits_for_nothing() -> None:
    """The rest is the longer the more came, up to what all partitions' transactions are worth."""
    assert rest_s(1, 8) == pytest.approx(0.001)
    assert rest_s(40, 8) == pytest.approx(0.04)
    assert rest_s(12_000, 8) == pytest.approx(0.1)
    assert rest_s(12_000, 100) == pytest.approx(0.2)


def test_assigned_decides_where_partitions_start(kit: Kit) -> None:
    """Positions sought within ``assigned`` beat the group's committed offsets, up and down."""
    kit.produce(800)
    kit.commit(50)
    recorder = Recorder()
    recorder.starts = {(TOPICS[0], 1): 20, (TOPICS[1], 2): 97}
    kit.work(recorder, lambda: recorder.count >= 6 * 50 + 80 + 3)
    begins = {key: batches[0].begin for key, batches in recorder.batches.items()}
    assert begins == dict.fromkeys(ALL, 50) | recorder.starts
    assert recorder.count == 6 * 50 + 80 + 3


def test_a_batch_that_was_sought_back_comes_again(kit: Kit) -> None:
    """A seek within ``process`` leaves that batch unacknowledged, and no other is lost by it."""
    refused: set[tuple[str, int, int]] = set()

    class Refusing(Recorder):
        async def process(self, batch: RecordBatch) -> bool:
            where = (batch.topic, batch.partition, batch.begin)
            if where in refused or batch.partition == 3:
                return await super().process(batch)
            if self.control is not None:
                refused.add(where)
                await self.control.seek({(batch.topic, batch.partition): batch.begin})
            return batch.partition == 2  # whatever it says: it was sought

    kit.produce(4000)
    recorder = Refusing()
    kit.work(recorder, lambda: recorder.count >= 4000, max_poll_records=100)
    recorder.check_contiguous()
    assert recorder.count == 4000
    assert len(refused) > 6
    assert kit.committed() == kit.ends()


def test_a_batch_that_was_not_handled_comes_again(kit: Kit) -> None:
    """A batch for which ``process`` says False comes again, also when it is the last."""
    refused: set[tuple[str, int, int]] = set()

    class Refusing(Recorder):
        async def process(self, batch: RecordBatch) -> bool:
            where = (batch.topic, batch.partition, batch.begin)
            if where in refused:
                return await super().process(batch)
            refused.add(where)
            return False

    kit.produce(800)
    recorder = Refusing()
    kit.work(recorder, lambda: recorder.count >= 800, max_poll_records=40)
    recorder.check_contiguous()
    assert recorder.count == 800
    assert kit.committed() == kit.ends()


def test_slow_partitions_hold_up_no_other(kit: Kit) -> None:
    """While the buffers of one partition are full the others' records are all handled."""
    gate = asyncio.Event()

    async def wait_at_gate(batch: RecordBatch) -> None:
        if (batch.topic, batch.partition) == (TOPICS[0], 0):
            await gate.wait()

    def others_are_done() -> bool:
        if recorder.count == 7000 and not gate.is_set():
            assert not recorder.batches[TOPICS[0], 0]
            gate.set()
        return recorder.count == 8000

    kit.produce(8000)
    recorder = Recorder(wait_at_gate)
    kit.work(recorder, others_are_done, max_poll_records=50)
    recorder.check_contiguous()


def test_a_position_that_the_topic_has_not_is_an_error(kit: Kit) -> None:
    """Committed offsets past the end of a topic stop the worker: it may have been made anew."""
    kit.produce(80)
    kit.commit(1000)
    recorder = Recorder()
    with pytest.raises(StateError, match=r"position 1000 is not in the topic, which keeps 0 to 10"):
        kit.work(recorder, lambda: False)
    assert recorder.hooks == ["assigned 8", "stop"]
    assert recorder.count == 0


@pytest.mark.parametrize("accepted", [False, True])
def test_records_that_were_deleted_unread_are_an_error_unless_accepted(
    kit: Kit, accepted: bool
) -> None:
    """The line names the option; with it the handler is told what is gone, and goes on there."""
    kit.drop(TOPICS[0])
    kit.produce(40, topic=TOPICS[1])
    first = kit.first(TOPICS[0], 0)
    assert first > 1
    recorder = Recorder()
    recorder.starts = {(TOPICS[0], 0): 1}

    def read_all() -> bool:
        read = recorder.batches[TOPICS[0], 0]
        return bool(read) and read[-1].end == kit.ends()[TOPICS[0], 0]

    if not accepted:
        line = rf"{TOPICS[0]}-0: records 1 to {first - 1} were deleted.*--accept-lost-records"
        with pytest.raises(StateError, match=line):
            kit.work(recorder, lambda: False)
        return
    kit.work(recorder, read_all, accept_lost_records=True)
    skips = [hook for hook in recorder.hooks if hook.startswith("skip")]
    assert set(skips) == {f"skip {(TOPICS[0], 0)} 1 {first}"}
    assert recorder.batches[TOPICS[0], 0][0].begin == first


def test_what_a_group_has_committed_before_the_start_of_a_topic_was_not_read(kit: Kit) -> None:
    """A new application id may begin where records were deleted between two starts."""
    kit.drop(TOPICS[0])
    kit.commit(0)
    recorder = Recorder()
    kit.work(recorder, lambda: bool(recorder.batches[TOPICS[0], 0]))
    assert recorder.batches[TOPICS[0], 0][0].begin == kit.first(TOPICS[0], 0)


def test_a_partition_without_a_committed_offset_waits_for_its_seek() -> None:
    """In a new group aiokafka may look for offsets between two rebalances; others still fail."""
    place, other = (TP(TOPICS[0], number) for number in (0, 1))
    error: Any = FetchError  # aiokafka has no types
    fetcher: Any = SimpleNamespace(
        _records={place: error(error=NoOffsetForPartitionError(place), backoff=0)},
        _notify=lambda _: None,
        _wait_consume_future=None,
    )
    wanted = frozenset((place, other))
    assert fetching._take(fetcher, wanted, 1) == []
    assert fetcher._records == {}
    fetcher._records[other] = error(error=InvalidRequestError(), backoff=0)
    with pytest.raises(InvalidRequestError):
        fetching._take(fetcher, wanted, 1)


def test_a_rebalance_that_the_next_one_overtakes_loses_nothing(kit: Kit) -> None:
    """The recovery of the first ends amid the second; what is fetched then has to come again."""

    class Overtaken(Recorder):
        async def assigned(self, partitions: frozenset[InputPartition]) -> None:
            await super().assigned(partitions)
            if len(self.hooks) > 1:
                return
            assert isinstance(self.control, Worker)
            owner = self.control.consumer
            coordinator: Any = owner._thread._ensure_consumer()._coordinator
            owner._thread.thread_loop.call_soon_threadsafe(coordinator.request_rejoin)
            while owner.assigned:
                await asyncio.sleep(0.01)

    kit.produce(800)
    recorder = Overtaken()
    kit.work(recorder, lambda: recorder.count >= 800)
    assert recorder.hooks == ["assigned 8", "revoked 8", "assigned 8", "stop"]
    recorder.check_contiguous()
    assert recorder.count == 800


def test_a_batch_that_was_lost_comes_again(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever loses the last batch of a partition, the partition does not stand still."""
    accept = BatchConsumer.accept
    lost: set[TP] = set()

    async def lose_one(self: BatchConsumer, batch: RecordBatch) -> RecordBatch | None:
        place = TP(batch.topic, batch.partition)
        if place not in lost:
            lost.add(place)
            return None
        return await accept(self, batch)

    monkeypatch.setattr(BatchConsumer, "accept", lose_one)
    monkeypatch.setattr(transport, "GAP_CHECK_S", 0.1)
    kit.produce(800)
    recorder = Recorder()
    kit.work(recorder, lambda: recorder.count >= 800)
    recorder.check_contiguous()
    assert recorder.count == 800
    assert len(lost) == len(ALL)


@pytest.mark.parametrize("failures", [2, transport.MAX_GROUP_ERRORS])
def test_joining_the_group_is_tried_again(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """An answer that aiokafka does not expect is no end: it is tried again, but not for ever."""
    join: Any = GroupCoordinator.ensure_active_group
    left = failures

    async def join_at_last(self: GroupCoordinator, *arguments: object) -> object:
        nonlocal left
        left -= 1
        if left >= 0:
            raise InvalidRequestError
        return await join(self, *arguments)

    monkeypatch.setattr(GroupCoordinator, "ensure_active_group", join_at_last)
    monkeypatch.setattr(transport, "GROUP_CHECK_S", 0.02)
    kit.produce(8)
    recorder = Recorder()
    if failures < transport.MAX_GROUP_ERRORS:
        kit.work(recorder, lambda: recorder.count == 8)
    else:
        with pytest.raises(BrokerError, match="into the consumer group test: InvalidRequestError"):
            kit.work(recorder, lambda: False)


@pytest.mark.parametrize("where", ["group_error", "fetch"])
def test_what_the_broker_will_never_let_us_do_ends_with_one_line(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Rights that are missing are no reason to try again, and no unexpected error."""
    errors: Any = {
        "group_error": GroupAuthorizationFailedError,
        "fetch": TopicAuthorizationFailedError,
    }

    async def refused(*_: object) -> None:
        raise errors[where]("x")

    monkeypatch.setattr(fetching.BatchConsumerThread, where, refused)
    monkeypatch.setattr(transport, "GROUP_CHECK_S", 0.02)
    with pytest.raises(BrokerError, match=errors[where].__name__):
        kit.work(Recorder(), lambda: False)


def test_a_part_of_a_batch_begins_where_it_was_cut() -> None:
    """``since`` keeps the records from the position on and says that it begins there."""
    records = tuple(Record(offset, None, b"", 0) for offset in (5, 6, 8, 9))
    batch = RecordBatch("t", 0, 4, 12, 20, records)
    assert batch.since(7) == RecordBatch("t", 0, 7, 12, 20, records[2:])
    assert batch.since(11) == RecordBatch("t", 0, 11, 12, 20, ())


def test_the_installed_faust_is_one_that_the_transport_knows() -> None:
    """All that the transport leans on is there, with the parameters that it expects."""
    check_faust_internals()


def test_a_missing_method_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When Faust has lost a method the error says which, in one line, with the versions."""
    monkeypatch.delattr(faust_consumer.Consumer, "_drain_messages")
    with pytest.raises(ConfigError, match=r"faust-streaming \d.*Consumer\._drain_messages is not"):
        check_faust_internals()


def test_other_parameters_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When aiokafka has changed what a method takes the error shows what it takes now."""

    def getall(self: FetchResult, limit: int, *, more: bool) -> None: ...

    monkeypatch.setattr(FetchResult, "getall", getall)
    with pytest.raises(ConfigError, match=r"FetchResult\.getall takes .*more") as raised:
        check_faust_internals()
    assert "\n" not in str(raised.value)


def test_a_missing_attribute_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When instances no longer have an attribute the error says which."""

    def init(self: FetchResult, tp: object) -> None: ...

    monkeypatch.setattr(FetchResult, "__init__", init)
    assert list(inspect.signature(FetchResult).parameters) == ["tp"]
    with pytest.raises(ConfigError, match=r"FetchResult\._partition_records is not assigned"):
        check_faust_internals()
