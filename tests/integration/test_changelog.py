"""A changelog is read to its real end, whatever the broker says of it for the moment."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import Producer

from stream.events.records import LABELS
from stream.kafka.cluster import ids_of_topics
from stream.state.store import MemoryStore, Store, Writes
from stream.worker.changelog import END, TOO_OLD_MS, Changelog, Mark, apply, changelog_of
from stream.worker.transactions import Transactions
from tests.integration.world import World


def send(owner: Transactions, changelog: Changelog, writes: Writes) -> int:
    """Write to a changelog in a transaction; return the offset after it."""
    return owner.send([], {changelog.at: writes}, lambda: True)[changelog.at]


def changelog_at(world: World) -> Changelog:
    """The changelog of the first member partition."""
    ids = ids_of_topics(world.broker, [changelog_of(world.application_id, "member")], 10.0)
    return Changelog(world.broker, world.application_id, ("member", 0), topic_ids=ids)


class Opened:
    """A partition of a changelog, and a store that is brought up to it after each new fence."""

    def __init__(self, world: World) -> None:
        self.changelog = changelog_at(world)
        self.topic = self.changelog.topic
        self.broker = world.broker
        self.store: Store = MemoryStore()
        self.now_ms = 1
        self.renewed = 0

    def session(self, *, sweeps: bool = True) -> tuple[Transactions, Mark]:
        """Fence, sweep, and bring the store up, as a session does."""
        owner = Transactions(self.broker, "owner")
        owner.fence()
        if sweeps:
            assert owner.sweep(self.changelog.at, [], lambda: True)
        end = send(owner, self.changelog, END)
        self.store, mark, _ = self.changelog.bring_up(
            self.store,
            renew=self.renew,
            go_on=lambda: True,
            now_ms=lambda: self.now_ms,
            end=end,
            swept=True,
        )
        return owner, mark

    def renew(self) -> Store:
        """Throw the store away."""
        self.renewed += 1
        return MemoryStore()

    def write(self, owner: Transactions, mark: Mark, writes: Writes) -> None:
        """Write as a session does that is flushed."""
        offset = send(owner, self.changelog, writes)
        apply(self.store, writes, mark.at(offset, self.now_ms, own=True))


def test_a_store_that_was_at_the_end_is_never_too_old(small_world: World) -> None:
    """However long its worker was away: nothing but what new sessions say themselves came since."""
    opened = Opened(small_world)
    writes: Writes = {b"\x01a": b"1"}
    opened.write(*opened.session(), writes)
    for _ in range(2):  # after a unit of work, and after nothing at all
        opened.now_ms += 2 * TOO_OLD_MS
        opened.session()
    assert opened.renewed == 0
    assert dict(opened.store.scan(b"\x01", b"\x02")) == writes


def test_what_a_store_alone_takes_for_committed_is_not(small_world: World) -> None:
    """Kafka confirmed it, lost the end of it as it was killed, and then it was swept."""
    opened = Opened(small_world)
    owner, mark = opened.session()
    opened.write(owner, mark, {b"\x01a": b"1"})
    owner.close()
    lost = Producer({"bootstrap.servers": opened.broker, "transactional.id": "owner"})
    lost.init_transactions(10)
    lost.begin_transaction()
    offsets: list[int] = []
    lost.produce(
        *(opened.topic, b"2", b"\x01a", 0),
        on_delivery=lambda _, message: offsets.append(message.offset() or 0),
    )
    lost.produce(opened.topic, None, b"swept", 0)
    lost.flush(10)
    lost.abort_transaction(10)
    apply(opened.store, {b"\x01a": b"2"}, mark.at(offsets[0] + 1, 1, own=True))
    opened.session(sweeps=False)
    assert opened.renewed == 1
    assert dict(opened.store.scan(b"\x01", b"\x02")) == {b"\x01a": b"1"}


def test_a_sweep_of_outputs_alone_is_not_counted_in_the_changelog(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the changelog has more copies than the outputs, nothing was written to it."""
    opened = Opened(small_world)
    owner, _ = opened.session()
    _, end = opened.changelog.span()
    monkeypatch.setattr(Transactions, "_with_one_copy", lambda *_: [(LABELS, 0)])
    assert not owner.sweep(opened.changelog.at, [LABELS], lambda: True)
    assert opened.changelog.span()[1] == end


def test_what_others_wrote_since_is_read(small_world: World) -> None:
    """A store whose last record is in the changelog goes on from there."""
    opened, other = Opened(small_world), Opened(small_world)
    opened.write(*opened.session(), {b"\x01a": b"1"})
    other.write(*other.session(), {b"\x01b": b"2"})
    opened.session()
    assert (opened.renewed, other.renewed) == (0, 0)
    assert dict(opened.store.scan(b"\x01", b"\x02")) == {b"\x01a": b"1", b"\x01b": b"2"}


def test_recovery_waits_for_what_the_broker_does_not_show_yet(small_world: World) -> None:
    """An empty store is not taken for a full one at an end that is not the real one.

    A transaction that stays open hides what comes after it, as a broker does that has just been
    started after a kill.
    """
    changelog = changelog_at(small_world)
    owner = Transactions(small_world.broker, "owner")
    owner.fence()
    writes: Writes = {b"\x01%d" % number: b"value" for number in range(100)}
    send(owner, changelog, dict(list(writes.items())[:50]))
    other = Producer({"bootstrap.servers": small_world.broker, "transactional.id": "other"})
    other.init_transactions(10)
    other.begin_transaction()
    other.produce(changelog.topic, b"never", b"\x01never", 0)
    other.flush(10)
    send(owner, changelog, dict(list(writes.items())[50:]))
    end = send(owner, changelog, END)
    _, shown = changelog.span()
    assert shown < end

    store = MemoryStore()
    thread = threading.Thread(
        target=changelog.bring_up,
        args=(store,),
        kwargs={
            "renew": MemoryStore,
            "go_on": lambda: True,
            "now_ms": lambda: 0,
            "end": end,
        },
    )
    thread.start()
    thread.join(1.0)
    assert thread.is_alive()
    other.abort_transaction(10)
    thread.join(10.0)
    assert not thread.is_alive()
    assert dict(store.scan(b"\x01", b"\x02")) == writes
