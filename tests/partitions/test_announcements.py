"""Announcements: who is sent a bare watermark, and when."""

from __future__ import annotations

import pytest

from stream.partitions.announcements import (
    MOST_A_SECOND,
    MOST_OF_ALL,
    Announcements,
    Bare,
)
from stream.partitions.clock import EventClock, EventTime

WINDOW = 1_000_000  # steps of 1,000 ms
MAX_JUMP = 10**9


def announcements_of(partitions: int, mark_ms: int | None = None) -> Announcements:
    """Announcements to so many job partitions, begun with a mark."""
    return Announcements(partitions, WINDOW, MAX_JUMP, mark_ms)


def take(
    announcements: Announcements, mark_ms: int | None, monotonic_ms: int, *, settled: bool
) -> list[tuple[int, bool]]:
    """Say who is told, and whether it was idle; none of it is sure."""
    due = announcements.take(mark_ms, monotonic_ms, settled=settled)
    assert not any(bare.sure for bare in due)
    return [(bare.partition, bare.idle) for bare in due]


def test_each_is_told_when_the_mark_has_moved_by_a_thousandth_of_the_window() -> None:
    """Those that an application told are not told again; a small move waits."""
    announcements = announcements_of(3)
    announcements.told(1, 50_000)
    assert take(announcements, 50_000, 5_000, settled=False) == [(0, False), (2, False)]
    assert take(announcements, 50_999, 9_000, settled=False) == []
    assert take(announcements, 51_000, 13_000, settled=False) == [
        (1, False),
        (0, False),
        (2, False),
    ]


def test_what_is_untold_is_told_once_there_is_nothing_more_to_read() -> None:
    """Also where it has moved by less; and nothing where it has not moved, or there is no mark."""
    announcements = announcements_of(1)
    assert take(announcements, None, 0, settled=True) == []
    announcements.told(0, 50_000)
    assert take(announcements, 50_001, 1_000, settled=False) == []
    assert take(announcements, 50_001, 2_000, settled=True) == [(0, False)]
    assert take(announcements, 50_001, 3_000, settled=True) == []


def test_all_are_told_each_time_that_it_was_idle_once_more() -> None:
    """Also those that know the mark, and where there is none."""
    announcements = announcements_of(2)
    announcements.was_idle()
    assert take(announcements, None, 1_000, settled=True) == [(0, True), (1, True)]
    assert take(announcements, None, 2_000, settled=True) == []
    announcements.was_idle()
    assert take(announcements, None, 3_000, settled=True) == [(0, True), (1, True)]


@pytest.mark.parametrize("partitions", [50, 100, 128, 2000])
def test_not_more_than_so_many_are_sent_in_a_second_those_untold_longest_first(
    partitions: int,
) -> None:
    """All are told in turn, at the rate that all member partitions together may have."""
    announcements = announcements_of(partitions)
    rate = max(min(MOST_A_SECOND, MOST_OF_ALL // partitions), 1)
    told: list[int] = []
    second = 0
    while len(told) < partitions:
        second += 1
        part = take(announcements, second * 10_000, second * 1000, settled=False)
        assert len(part) <= rate
        told += [partition for partition, _ in part]
    assert told[:partitions] == list(range(partitions))
    assert second <= partitions / rate + 1
    assert rate * partitions <= max(MOST_OF_ALL, partitions)


def test_nothing_is_known_to_be_told_after_a_rollback() -> None:
    """All are told again, as sure: what they were told before may be far behind."""
    announcements = announcements_of(2)
    announcements.told(0, 100)
    announcements.told(1, 100)
    announcements.reset()
    announcements.told(1, 100)
    assert announcements.take(100, 5_000, settled=False) == [
        Bare(0, idle=False, sure=True),
        Bare(1, idle=False, sure=True),
    ]
    assert take(announcements, 101, 9_000, settled=True) == [(0, False), (1, False)]


def test_a_mark_far_ahead_of_what_was_told_is_told_as_sure() -> None:
    """An application does not tell it, because alone it is not believed; once told, it is known."""
    announcements = announcements_of(2, mark_ms=5)
    announcements.told(0, 100)
    announcements.told(1, 100)
    far = 101 + MAX_JUMP
    announcements.told(1, far)
    announcements.told(1, far)
    assert announcements.take(far, 5_000, settled=False) == [
        Bare(0, idle=False, sure=True),
        Bare(1, idle=False, sure=True),
    ]
    announcements.told(1, far + 1)
    assert take(announcements, far + 1, 9_000, settled=True) == [(0, False)]


def test_the_first_mark_after_a_restart_is_told_as_sure() -> None:
    """Whatever was stored: it may not have been told. Without a stored one, nobody was told any."""
    for stored, sure in ((5, True), (MAX_JUMP, True), (6 + MAX_JUMP, True), (None, False)):
        announcements = announcements_of(1, mark_ms=stored)
        announcements.told(0, 6 + MAX_JUMP)
        due = announcements.take(6 + MAX_JUMP, 5_000, settled=True)
        assert due == ([Bare(0, idle=False, sure=True)] if sure else [])
        assert take(announcements, 7 + MAX_JUMP, 9_000, settled=True) == [(0, False)]


def test_a_sure_mark_that_was_stored_and_not_told_moves_a_job_partition() -> None:
    """Its member partition died between storing a far mark and telling it."""
    far = 2 * MAX_JUMP
    clock = EventClock(
        EventTime.of(2, 5), own=1, allowed_lateness_ms=0, idle_timeout_ms=1, max_jump_ms=MAX_JUMP
    )
    now_ms = 3 * MAX_JUMP
    clock.read_clock(far, now_ms, sure=True)
    for partition, idle, sure in announcements_of(1, far).take(far, 5_000, settled=False):
        assert partition == 0
        clock.read_mark(0, far, now_ms, idle=idle, sure=sure)
    assert clock.watermark_ms == far
