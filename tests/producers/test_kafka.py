"""Playing logs into a broker: everything arrives, where it belongs, no faster than is safe."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import Producer

from producers import kafka as kafka_module
from producers import outbox
from producers.kafka import (
    ProduceProgress,
    produce,
)
from producers.simulate import SimulationSettings, simulate
from producers.throttle import MAX_UNREAD_BYTES
from stream.errors import BrokerError, ConfigError, LogError
from stream.events.applications import RawApplication
from stream.events.partitioner import partition_of
from stream.events.records import APPLICATIONS, CONSUMED, ENGAGEMENTS
from stream.events.structs import JobEvent
from stream.events.wire import decode_raw
from stream.logs.files import write_lines
from stream.policy import HOUR_MS, LabelPolicy

DAY_MS = 86_400_000
START_MS = 1_704_067_200_000
PARTITIONS = range(4)  # of every topic of a mock cluster

Record = tuple[bytes | None, bytes]
"""Key and value."""


@pytest.fixture
def broker() -> Iterator[str]:
    """Run a throw-away broker: librdkafka's mock cluster."""
    owner = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
    (node,) = owner.list_topics(timeout=10).brokers.values()
    yield f"{node.host}:{node.port}"
    owner.flush(1)


def consumer(broker: str, topics: Sequence[str] = CONSUMED) -> confluent_kafka.Consumer:
    """Read all partitions of topics from their beginnings, as the worker's group."""
    reader = confluent_kafka.Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "hearback",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    reader.assign(
        [
            confluent_kafka.TopicPartition(topic, partition, 0)
            for topic in topics
            for partition in PARTITIONS
        ]
    )
    return reader


def received(broker: str, topic: str) -> dict[int, list[Record]]:
    """Read a topic to its end, by partition."""
    reader = consumer(broker, [topic])
    left = sum(
        reader.get_watermark_offsets(confluent_kafka.TopicPartition(topic, k), timeout=10)[1]
        for k in PARTITIONS
    )
    found: dict[int, list[Record]] = {k: [] for k in PARTITIONS}
    while left:
        for message in reader.consume(left, timeout=10):
            assert message.error() is None
            partition = message.partition()
            assert partition is not None
            found[partition].append((message.key(), message.value() or b""))
            left -= 1
    reader.close()
    return found


class Worker:
    """Stands in for the worker: reads everything and commits now and then."""

    def __init__(self, broker: str) -> None:
        self.read: dict[tuple[str | None, int | None], int] = defaultdict(int)
        self.gaps: list[str] = []
        self._reader = consumer(broker)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            for message in self._reader.consume(500, timeout=0.05):
                where = message.topic(), message.partition()
                if message.offset() != self.read[where]:
                    self.gaps.append(f"{where}: {message.offset()} after {self.read[where]}")
                self.read[where] += 1
            if self.read:
                self._reader.commit(
                    offsets=[
                        confluent_kafka.TopicPartition(topic or "", partition or 0, count)
                        for (topic, partition), count in self.read.items()
                    ],
                    asynchronous=False,
                )

    def end(self, expected: int) -> None:
        """Wait until so much was read, then stop."""
        deadline = time.monotonic() + 10
        while sum(self.read.values()) < expected and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stop.set()
        self._thread.join()
        self._reader.close()


def application(number: int, time_ms: int, padding: int = 0) -> bytes:
    """Make an application's line."""
    return json.dumps(
        {
            "type": "application",
            "application_id": f"a{number}",
            "member_id": f"m{number % 50}",
            "job_id": f"j{number % 7}",
            "event_time_ms": time_ms,
            "features": {"global": [1.0], "per_member": [1.0], "per_job": [1.0]},
            "padding": "x" * padding,
        }
    ).encode()


def engagement(number: int, time_ms: int) -> bytes:
    """Make an engagement's line."""
    return json.dumps(
        {
            "type": "engagement",
            "engagement_id": f"e{number}",
            "application_id": f"a{number}",
            "member_id": f"m{number % 50}",
            "job_id": f"j{number % 7}",
            "event_time_ms": time_ms,
            "action": "message",
        }
    ).encode()


