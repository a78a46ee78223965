"""What each job partition was told of a member partition's watermark, and when."""

from __future__ import annotations

from collections.abc import Iterator

_PAUSE_MS = 1000
"""A job partition that was not written to for so long is sent a bare watermark."""

Told = tuple[int | None, bool]
"""Mark (ms; None: nothing was read), and whether the partition is idle."""


class Announcements:
    """Which job partitions are to be sent a bare watermark; nothing is known after a restart."""

    def __init__(self, partitions: int) -> None:
        self._told: list[Told | None] = [None] * partitions
        self._told_ms = [0] * partitions

    def sent(self, partition: int, told: Told, now_ms: int) -> None:
        """A message with this mark goes to a job partition."""
        self._told[partition] = told
        self._told_ms[partition] = now_ms

    def due(self, known: Told, now_ms: int) -> Iterator[int]:
        """Job partitions that do not know this yet and were not written to lately."""
        for partition, told in enumerate(self._told):
            if told != known and now_ms - self._told_ms[partition] >= _PAUSE_MS:
                yield partition

    def reset(self) -> None:
        """What was told may not have been sent: a unit of work was rolled back."""
        self._told = [None] * len(self._told)
