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
from stream.events.records import APPLICATIONS, ENGAGEMENTS
from stream.events.structs import Application, Coefficients, Engagement
from stream.policy import ApplicantSettings, Policy
from stream.serving import service as service_module
from stream.serving.embedded import EmbeddedStore
from stream.serving.held import ANSWERED, DECLINED, OPEN
from stream.serving.positions import MOST, Position, Waits, positions_of
from stream.serving.service import _head
from tests.kit import Market, application, engagement, model
from tests.serving.asking import Asked
from tests.serving.test_ranks import candidates

COUNT = 2
POLICY = Policy(applicants=ApplicantSettings(enabled=True))


def a_market() -> Market:
    """A market of two jobs and some members, all of whose applications are open."""
    market = Market(POLICY, COUNT)
    market.produce(an_application(n) for n in range(12))
    market.run()
    return market


def an_application(number: int) -> Application:
    """One of them, or a further one."""
    names = {"job": f"j{number % 2}", "member": f"m{number % 5}"}
    return application(f"a{number}", 10 + number, **names, score=0.1)


Logs = dict[tuple[str, int], list[tuple[bytes, bytes | None]]]


class Topics:
    """All that is followed, as a follower reads it: some messages of one partition at a time."""

    def __init__(self, market: Market, store: EmbeddedStore) -> None:
        self._market = market
        self._store = store
        self.offsets = {(topic, number): 0 for topic in store.topics for number in range(COUNT)}
        self._logs: Logs = defaultdict(list)
        self._sent = 0

    def logs(self) -> Logs:
        """Return what was written, by topic and partition."""
        for each in self._market.sent[self._sent :]:
            key = each.key or b""
            number = partition_of(key, COUNT) if each.partition is None else each.partition
            self._logs[each.topic, number].append((key, each.value))
        self._sent = len(self._market.sent)
        return self._logs

    def read(self, place: tuple[str, int], most: int) -> None:
        """Take some messages in."""
        at = self.offsets[place]
        some = self.logs()[place][at : at + most]
        self._store.topics[place[0]](some)
        self.offsets[place] += len(some)

    def go_on(self) -> None:
        """See to those who wait."""
        logs, topics = self.logs(), self._market.topics
        read, ends = (
            {f"{topic}/{number}": at for (topic, number), at in each.items()}
            for each in (self.offsets, {place: len(logs[place]) for place in self.offsets})
        )
        self._store.waits.go_on(
            read, lambda: ends, lambda topic: [len(topics[topic, n]) for n in range(COUNT)]
        )

    def read_all(self) -> None:
        """Take everything in."""
        for place in self.offsets:
            self.read(place, len(self._market.sent))


Known = tuple[list[Coefficients | None], list[tuple[str, int]]]


def known(store: EmbeddedStore) -> Known:
    """What a store has of everybody, and whom it lists."""
    assert store.applicants is not None
    return [
        store.entity(effect, entity_id)
        for effect, ids in (("per_job", ["j0", "j1"]), ("per_member", [f"m{n}" for n in range(5)]))
        for entity_id in ids
    ], sorted((row.application_id, row.state) for row in store.applicants.rows() if row.member_id)


def written(market: Market, event: Application | Engagement) -> Position:
    """Write an input; return its position."""
    topic, key = APPLICATIONS, event.member_id
    if not isinstance(event, Application):
        topic, key = ENGAGEMENTS, event.job_id
    number = partition_of(key.encode(), COUNT)
    market.produce([event])
    return Position(topic, number, len(market.topics[topic, number]) - 1)


@given(
    seed=st.integers(0, 2**32),
    action=st.sampled_from(["reject", "message", "what", None]),
    of=st.integers(0, 13),
)
def test_what_is_waited_for_is_there_when_the_wait_is_over(
    seed: int, action: str | None, of: int
) -> None:
    """However partitions and the follower take turns; and then the wait is over.

    For an engagement (also one that changes nothing, because nobody knows its action), for a new
    application, and for both, whichever of them is read first. Partitions may be opened anew.
    """
    rng = Random(seed)
    market = a_market()
    store = EmbeddedStore(model(), POLICY)
    store.partitions = COUNT
    topics = Topics(market, store)
    topics.read_all()
    before = known(store)
    app = an_application(of)
    positions = []
    if action is not None:
        about = {"job": app.job_id, "member": app.member_id}
        engaged = engagement("e", app.application_id, 50, action, **about)
        positions.append(written(market, engaged))
    if of >= 12:
        positions.insert(rng.randrange(2), written(market, app))
    done = store.wait(positions)
    for _ in range(60):
        if done.done():
            break
        chance = rng.random()
        if chance < 0.5:
            topics.read(rng.choice(list(topics.offsets)), 1)
        else:
            stage, partition = place = rng.choice(list(market.partitions))
            if chance < 0.55:
                market.restart(*place)
            elif chance < 0.65:
                market.now_ms += 100
                market.tick(*place)
            else:
                topic = rng.choice(market.partitions[place].topics)
                market.step(stage, partition, topic, rng.randrange(1, 3))
        topics.go_on()
    found = known(store) if done.done() else None
    market.run()
    topics.read_all()
    for _ in range(4):
        topics.go_on()
    assert done.done()
    after = known(store)
    assert found in (None, after)
    assert (before[0] != after[0]) == (action in {"reject", "message"})
    states = {"reject": DECLINED, "message": ANSWERED}
    listed = dict(before[1]) | {app.application_id: states.get(action or "", OPEN)}
    assert after[1] == (sorted(listed.items()) if positions else before[1])


