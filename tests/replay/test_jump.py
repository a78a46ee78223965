"""Implausible jumps of time are held back until others confirm them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.replay.reader import CONFIRMATIONS, JumpFilter


def run(times: list[int], max_jump: int | None) -> tuple[list[int], list[int]]:
    """Return what was given out, in order, and what was left at the end."""
    jumps: JumpFilter[int] = JumpFilter(max_jump)
    out = [item for time in times for item in jumps.take(time, time)]
    return out, [item for _, item in jumps.held]


def test_without_a_limit_everything_passes() -> None:
    """Off by default: any jump is taken at once."""
    assert run([1, 10**12, 2], None) == ([1, 10**12, 2], [])


def test_a_single_jump_is_left_at_the_end() -> None:
    """One event a year ahead among ordinary ones is never given out."""
    assert run([1, 1000, 2, 3], 100) == ([1, 2, 3], [1000])


def test_exactly_the_limit_is_no_jump() -> None:
    """An event at the largest time plus the limit passes, a millisecond further is held."""
    assert run([0, 100], 100) == ([0, 100], [])
    assert run([0, 101], 100) == ([0], [101])


def test_a_hundred_further_events_confirm_a_jump() -> None:
    """The 101st event beyond the limit releases all of them, in order of arrival."""
    ahead = [1000 + n for n in range(CONFIRMATIONS + 1)]
    assert run([0, *ahead[:-1]], 100) == ([0], ahead[:-1])
    assert run([0, *ahead], 100) == ([0, *ahead], [])


def test_an_event_that_time_catches_up_with_is_given_out() -> None:
    """A held event is applied once it is no jump any more."""
    assert run([0, 150, 60, 70], 100) == ([0, 60, 150, 70], [])


@given(st.lists(st.integers(0, 500), max_size=300), st.integers(0, 200))
def test_nothing_is_lost(times: list[int], max_jump: int) -> None:
    """Every event is given out once, or left at the end."""
    out, left = run(times, max_jump)
    assert sorted(out + left) == sorted(times)
