"""Matches: told by the rule, once, within the budget; judged when windows close."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.backtest.matches import match_quality
from stream.errors import ConfigError
from stream.events.records import ENGAGEMENTS, MATCHES
from stream.events.structs import Application, Match
from stream.histories.applicants import (
    BUCKETS,
    FEWEST_IN_MARKET,
    HALF_LIFE_MS,
    MOST_BEST,
    Applicants,
    Market,
    enter,
)
from stream.labels.changes import Scores
from stream.partitions.job import JobPartition
from stream.policy import DAY_MS, LabelPolicy, MatchSettings, Policy
from stream.quality.matches import MatchCounts
from stream.state import codec
from tests import kit
from tests.kit import TestEvent, application, closing, engagement

START = kit.NOW_MS // DAY_MS * DAY_MS - 60 * DAY_MS
ON = MatchSettings(enabled=True, p_min=0.3, top=0.25, per_day=2)
POLICY = Policy(labels=LabelPolicy(aging=()), matches=ON)

Scored = tuple[str, float, int]
"""Job, score and time of an application."""


def by_brute_force(applications: list[Scored], settings: MatchSettings) -> list[int]:
    """Numbers of the matches, from all scores so far."""
    found: list[int] = []
    days: Counter[tuple[str, int]] = Counter()
    last_days: defaultdict[str, set[int]] = defaultdict(set)
    for number, (job, score, time_ms) in enumerate(applications):
        before = applications[:number]
        same = [other for of, other, _ in before if of == job]
        higher, equal = sum(s > score for s in same), sum(s == score for s in same)
        count = len(same) + 1
        if count >= 5:
            good = higher + equal / 2 < math.ceil(settings.top * count)
        else:
            newest = max((at for _, _, at in before), default=0)
            weights = [0.5 ** ((newest - at) / HALF_LIFE_MS) for _, _, at in before]
            own = math.floor((score + 8) * 10 + 1e-9)
            places = [math.floor((other + 8) * 10 + 1e-9) for _, other, _ in before]
            above = sum(w for w, at in zip(weights, places, strict=True) if at > own)
            above += sum(w for w, at in zip(weights, places, strict=True) if at == own) / 2
            known = sum(weights) >= FEWEST_IN_MARKET
            good = known and above / sum(weights) <= settings.top
        day = time_ms // DAY_MS
        full = days[job, day] >= settings.per_day
        kept = sorted(last_days[job])[-3:]
        too_old = len(kept) == 3 and day < kept[0]
        if good and 1 / (1 + math.exp(-score)) >= settings.p_min and not full and not too_old:
            days[job, day] += 1
            last_days[job].add(day)
            found.append(number)
    return found


@given(
    st.lists(
        st.tuples(
            st.sampled_from("jk"),
            st.sampled_from([-1.95, -0.85, -0.25, 0.05, 0.35, 1.25]),
            st.integers(0, 4 * DAY_MS),
        ),
        max_size=40,
    ),
    st.sampled_from([0.1, 0.25, 0.5]),
)
def test_matches_are_those_of_the_rule(applications: list[Scored], top: float) -> None:
    """By brute force over all scores so far; what is kept can always be read again."""
    settings = MatchSettings(enabled=True, top=top, per_day=2)
    jobs: defaultdict[str, Applicants] = defaultdict(Applicants)
    market = Market()
    found = []
    for number, (job, score, time_ms) in enumerate(applications):
        match = enter(str(number), score, time_ms, job=jobs[job], market=market, settings=settings)
        if match is not None:
            found.append(number)
            same = [other for of, other, _ in applications[:number] if of == job]
            assert match.rank == 1 + sum(other > score for other in same)
            assert match.applicants == len(same) + 1
        jobs[job] = codec.APPLICANTS.decode(codec.APPLICANTS.encode(jobs[job]))
        market = codec.MARKET.decode(codec.MARKET.encode(market))
    assert found == by_brute_force(applications, settings)


def test_of_a_hot_job_only_the_best_are_known_and_ranks_stay_exact() -> None:
    """Its record stays small; who is not among the best kept is no match."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=3000).tolist()
    job = Applicants()
    for number, score in enumerate(scores):
        place = job.enter(score, START)
        rank = 1 + sum(other > score for other in scores[:number])
        assert (place is None) == (rank > MOST_BEST)
        assert place is None or place.rank == rank
    assert job.best == sorted(scores)[-MOST_BEST:]
    assert len(codec.APPLICANTS.encode(job)) < 2500


def test_scores_beyond_every_bucket_count_in_the_outermost() -> None:
    """A market knows scores of any size."""
    market = Market()
    for score in (-1e9, 1e9):
        market.count(score, START)
    assert (market.weights[0], market.weights[BUCKETS - 1]) == (1.0, 1.0)


def applied(count: int, *, days: int = 4) -> list[Application]:
    """Applications of one job over some days, with scores of their own."""
    random = Random(3)
    return [
        application(
            f"a{number}", START + number * days * DAY_MS // count, score=random.uniform(-2.0, 2.0)
        )
        for number in range(count)
    ]


def told(market: kit.Market) -> list[Match]:
    """Matches that were sent, the first of each application."""
    found: dict[str, Match] = {}
    for message in market.sent:
        if message.topic == MATCHES:
            match = msgspec.json.decode(message.value or b"", type=Match)
            assert message.key == match.job_id.encode()
            assert found.setdefault(match.application_id, match) == match
    return list(found.values())


