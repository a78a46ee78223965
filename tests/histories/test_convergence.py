"""Histories converge: any order, any repeat, any cut, any crash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events.records import Read
from stream.events.structs import Application, Engagement, Label
from stream.histories.history import HALF_LIFE_MS, MOST_OPEN, Answer, History, fingerprint
from stream.policy import HOUR_MS, LabelPolicy, Policy
from stream.stages.histories import JobHistories, MemberHistories
from stream.state import codec, keys
from stream.state.census import Census
from stream.state.facts import Marker
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore, Store
from stream.state.stored_facts import StoredFacts
from tests import oracle
from tests.bootstrap.test_split import replayed
from tests.conftest import thorough
from tests.histories.oracle import known_of
from tests.kit import Market, TestEvent, application
from tests.labels.bench import LATENESS, SKEW, W, arrivals, logs
from tests.partitions import test_partitions
from tests.stages.test_entities import label

WINDOW_MS = LabelPolicy().window_ms
NO_HISTORY = b"\0" * 144
Counts = tuple[int, int, int, tuple[float, float, float]]


def stored(stores: Iterable[Store]) -> Iterator[tuple[tuple[str, str], History]]:
    """Histories of members and jobs in some stores, by kind and id."""
    for store in stores:
        for key, value in store.scan(keys.HISTORY, keys.after(keys.HISTORY)):
            kind, entity_id = keys.parts(key)
            yield (kind.decode(), entity_id.decode()), codec.HISTORY.decode(value)


def counts(history: History) -> Counts:
    """What a history counts, without the times of answers."""
    return (
        history.applications,
        history.answers,
        history.positives,
        (history.recent_applications, history.recent_answers, history.recent_positives),
    )


def counted(applications: Sequence[tuple[int, str | None]]) -> Counts:
    """The same by brute force, given application times and last kinds."""
    newest = max(time_ms for time_ms, _ in applications)
    weights = [0.5 ** ((newest - time_ms) / HALF_LIFE_MS) for time_ms, _ in applications]
    answered = [kind in {"negative_explicit", "positive"} for _, kind in applications]
    positive = [kind == "positive" for _, kind in applications]
    sums = [
        sum(w for w, yes in zip(weights, which, strict=True) if yes)
        for which in ([True] * len(weights), answered, positive)
    ]
    return len(weights), sum(answered), sum(positive), (sums[0], sums[1], sums[2])


def check_all(stores: Iterable[Store], events: Sequence[TestEvent]) -> None:
    """Histories of members and jobs are those of the oracle's last labels."""
    verdicts = oracle.verdicts(events, window_ms=W, clock_skew_ms=SKEW, watermark_ms=20_000)
    apps: dict[tuple[str, str], dict[tuple[str, str], tuple[int, str | None]]] = {}
    for event in events:
        if isinstance(event, Application):
            key = event.job_id, event.application_id
            verdict = verdicts[key]
            last = event.event_time_ms, None if verdict is None else verdict[1]
            apps.setdefault(("member", event.member_id), {})[key] = last
            apps.setdefault(("job", event.job_id), {})[key] = last
    found = dict(stored(stores))
    assert found.keys() == apps.keys()
    for entity, history in found.items():
        *exact, sums = counts(history)
        *wanted, wanted_sums = counted(list(apps[entity].values()))
        assert exact == wanted
        assert sums == pytest.approx(wanted_sums, rel=1e-9)


@given(
    arrivals(),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
    st.sampled_from([test_partitions.POLICY, test_partitions.AGED]),
)
def test_crashes_and_interleavings_change_no_history(
    events: list[TestEvent], partitions: int, random: Random, policy: Policy
) -> None:
    """Any interleaving, cut and crash: histories count the last labels, as a replay's do.

    A crash after sending and before the state was written undoes both, as a transaction does.
    """
    market = Market(policy, partitions)
    market.produce(events)
    market.clock(20_000)
    for _ in range(40):
        stage = random.choice(["member", "job"])
        number = random.randrange(partitions)
        topic = random.choice(market.partitions[stage, number].topics)
        market.now_ms += random.choice([0, 400, 1100])
        if random.random() < 0.15:
            undone(market, stage, number, topic)
        else:
            market.step(stage, number, topic, random.choice([1, 2, 5, 50]))
            market.restart(stage, number) if random.random() < 0.1 else None
    market.run()
    check_all(market.stores.values(), events)
    check_all([replayed(events, policy, close=True).store], events)
    for number in range(partitions):
        job = market.stores["job", number]
        assert not list(job.scan(keys.PAIR, keys.after(keys.PAIR)))
        assert market.partitions["job", number].learning.census.counts.pairs == 0


