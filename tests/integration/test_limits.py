"""What a broker or a topic does not take costs one message, or one line; never a partition."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but in no __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from stream.errors import ConfigError, RefusedError
from stream.events.records import (
    APPLICATIONS,
    DEAD_LETTERS,
    ENGAGEMENTS,
    LABELS,
    MAX_DEAD_LETTER_KEY_BYTES,
    PLAIN,
    Message,
)
from stream.policy import DAY_MS
from stream.worker import transactions
from stream.worker.changelog import changelog_of
from stream.worker.limits import TopicLimits
from stream.worker.topics import create_topics
from stream.worker.transactions import Transactions
from tests.integration.test_bad_input import text
from tests.integration.workers import wait_for, wait_for_partitions
from tests.integration.world import World, remove_topics

TIGHT = "1000"  # bytes that a topic takes at once


def take_at_most(broker: str, topic: str, bytes_: str) -> None:
    """Alter what a topic takes at once."""
    client = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    resource.add_incremental_config(
        ConfigEntry("max.message.bytes", bytes_, incremental_operation=AlterConfigOpType.SET)
    )
    client.incremental_alter_configs([resource])[resource].result(10)


@pytest.fixture
def tight(broker: str) -> str:
    """One of all topics, which takes little at once."""
    remove_topics(broker)
    create_topics(broker, "test", DAY_MS, partitions=1)
    take_at_most(broker, LABELS, TIGHT)
    return LABELS


def message(topic: str, size: int) -> Message:
    """One that does not become smaller by compression."""
    return Message(topic, b"k", os.urandom(size), 0, time.time_ns() // 1_000_000)


def test_a_message_that_a_topic_refuses_is_named_and_the_others_are_sent(
    broker: str, tight: str
) -> None:
    """Also where only a batch of small ones was too large: the next producer's are smaller."""
    limits = TopicLimits(broker, PLAIN, [])
    unit = [message(tight, 400), message(tight, 4000), message(tight, 400), message(tight, 400)]
    first = Transactions(broker, "owner")
    first.fence()
    with pytest.raises(RefusedError, match=r"for labels \[0\].* Message size too large"):
        first.send(unit, {}, lambda: True)
    first.close()
    assert limits.refused(unit) == {}
    limits.ask()
    assert limits.at_once == int(TIGHT)
    (why,) = limits.refused(unit).values()
    assert "labels takes 1000 bytes at once" in why
    assert "--entity-name labels --add-config max.message.bytes=1000000" in why
    del unit[1]
    following = Transactions(broker, "owner", at_once=limits.at_once)
    following.fence()
    assert following.send(unit, {}, lambda: True) == {}
    following.close()


def test_a_changelog_that_takes_too_little_is_named_with_the_command(
    broker: str, tight: str
) -> None:
    """State cannot be set aside: one line says how the topic is set right."""
    changelog = changelog_of("test", "job")
    take_at_most(broker, changelog, TIGHT)
    with pytest.raises(ConfigError, match=rf"name {changelog} --add-config .*bytes=4259840"):
        TopicLimits(broker, PLAIN, [changelog]).ask()


def test_a_setting_of_the_broker_ends_with_one_line(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction may last longer than the broker allows: no further try makes that good."""
    monkeypatch.setattr(transactions, "TIMEOUT_S", 3600.0)
    owner = Transactions(broker, "owner")
    with pytest.raises(ConfigError, match=r"set the brokers' transaction\.max\.timeout\.ms"):
        owner.fence()
    owner.close()


@pytest.mark.timeout(180)
def test_large_keys_hold_nothing_up(small_world: World) -> None:
    """Records with keys of 1 MB and of 12 MB (compressed) are dead letters; the rest is learned."""
    worker = small_world.start()
    wait_for_partitions(worker)
    take_at_most(small_world.broker, ENGAGEMENTS, "20000000")
    for topics, key, settings in (
        ((APPLICATIONS, ENGAGEMENTS), os.urandom(1_000_000), {}),
        ((APPLICATIONS, ENGAGEMENTS), b"k" * 12_000_000, {"compression.type": "gzip"}),
        ((ENGAGEMENTS,), os.urandom(12_000_000), {}),
    ):
        settings["message.max.bytes"] = "20000000"
        producer = Producer({"bootstrap.servers": small_world.broker, "log_level": 0} | settings)
        for topic in topics:
            producer.produce(topic, b"{", key, 0)
        assert producer.flush(30) == 0
    small_world.produce("--close")
    small_world.wait_until_final()
    small_world.check()
    found = dead_letters(small_world, 5)
    assert Counter(reason for reason, _ in found) == {"malformed": 5}
    assert {len(key) for _, key in found} == {MAX_DEAD_LETTER_KEY_BYTES}
    worker.stop()


@pytest.mark.timeout(180)
def test_labels_that_their_topic_refuses_are_dead_letters(small_world: World) -> None:
    """A topic that is made tight under a worker costs the labels that it refuses, and no more."""
    worker = small_world.start()
    wait_for_partitions(worker)
    take_at_most(small_world.broker, LABELS, "100")
    small_world.produce("--close")
    wait_for(lambda: small_world.committed_share() == 1.0, worker, seconds=100)
    found = dead_letters(small_world, 100)
    assert {reason for reason, _ in found} == {"too_large"}
    assert worker.metric("hearback_dead_letters_total", reason="too_large") >= 100
    assert "labels takes 100 bytes at once" in worker.said
    worker.stop()
    line = small_world.start("b").wait_for_failure()
    assert "--entity-name labels --add-config max.message.bytes=1000000" in line


def dead_letters(world: World, count: int) -> list[tuple[str, bytes]]:
    """Read that many dead letters, and return their reasons and keys."""
    found = []
    for messages in world.reading(DEAD_LETTERS):
        for each in messages:
            headers = {header[0]: text(header[1]) for header in each.headers() or []}
            key = each.key() or b""
            found.append((headers["reason"], key if isinstance(key, bytes) else key.encode()))
        if len(found) >= count:
            return found
    raise AssertionError("reading never ends")
