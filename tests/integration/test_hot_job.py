"""The closing of a job to which very many have applied."""

from __future__ import annotations

from collections import Counter

import pytest
from confluent_kafka import Producer

from stream.events.records import APPLICATIONS, ENGAGEMENTS
from stream.events.wire import decode_label
from tests import kit
from tests.integration.workers import Worker, wait_for
from tests.integration.world import World

PENDING = 100_000
EVERY_MS = 100  # all are too young to be inferred by their age
DIES_AT = 30_000


@pytest.mark.long
@pytest.mark.timeout(600)
def test_one_closing_on_a_hundred_thousand_pending(small_world: World) -> None:
    """It settles them all, in many transactions, and each once, though the worker dies amid them.

    (The worker is killed when it has told a third; the next one goes on where that one was.)
    """
    producer = Producer(
        {
            "bootstrap.servers": small_world.broker,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 2 * PENDING,
        }
    )
    begin_ms = small_world.market.start_ms
    line = small_world.fit(kit.to_json(kit.application("NAME", 1234567890, member="MEMBER")))
    for number in range(PENDING):
        member = b"m%06d" % number
        value = line.replace(b"NAME", b"a%06d" % number).replace(b"MEMBER", member)
        value = value.replace(b"1234567890", b"%d" % (begin_ms + number * EVERY_MS))
        producer.produce(APPLICATIONS, value, member)
    producer.flush(60)
    worker = small_world.start("a", more=["--log-level", "WARNING"])
    wait_for(lambda: applications(worker) >= PENDING, worker, seconds=240)
    closing = kit.closing("x", begin_ms + PENDING * EVERY_MS)
    producer.produce(ENGAGEMENTS, kit.to_json(closing), b"j")
    producer.flush(10)
    small_world.wait_for_labels(lambda found: len(found) >= DIES_AT, 120)
    worker.kill()
    told = len(small_world.wait_for_labels(lambda found: len(found) >= DIES_AT))
    assert told < PENDING, "it was not killed in the middle"
    worker = small_world.start("a")
    labels = small_world.wait_for_labels(lambda found: len(found) >= PENDING, 240)
    seen: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for value in labels:
        label = decode_label(value, small_world.market.model.space)
        seen[label.application_id] += 1
        kinds[label.kind] += 1
    assert set(seen.values()) == {1}
    assert kinds == {"negative_inferred": PENDING}
    wait_for(lambda: small_world.recovered("job")["j"].examples == PENDING, worker, seconds=120)
    worker.stop()


def applications(worker: Worker) -> float:
    """How many have come to the stage that labels them."""
    return worker.metric("hearback_events_total", stage="job", type="application")
