"""A changelog is read to its real end, whatever the broker says of it for the moment."""

from __future__ import annotations

import threading

from confluent_kafka import Producer

from stream.state.store import MemoryStore, Writes
from stream.worker.changelog import END, Changelog, changelog_of
from stream.worker.cluster import ids_of_topics
from stream.worker.transactions import Transactions
from tests.integration.world import World


def test_recovery_waits_for_what_the_broker_does_not_show_yet(small_world: World) -> None:
    """An empty store is not taken for a full one at an end that is not the real one.

    A transaction that stays open hides what comes after it, as a broker does that has just been
    started after a kill.
    """
    topic = changelog_of(small_world.application_id, "member")
    changelog = Changelog(
        small_world.broker, topic, ids_of_topics(small_world.broker, [topic], 10.0)[topic], 0
    )
    owner = Transactions(small_world.broker, "owner", topic, 0)
    owner.fence()
    writes: Writes = {b"\x01%d" % number: b"value" for number in range(100)}
    owner.send([], dict(list(writes.items())[:50]), lambda: True)
    other = Producer({"bootstrap.servers": small_world.broker, "transactional.id": "other"})
    other.init_transactions(10)
    other.begin_transaction()
    other.produce(topic, b"never", b"\x01never", 0)
    other.flush(10)
    owner.send([], dict(list(writes.items())[50:]), lambda: True)
    end = owner.send([], END, lambda: True)
    _, shown = changelog.span()
    assert shown < end

    store = MemoryStore()
    thread = threading.Thread(
        target=changelog.bring_up, args=(store, MemoryStore, lambda: True, lambda: 0, end)
    )
    thread.start()
    thread.join(1.0)
    assert thread.is_alive()
    other.abort_transaction(10)
    thread.join(10.0)
    assert not thread.is_alive()
    assert dict(store.scan(b"\x01", b"\x02")) == writes