def played(events: Sequence[TestEvent], policy: Policy = POLICY, crashes: int = 0) -> kit.Market:
    """Play events one by one; the job stage dies after sending, with a chance of 1 in so many."""
    market = kit.Market(policy, 1)
    market.produce(events)
    random = Random(7)
    member, job = market.partitions["member", 0], market.partitions["job", 0]
    while market.step("member", 0, member.topics[0], 1000):
        pass
    for _ in range(10 * len(events)):
        for topic in reversed(job.topics):
            crash = crashes > 0 and random.randrange(crashes) == 0
            market.step("job", 0, topic, 1, crash=crash)
    return market


def test_a_match_is_told_with_its_place_and_never_more_than_the_budget() -> None:
    """Scores, ranks and percentiles are those of first sight; two a day at the most."""
    events = applied(60)
    matches = told(played(events))
    assert matches
    assert max(Counter(match.event_time_ms // DAY_MS for match in matches).values()) == 2
    seen: list[float] = []
    by_id = {match.application_id: match for match in matches}
    for event in events:
        score = event.global_score or 0.0
        seen.append(score)
        match = by_id.get(event.application_id)
        if match is not None:
            higher = sum(other > score for other in seen)
            assert (match.rank, match.applicants) == (higher + 1, len(seen))
            assert match.percentile == pytest.approx(100 * (1 - higher / len(seen)))
            assert match.score == score
            assert match.probability == pytest.approx(1 / (1 + math.exp(-score)))


def test_crashes_and_repeats_tell_no_other_matches() -> None:
    """What is told twice is the same; a repeated application is told of no second time."""
    events = applied(60)
    wanted = told(played(events))
    assert told(played([*events[:30], *events[:30], *events[30:]])) == wanted
    assert told(played(events, crashes=3)) == wanted


def test_who_is_answered_already_is_no_match() -> None:
    """An engagement that came before its application, or a closed job, leave nothing to tell."""
    before = applied(29)
    later = START + 5 * DAY_MS
    best = application("a29", later, score=5.0)
    assert told(played([*before, best]))[-1].application_id == "a29"
    for event in (engagement("e", "a29", later + 1000), closing("c", later + 1000)):
        market = kit.Market(POLICY, 1)
        market.produce([event])
        market.step("job", 0, ENGAGEMENTS, 10)
        market.produce([*before, best])
        market.run()
        assert "a29" not in {match.application_id for match in told(market)}


def test_without_being_asked_nothing_is_told() -> None:
    """Off is the default."""
    market = played(applied(60), msgspec.structs.replace(POLICY, matches=MatchSettings()))
    assert told(market) == []


def test_matches_are_judged_when_their_windows_close() -> None:
    """Told, closed and answered, against all; as the events themselves have it."""
    events = applied(60)
    market = played(events)
    matches = {match.application_id for match in told(market)}
    answered = {"a3", "a20", *sorted(matches)[:3]}
    market.produce([engagement(f"e-{name}", name, START + 5 * DAY_MS) for name in sorted(answered)])
    market.clock(START + 30 * DAY_MS)
    market.run()
    partition = market.partitions["job", 0]
    assert isinstance(partition, JobPartition)
    found = partition.matches
    assert found == MatchCounts(
        told=len(matches),
        closed=len(matches),
        answered=len(matches & answered),
        all_closed=60,
        all_answered=len(answered),
    )
    quality = found.quality()
    assert quality is not None
    share = 100 * len(matches & answered) / len(matches)
    assert quality.in_words() == (
        f"{share:.0f}% of {len(matches)} matches were answered, against"
        f" {100 * len(answered) / 60:.0f}% of all applications."
    )


def test_a_backtest_tells_the_matches_that_a_worker_tells() -> None:
    """The same scores in the same order give as many, and as good ones."""
    events = applied(60)
    matches = {match.application_id for match in told(played(events))}
    scores = np.array([event.global_score or 0.0 for event in events])
    targets = np.array([number % 3 == 0 for number in range(60)], dtype=np.float64)
    judged = np.arange(60) >= 20
    apps: list[Any] = list(events)
    found = match_quality(apps, scores, targets, judged, ON)
    numbers = sorted(int(name[1:]) for name in matches if int(name[1:]) >= 20)
    assert found is not None
    assert (found.told, found.closed) == (len(numbers), len(numbers))
    assert found.answered == pytest.approx(sum(at % 3 == 0 for at in numbers) / len(numbers))
    assert found.answered_of_all == pytest.approx(targets[judged].mean())


def test_a_forgotten_job_begins_anew() -> None:
    """Its scores go with it."""
    market = played(applied(60))
    stage: Any = market.partitions["job", 0].learning
    matches = stage.entities.matches
    assert matches is not None
    assert stage.entities.forget("j", START + 5 * DAY_MS) is not None
    assert (
        matches.enter(
            application("new", START + 6 * DAY_MS), stage_scores(9.0), answered=False
        ).applicants
        == 1
    )


def stage_scores(score: float) -> Any:
    """Scores of first sight that sum up to one."""
    return Scores(score, 0.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"p_min": 1.0}, "p_min must lie between 0 and 1"),
        ({"p_min": -0.1}, "p_min must lie between 0 and 1"),
        ({"top": 0.0}, "top must be above 0"),
        ({"top": 1.5}, "top must be above 0"),
        ({"per_day": 0}, "per_day must be at least 1"),
    ],
)
def test_settings_that_match_nothing_are_refused(settings: dict[str, Any], why: str) -> None:
    """In one line that names the setting."""
    with pytest.raises(ConfigError, match=why):
        MatchSettings(**settings)