def clock(time_ms: int) -> bytes:
    """Make a clock's line."""
    return b'{"type":"clock","event_time_ms":%d}' % time_ms


def closing(time_ms: int) -> bytes:
    """Make a clock's line that ends a log."""
    return b'{"type":"clock","event_time_ms":%d,"hearback_sure":true}' % time_ms


def log(folder: Path, *lines: bytes, name: str = "log.jsonl") -> Path:
    """Write a log."""
    path = folder / name
    write_lines(path, lines)
    return path


def test_every_line_arrives_unchanged_under_its_key(broker: str, tmp_path: Path) -> None:
    """All lines of a log arrive once, byte for byte, in order, in the partition of their key."""
    lines = list(simulate(SimulationSettings(members=60, jobs=60, days=5, repeat_share=0.05)))
    progress = produce(
        [log(tmp_path, *lines, name="log.jsonl.zst")], broker, clocks=False, throttle="off"
    )
    expected: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for line in lines:
        event = json.loads(line)
        if event["type"] == "application":
            topic, key = APPLICATIONS, event["member_id"].encode()
        else:
            topic, key = ENGAGEMENTS, event["job_id"].encode()
        expected[topic, partition_of(key, 4)].append((key, line))
    for topic in (APPLICATIONS, ENGAGEMENTS):
        for partition, records in received(broker, topic).items():
            assert records == expected[topic, partition]
    assert (progress.sent, progress.skipped, progress.clocks) == (len(lines), 0, 0)
    assert progress.event_time_ms == max(json.loads(line)["event_time_ms"] for line in lines)
    assert progress.read.done_bytes == progress.read.total_bytes > 0
    assert progress.closed_at_ms is None


def test_integer_ids_are_keyed_by_their_digits(broker: str, tmp_path: Path) -> None:
    """A line whose ids are numbers is sent as it is, under the key that the worker expects."""
    applied = (
        b'{"type":"application","application_id":1,"member_id":%s,"job_id":2,'
        b'"event_time_ms":"2024-01-01T00:00:00Z","features":{"per_member":[1],"per_job":[1]}}'
    )
    closed = (
        b'{"type":"job","job_event_id":1,"job_id":%s,"event_time_ms":1704067200000.0,'
        b'"action":"closed"}'
    )
    lines = [line % number for line in (applied, closed) for number in (b"7", b"-31.0", b"8e1")]
    progress = produce([log(tmp_path, *lines)], broker, clocks=False)
    assert (progress.sent, progress.event_time_ms) == (6, START_MS)
    found = []
    for topic in (APPLICATIONS, ENGAGEMENTS):
        for partition, records in received(broker, topic).items():
            for key, value in records:
                event = decode_raw(value)
                assert isinstance(event, RawApplication | JobEvent)
                owner = event.member_id if isinstance(event, RawApplication) else event.job_id
                assert (key, partition) == (owner.encode(), partition_of(owner.encode(), 4))
                found.append((value, key))
    assert sorted(found) == sorted(zip(lines, [b"7", b"-31", b"80"] * 2, strict=True))


def test_clocks_go_everywhere_without_a_key(broker: str, tmp_path: Path) -> None:
    """A clock of the log goes to every partition of both inputs, at its place, without a key."""
    path = log(tmp_path, application(1, START_MS), clock(START_MS + 5), engagement(1, START_MS + 9))
    progress = produce([path], broker, clocks=False)
    assert (progress.sent, progress.clocks) == (2, 1)
    keys = {APPLICATIONS: b"m1", ENGAGEMENTS: b"j1"}
    for topic, key in keys.items():
        for partition, records in received(broker, topic).items():
            own = [what for what, _ in records]
            if partition != partition_of(key, 4):
                assert own == [None]
            else:
                assert own == ([key, None] if topic == APPLICATIONS else [None, key])
            assert (None, clock(START_MS + 5)) in records


