"""What each job partition has been told of a member partition's mark, and what it is to be told.

A job partition is told of a mark by the applications that are sent to it. The others are sent bare
watermarks: when the mark has moved by a thousandth of the label window since they were told, and
whatever they were not told once the partition has nothing more to read. All are told each time that
it was idle once more. They are told in turn, those first who were not told for longest, and at most
:data:`MOST_A_SECOND`, so that the number of bare watermarks grows with the partitions and not with
their square.
"""

from __future__ import annotations

MOST_A_SECOND = 20
"""Bare watermarks that one member partition sends in a second at the most."""

_STEPS = 1000  # of a label window


class Announcements:
    """The bare watermarks of one member partition; after a restart nobody was told anything.

    Args:
        partitions: job partitions that there are.
        window_ms: the label window.

    """

    def __init__(self, partitions: int, window_ms: int) -> None:
        self._step_ms = max(window_ms // _STEPS, 1)
        self._told: dict[int, int | None] = dict.fromkeys(range(partitions))
        """Mark by job partition (ms), those who were not told for longest first."""
        self._idle: set[int] = set()
        """Those who are to be told that it was idle once more."""
        self._sent_until_ms = 0  # monotonic: when what was sent so far may have been sent

    def told(self, partition: int, mark_ms: int | None) -> None:
        """A job partition is sent an application with this mark."""
        del self._told[partition]
        self._told[partition] = mark_ms

    def was_idle(self) -> None:
        """The partition was idle once more: all are to be told."""
        self._idle.update(self._told)

    def take(
        self, mark_ms: int | None, monotonic_ms: int, *, settled: bool
    ) -> list[tuple[int, bool]]:
        """Return who is to be told of this mark now, and whether it was idle; they count as told.

        Args:
            mark_ms: of the partition. monotonic_ms: now.
            settled: whether there is nothing more to read.

        """
        pause_ms = 1000 // MOST_A_SECOND
        self._sent_until_ms = max(self._sent_until_ms, monotonic_ms - 1000)
        due: list[tuple[int, bool]] = []
        for partition, told_ms in self._told.items():
            if self._sent_until_ms + pause_ms > monotonic_ms:
                break
            if partition in self._idle or self._untold(told_ms, mark_ms, settled=settled):
                due.append((partition, partition in self._idle))
                self._sent_until_ms += pause_ms
        for partition, _ in due:
            self.told(partition, mark_ms)
            self._idle.discard(partition)
        return due

    def _untold(self, told_ms: int | None, mark_ms: int | None, *, settled: bool) -> bool:
        if mark_ms is None or mark_ms == told_ms:
            return False
        return settled or told_ms is None or mark_ms - told_ms >= self._step_ms

    def reset(self) -> None:
        """What was told may not have been sent: a unit of work was rolled back."""
        self._told = dict.fromkeys(self._told)
