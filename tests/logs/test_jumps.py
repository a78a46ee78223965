"""Implausible jumps of time are held back until others confirm them."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from stream.logs.jumps import CONFIRMATIONS, JumpFilter

FIRST = [0] * (CONFIRMATIONS + 1)
"""Ordinary events, after which a log has begun."""


def run(times: list[int], max_jump: int | None) -> tuple[list[int], list[int]]:
    """Return what was given out, in order, and what was left at the end."""
    jumps: JumpFilter[int] = JumpFilter(max_jump)
    out = [item for time in times for item in jumps.take(time, time)]
    out += jumps.end()
    return out, [item for _, item in jumps.held]


def begun(times: list[int], max_jump: int) -> tuple[list[int], list[int]]:
    """Run in a log that has begun at time 0; what came of ``times``."""
    out, left = run(FIRST + times, max_jump)
    assert out[: len(FIRST)] == FIRST
    return out[len(FIRST) :], left


def test_without_a_limit_everything_passes_at_once() -> None:
    """Off by default: any jump is taken, and nothing waits."""
    jumps: JumpFilter[int] = JumpFilter(None)
    assert [list(jumps.take(time, time)) for time in (1, 10**12, 2)] == [[1], [10**12], [2]]
    assert run([1, 10**12, 2], None) == ([1, 10**12, 2], [])


def test_a_single_jump_is_left_at_the_end() -> None:
    """One event a year ahead among ordinary ones is never given out."""
    assert begun([1, 1000, 2, 3], 100) == ([1, 2, 3], [1000])


def test_the_first_event_may_be_the_jump() -> None:
    """First events that are years ahead of the others are left, in a log of any length."""
    assert run([1000, 1, 2, 3], 100) == ([1, 2, 3], [1000])
    assert run([1000, 0], 100) == ([0], [1000])
    assert run([1000, 2000, 1, 1500, 2, 3, 4, 5], 100) == ([1, 2, 3, 4, 5], [1000, 2000, 1500])
    long = list(range(500))
    assert run([10_000] * 40 + long, 100) == (long, [10_000] * 40)
    assert run([7], 100) == ([7], [])
    assert run([], 100) == ([], [])


def test_a_first_event_far_before_the_others_is_no_jump() -> None:
    """An event of 1970 does not make all that follows a jump."""
    times = [0, *range(10**6, 10**6 + 300)]
    assert run(times, 100) == (times, [])


def test_few_events_over_a_long_time_are_no_jumps() -> None:
    """A log of a few events, each within the limit of one before, is given out, in any order."""
    weeks = list(range(0, 50 * 7, 7))
    assert run(weeks, 30) == (weeks, [])
    shuffled = Random(1).sample(weeks, len(weeks))
    assert sorted(run(shuffled, 30)[0]) == weeks
    assert sorted(run(weeks[::-1], 30)[0]) == weeks


def test_exactly_the_limit_is_no_jump() -> None:
    """An event at the largest time plus the limit passes, a millisecond further is held."""
    assert begun([100], 100) == ([100], [])
    assert begun([101], 100) == ([], [101])


def test_a_hundred_further_events_confirm_a_jump() -> None:
    """The 101st event beyond the limit releases all of them, in order of arrival."""
    ahead = [1000 + n for n in range(CONFIRMATIONS + 1)]
    assert begun(ahead[:-1], 100) == ([], ahead[:-1])
    assert begun(ahead, 100) == (ahead, [])


def test_an_event_that_time_catches_up_with_is_given_out() -> None:
    """A held event is applied once it is no jump any more."""
    assert begun([150, 60, 70], 100) == ([60, 150, 70], [])


@given(st.lists(st.integers(0, 500), max_size=300), st.integers(0, 200))
def test_nothing_is_lost(times: list[int], max_jump: int) -> None:
    """Every event is given out once, or left at the end, where it is a jump."""
    out, left = run(times, max_jump)
    assert sorted(out + left) == sorted(times)
    assert all(time > max(out) + max_jump for time in left)
