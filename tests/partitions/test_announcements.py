"""Announcements: who is sent a bare watermark, and when."""

from __future__ import annotations

from stream.partitions.announcements import MOST_A_SECOND, Announcements

WINDOW = 1_000_000  # steps of 1,000 ms


def test_each_is_told_when_the_mark_has_moved_by_a_thousandth_of_the_window() -> None:
    """Those that an application told are not told again; a small move waits."""
    announcements = Announcements(3, WINDOW)
    announcements.told(1, 50_000)
    assert announcements.take(50_000, 5_000, settled=False) == [(0, False), (2, False)]
    assert announcements.take(50_999, 9_000, settled=False) == []
    assert announcements.take(51_000, 13_000, settled=False) == [
        (1, False),
        (0, False),
        (2, False),
    ]


def test_what_is_untold_is_told_once_there_is_nothing_more_to_read() -> None:
    """Also where it has moved by less; and nothing where it has not moved, or there is no mark."""
    announcements = Announcements(1, WINDOW)
    assert announcements.take(None, 0, settled=True) == []
    announcements.told(0, 50_000)
    assert announcements.take(50_001, 1_000, settled=False) == []
    assert announcements.take(50_001, 2_000, settled=True) == [(0, False)]
    assert announcements.take(50_001, 3_000, settled=True) == []


def test_all_are_told_each_time_that_it_was_idle_once_more() -> None:
    """Also those that know the mark, and where there is none."""
    announcements = Announcements(2, WINDOW)
    announcements.was_idle()
    assert announcements.take(None, 1_000, settled=True) == [(0, True), (1, True)]
    assert announcements.take(None, 2_000, settled=True) == []
    announcements.was_idle()
    assert announcements.take(None, 3_000, settled=True) == [(0, True), (1, True)]


def test_not_more_than_so_many_are_sent_in_a_second_those_untold_longest_first() -> None:
    """A hundred partitions are told in turn, within five seconds."""
    announcements = Announcements(100, WINDOW)
    told: list[int] = []
    for second in range(1, 6):
        part = announcements.take(second * 10_000, second * 1000, settled=False)
        assert len(part) == MOST_A_SECOND
        told += [partition for partition, _ in part]
    assert told == list(range(100))
    late = announcements.take(60_000, 5_500, settled=False)
    assert [partition for partition, _ in late] == list(range(10))


def test_nothing_is_known_to_be_told_after_a_rollback() -> None:
    """All are told again."""
    announcements = Announcements(2, WINDOW)
    announcements.told(0, 100)
    announcements.told(1, 100)
    announcements.reset()
    assert announcements.take(100, 5_000, settled=False) == [(0, False), (1, False)]