def test_positions_of_headers() -> None:
    """Several stand with commas between; anything else is refused with what is right."""
    assert positions_of("engagements/3:12, applications/0:0") == [
        Position(ENGAGEMENTS, 3, 12),
        Position(APPLICATIONS, 0, 0),
    ]
    for wrong in ("", "3:12", "labels/3:12", "engagements/3:-1", "applications/3:1,"):
        with pytest.raises(QuestionError, match="applications/3:1234 and engagements/3:1234"):
            positions_of(wrong)
    with pytest.raises(QuestionError, match="the most are 64"):
        positions_of(",".join(["engagements/3:1"] * (MOST + 1)))


@given(
    st.text(st.characters(codec="latin-1"), max_size=20)
    | st.lists(
        st.tuples(
            st.sampled_from(["applications", " engagements", "labels", ""]),
            st.text("0123456789", max_size=8),
            st.text("-0123456789²", max_size=20),
        ).map("{0[0]}/{0[1]}:{0[2]}".format),
        max_size=MOST + 2,
    ).map(",".join)
)
def test_whatever_stands_in_the_header_is_read_or_refused_in_words(header: str) -> None:
    """What is read says the same again, and all of its numbers can be compared with offsets."""
    try:
        found = positions_of(header)
    except QuestionError:
        return
    assert 0 < len(found) <= MOST
    parts = [part.strip().replace("/", ":").split(":") for part in header.split(",")]
    assert [[topic, int(number), int(at)] for topic, number, at in parts] == list(map(list, found))
    assert all(0 <= each.offset < 2**63 for each in found)


def test_a_question_waits_and_is_refused_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 412 and what to do; not where what it names is there; and who gave up is forgotten."""
    monkeypatch.setattr(service_module, "AFTER_S", 0.05)
    asked = Asked(model())
    question: dict[str, Any] = {"job_id": "j0", "candidates": candidates(0.5, 1.5)}
    after = {"hearback-after": "engagements/0:7,applications/0:7"}
    for path, body in (("/v1/rank", question), ("/v1/entities/per_job/j0", None)):
        reply = asked.ask(path, body, headers=after)
        assert (reply.status, reply.json()["reason"]) == (412, "not_yet")
        assert "ask again" in reply.json()["message"]
    assert asked.ask("/readyz", headers=after).status == 200
    wrong = asked.ask("/v1/rank", question, headers={"hearback-after": "what"})
    assert (wrong.status, wrong.json()["reason"]) == (422, "invalid_question")
    asked.store.partitions = 6
    absent = asked.ask("/v1/rank", question, headers={"hearback-after": "applications/6:0"})
    assert (absent.status, absent.json()["reason"]) == (422, "invalid_question")
    assert "no applications/6: the last is applications/5" in absent.json()["message"]
    asked.store.stands("starting", ready=False)  # how many there are may not be known yet
    assert asked.ask("/v1/rank", question, headers={"hearback-after": "x/9:0"}).status == 503
    asked.store.stands(None, ready=True)
    assert asked.store.waits.read == {}
    monkeypatch.setattr(service_module, "AFTER_S", 30.0)
    asked.store.waits.read |= {"engagements/0": 8, "applications/0": 8}
    stop = Event()
    follower = Thread(target=go_on, args=(asked.store, stop))
    follower.start()
    assert asked.ask("/v1/rank", question, headers=after).status == 200
    stop.set()
    follower.join()


def test_who_gave_up_is_not_held_while_the_broker_is_away() -> None:
    """Nobody goes on with those who wait then; who asks next makes room."""
    waits = Waits()
    asked = [waits.ask([Position(ENGAGEMENTS, 0, 7)]) for _ in range(3)]
    for each in asked:
        each.cancel()
    held = [ref(each) for each in asked]
    del asked, each
    waits.ask([Position(ENGAGEMENTS, 0, 7)])
    assert [each() for each in held] == [None] * 3


def test_a_topic_more_is_followed_while_somebody_waits() -> None:
    """As when a model is rolled in that takes preferences: the wait ends as it would have."""
    waits = Waits()
    waits.read["engagements/0"] = 8
    done = waits.ask([Position(ENGAGEMENTS, 0, 7)])
    ends = {"coefficients/0": 3}
    waits.go_on({"coefficients/0": 2}, lambda: ends, lambda _: [0])
    assert not done.done()
    waits.go_on({"preferences/0": 0, "coefficients/0": 3}, lambda: ends, lambda _: [0])
    assert done.done()


def go_on(store: EmbeddedStore, stop: Event) -> None:
    """See to those who wait, as a follower does that has read all."""
    while not stop.is_set():
        store.waits.go_on({"coefficients/0": 3}, lambda: {"coefficients/0": 3}, lambda _: [0])
        stop.wait(0.005)


def test_a_header_that_is_sent_twice_is_one() -> None:
    """HTTP says so: the positions of both lines are waited for."""
    head = _head([(b"hearback-after", b"engagements/0:7"), (b"hearback-after", b"labels/0:7")])
    with pytest.raises(QuestionError, match="'labels/0:7' is no position"):
        positions_of(head.after.decode())
