"""What cannot be used is set aside with its reason, and harms nothing else."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from confluent_kafka import Producer

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


@pytest.mark.timeout(120)
def test_another_partitioner_is_refused(small_world: World) -> None:
    """Keys that are not where Java's clients put them stop the worker, with one line."""
    producer = Producer(
        {"bootstrap.servers": small_world.broker, "partitioner": "fnv1a", "log_level": 0}
    )
    for number in range(3000):
        app = kit.application(f"a{number}", small_world.market.start_ms, member=f"m{number}")
        producer.produce(APPLICATIONS, small_world.fit(kit.to_json(app)), f"m{number}".encode())
    producer.flush(10)
    line = small_world.start().wait_for_failure()
    assert "are misrouted" in line
    assert "murmur2" in line


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
