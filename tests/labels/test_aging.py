"""Silence: the delay curve, its steps, and open applications of a state that knew neither."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as _stats

from stream.errors import ConfigError
from stream.labels.delays import (
    AgeStep,
    DelayCurve,
    LiveDelays,
    curve_of,
    default_curve,
    fitted,
    steps_of,
)
from stream.policy import DAY_MS, MOST_POINTS, LabelPolicy
from tests import oracle
from tests.kit import TestEvent, application, engagement
from tests.labels.bench import AGED, SKEW, STEPS, Bench, W, with_settings

WINDOW_MS = 14 * DAY_MS
stats: Any = _stats  # SciPy has no types


def test_the_default_curve_is_exponential() -> None:
    """At its points it is exponential, made to end with 1; its steps are those of the docs."""
    curve = default_curve(WINDOW_MS)
    assert len(curve.ages_ms) == MOST_POINTS
    delay = stats.expon(scale=2.5 * DAY_MS)
    wanted = delay.cdf(curve.ages_ms) / delay.cdf(WINDOW_MS)
    assert np.allclose(curve.shares, wanted, atol=1e-12)
    days = [
        (round(step.age_ms / DAY_MS, 2), round(step.weight, 2)) for step in steps_of(LabelPolicy())
    ]
    assert days == [(1.09, 0.36), (3.06, 0.71), (5.69, 0.90)]
    assert default_curve(1) == DelayCurve((1,), (1.0,))


@given(
    st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=80),
    st.sampled_from([20, 60]),
)
def test_the_fitted_curve_is_kaplan_and_meiers(
    seen: list[tuple[int, bool]], window_ms: int
) -> None:
    """At every age with an answer it is SciPy's estimate, divided by its value at the end."""
    delays = [age for age, answered in seen if answered and 0 < age <= window_ms]
    silent = [min(age, window_ms) for age, answered in seen if not answered]
    if not delays:
        with pytest.raises(ConfigError):
            fitted(delays, silent, window_ms)
        return
    curve = fitted(delays, silent, window_ms)
    data = stats.CensoredData(uncensored=delays, right=silent)
    cdf = stats.ecdf(data).cdf
    whole = cdf.evaluate(np.array([window_ms]))[0]
    assert curve.ages_ms[-1] == window_ms
    for age_ms, share in zip(curve.ages_ms[:-1], curve.shares, strict=False):
        assert share == pytest.approx(cdf.evaluate(np.array([age_ms]))[0] / whole, abs=1e-9)


