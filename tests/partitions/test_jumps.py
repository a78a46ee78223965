"""Jumps: what lies far ahead raises a mark only when others confirm it."""

from __future__ import annotations

from stream.partitions.jumps import CONFIRMATIONS, CONFIRMED_AFTER_MS, JumpGuard, Jumps

FAR = 1_000
NOW = 1 << 40


def test_a_small_step_and_the_first_mark_pass() -> None:
    """What lies within the limit is taken as it is."""
    guard, jumps = JumpGuard(FAR), Jumps()
    assert guard.take(jumps, None, 5, NOW) == 5
    assert guard.take(jumps, 5, 5 + FAR, NOW) == 5 + FAR
    assert guard.take(jumps, 5, 3, NOW) == 3
    assert jumps == Jumps()


def test_a_hundred_later_ones_confirm_the_first_but_not_the_farthest() -> None:
    """The log really goes on there; an event years ahead of it still waits."""
    guard, jumps = JumpGuard(FAR), Jumps()
    assert guard.take(jumps, 0, 10**9, NOW) is None
    for number in range(CONFIRMATIONS - 1):
        assert guard.take(jumps, 0, 5_000 + number, NOW) is None
    assert guard.take(jumps, 0, 5_000 + CONFIRMATIONS, NOW) == 5_000 + CONFIRMATIONS
    assert jumps.waiting == [10**9]


def test_an_hour_without_an_earlier_one_confirms_it() -> None:
    """A marketplace that was silent for a month goes on, however few events it has."""
    guard, jumps = JumpGuard(FAR), Jumps()
    assert guard.take(jumps, 0, 5_000, NOW) is None
    assert guard.take(jumps, 0, 5_010, NOW + CONFIRMED_AFTER_MS - 1) is None
    assert guard.take(jumps, 0, 5_020, NOW + CONFIRMED_AFTER_MS) == 5_020
    assert jumps.waiting == []


def test_an_earlier_one_begins_the_hour_anew() -> None:
    """While events come where the channel stands, what lies ahead is not believed."""
    guard, jumps = JumpGuard(FAR), Jumps()
    assert guard.take(jumps, 0, 5_000, NOW) is None
    assert guard.take(jumps, 0, 7, NOW + CONFIRMED_AFTER_MS) == 7
    assert guard.take(jumps, 7, 5_010, NOW + CONFIRMED_AFTER_MS + 1) is None


def test_what_lies_ahead_alone_never_counts_also_when_time_comes_near_it() -> None:
    """One wrong time is not believed because others come within reach of it; then it is passed."""
    guard, jumps = JumpGuard(FAR), Jumps()
    for _ in range(3):
        assert guard.take(jumps, 0, 1_500, NOW) is None
    assert guard.take(jumps, 0, 600, NOW) == 600
    assert guard.take(jumps, 600, 1_400, NOW) == 1_400
    assert jumps.waiting == [1_500]
    assert guard.take(jumps, 1_400, 1_501, NOW) == 1_501
    assert jumps.waiting == []


def test_each_earlier_one_takes_a_confirmation_back() -> None:
    """A channel where four of ten times are always wrong never jumps, however long it runs."""
    guard, jumps = JumpGuard(FAR), Jumps()
    own = 0
    for number in range(20 * CONFIRMATIONS):
        mark = number // 10 + (10**6 + 7 * number if number % 5 in {1, 3} else 0)
        own = max(own, guard.take(jumps, own, mark, NOW) or 0)
        assert own <= number