def test_lines_that_belong_nowhere_are_told(broker: str, tmp_path: Path) -> None:
    """What has no topic or key is skipped, counted, and the first few are named by their line."""
    bad = [
        b"garbage",
        b'{"type":"applause"}',
        b'{"type":"application","event_time_ms":1}',
        b'{"type":"job","job_id":7.5}',
        b'{"type":"clock"}',
        b'{"type":["job"],"job_id":"j1"}',
        b'{"type":"job","job_id":"\\ud800"}',
        b"[]",
    ]
    path = log(tmp_path, application(1, START_MS), *bad, engagement(1, START_MS))
    progress = produce([path], broker, throttle="off")
    assert (progress.sent, progress.skipped) == (2, len(bad))
    assert progress.problems == [
        "log.jsonl:2: not a JSON object",
        "log.jsonl:3: unknown type 'applause'",
        "log.jsonl:4: no member_id",
        "log.jsonl:5: no job_id",
        "log.jsonl:6: a clock without a time",
    ]


def test_a_line_too_large_for_the_broker_is_skipped(broker: str, tmp_path: Path) -> None:
    """A line that no broker takes is told; one that the worker will set aside is sent."""
    path = log(
        tmp_path, application(1, START_MS, padding=1_000_000), application(2, START_MS, 300_000)
    )
    progress = produce([path], broker, throttle="off")
    assert (progress.sent, progress.skipped) == (1, 1)
    (problem,) = progress.problems
    assert problem.endswith("bytes are too large for the broker")


def test_a_damaged_log_is_sent_as_far_as_it_goes(broker: str, tmp_path: Path) -> None:
    """What can be read of a truncated log is sent, and the damage is told."""
    path = log(tmp_path, *(application(k, START_MS + k) for k in range(3_000)), name="log.gz")
    path.write_bytes(path.read_bytes()[:-500])
    progress = produce([path], broker, throttle="off")
    assert 1_000 < progress.sent < 3_000
    assert progress.problems == [
        f"log.gz:{progress.sent + 1}: log.gz: the gzip stream is truncated"
    ]


