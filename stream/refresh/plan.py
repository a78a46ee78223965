"""When the next global model is due, and from when on it scores. All times are event times, in ms.

Periods of equal length are counted from a Monday at midnight (UTC). When one is over, a model is
trained on what was known at its end. Only the newest one counts: those that passed while nobody
looked are left out, and one that has had its model has no other.
"""

from __future__ import annotations

from stream.policy import DAY_MS, HOUR_MS
from stream.units import format_time

_MONDAY_MS = 4 * DAY_MS  # 1970-01-01 was a Thursday


class Plan:
    """Which period is to have a model next.

    Args:
        every_ms: how long a period is.
        lateness_ms: how far out of order events may arrive: so long a period is waited for.
        done_ms: until when the newest model was trained.

    """

    def __init__(self, every_ms: int, lateness_ms: int, done_ms: int) -> None:
        self._every_ms = every_ms
        self._lateness_ms = lateness_ms
        self._done_ms = done_ms

    def due(self, now_ms: int) -> int | None:
        """Return the end of the newest period that is over, unless it is done; else None."""
        over_ms = now_ms - self._lateness_ms
        end_ms = over_ms - (over_ms - _MONDAY_MS) % self._every_ms
        return end_ms if end_ms > self._done_ms else None

    def done(self, until_ms: int) -> None:
        """Want no more models that are trained until that time, or until an earlier one."""
        self._done_ms = max(self._done_ms, until_ms)

    def in_force_from(self, now_ms: int) -> int:
        """Return a time that no application has yet: a model that is sent now scores from then on.

        Labels tell of a time that lies up to the lateness behind the newest application.
        """
        return now_ms + self._lateness_ms + HOUR_MS


def name_of(until_ms: int) -> str:
    """Name a model by when its training ended: ``2024-02-19``, ``2024-02-19T060000Z``."""
    return format_time(until_ms).replace(":", "").removesuffix("T000000Z")
