"""What each job partition has been told of a member partition's mark, and what it is to be told.

A job partition is told of a mark by the applications that are sent to it. The others are sent bare
watermarks: when the mark has moved by a thousandth of the label window since they were told, and
whatever they were not told once the partition has nothing more to read. All are told each time that
it was idle once more. They are told in turn, those first who were not told for longest, and at most
:data:`MOST_A_SECOND`, or :data:`MOST_OF_ALL` by all member partitions together: the number of bare
watermarks does not grow with the square of the partitions.

A mark that lies further ahead of what was told than a job partition believes is told as *sure*. So
is the first one after a restart or a rollback: what a job partition was told is not known then.
"""

from __future__ import annotations

from typing import NamedTuple

MOST_A_SECOND = 20
"""Bare watermarks that one member partition sends in a second at the most."""

MOST_OF_ALL = 1000
"""Bare watermarks that all member partitions send in a second at the most."""


class Bare(NamedTuple):
    """A bare watermark that is due: to whom, whether it was idle, whether it is sure."""

    partition: int
    idle: bool
    sure: bool


_STEPS = 1000  # of a label window


class Announcements:
    """The bare watermarks of one member partition; after a restart nobody was told anything.

    Args:
        partitions: job partitions that there are.
        window_ms: the label window.
        max_jump_ms: how far ahead a job partition believes a mark that is not sure.
        mark_ms: the mark that was stored; with one, some may have been told less, or nothing.

    """

    def __init__(
        self, partitions: int, window_ms: int, max_jump_ms: int, mark_ms: int | None
    ) -> None:
        self._step_ms = max(window_ms // _STEPS, 1)
        self._pause_ms = 1000 // max(min(MOST_A_SECOND, MOST_OF_ALL // partitions), 1)
        self._max_jump_ms = max_jump_ms
        self._resumed = mark_ms is not None
        self._told: dict[int, int | None] = dict.fromkeys(range(partitions))
        """Mark by job partition (ms), those who were not told for longest first."""
        self._idle: set[int] = set()
        """Those who are to be told that it was idle once more."""
        self._sent_until_ms = 0  # monotonic: when what was sent so far may have been sent

    def told(self, partition: int, mark_ms: int | None) -> None:
        """A job partition is sent an application with this mark."""
        if not self._jumps(self._told[partition], mark_ms):
            self._tell(partition, mark_ms)

    def was_idle(self) -> None:
        """The partition was idle once more: all are to be told."""
        self._idle.update(self._told)

    def take(self, mark_ms: int | None, monotonic_ms: int, *, settled: bool) -> list[Bare]:
        """Return who is to be told of this mark now, and how; they count as told.

        Args:
            mark_ms: of the partition. monotonic_ms: now.
            settled: whether there is nothing more to read.

        """
        self._sent_until_ms = max(self._sent_until_ms, monotonic_ms - 1000)
        due: list[Bare] = []
        for partition, told_ms in self._told.items():
            if self._sent_until_ms + self._pause_ms > monotonic_ms:
                break
            idle = partition in self._idle
            if idle or self._untold(told_ms, mark_ms, settled=settled):
                due.append(Bare(partition, idle, self._jumps(told_ms, mark_ms)))
                self._sent_until_ms += self._pause_ms
        for partition, _, _ in due:
            self._tell(partition, mark_ms)
            self._idle.discard(partition)
        return due

    def _tell(self, partition: int, mark_ms: int | None) -> None:
        del self._told[partition]
        self._told[partition] = mark_ms

    def _jumps(self, told_ms: int | None, mark_ms: int | None) -> bool:
        if mark_ms is None:
            return False
        return self._resumed if told_ms is None else mark_ms > told_ms + self._max_jump_ms

    def _untold(self, told_ms: int | None, mark_ms: int | None, *, settled: bool) -> bool:
        if mark_ms is None or mark_ms == told_ms:
            return False
        return settled or told_ms is None or mark_ms - told_ms >= self._step_ms

    def reset(self) -> None:
        """What was told may not have been sent: a unit of work was rolled back."""
        self._told = dict.fromkeys(self._told)
        self._resumed = True