@st.composite
def answers_in_order(draw: st.DrawFn) -> list[TestEvent]:
    """A log in any order within lateness, but for the engagements of each application.

    Those are in their order, as they stand in a partition whose producer wrote them so.
    """
    delayed = [
        (event.event_time_ms + draw(st.integers(0, LATENESS)), number, event)
        for number, event in enumerate(draw(logs()))
    ]
    arrived = [event for _, _, event in sorted(delayed, key=lambda item: item[:2])]
    own: dict[tuple[str, str], list[Engagement]] = {}
    for event in sorted(arrived, key=lambda event: event.event_time_ms):
        if isinstance(event, Engagement):
            own.setdefault((event.job_id, event.application_id), []).append(event)
    return [
        own[event.job_id, event.application_id].pop(0) if isinstance(event, Engagement) else event
        for event in arrived
    ]


def check_times(stores: Iterable[Store], events: Sequence[TestEvent]) -> None:
    """Last answers of members and jobs are the latest of each application's earliest."""
    engagements = [event for event in events if isinstance(event, Engagement)]
    answers: dict[tuple[str, str], list[int]] = {}
    positives: dict[tuple[str, str], list[int]] = {}
    for event in events:
        if isinstance(event, Application):
            known = known_of(event, engagements, window_ms=W, skew_ms=SKEW)
            for entity in (("member", event.member_id), ("job", event.job_id)):
                answers.setdefault(entity, []).append(min(known.answers, default=-1))
                positives.setdefault(entity, []).append(min(known.positives, default=-1))
    for entity, history in stored(stores):
        wanted = max(answers[entity]), max(positives[entity])
        assert (history.answered_ms, history.positive_ms) == wanted, entity


@given(
    answers_in_order(),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
    st.sampled_from([test_partitions.POLICY, test_partitions.AGED]),
)
def test_when_somebody_was_answered_last_depends_on_no_order(
    events: list[TestEvent], partitions: int, random: Random, policy: Policy
) -> None:
    """Whether applications are read before their answers or after: their earliest times count."""
    market = Market(policy, partitions)
    market.produce(events)
    market.clock(20_000)
    for _ in range(40):
        stage = random.choice(["member", "job"])
        number = random.randrange(partitions)
        topic = random.choice(market.partitions[stage, number].topics)
        market.step(stage, number, topic, random.choice([1, 2, 5, 50]))
    market.run()
    for stores in (market.stores.values(), [replayed(events, policy, close=True).store]):
        check_all(stores, events)
        check_times(stores, events)


def undone(market: Market, stage: str, number: int, topic: str) -> None:
    """Let a partition read, and die before its transaction is committed: nothing was sent."""
    partition = market.partitions[stage, number]
    records = market.topics[topic, number][partition.position(topic) or 0 :]
    if records:
        read = Read(topic, records, records[-1].offset + 1)
        next(partition.process([read], market.now_ms), None)
    market.restart(stage, number)


class Both:
    """Histories of a member stage and of a job stage over one store."""

    def __init__(self, store: Store) -> None:
        self.overlay = Overlay(store)
        census = Census(self.overlay)
        self.facts = facts = StoredFacts(self.overlay, census)
        self.members = MemberHistories(self.overlay, WINDOW_MS)
        self.jobs = JobHistories(self.overlay, WINDOW_MS, facts=facts, census=census)

    def count(self, app: Application) -> None:
        """An application is read by both."""
        self.members.first_sight(
            member_id=app.member_id,
            job_id=app.job_id,
            application_id=app.application_id,
            time_ms=app.event_time_ms,
            watermark_ms=None,
            counts=True,
        )
        self.jobs.enter(app, None)
        known = Marker(app.member_id, app.event_time_ms)
        self.facts.put_application(app.job_id, app.application_id, known)

    def learn(self, label: Label) -> None:
        """A label is learned by both."""
        self.members.learn(label)
        self.jobs.learn(label)

    def histories(self) -> dict[bytes, History]:
        """All that is kept."""
        self.overlay.flush()
        found = {}
        for family in (keys.HISTORY, keys.PAIR):
            for key, value in self.overlay.store.scan(family, keys.after(family)):
                found[key] = codec.HISTORY.decode(value)
        return found


LADDERS = st.lists(
    st.tuples(
        st.integers(0, 13 * 24),  # hours
        st.sampled_from(["m", "n"]),
        st.sampled_from(["j", "k"]),
        st.sampled_from([(), ("e",), ("p",), ("e", "p"), ("i", "e"), ("i", "p"), ("i", "e", "p")]),
        st.integers(0, 50),
        st.integers(0, 50),
    ),
    max_size=6,
)


