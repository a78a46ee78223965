"""Whoever waits for what he has written sees all that it has led to, and waits no longer."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from threading import Event, Thread
from typing import Any
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import QuestionError
from stream.events.partitioner import partition_of
from stream.events.records import COEFFICIENTS, ENGAGEMENTS, LABELS
from stream.events.structs import Coefficients
from stream.policy import Policy
from stream.serving import service as service_module
from stream.serving.embedded import EmbeddedStore
from stream.serving.positions import MOST, Position, Waits, positions_of
from tests.kit import Market, application, engagement, model
from tests.serving.asking import Asked
from tests.serving.test_ranks import candidates

COUNT = 2


def a_market() -> Market:
    """A market of two jobs and some members, all of whose applications are open."""
    market = Market(Policy(), COUNT)
    apps = [
        application(f"a{n}", 10 + n, job=f"j{n % 2}", member=f"m{n % 5}", score=0.1)
        for n in range(12)
    ]
    market.produce(apps)
    market.run()
    return market


class Topic:
    """``coefficients`` as a follower reads it: some messages of one partition at a time."""

    def __init__(self, market: Market, store: EmbeddedStore) -> None:
        self._market = market
        self._store = store
        self.offsets = [0] * COUNT

    def logs(self) -> dict[int, list[tuple[bytes, bytes | None]]]:
        """Return what was written, by partition."""
        found = defaultdict(list)
        for each in self._market.sent:
            if each.topic == COEFFICIENTS:
                key = each.key or b""
                found[partition_of(key, COUNT)].append((key, each.value))
        return found

    def ends(self) -> list[int]:
        """Return how much was written to each partition."""
        logs = self.logs()
        return [len(logs[number]) for number in range(COUNT)]

    def read(self, number: int, most: int) -> None:
        """Take some messages in."""
        at = self.offsets[number]
        some = self.logs()[number][at : at + most]
        self._store.apply(some)
        self.offsets[number] += len(some)

    def go_on(self) -> None:
        """See to those who wait."""
        labels = [len(self._market.topics[LABELS, number]) for number in range(COUNT)]
        read, ends = (dict(zip("01", each, strict=True)) for each in (self.offsets, self.ends()))
        self._store.waits.go_on(read, lambda: ends, lambda: labels)

    def read_all(self) -> None:
        """Take everything in."""
        for number, end in enumerate(self.ends()):
            self.read(number, end)


def known(store: EmbeddedStore) -> list[Coefficients | None]:
    """What a store has of everybody."""
    return [
        store.entity(effect, entity_id)
        for effect, ids in (("per_job", ["j0", "j1"]), ("per_member", [f"m{n}" for n in range(5)]))
        for entity_id in ids
    ]


@given(seed=st.integers(0, 2**32), action=st.sampled_from(["reject", "message", "what"]))
def test_what_is_waited_for_is_there_when_the_wait_is_over(seed: int, action: str) -> None:
    """However partitions and the follower take turns; and then the wait is over.

    Also for an engagement that changes nothing, because nobody knows its action.
    """
    rng = Random(seed)
    market = a_market()
    store = EmbeddedStore(model(), Policy())
    topic = Topic(market, store)
    topic.read_all()
    at = rng.randrange(12)
    number = partition_of(f"j{at % 2}".encode(), COUNT)
    offset = len(market.topics[ENGAGEMENTS, number])
    market.produce([engagement("e", f"a{at}", 50, action, job=f"j{at % 2}", member=f"m{at % 5}")])
    done = store.wait([Position(number, offset)])
    before = known(store)
    for _ in range(40):
        if done.done():
            break
        if rng.random() < 0.4:
            topic.read(rng.randrange(COUNT), 1)
        else:
            stage = rng.choice(["member", "job"])
            partition = rng.randrange(COUNT)
            read = rng.choice(market.partitions[stage, partition].topics)
            market.step(stage, partition, read, rng.randrange(1, 3))
        topic.go_on()
    found = known(store) if done.done() else None
    market.run()
    topic.read_all()
    for _ in range(3):
        topic.go_on()
    assert done.done()
    assert found in (None, known(store))
    assert (known(store) != before) == (action != "what")


def test_positions_of_headers() -> None:
    """Several stand with commas between; anything else is refused with what is right."""
    assert positions_of("engagements/3:12, engagements/0:0") == [Position(3, 12), Position(0, 0)]
    for wrong in ("", "3:12", "applications/3:12", "engagements/3:-1", "engagements/3:1,"):
        with pytest.raises(QuestionError, match="engagements/3:1234"):
            positions_of(wrong)
    with pytest.raises(QuestionError, match="the most are 64"):
        positions_of(",".join(["engagements/3:1"] * (MOST + 1)))


def test_a_question_waits_and_is_refused_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 412 and what to do; not where what it names is there; and who gave up is forgotten."""
    monkeypatch.setattr(service_module, "AFTER_S", 0.05)
    asked = Asked(model())
    question: dict[str, Any] = {"job_id": "j0", "candidates": candidates(0.5, 1.5)}
    after = {"hearback-after": "engagements/0:7"}
    for path, body in (("/v1/rank", question), ("/v1/entities/per_job/j0", None)):
        reply = asked.ask(path, body, headers=after)
        assert (reply.status, reply.json()["reason"]) == (412, "not_yet")
        assert "ask again" in reply.json()["message"]
    assert asked.ask("/readyz", headers=after).status == 200
    wrong = asked.ask("/v1/rank", question, headers={"hearback-after": "what"})
    assert (wrong.status, wrong.json()["reason"]) == (422, "invalid_question")
    assert asked.store.waits.read == {}
    monkeypatch.setattr(service_module, "AFTER_S", 30.0)
    asked.store.waits.read["engagements/0"] = 8
    stop = Event()
    follower = Thread(target=go_on, args=(asked.store, stop))
    follower.start()
    assert asked.ask("/v1/rank", question, headers=after).status == 200
    stop.set()
    follower.join()


def test_who_gave_up_is_not_held_while_the_broker_is_away() -> None:
    """Nobody goes on with those who wait then; who asks next makes room."""
    waits = Waits()
    asked = [waits.ask([Position(0, 7)]) for _ in range(3)]
    for each in asked:
        each.cancel()
    held = [ref(each) for each in asked]
    del asked, each
    waits.ask([Position(0, 7)])
    assert [each() for each in held] == [None] * 3


def test_a_topic_more_is_followed_while_somebody_waits() -> None:
    """As when a model is rolled in that takes preferences: the wait ends as it would have."""
    waits = Waits()
    waits.read["engagements/0"] = 8
    done = waits.ask([Position(0, 7)])
    ends = {"coefficients/0": 3}
    waits.go_on({"coefficients/0": 2}, lambda: ends, lambda: [0])
    assert not done.done()
    waits.go_on({"preferences/0": 0, "coefficients/0": 3}, lambda: ends, lambda: [0])
    assert done.done()


def go_on(store: EmbeddedStore, stop: Event) -> None:
    """See to those who wait, as a follower does that has read all."""
    while not stop.is_set():
        store.waits.go_on({"coefficients/0": 3}, lambda: {"coefficients/0": 3}, lambda: [0])
        stop.wait(0.005)