def test_clocks_tell_how_far_the_log_has_come(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last whole hour that was passed, in every partition of the inputs with events."""
    monkeypatch.setattr(outbox, "_CLOCK_EVERY_S", 0.0)
    hour = START_MS // HOUR_MS * HOUR_MS
    times = [hour + part * HOUR_MS // 2 + 1 for part in (0, 1, 2, 4, 2, 4)]
    lines = [application(number, time_ms) for number, time_ms in enumerate(times)]
    produce([log(tmp_path, *lines)], broker, throttle="off")
    for records in received(broker, APPLICATIONS).values():
        clocks = [value for key, value in records if key is None]
        assert clocks == [closing(hour - HOUR_MS), closing(hour), closing(hour + HOUR_MS)]
    assert not any(received(broker, ENGAGEMENTS).values())


def test_no_clocks_are_sent_a_second_time_within_a_second(broker: str, tmp_path: Path) -> None:
    """A log that is played as fast as possible is not blown up by them."""
    lines = [application(number, START_MS + number * HOUR_MS) for number in range(200)]
    produce([log(tmp_path, *lines)], broker, throttle="off")
    sent = [key for records in received(broker, APPLICATIONS).values() for key, _ in records]
    assert 4 <= sent.count(None) <= 8


def test_another_writer_ends_the_clocks(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock would bind the other one too; which partition it was is told."""
    monkeypatch.setattr(outbox, "_CLOCK_EVERY_S", 0.0)
    lines = [application(number, START_MS + number * HOUR_MS) for number in range(40)]
    other = Producer({"bootstrap.servers": broker})
    begun: list[int] = []

    def interfere(progress: ProduceProgress) -> None:
        if progress.sent >= 20 and not begun:
            begun.append(progress.sent)
            for partition in range(4):
                other.produce(APPLICATIONS, b"{}", partition=partition)
            other.flush(10)

    monkeypatch.setattr(outbox, "REPORT_S", 0.0)
    monkeypatch.setattr(kafka_module, "REPORT_S", 0.0)
    progress = produce(
        [log(tmp_path, *lines)], broker, speed=36_000 * 20, throttle="off", on_progress=interfere
    )
    assert begun
    assert progress.shared is not None
    assert progress.shared.startswith(f"{APPLICATIONS}-")
    per_partition = [
        sum(key is None and b"clock" in value for key, value in records)
        for records in received(broker, APPLICATIONS).values()
    ]
    assert max(per_partition) < len(lines) - 2


def test_only_the_wanted_time_is_sent(broker: str, tmp_path: Path) -> None:
    """Events before --from, and from --until on, are left out, clocks too."""
    lines = [application(k, START_MS + k) for k in range(10)] + [clock(START_MS + 10)]
    progress = produce(
        [log(tmp_path, *lines)], broker, clocks=False, from_ms=START_MS + 3, until_ms=START_MS + 7
    )
    assert (progress.sent, progress.left_out, progress.clocks) == (4, 7, 0)
    values = [value for part in received(broker, APPLICATIONS).values() for _, value in part]
    assert sorted(values) == sorted(lines[3:7])


def test_several_logs_are_merged(broker: str, tmp_path: Path) -> None:
    """Several logs are sent by event time."""
    one = log(tmp_path, *(application(50, START_MS + k) for k in (1, 4, 5)), name="one")
    two = log(tmp_path, *(application(0, START_MS + k) for k in (2, 3, 6)), name="two")
    produce([one, two], broker, clocks=False, throttle="off")
    (records,) = [part for part in received(broker, APPLICATIONS).values() if part]
    assert [json.loads(value)["event_time_ms"] - START_MS for _, value in records] == [*range(1, 7)]


def test_speed_is_that_of_event_time(broker: str, tmp_path: Path) -> None:
    """At 3,600x an hour takes a second; events out of order and absurd ones do not hold it up."""
    hour = 3_600_000
    times = [0, hour // 4, hour // 8, hour // 2, 10**14 - START_MS]
    path = log(tmp_path, *(application(k, START_MS + t) for k, t in enumerate(times)))
    began = time.monotonic()
    progress = produce([path], broker, speed=3_600)
    assert 0.5 <= time.monotonic() - began < 1.5
    assert progress.sent == len(times)
    assert progress.event_time_ms == START_MS + hour // 2


@pytest.mark.parametrize("clocks", [True, False])
def test_who_comes_late_hurries_nobody(broker: str, tmp_path: Path, clocks: bool) -> None:
    """What stands before a line that is a day late keeps its pace; a wrong time holds up nobody."""
    hour = 3_600_000
    times = [k * hour // 4 for k in range(9)]
    times.insert(8, -24 * hour)
    times.insert(3, 30 * hour)
    path = log(tmp_path, *(application(k, START_MS + t) for k, t in enumerate(times)))
    seen: list[tuple[float, int]] = []
    began = time.monotonic()
    produce(
        [path], broker, speed=3_600, clocks=clocks,
        on_progress=lambda progress: seen.append((time.monotonic() - began, progress.sent)),
    )  # fmt: skip
    assert 2.0 <= time.monotonic() - began < 8.0
    assert max(sent for at, sent in seen if at < 1.0) <= 6  # of an hour: five, and the wrong one
    assert seen[-1][1] == len(times)


@pytest.mark.parametrize(
    ("window_days", "orphan_days", "clock_days", "expected_ms"),
    [
        (14, 3, None, 14 * DAY_MS + 1),
        (3, 14, None, 14 * DAY_MS + 1),
        (14, 3, 10, 14 * DAY_MS + 1),
        (14, 3, 20, 20 * DAY_MS),
    ],
)
def test_closing_is_past_every_window_and_wait(
    broker: str,
    tmp_path: Path,
    window_days: int,
    orphan_days: int,
    clock_days: int | None,
    expected_ms: int,
) -> None:
    """The closing time is strictly past window and orphan wait, and not before a log's clock."""
    lines = [application(1, START_MS)]
    if clock_days is not None:
        lines.append(clock(START_MS + clock_days * DAY_MS))
    labels = LabelPolicy(window_ms=window_days * DAY_MS, orphan_ttl_ms=orphan_days * DAY_MS)
    progress = produce([log(tmp_path, *lines)], broker, close=True, labels=labels)
    assert progress.closed_at_ms == START_MS + expected_ms


def test_close_ends_with_a_clock_everywhere(broker: str, tmp_path: Path) -> None:
    """--close ends every partition of both inputs with the same clock, past the window."""
    path = log(tmp_path, application(1, START_MS + 7), application(2, START_MS))
    progress = produce(
        [path], broker, clocks=False, close=True, labels=LabelPolicy(window_ms=2 * DAY_MS)
    )
    expected = START_MS + 7 + 2 * DAY_MS + 1
    assert progress.closed_at_ms == expected
    for topic in (APPLICATIONS, ENGAGEMENTS):
        for records in received(broker, topic).values():
            assert records[-1] == (None, closing(expected))
            assert sum(key is None for key, _ in records) == 1


def test_a_close_after_now_is_refused_before_anything_is_sent(broker: str, tmp_path: Path) -> None:
    """--close on a log whose window is still open is refused in words, and nothing is sent."""
    recent = time.time_ns() // 1_000_000 - 3 * DAY_MS
    path = log(tmp_path, application(1, START_MS), application(2, recent))
    with pytest.raises(ConfigError, match=r"lies after now.*--until") as caught:
        produce([path], broker, close=True)
    assert "\n" not in str(caught.value)
    reader = consumer(broker)
    assert reader.list_topics(timeout=10).topics == {}
    reader.close()
    progress = produce([path], broker, close=True, until_ms=recent)
    assert progress.closed_at_ms == START_MS + 14 * DAY_MS + 1


def test_an_absurd_time_does_not_decide_about_closing(broker: str, tmp_path: Path) -> None:
    """An event of the far future, which no worker takes, is sent but does not count for --close."""
    path = log(tmp_path, application(1, START_MS), application(2, 10**14))
    progress = produce([path], broker, close=True)
    assert (progress.sent, progress.closed_at_ms) == (2, START_MS + 14 * DAY_MS + 1)


def test_the_embedded_broker_is_not_outrun(broker: str, tmp_path: Path) -> None:
    """On the embedded broker far more than it keeps is sent, and its slow reader misses nothing."""
    count = 12_000  # of 2 kB: 24 MB, of which 6 MB go to each partition, where 5 MB are kept
    lines = (application(k, START_MS + k, padding=2_000) for k in range(count))
    path = log(tmp_path, *lines)
    worker = Worker(broker)
    waits = set()
    progress = produce([path], broker, on_progress=lambda p: waits.add(p.waiting_for), close=True)
    worker.end(count + 8)
    assert progress.sent == count
    assert worker.gaps == []
    assert sum(worker.read.values()) >= count + 8
    assert any(wait is not None for wait in waits)


def test_without_a_worker_a_partition_gets_no_more_than_its_share(
    broker: str, tmp_path: Path
) -> None:
    """Nobody reading: the producer stops below a megabyte, and says what it is waiting for."""
    path = log(tmp_path, *(application(0, START_MS + k, padding=2_000) for k in range(2_000)))
    waits: list[str] = []

    def interrupt(progress: ProduceProgress) -> None:
        if progress.waiting_for is not None:
            waits.append(progress.waiting_for)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        produce([path], broker, on_progress=interrupt_once(interrupt))
    partition = partition_of(b"m0", 4)
    records = received(broker, APPLICATIONS)[partition]
    assert 0.8 * MAX_UNREAD_BYTES < sum(len(value) for _, value in records) < MAX_UNREAD_BYTES
    assert waits == [f"the worker to read applications/{partition} (group hearback)"]


@pytest.mark.parametrize("topic", CONSUMED)
def test_any_topic_that_the_worker_reads_holds_the_producer(
    broker: str, tmp_path: Path, topic: str
) -> None:
    """What was unread before, in inputs and in the worker's own topics, counts too."""
    path = log(tmp_path, *(application(k, START_MS + k, padding=500) for k in range(2_000)))
    other = confluent_kafka.Producer({"bootstrap.servers": broker, "log_level": 0})
    for _ in range(1_700):
        other.produce(topic, b"x" * 600, partition=2)
    assert other.flush(10) == 0
    waits: list[str | None] = []

    def interrupt(progress: ProduceProgress) -> None:
        if progress.waiting_for is not None:
            waits.append(progress.waiting_for)
            raise KeyboardInterrupt

    last: list[ProduceProgress] = []
    with pytest.raises(KeyboardInterrupt):
        produce([path], broker, on_progress=interrupt_once(interrupt, last.append))
    assert waits == [f"the worker to read {topic}/2 (group hearback)"]
    assert last[-1].sent < 2_000


def interrupt_once(
    interrupt: Callable[[ProduceProgress], None],
    otherwise: Callable[[ProduceProgress], None] = lambda _: None,
) -> Callable[[ProduceProgress], None]:
    """Call the first until it raises, then only the other: the last report must go through."""
    done = False

    def report(progress: ProduceProgress) -> None:
        nonlocal done
        if done:
            otherwise(progress)
            return
        try:
            interrupt(progress)
        except KeyboardInterrupt:
            done = True
            raise

    return report


def test_closing_lets_labels_loose_in_steps(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Throttled, --close advances in steps, each read before the next, where much is pending."""
    monkeypatch.setattr(outbox, "MAX_UNREAD_BYTES", 20_000)
    path = log(tmp_path, *(application(k, START_MS + k, padding=500) for k in range(400)))
    worker = Worker(broker)
    progress = produce([path], broker, clocks=False, close=True)
    worker.end(400)
    (clocks, *others) = [
        [value for key, value in records if key is None]
        for topic in (APPLICATIONS, ENGAGEMENTS)
        for records in received(broker, topic).values()
    ]
    assert all(other == clocks for other in others)
    assert len(clocks) > 2
    assert clocks == sorted(clocks)
    assert progress.closed_at_ms is not None
    assert clocks[-1] == closing(progress.closed_at_ms)


@pytest.mark.parametrize("clocked", ["neither", "one", "both"])
def test_all_that_is_pending_comes_loose_in_steps(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clocked: str
) -> None:
    """However long ago it was: what clocks to both inputs have not closed yet, in equal shares."""
    monkeypatch.setattr(outbox, "MAX_UNREAD_BYTES", 20_000)
    monkeypatch.setattr(outbox, "_CLOCK_EVERY_S", 0.0)
    times = [START_MS + number * DAY_MS // 4 for number in range(400)]
    lines = [application(number, time_ms, 500) for number, time_ms in enumerate(times)]
    if clocked == "both":
        lines.insert(0, engagement(0, START_MS))
    worker = Worker(broker)
    produce([log(tmp_path, *lines)], broker, clocks=clocked != "neither", close=True)
    worker.end(400)
    found = [
        [json.loads(value)["event_time_ms"] for key, value in records if key is None]
        for topic in (ENGAGEMENTS, APPLICATIONS)
        for records in received(broker, topic).values()
    ]
    sent = found[0]
    assert all(clocks == sent for clocks in (found if clocked == "both" else found[:4]))
    assert sent == sorted(sent)
    hours = sum(time_ms % HOUR_MS == 0 for time_ms in sent)
    assert (hours > 10) == (clocked == "both")
    closed_ms, steps = sent[hours - 1] if hours else 0, sent[hours:]
    most = 4 * 20_000 / 3 / len(lines[1])  # applications that may come loose at once
    shares = [
        sum(since <= time_ms + 14 * DAY_MS < until for time_ms in times)
        for since, until in zip([closed_ms, *steps], steps, strict=False)
    ]
    assert max(shares) <= most + 2
    # A clock says what ten events have reached.
    assert sum(shares) == (14 * 4 + 10 if clocked == "both" else 400)


def test_what_is_pending_is_cut_into_equal_shares() -> None:
    """Also within an hour that holds more than one share; none where little is pending."""
    pending = [(0, 100), (HOUR_MS, 50), (5 * HOUR_MS, 850)]
    assert list(outbox._cuts([], 100)) == list(outbox._cuts(pending, 1001)) == []
    cuts = list(outbox._cuts(pending, 250))
    assert len(cuts) == 4
    at = [0.0, *cuts, 6 * HOUR_MS]
    for since, until in pairwise(at):
        share = sum(
            size * max(min(until, hour + HOUR_MS) - max(since, hour), 0) / HOUR_MS
            for hour, size in pending
        )
        assert share == pytest.approx(200, abs=0.1)


def test_ctrl_c_flushes_and_tells_how_far_it_got(broker: str, tmp_path: Path) -> None:
    """An interrupt goes on only after the broker has everything that counts as sent."""
    path = log(tmp_path, *(application(k, START_MS + k * 60_000) for k in range(2_000)))
    last: list[ProduceProgress] = []

    def interrupt(progress: ProduceProgress) -> None:
        if progress.sent > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        produce(
            [path],
            broker,
            speed=36_000,
            clocks=False,
            on_progress=interrupt_once(interrupt, last.append),
        )
    assert 100 < last[-1].sent < 2_000
    assert sum(map(len, received(broker, APPLICATIONS).values())) == last[-1].sent


def test_a_broker_that_does_not_answer_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody at the address: one line that names it."""
    monkeypatch.setattr(outbox, "ANSWER_S", 0.3)
    with pytest.raises(BrokerError, match=r"no Kafka broker answers at 127\.0\.0\.1:1:") as caught:
        produce([log(tmp_path, application(1, START_MS))], "127.0.0.1:1")
    assert "\n" not in str(caught.value)


def test_a_broker_that_goes_away_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the broker does not take in time is an error, not a silent loss."""
    monkeypatch.setattr(outbox, "_DELIVERY_S", 0.5)
    monkeypatch.setattr(outbox, "ANSWER_S", 1.0)
    owners = [confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})]
    (node,) = owners[0].list_topics(timeout=10).brokers.values()
    path = log(tmp_path, *(application(k, START_MS + k * 1_000) for k in range(20_000)))

    def go_away(progress: ProduceProgress) -> None:
        if progress.sent > 10:
            owners.clear()

    with pytest.raises(BrokerError, match="did not take an event for topic applications"):
        produce(
            [path],
            f"{node.host}:{node.port}",
            speed=3_600,
            throttle="off",
            on_progress=go_away,
        )


def test_wrong_client_settings_are_an_error(broker: str, tmp_path: Path) -> None:
    """A setting that librdkafka does not know is a configuration error that names it."""
    with pytest.raises(ConfigError, match=r"sasl\.mechanic"):
        produce([log(tmp_path, application(1, START_MS))], broker, client={"sasl.mechanic": "x"})


def test_missing_topics_are_named(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real broker without the topics is not asked to make them up: the error names them."""
    monkeypatch.setattr(outbox, "CLUSTER_ID_PREFIX", "not this one")
    with pytest.raises(BrokerError, match="no topic applications: create the topics first"):
        produce([log(tmp_path, application(1, START_MS))], broker)


def test_a_missing_log_is_told_before_the_broker_is_asked(tmp_path: Path) -> None:
    """A missing log is an error at once, whatever the broker is."""
    with pytest.raises(LogError, match="does not exist"):
        produce([tmp_path / "none"], "nowhere.invalid:1")
