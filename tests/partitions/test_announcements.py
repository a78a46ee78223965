"""Announcements: who is sent a bare watermark, and when."""

from __future__ import annotations

from stream.partitions.announcements import Announcements


def test_each_is_told_once_and_not_more_often_than_every_second() -> None:
    """A partition that knows, or was written to within the last second, is not due."""
    announcements = Announcements(3)
    known = (100, False)
    assert list(announcements.due(known, 5_000)) == [0, 1, 2]
    announcements.sent(1, known, 5_000)
    assert list(announcements.due(known, 9_000)) == [0, 2]
    assert list(announcements.due((200, False), 5_999)) == [0, 2]
    assert list(announcements.due((200, False), 6_000)) == [0, 1, 2]
    assert list(announcements.due((100, True), 6_000)) == [0, 1, 2]


def test_nothing_is_known_to_be_told_after_a_rollback() -> None:
    """All are due again, each a second after it was written to last."""
    announcements = Announcements(2)
    announcements.sent(0, (100, False), 5_000)
    announcements.reset()
    assert list(announcements.due((100, False), 5_500)) == [1]
    assert list(announcements.due((100, False), 6_000)) == [0, 1]
