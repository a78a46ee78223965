"""When a new global model is due, and what it is called."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.policy import DAY_MS, HOUR_MS
from stream.refresh.plan import Plan, name_of
from stream.units import parse_time_ms

WEEK_MS = 7 * DAY_MS
MONDAY_MS = parse_time_ms("2024-02-12")
TIMES = st.integers(MONDAY_MS, MONDAY_MS + 20 * WEEK_MS)


def test_a_week_is_over_when_no_event_of_it_can_come_any_more() -> None:
    """From Monday at midnight plus the lateness on, and then once."""
    plan = Plan(WEEK_MS, HOUR_MS, MONDAY_MS)
    next_ms = MONDAY_MS + WEEK_MS
    assert plan.due(0) is None
    assert plan.due(next_ms) is None
    assert plan.due(next_ms + HOUR_MS - 1) is None
    assert plan.due(next_ms + HOUR_MS) == next_ms
    plan.done(next_ms)
    assert plan.due(next_ms + WEEK_MS) is None
    assert plan.due(next_ms + WEEK_MS + HOUR_MS) == next_ms + WEEK_MS


def test_of_weeks_that_passed_only_the_last_one_counts() -> None:
    """A model of each would be of no use: the last one is in force at once."""
    plan = Plan(WEEK_MS, HOUR_MS, MONDAY_MS)
    assert plan.due(MONDAY_MS + 5 * WEEK_MS + DAY_MS) == MONDAY_MS + 5 * WEEK_MS


def test_an_older_model_that_is_rolled_in_again_makes_nothing_due() -> None:
    """Who rolls back is not overruled before the week is over."""
    plan = Plan(WEEK_MS, HOUR_MS, MONDAY_MS)
    plan.done(MONDAY_MS + WEEK_MS)
    plan.done(MONDAY_MS)
    assert plan.due(MONDAY_MS + WEEK_MS + DAY_MS) is None


def test_a_model_that_was_trained_within_a_week_is_followed_at_its_end() -> None:
    """Weeks stay where they are, whenever somebody trained by hand."""
    plan = Plan(WEEK_MS, 0, MONDAY_MS + 3 * DAY_MS)
    assert plan.due(MONDAY_MS + 6 * DAY_MS) is None
    assert plan.due(MONDAY_MS + WEEK_MS) == MONDAY_MS + WEEK_MS


@given(
    times=st.lists(TIMES, max_size=30),
    every_ms=st.integers(HOUR_MS, 5 * WEEK_MS),
    lateness_ms=st.integers(0, DAY_MS),
)
def test_no_period_has_two_models(times: list[int], every_ms: int, lateness_ms: int) -> None:
    """Each model is trained on a whole number of periods, all of which are over; each is newer."""
    plan = Plan(every_ms, lateness_ms, MONDAY_MS)
    models = []
    for now_ms in sorted(times):
        until_ms = plan.due(now_ms)
        if until_ms is None:
            continue
        assert now_ms - lateness_ms - every_ms < until_ms <= now_ms - lateness_ms
        assert (until_ms - 4 * DAY_MS) % every_ms == 0
        assert plan.in_force_from(now_ms) > now_ms + lateness_ms
        models.append(until_ms)
        plan.done(until_ms)
        assert plan.due(now_ms) is None
    assert models == sorted(set(models))


def test_models_are_called_by_the_end_of_their_training() -> None:
    """A date; with the time where that is not midnight."""
    assert name_of(MONDAY_MS) == "2024-02-12"
    assert name_of(MONDAY_MS + 6 * HOUR_MS) == "2024-02-12T060000Z"
