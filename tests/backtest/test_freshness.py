"""The freshness curve: live scores and frozen ones, and what is left of the advantage."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.backtest.freshness import Freezer, Freshness
from stream.backtest.rehearsal import Rehearsal, rehearse
from stream.policy import DAY_MS, Policy

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def frozen(rehearsal: Rehearsal) -> tuple[Freezer, Floats, Floats]:
    """Learn the market, frozen every week from the second on."""
    first, last = int(rehearsal.times_ms.min()), int(rehearsal.times_ms.max())
    judged = rehearsal.times_ms >= first + 7 * DAY_MS
    freezer = Freezer(rehearsal, judged, first + 7 * DAY_MS, last)
    live = rehearse(rehearsal, Policy(), pauses=freezer.pauses, on_pause=freezer.freeze)
    return freezer, live.member, live.job


def test_freezing_disturbs_nothing(
    rehearsal: Rehearsal, frozen: tuple[Freezer, Floats, Floats]
) -> None:
    """A run that is frozen now and then learns what one without pauses learns."""
    plain = rehearse(rehearsal, Policy())
    assert np.allclose(plain.member, frozen[1], atol=1e-9)
    assert np.allclose(plain.job, frozen[2], atol=1e-9)


def test_frozen_scores_are_those_of_a_model_that_stops(rehearsal: Rehearsal) -> None:
    """What follows a freeze is scored as by a run that learns nothing after it."""
    n = len(rehearsal.applications)
    half = n // 2
    at = next(
        position
        for position, (number, label) in enumerate(rehearsal.steps)
        if label is None and number == half
    )
    rest = [step for step in rehearsal.steps[at:] if step.label is None]
    stopped = rehearse(rehearsal, Policy(), steps=[*rehearsal.steps[:at], *rest])
    time_ms = int(rehearsal.times_ms[half])
    freezer = Freezer(rehearsal, np.ones(n, dtype=bool), time_ms, time_ms + 21 * DAY_MS)
    freezer.pauses = {half: time_ms}
    rehearse(rehearsal, Policy(), pauses=freezer.pauses, on_pause=freezer.freeze)
    rows = freezer.rows
    assert len(rows) > n / 4
    assert np.allclose(rows["member"], stopped.member[rows["number"]], atol=1e-6)
    assert np.allclose(rows["job"], stopped.job[rows["number"]], atol=1e-6)


def curve(rehearsal: Rehearsal, half_life_days: float) -> Freshness:
    """A curve of made-up scores: live ones are the truth, frozen ones lose a known part of it."""
    n = len(rehearsal.applications)
    rng = np.random.default_rng(3)
    first_ms, last_ms = int(rehearsal.times_ms.min()), int(rehearsal.times_ms.max())
    freezer = Freezer(rehearsal, np.ones(n, dtype=bool), first_ms, last_ms)
    member, job = rng.normal(0, 1.5, n), rng.normal(0, 1.0, n)
    targets = (rng.random(n) < 1 / (1 + np.exp(-member - job))).astype(np.float64)
    for number in freezer.pauses:
        freezer.freeze(number, {})
    rows = freezer.rows
    age = rows["age_ms"] / DAY_MS
    share = 0.5 ** (age / half_life_days)
    known = rng.random(len(age)) < share  # of the entities, so many are as they were
    rows["member"] = np.where(known, member[rows["number"]], 0.0)
    rows["job"] = np.where(known, job[rows["number"]], 0.0)
    blocks = (rehearsal.times_ms - first_ms) // (7 * DAY_MS)
    return freezer.curve(targets, np.zeros(n), member=member, job=job, blocks=blocks)


def test_a_model_that_does_not_age_keeps_its_advantage(
    monkeypatch: pytest.MonkeyPatch, rehearsal: Rehearsal
) -> None:
    """Where frozen scores equal the live ones, all of the advantage is left, for ever."""
    found = curve(rehearsal, np.inf)
    assert len(found.points) > 4
    for point in found.points:
        assert point.both.auc is not None
        assert point.both.auc.value == pytest.approx(1.0)
        assert point.auc_live == pytest.approx(point.auc_frozen)
        assert point.auc_global == pytest.approx(0.5)
    assert found.half_life_days == {"both": None, "member": None, "job": None}


def test_a_known_decay_is_found(monkeypatch: pytest.MonkeyPatch, rehearsal: Rehearsal) -> None:
    """Coefficients lost half every 20 days show as such, and half every 10 as twice as fast.

    (AUC loses less than its share of coefficients: who is known is still told from who is not.)
    """
    found = [curve(rehearsal, days).half_life_days["both"] for days in (20.0, 10.0)]
    slow, fast = found
    assert slow is not None
    assert fast is not None
    assert 20 < slow.value < 33
    assert 0.35 < fast.value / slow.value < 0.65
    assert slow.low is not None
    assert slow.high is not None
    assert slow.low < slow.value < slow.high


def test_where_nothing_is_gained_nothing_is_lost(rehearsal: Rehearsal) -> None:
    """Without effects there is no advantage, and no share of one."""
    n = len(rehearsal.applications)
    first_ms, last_ms = int(rehearsal.times_ms.min()), int(rehearsal.times_ms.max())
    freezer = Freezer(rehearsal, np.ones(n, dtype=bool), first_ms, last_ms)
    for number in freezer.pauses:
        freezer.freeze(number, {})
    zeros = np.zeros(n)
    found = freezer.curve(
        rehearsal.targets, zeros, member=zeros, job=zeros, blocks=zeros.astype(np.int64)
    )
    assert all(point.both.auc is None and point.job.auc is None for point in found.points)
    assert found.half_life_days["member"] is None
