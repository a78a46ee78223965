"""What a log holds, read once before it is played: how it goes on after each line, and its end.

A clock is a promise that nothing earlier follows, so it may be late and never early. Only reading
ahead makes it true: one wrong time, lines out of order and lines that no worker takes would all let
a clock of the largest time so far run ahead of what follows.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Final

from stream.errors import EventError
from stream.events.applications import RawApplication
from stream.events.records import APPLICATIONS, ENGAGEMENTS
from stream.events.structs import Clock, Engagement, Forget
from stream.events.wire import decode_raw
from stream.policy import HOUR_MS, LabelPolicy

_REACHED_BY: Final = 10
"""So many events must have reached a time before a clock says it (of a short log a tenth, two at
least): where a log ends, nothing that follows shows that a time was wrong."""


class Survey:
    """Notes a log line by line; then, line by line again, says which clocks are true.

    Attributes:
        topics: inputs that it has events for.
        latest_ms: the largest time of an event; latest_clock_ms: of a clock. None: there is none.

    """

    def __init__(self, labels: LabelPolicy) -> None:
        self.topics: set[str] = set()
        self.latest_ms: int | None = None
        self.latest_clock_ms: int | None = None
        self._lateness_ms = labels.allowed_lateness_ms
        self._actions = labels.positive_actions | labels.negative_actions | labels.neutral_actions
        self._last: dict[int, int] = {}  # by hour: the last line of it
        self._largest: list[int] = []  # times, a heap
        self._events = 0
        self._reached_ms = 0
        self._hours: Sequence[int] = ()
        self._at = 0  # hours before it are over

    # -- reading -----------------------------------------------------------------------------

    def note(self, index: int, raw: bytes, time_ms: int) -> None:
        """Note a line. ``index``: its number among all lines; ``time_ms`` is plausible."""
        try:
            event = decode_raw(raw)
        except EventError:
            return
        if isinstance(event, Clock):
            self.latest_clock_ms = max(time_ms, self.latest_clock_ms or 0)
            return
        if isinstance(event, Forget):  # which says nothing of time
            return
        if isinstance(event, Engagement) and event.action not in self._actions:
            return
        self.topics.add(APPLICATIONS if isinstance(event, RawApplication) else ENGAGEMENTS)
        self.latest_ms = max(time_ms, self.latest_ms or 0)
        self._last[time_ms // HOUR_MS] = index
        self._events += 1
        if len(self._largest) < _REACHED_BY:
            heapq.heappush(self._largest, time_ms)
        else:
            heapq.heappushpop(self._largest, time_ms)

    # -- playing -----------------------------------------------------------------------------

    def begin(self) -> None:
        """All was noted: the log is played from its first line on."""
        self._hours = sorted(self._last)
        self._at = 0
        needed = min(_REACHED_BY, max(self._events // _REACHED_BY, 2))
        self._reached_ms = min(heapq.nlargest(needed, self._largest), default=0)

    def follows_ms(self, index: int) -> float:
        """Return a time (ms) before which nothing follows after a line; infinite after the last."""
        while self._at < len(self._hours) and self._last[self._hours[self._at]] <= index:
            self._at += 1
        return self._hours[self._at] * HOUR_MS if self._at < len(self._hours) else math.inf

    def clock_ms(self, index: int, largest_ms: int) -> int:
        """Return the whole hour that a clock may say after a line.

        Args:
            index: of the line. largest_ms: the largest time so far, which may be wrong.

        """
        true_ms = min(largest_ms, self._reached_ms) - self._lateness_ms
        return int(min(true_ms, self.follows_ms(index))) // HOUR_MS * HOUR_MS