@given(LADDERS, st.randoms(use_true_random=False), st.booleans())
def test_any_sequence_of_labels_gives_what_the_last_ones_say(
    ladders: list[Any], random: Random, flush: bool
) -> None:
    """Repeats and corrections in any order: the counts of the last labels alone, sums to 1e-9."""
    apps: list[Application] = []
    labels: list[Label] = []
    last: list[Label] = []
    kinds = {"i": "negative_inferred", "e": "negative_explicit", "p": "positive"}
    for number, (hour, member, job, ladder, one, other) in enumerate(ladders):
        app = application(f"a{number}", hour * HOUR_MS, member=member, job=job)
        apps.append(app)
        for kind in ladder:
            after = one if kind == "e" else other
            said = msgspec.structs.replace(
                label(number, member, app.event_time_ms),
                job_id=job,
                kind=kinds[kind],
                label=int(kind == "p"),
                evidence_time_ms=None if kind == "i" else app.event_time_ms + after * HOUR_MS,
                history=NO_HISTORY,
            )
            labels.append(said)
        last += labels[-1:] if ladder else []
    plain = Both(MemoryStore())
    for app in apps:
        plain.count(app)
    for said in last:
        plain.learn(said)
    store = MemoryStore()
    mixed = Both(store)
    for app in random.sample(apps * 2, 2 * len(apps)):
        mixed.count(app)
    for said in random.sample(labels * 2, 2 * len(labels)):
        mixed.learn(said)
        if flush and random.random() < 0.3:
            mixed.overlay.flush()
            mixed = Both(store)
    wanted, found = plain.histories(), mixed.histories()
    assert found.keys() == wanted.keys()
    for key, history in found.items():
        *exact, sums = counts(history)
        *exactly, sums_wanted = counts(wanted[key])
        assert exact == exactly
        assert sums == pytest.approx(sums_wanted, rel=1e-9)
        mine = [app for app in apps if key in keys_of(app)]
        answered = {kinds["e"], kinds["p"]}
        answers = [min(at) for app in mine if (at := times_of(app, labels, answered))]
        assert history.answered_ms == max(answers, default=-1)
        positives = [min(at) for app in mine if (at := times_of(app, labels, {kinds["p"]}))]
        assert history.positive_ms == max(positives, default=-1)


def keys_of(app: Application) -> list[bytes]:
    """Keys of the histories that an application counts in."""
    return [
        keys.key(keys.HISTORY, "member", app.member_id),
        keys.key(keys.HISTORY, "job", app.job_id),
        keys.pairs_of(app.member_id) + app.job_id.encode(),
    ]


def times_of(app: Application, labels: Sequence[Label], kinds: set[str]) -> list[int]:
    """Evidence times of an application's labels of some kinds."""
    return [
        said.evidence_time_ms
        for said in labels
        if said.application_id == app.application_id
        and said.kind in kinds
        and said.evidence_time_ms is not None
    ]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 400 * 24), min_size=1, max_size=60), st.randoms())
def test_sums_over_a_year_do_not_depend_on_the_order(hours: list[int], random: Random) -> None:
    """Recent counts equal the brute-force sums to 1e-9, in whatever order they are added."""
    history = History()
    for hour in random.sample(hours, len(hours)):
        history.count(hour * HOUR_MS)
    wanted = counted([(hour * HOUR_MS, None) for hour in hours])
    assert history.recent_applications == pytest.approx(wanted[3][0], rel=1e-9)


def test_an_answer_after_the_members_own_window_counts_once() -> None:
    """Where the member stage is ahead, a label of an application that it forgot still counts."""
    both = Both(MemoryStore())
    first, later = application("a0", 0, member="m"), application("a1", 3 * WINDOW_MS, member="m")
    both.count(first)
    both.members.first_sight(
        member_id="m",
        job_id="j",
        application_id="a1",
        time_ms=later.event_time_ms,
        watermark_ms=later.event_time_ms,
        counts=True,
    )
    explicit = msgspec.structs.replace(
        label(0, "m", 0), kind="negative_explicit", label=0, history=NO_HISTORY
    )
    both.members.learn(explicit)
    positive = msgspec.structs.replace(
        label(0, "m", 0), previous="negative_explicit", history=NO_HISTORY
    )
    both.members.learn(positive)
    history = both.histories()[keys.key(keys.HISTORY, "member", "m")]
    assert (history.applications, history.answers, history.positives) == (2, 1, 1)
    assert list(history.open) == [fingerprint("j", "a1")]


def test_a_history_tells_so_many_applications_apart() -> None:
    """Of a member who applies without end the newest are kept, and the value stays small."""
    history = History()
    for number in range(MOST_OPEN + 100):
        assert history.enter(fingerprint("j", f"a{number}"), number, 0)
    assert len(history.open) == MOST_OPEN
    assert not history.enter(fingerprint("j", "a200"), 200, 0)
    assert history.applications == MOST_OPEN + 100
    assert len(codec.HISTORY.encode(history)) < 128 * 1024


@thorough
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "learn", "closed"]),
            st.integers(0, 5),
            st.integers(0, 3000),
            st.booleans(),
            st.booleans(),
        )
    )
)
def test_no_sequence_of_labels_makes_a_history_that_cannot_be_read_again(
    steps: list[tuple[str, int, int, bool, bool]],
) -> None:
    """Answers to what is open or over, however often they come, fit in the applications."""
    history = History()
    for step, number, at_ms, first, positive in steps:
        name = bytes([number])
        if step == "enter":
            history.enter(name, at_ms, at_ms - 1000)
        elif name in history.open:
            history.learn(name, at_ms, positive=positive)
        else:
            history.learn_closed(Answer(at_ms, at_ms, first, positive))
        assert codec.HISTORY.decode(codec.HISTORY.encode(history)) == history
