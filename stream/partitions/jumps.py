"""A mark that jumps far ahead waits until others confirm it.

One event with a valid but wrong time, years off, would otherwise close every window. What lies more
than ``max_jump`` ahead of its channel's mark raises it only when :data:`CONFIRMATIONS` later ones
lie beyond it too, or when nothing earlier has come for an hour of wall time. Each earlier one takes
a confirmation back, so that a channel where some times are always wrong never jumps.
"""

from __future__ import annotations

from bisect import bisect_right, insort

import msgspec

from stream.policy import DAY_MS, Policy

CONFIRMATIONS = 100
"""Later marks beyond the limit that confirm the first."""

CONFIRMED_AFTER_MS = 3_600_000
"""Wall time without a mark within the limit after which one beyond it is believed."""

_LEAST_MAX_JUMP_MS = 30 * DAY_MS


def max_jump_ms(policy: Policy) -> int:
    """How far ahead of its mark a channel may jump unconfirmed."""
    return max(_LEAST_MAX_JUMP_MS, 2 * policy.labels.window_ms)


class Jumps(msgspec.Struct, array_like=True):
    """Marks that wait (ms), the smallest first; ``since_ms``: wall time of the first of them."""

    waiting: list[int] = []
    since_ms: int = 0


class JumpGuard:
    """Says which mark a channel may be raised to.

    Args:
        max_jump_ms: how far ahead of its mark a channel may jump unconfirmed.

    """

    def __init__(self, max_jump_ms: int) -> None:
        self._max_jump_ms = max_jump_ms

    def take(self, jumps: Jumps, own_ms: int | None, mark_ms: int, now_ms: int) -> int | None:
        """Take a mark in; return how far the channel may be raised, None: not at all.

        Args:
            jumps: what waits; changed in place.
            own_ms: the channel's mark. mark_ms: the new one. now_ms: wall clock.

        """
        if own_ms is None:
            return mark_ms
        waiting = jumps.waiting
        if mark_ms <= own_ms + self._max_jump_ms:
            if waiting:
                jumps.since_ms = now_ms
                del waiting[: bisect_right(waiting, max(own_ms, mark_ms))]
                del waiting[-1:]  # of all that wait the least likely
            return mark_ms
        if not waiting:
            jumps.since_ms = now_ms
        insort(waiting, mark_ms)
        if len(waiting) > CONFIRMATIONS or now_ms - jumps.since_ms >= CONFIRMED_AFTER_MS:
            jumps.since_ms = now_ms  # of what still waits after it
            return self._reached(jumps, waiting[0])
        return None

    def _reached(self, jumps: Jumps, mark_ms: int) -> int:
        """Raise a mark by those that wait and are within reach of it, each of the one before."""
        at = 0
        while at < len(jumps.waiting) and jumps.waiting[at] <= mark_ms + self._max_jump_ms:
            mark_ms = max(mark_ms, jumps.waiting[at])
            at += 1
        del jumps.waiting[:at]
        return mark_ms
