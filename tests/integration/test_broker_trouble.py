"""The broker goes away and comes back; the worker waits, and learns the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from deploy.kafka import Kafka
from stream.events.records import LABELS, Message
from stream.partitions.job import JobPartition
from stream.worker.changelog import END, changelog_of
from stream.worker.session import session_of
from stream.worker.transactions import Transactions
from tests.integration.conftest import new_kafka
from tests.integration.workers import flushes, owned, wait_for
from tests.integration.world import PARTITIONS, Market, World


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A Kafka that the test may stop."""
    kafka = new_kafka(tmp_path / "kafka")
    yield kafka
    kafka.kill()


@pytest.fixture
def own_world(own_kafka: Kafka, market: Market, tmp_path: Path) -> Iterator[World]:
    """The large market on a Kafka of the test's own."""
    made = World(tmp_path, own_kafka.address, market)
    yield made
    made.end()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_restarts_and_a_minute_without_a_broker(own_world: World, own_kafka: Kafka) -> None:
    """Stopped, killed, and away for longer than a transaction may last: nothing is lost."""
    *parts, last = own_world.market.parts(4)
    worker = own_world.start()
    stops = ((own_kafka.stop, 0.0), (own_kafka.kill, 0.0), (own_kafka.kill, 62.0))
    for part, (stop, away_s) in zip(parts, stops, strict=True):
        wait_for(lambda: owned(worker) > 0, worker)
        worker.freeze()  # or it would have done the work before the broker goes
        own_world.produce(log=part)
        worker.thaw()
        enough = flushes(worker) + 5
        wait_for(lambda: flushes(worker) >= enough, worker)  # noqa: B023 - called at once
        stop()
        time.sleep(away_s)
        if away_s:
            waits = ("hearback_unattended_seconds", "hearback_unassigned_seconds")
            assert max(map(worker.metric, waits)) > away_s / 2
        own_kafka.start()
    own_world.produce("--close", log=last)
    own_world.wait_until_final()
    assert owned(worker) == 2 * PARTITIONS
    own_world.check()
    worker.stop()


@pytest.mark.timeout(300)
def test_what_was_open_when_the_broker_was_killed(own_kafka: Kafka, small_market: Market) -> None:
    """The next owner's commits make nothing visible of it, wherever the broker left it open."""
    world = World(small_market.folder, own_kafka.address, small_market)
    name, topic = (
        session_of(world.application_id, ("job", 0)),
        changelog_of(world.application_id, "job"),
    )

    def messages(value: bytes) -> list[Message]:
        return [Message(LABELS, b"key", value, number, 1) for number in range(PARTITIONS)]

    gone = Producer(
        {
            "bootstrap.servers": world.broker,
            "transactional.id": name,
            "transaction.timeout.ms": 1000,
            "log_level": 0,
        }
    )
    gone.init_transactions(10)
    gone.begin_transaction()
    for number in range(PARTITIONS):
        gone.produce(LABELS, b"of the one before", b"key", number)
    gone.produce(topic, b"of the one before", b"\x01key", 0)
    gone.flush(10)
    own_kafka.kill()
    time.sleep(1.5)  # the broker, as soon as it is back, ends what has been open for too long
    own_kafka.start()
    session = Transactions(world.broker, name)
    session.fence()
    session.sweep((topic, 0), JobPartition.outputs, lambda: True)
    session.send(messages(b"mine"), {(topic, 0): END}, lambda: True)
    session.close()
    seen: list[bytes | None] = []
    deadline = time.monotonic() + 10.0
    for batch in world.reading(LABELS):
        seen += [message.value() for message in batch]
        if len(seen) >= PARTITIONS or time.monotonic() > deadline:
            break
    assert seen == [b"mine"] * PARTITIONS
