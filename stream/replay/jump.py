"""Holds back an event that lies implausibly far ahead, until others confirm it (``--max-jump``).

One wrong clock among millions of events would otherwise close every window. An event more than
``max_jump`` beyond the largest time seen is held; when 100 further ones lie beyond that limit too,
the log really goes on there, and all are given out in the order in which they came. An event that
time catches up with is given out then. What is still held at the end of the log was a jump.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

CONFIRMATIONS = 100
"""Further events beyond the limit that confirm the first."""

_T = TypeVar("_T")


class JumpFilter(Generic[_T]):
    """Called by the replay with every event's time, before anything else is done with it.

    Args:
        max_jump_ms: how far ahead of the largest time seen an event may lie; None: any distance.

    """

    def __init__(self, max_jump_ms: int | None) -> None:
        self._max_jump_ms = max_jump_ms
        self._largest_ms: int | None = None
        self._held: list[tuple[int, _T]] = []

    def take(self, time_ms: int, item: _T) -> Iterator[_T]:
        """Take an event in; give out what may be applied now, in order."""
        if self._is_beyond(time_ms):
            self._held.append((time_ms, item))
            if len(self._held) > CONFIRMATIONS:
                yield from self._release_all()
            return
        self._pass(time_ms)
        yield item
        if self._held:
            yield from self._release_reached()

    def rest(self) -> list[_T]:
        """Give out what was held to the end: jumps that nothing confirmed."""
        held, self._held = self._held, []
        return [item for _, item in held]

    @property
    def largest_ms(self) -> int | None:
        """The largest time given out."""
        return self._largest_ms

    @property
    def held(self) -> list[tuple[int, _T]]:
        """What is held back, with its time, in the order in which it came."""
        return self._held

    def restore(self, largest_ms: int | None, held: list[tuple[int, _T]]) -> None:
        """Go on from where another filter was."""
        self._largest_ms, self._held = largest_ms, held

    def _is_beyond(self, time_ms: int) -> bool:
        if self._max_jump_ms is None or self._largest_ms is None:
            return False
        return time_ms > self._largest_ms + self._max_jump_ms

    def _pass(self, time_ms: int) -> None:
        if self._largest_ms is None or time_ms > self._largest_ms:
            self._largest_ms = time_ms

    def _release_all(self) -> Iterator[_T]:
        held, self._held = self._held, []
        for time_ms, item in held:
            self._pass(time_ms)
            yield item

    def _release_reached(self) -> Iterator[_T]:
        """Give out the held events that time has caught up with, one after the other."""
        waiting, self._held = self._held, []
        for time_ms, item in waiting:
            if self._is_beyond(time_ms):
                self._held.append((time_ms, item))
            else:
                self._pass(time_ms)
                yield item
