"""What settles or closes very much is spread over units of work; a crash in between is harmless."""

from __future__ import annotations

from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import StateError
from stream.events.records import APPLICATIONS, APPLICATIONS_BY_JOB, ENGAGEMENTS, LABELS, Read
from stream.labels.machine import LabelMachine
from stream.partitions import job
from stream.policy import Policy
from stream.stages.thinning import LOOKED
from stream.state import keys
from stream.updaters import effect
from tests import oracle
from tests.kit import Market, TestEvent, application, closing, engagement, last_labels
from tests.labels.bench import SKEW, W, arrivals
from tests.partitions.test_partitions import AGED, POLICY

MANY = 5_000
SHARE = 300  # steps in a unit of work


def crowd() -> list[TestEvent]:
    """Return many applications to one job, ten in a millisecond."""
    return [application(f"a{number:04}", 100 + number // 10) for number in range(MANY)]


LAST = f"a{MANY - 1:04}"
CAUSES: dict[str, tuple[list[TestEvent], int]] = {
    "the watermark": ([], 20_000),
    "an answer": ([engagement("e", LAST, 700)], 0),
    "a closing": ([closing("x", 700)], 0),
    "an answer read before": ([engagement("e", "late", 701)], 0),
}


def prepared(cause: str) -> tuple[Market, list[TestEvent], str, int]:
    """Return a market before something big, its events, and the topic and watermark to come."""
    market = Market(POLICY, 1)
    events = crowd()
    market.produce(events)
    more, watermark_ms = CAUSES[cause]
    topic = ENGAGEMENTS
    while market.step("member", 0, APPLICATIONS, 1000):
        pass
    while market.step("job", 0, APPLICATIONS_BY_JOB, 1000):
        pass
    if cause == "an answer read before":
        market.produce(more)
        market.step("job", 0, ENGAGEMENTS, 10)
        more = [application("late", 700)]
        market.produce(more)
        market.step("member", 0, APPLICATIONS, 10)
        topic = APPLICATIONS_BY_JOB
        more = [*more, *CAUSES[cause][0]]
    elif more:
        market.produce(more)
    else:
        market.clock(watermark_ms)
        market.step("member", 0, APPLICATIONS, 10)
        market.now_ms += 2_000
        market.tick("member", 0)
        market.step("job", 0, APPLICATIONS_BY_JOB, 10)
    return market, events + more, topic, watermark_ms


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("flushed", [True, False])
def test_a_crash_after_every_unit_loses_nothing(
    cause: str, flushed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of labels come in many units; redone after a crash at each, all are there.

    With the state of the last unit written each label comes once; without it that unit's come
    again.
    """
    monkeypatch.setattr(job, "MOST_STEPS", SHARE)
    market, events, topic, watermark_ms = prepared(cause)
    crashes = 0
    while market.stumble("job", 0, topic, 1 if flushed else 2, flushed=flushed):
        crashes += 1
    assert crashes >= MANY // SHARE - 2
    market.run()
    labels = market.labels()
    wanted = oracle.verdicts(events, window_ms=W, clock_skew_ms=SKEW, watermark_ms=watermark_ms)
    assert last_labels(labels) == {key: verdict for key, verdict in wanted.items() if verdict}
    if flushed:
        assert len(labels) == len({(label.application_id, label.kind) for label in labels})


def test_a_decision_counts_once_however_often_its_event_begins_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer that settles thousands is one decision, through a crash after each of its units."""
    monkeypatch.setattr(job, "MOST_STEPS", SHARE)
    market, _, topic, _ = prepared("an answer")
    while market.stumble("job", 0, topic, 1, flushed=True):
        pass
    market.run()
    looked = market.stores["job", 0].get(keys.own("job decisions"))
    assert looked is not None
    assert LOOKED.decode(looked).judged == 1
    assert len(market.partitions["job", 0].judged.rankings.decisions) == 1


def test_a_unit_of_work_has_its_share_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many windows close at once, no unit holds more labels than its share."""
    monkeypatch.setattr(job, "MOST_STEPS", SHARE)
    market, _, topic, _ = prepared("the watermark")
    log = market.topics[topic, 0]
    units = list(market.partitions["job", 0].process([Read(topic, log, len(log))], market.now_ms))
    sizes = [sum(message.topic == LABELS for message in unit) for unit in units]
    assert sum(sizes) == MANY
    assert max(sizes) == SHARE


@given(
    arrivals(),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
    st.randoms(use_true_random=False),
    st.sampled_from([POLICY, AGED]),
)
def test_cuts_and_crashes_anywhere_change_nothing(
    events: list[TestEvent],
    partitions: int,
    share: int,
    flushed: bool,
    random: Random,
    policy: Policy,
) -> None:
    """With units of a step or three and a crash after any of them: the oracle's labels."""
    with patch.object(job, "MOST_STEPS", share):
        market = Market(policy, partitions)
        market.produce(events)
        market.clock(20_000)
        for _ in range(30):
            stage = random.choice(["member", "job", "job"])
            number = random.randrange(partitions)
            both = market.partitions[stage, number].topics
            topics = random.choice([*both, both])
            market.now_ms += random.choice([0, 400, 1100])
            if random.random() < 0.5:
                units = random.choice([1, 2, 3, 5])
                market.stumble(stage, number, topics, units, flushed=flushed)
            else:
                market.step(stage, number, topics, random.choice([1, 2, 5]))
            if random.random() < 0.3:
                market.tick(stage, number)
        market.run()
    labels = market.labels()
    assert last_labels(labels) == oracle.verdicts(
        events, window_ms=W, clock_skew_ms=SKEW, watermark_ms=20_000
    )
    if flushed:
        emitted = [(x.job_id, x.application_id, x.kind, x.weight, x.final) for x in labels]
        assert len(emitted) == len(set(emitted))


def test_what_is_read_of_both_topics_is_one_unit_of_work() -> None:
    """What waits of two topics costs one transaction, and comes to what two would come to."""
    events: list[TestEvent] = [
        *(application("a", 100), application("b", 120)),
        engagement("e", "a", 110),
    ]
    found = []
    for together in (False, True):
        market = Market(POLICY, 1)
        market.produce(events)
        market.step("member", 0, APPLICATIONS, 10)
        partition, log = market.partitions["job", 0], market.topics
        topics = (ENGAGEMENTS, APPLICATIONS_BY_JOB)
        reads = [Read(topic, log[topic, 0], len(log[topic, 0])) for topic in topics]
        works = [reads] if together else [[read] for read in reads]
        units = [unit for work in works for unit in partition.process(work, market.now_ms)]
        assert len(units) == len(works)
        assert [partition.position(topic) for topic in topics] == [1, 2]
        found.append([message for unit in units for message in unit if message.topic == LABELS])
    assert found[0] == found[1] != []


def test_a_closing_that_fails_blames_no_record() -> None:
    """What the watermark closes is state: when that fails, good records are no dead letters."""
    market = Market(POLICY, 1)
    market.produce([application("a", 100)])
    market.clock(200)
    market.step("member", 0, APPLICATIONS, 10)
    market.step("job", 0, ENGAGEMENTS, 10)
    with (
        patch.object(LabelMachine, "close_due", side_effect=ValueError("torn")),
        pytest.raises(StateError, match="cannot close what is due: ValueError: torn"),
    ):
        market.step("job", 0, APPLICATIONS_BY_JOB, 10)


def test_refits_that_take_long_end_the_unit_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many records a batch has, refits get a pause; what is learned stays the same."""
    events = [
        item
        for number in range(40)
        for item in (
            application(f"a{number:02}", 2 * number, member="m"),
            engagement(f"e{number:02}", f"a{number:02}", 2 * number + 1, member="m"),
        )
    ]
    found, units = [], []
    for most in (effect.MOST_WORK, 5_000):
        monkeypatch.setattr(effect, "MOST_WORK", most)
        market = Market(POLICY, 1)
        market.produce(events)
        market.step("member", 0, APPLICATIONS, 1000)
        made = 0
        for topic in (ENGAGEMENTS, APPLICATIONS_BY_JOB):  # answers wait: each application learns
            records = market.topics[topic, 0]
            read = Read(topic, records, len(records))
            for unit in market.partitions["job", 0].process([read], 0):
                market.deliver("job", 0, [unit])
                made += 1
        units.append(made)
        posterior = market.partitions["job", 0].learning.effect.coefficients("j")
        assert posterior is not None
        found.append(posterior.mean)
    assert units[0] == 2
    assert units[1] > 5
    assert found[0] == pytest.approx(found[1], abs=1e-4)
