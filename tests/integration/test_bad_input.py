"""What cannot be used is set aside with its reason, and harms nothing else."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but in no __all__
    AdminClient,
    NewPartitions,
)

from stream.events.partitioner import partition_of
from stream.events.records import APPLICATIONS, APPLICATIONS_BY_JOB, DEAD_LETTERS, ENGAGEMENTS
from tests import kit
from tests.integration.poisoned import POISON
from tests.integration.workers import wait_for
from tests.integration.world import World

MALFORMED = 80  # 1 % of the small market's events
BAD = (
    (b"{", "malformed"),
    (b"\xff\xfe", "malformed"),
    (b'{"type":"greeting"}', "unknown_type"),
    (b'{"type":"clock","event_time_ms":-1}', "invalid_time"),
    (b"x" * 300_000, "too_large"),
)


@pytest.mark.timeout(300)
def test_malformed_and_poisonous_records(small_world: World) -> None:
    """One in a hundred is malformed, and one makes a stage raise: all are dead letters."""
    dice = random.Random(1)
    producer = Producer(
        {
            "bootstrap.servers": small_world.broker,
            "partitioner": "murmur2_random",
            "log_level": 0,
        }
    )
    playing = small_world.produce("--close", wait=False)
    wanted: Counter[str] = Counter()
    for number in range(MALFORMED):
        value, reason = dice.choice(BAD)
        topic = dice.choice((APPLICATIONS, ENGAGEMENTS, APPLICATIONS_BY_JOB))
        if topic == APPLICATIONS_BY_JOB:
            value, reason = b"{", "malformed"
        producer.produce(topic, value, b"k%d" % number)
        wanted[reason] += 1
        producer.flush(10)
    poison = kit.to_json(kit.application("p", small_world.market.start_ms + 1, member=POISON))
    producer.produce(APPLICATIONS, small_world.fit(poison), POISON.encode())
    producer.flush(10)
    wanted["poison"] += 1
    worker = small_world.start("a", program=("-m", "tests.integration.poisoned"))
    assert playing.wait(120) == 0
    small_world.wait_until_final()
    small_world.check()
    found = dead_letters(small_world, sum(wanted.values()))
    assert found == wanted
    worker.stop()


def dead_letters(world: World, count: int) -> Counter[str]:
    """Read that many dead letters; count them by reason."""
    found: Counter[str] = Counter()
    for messages in world.reading(DEAD_LETTERS):
        for message in messages:
            headers = {header[0]: text(header[1]) for header in message.headers() or []}
            found[headers["reason"]] += 1
            assert headers["topic"]
            assert int(headers["offset"]) >= 0
        if found.total() >= count:
            return found
    raise AssertionError("reading never ends")


def text(value: str | bytes | None) -> str:
    """Return a header's value."""
    return value.decode() if isinstance(value, bytes) else value or ""


@pytest.mark.timeout(180)
def test_another_partitioner_is_refused(small_world: World) -> None:
    """Keys that are not where Java's clients put them stop the worker, with one line.

    What it recommends works: without the misrouted records the same application id begins.
    """
    producer = Producer(
        {"bootstrap.servers": small_world.broker, "partitioner": "fnv1a", "log_level": 0}
    )
    for number in range(3000):
        producer.produce(APPLICATIONS, application_of(small_world, number), b"m%d" % number)
    producer.flush(10)
    for _ in range(2):
        line = small_world.start().wait_for_failure()
        assert "are misrouted" in line
        assert "murmur2" in line
    ends = {TopicPartition(APPLICATIONS, n, OFFSET_END) for n in range(small_world.partitions)}
    client = AdminClient({"bootstrap.servers": small_world.broker, "log_level": 0})
    for future in client.delete_records(list(ends)).values():
        future.result(10)
    worker = small_world.start("a")
    small_world.produce("--close")
    small_world.wait_until_final()
    small_world.check()
    worker.stop()


def application_of(world: World, number: int) -> bytes:
    """An application of a member who is in no log."""
    app = kit.application(f"m{number}", world.market.start_ms, member=f"m{number}")
    return world.fit(kit.to_json(app))


@pytest.mark.timeout(180)
def test_another_partitioner_at_a_live_application_id(small_world: World) -> None:
    """What it writes is set aside, readiness says why, and the rest is learned, after a start too.

    Then topics get more partitions: that is said as well.
    """
    worker = small_world.start()
    small_world.produce()
    small_world.wait_for_labels(lambda last: len(last) > 500)
    worker.stop()
    producer = Producer({"bootstrap.servers": small_world.broker, "log_level": 0})
    wanted = 1500
    for number in range(wanted):
        key = b"m%d" % number
        partition = (partition_of(key, small_world.partitions) + 1) % small_world.partitions
        app = application_of(small_world, number)
        producer.produce(APPLICATIONS, app, key if number % 2 else None, partition)
    producer.flush(10)
    worker = small_world.start()
    wait_for(lambda: "are misrouted" in worker.readiness(), worker)
    small_world.produce("--close")
    small_world.wait_until_final()
    small_world.check()
    assert dead_letters(small_world, wanted) == {"misrouted": wanted}
    assert "misrouted records become dead letters" in worker.said
    client = AdminClient({"bootstrap.servers": small_world.broker, "log_level": 0})
    more = NewPartitions(APPLICATIONS, small_world.partitions + 1)
    client.create_partitions([more])[APPLICATIONS].result(10)
    wait_for(lambda: "applications 7; keys move away" in worker.readiness(), worker, seconds=30)
    worker.stop()


@pytest.mark.timeout(300)
def test_a_full_disk_stops_the_worker(small_world: World) -> None:
    """A store that cannot be written stops the worker with a clear line; nothing is lost by it.

    (Files may not grow beyond a limit: that needs no file system of its own.)
    """
    small_world.produce("--close")
    worker = small_world.start("a", largest_file_bytes=400_000)
    line = worker.wait_for_failure()
    assert "the state cannot be written" in line
    worker = small_world.start("a")
    small_world.wait_until_final()
    small_world.check()
    wait_for(lambda: small_world.committed_share() == 1.0, worker)
    worker.stop()