def test_a_fitted_curve_has_few_points_that_lie_close() -> None:
    """Of thousands of delays at most 64 points are kept, and F is met within 2 % everywhere."""
    rng = np.random.default_rng(1)
    delays = np.minimum(rng.exponential(2 * DAY_MS, 5000), WINDOW_MS).astype(int).tolist()
    curve = fitted(delays, [WINDOW_MS] * 3000, WINDOW_MS)
    assert len(curve.ages_ms) <= MOST_POINTS
    for age_ms in range(0, WINDOW_MS, DAY_MS // 4):
        assert curve.at(age_ms) == pytest.approx(np.mean(np.array(delays) <= age_ms), abs=0.02)


def test_a_shorter_window_rescales_and_a_longer_one_is_refused() -> None:
    """F(a) / F(W') within a shorter window; the curve ends where the longer one goes on."""
    curve = DelayCurve((DAY_MS, 2 * DAY_MS, 4 * DAY_MS), (0.4, 0.8, 1.0))
    shorter = curve.within(2 * DAY_MS)
    assert shorter == DelayCurve((DAY_MS, 2 * DAY_MS), (0.5, 1.0))
    assert curve.within(3 * DAY_MS).at(DAY_MS) == pytest.approx(0.4 / 0.9)
    with pytest.raises(ConfigError, match="before the label window of 14d"):
        curve.within(WINDOW_MS)


def test_equal_ages_merge_and_the_windows_end_is_no_step() -> None:
    """Where F leaps, several quantiles share one step; what is reached at the end is no step."""
    curve = DelayCurve((DAY_MS, 14 * DAY_MS), (0.75, 1.0))
    assert curve.steps((0.35, 0.7, 0.9)) == (AgeStep(DAY_MS, 0.75),)
    assert curve.steps(()) == ()


def test_the_policys_curve_stands_above_the_models() -> None:
    """The policy's, else the model's, else the default."""
    learned = DelayCurve((DAY_MS, WINDOW_MS), (0.5, 1.0))
    assert curve_of(LabelPolicy(), learned) == learned
    assert curve_of(LabelPolicy(), None) == default_curve(WINDOW_MS)
    given_ = LabelPolicy(delay_curve=frozenset({"2d:0.6", "14d:1"}))
    assert curve_of(given_, learned) == DelayCurve((2 * DAY_MS, WINDOW_MS), (0.6, 1.0))
    assert steps_of(LabelPolicy(aging=()), learned) == ()


def test_a_curve_of_the_policy_without_a_step_is_refused() -> None:
    """It says that silence tells nothing before the window ends, which aging off says in words."""
    late = LabelPolicy(delay_curve=frozenset({"13d:0.2", "14d:1"}))
    with pytest.raises(ConfigError, match=r"delay_curve reaches 0.35 only when the window ends"):
        steps_of(late)
    assert steps_of(msgspec.structs.replace(late, aging=())) == ()
    assert steps_of(LabelPolicy(), DelayCurve((WINDOW_MS,), (1.0,))) == ()  # learned: so it is


@pytest.mark.parametrize(
    ("ages", "shares"),
    [
        ((), ()),
        ((5, 5), (0.5, 1.0)),
        ((5, 6), (0.5, 0.9)),
        ((5, 6), (0.9, 0.5)),
        ((0, 6), (0.5, 1)),
    ],
)
def test_what_is_no_curve_is_refused(ages: tuple[int, ...], shares: tuple[float, ...]) -> None:
    """Ages grow from above zero, shares do not fall and end with 1."""
    with pytest.raises(ConfigError):
        DelayCurve(ages, shares)


@pytest.mark.parametrize("crashed", [True, False])
def test_open_applications_of_an_earlier_release_get_their_step(crashed: bool) -> None:
    """A state that knew no steps: each open application has the oracle's label two moves later."""
    before = with_settings(later_response="off")
    bench = Bench(before)
    events: list[TestEvent] = [application(f"a{at:03}", 10_000 + 5 * at) for at in range(150)]
    events += [engagement("e", "a005", 10_040), engagement("r", "a007", 10_050, "reject")]
    for event in events:
        bench.apply(event)
    bench.move(10_500)
    bench.overlay.flush()
    aged = msgspec.structs.replace(before, aging=AGED.aging, delay_curve=AGED.delay_curve)
    bench.restart(aged)
    if crashed:
        bench.move(10_510)
        bench.overlay.discard()
        bench.machine.begin_again()
    for watermark_ms in (10_520, 10_521):
        bench.move(watermark_ms)
    wanted = oracle.verdicts(
        events,
        window_ms=W,
        clock_skew_ms=SKEW,
        later_response=False,
        steps=STEPS,
        watermark_ms=10_521,
    )
    assert bench.last == {key: verdict for key, verdict in wanted.items() if verdict is not None}
    assert [verdict[3] for verdict in bench.last.values()].count(0.4) == 43


@given(st.lists(st.integers(0, 15 * DAY_MS), min_size=50, max_size=400))
def test_live_delays_are_compared_as_kolmogorov_and_smirnov_do(delays: list[int]) -> None:
    """The distance is the largest between the shares at the curve's ages, however split."""
    curve = default_curve(14 * DAY_MS)
    halves = [LiveDelays(curve), LiveDelays(curve)]
    for at, delay in enumerate(delays):
        halves[at % 2].observe(delay)
    found = LiveDelays.distance(halves)
    seen = np.minimum(np.array(delays), curve.window_ms)
    shares = [(seen <= age).mean() for age in curve.ages_ms]
    assert found == pytest.approx(np.abs(np.array(shares) - curve.shares).max())


def test_few_answers_say_nothing_of_their_delays_and_old_ones_fade() -> None:
    """Under 50 there is no distance; what came long ago stops counting."""
    curve = DelayCurve((DAY_MS, 14 * DAY_MS), (0.5, 1.0))
    live = LiveDelays(curve)
    for _ in range(49):
        live.observe(DAY_MS)
    assert LiveDelays.distance([live]) is None
    for _ in range(951):
        live.observe(DAY_MS)
    assert LiveDelays.distance([live]) == pytest.approx(0.5)
    for _ in range(20 * 1000):
        live.observe(2 * DAY_MS)
    assert LiveDelays.distance([live]) == pytest.approx(0.5, abs=1e-3)
    for _ in range(1000):
        live.observe(DAY_MS)
    assert LiveDelays.distance([live]) == pytest.approx(0.0, abs=0.26)
