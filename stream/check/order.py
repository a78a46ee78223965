"""When events happened, and how far out of order they come."""

from __future__ import annotations

from stream.check.tallies import Tally
from stream.logs.files import LogLine

SECONDS = range(600_000_000, 3_000_000_000)
"""What seconds since 1970 are from 1989 to 2065; as milliseconds they lie in January 1970."""


class Order:
    """The order of a log's events, as a replay's watermark sees it.

    Args:
        lateness_ms: how far out of order events may be.

    Attributes:
        count: events that were looked at. first_ms, largest_ms: their span.
        mark_ms: the watermark after the last one.
        behind: those before the watermark. worst_ms: how far an event lies, at most, before one
            read earlier. backwards: those that lie before the one read just before.

    """

    def __init__(self, lateness_ms: int) -> None:
        self._lateness_ms = lateness_ms
        self._last_ms = 0
        self.count = 0
        self.first_ms: int | None = None
        self.largest_ms = 0
        self.mark_ms: int | None = None
        self.behind = Tally()
        self.worst_ms = 0
        self.backwards = 0

    def move(self, time_ms: int, line: LogLine, *, looked_at: bool = True) -> None:
        """Take the time of an event that can be used; its order counts if it was ``looked_at``."""
        self.count += looked_at
        if self.mark_ms is None or self.first_ms is None:
            self.first_ms = time_ms
            self.mark_ms = time_ms - self._lateness_ms
            self.largest_ms = time_ms
        elif time_ms > self.largest_ms:
            self.largest_ms = time_ms
            self.mark_ms = max(self.mark_ms, time_ms - self._lateness_ms)
        elif looked_at:
            self.first_ms = min(self.first_ms, time_ms)
            self.worst_ms = max(self.worst_ms, self.largest_ms - time_ms)
            self.backwards += time_ms < self._last_ms
            if time_ms < self.mark_ms:
                self.behind.add(line)
        self._last_ms = time_ms

    def clock(self, time_ms: int) -> None:
        """Take a clock, which says that nothing earlier follows."""
        self.mark_ms = max(self.mark_ms or 0, time_ms)
