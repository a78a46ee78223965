"""Holds back an event that lies implausibly far ahead, until others confirm it (``--max-jump``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

CONFIRMATIONS: Final = 100
"""Further events beyond the limit that confirm a jump of time."""

_T = TypeVar("_T")


class JumpFilter(Generic[_T]):
    """Gives events out, but those whose time jumps ahead.

    One wrong clock among millions of events would otherwise close every window. An event more than
    ``max_jump_ms`` beyond the largest time seen is held (None: never); when 100 further ones lie
    beyond that limit too, the log really goes on there, and all are given out in the order in which
    they came. An event that time catches up with is given out then. What is still held at the end
    of the log was a jump.

    The first event may be the wrong one. So the first 101 are waited for, and the log begins at the
    median of their times.

    Attributes:
        largest_ms: the largest time given out; None before there are 101 events.
        held: what is held back, with its time, in the order in which it came.

    """

    def __init__(self, max_jump_ms: int | None) -> None:
        self._max_jump_ms = max_jump_ms
        self.largest_ms: int | None = None
        self.held: list[tuple[int, _T]] = []

    def take(self, time_ms: int, item: _T) -> Iterator[_T]:
        """Take an event in; give out what may be applied now, in order."""
        if self._max_jump_ms is None:
            yield item
        elif self.largest_ms is None:
            self.held.append((time_ms, item))
            if len(self.held) > CONFIRMATIONS:
                yield from self._begin()
        elif self._is_beyond(time_ms):
            self.held.append((time_ms, item))
            if len(self.held) > CONFIRMATIONS:
                yield from self._release(lambda _: False)
        else:
            self.largest_ms = max(self.largest_ms, time_ms)
            yield item
            if self.held:
                yield from self._release(self._is_beyond)

    def end(self) -> Iterator[_T]:
        """Give out what is no jump, at the end of the log; what was one is left in ``held``."""
        if self.held and self.largest_ms is None:
            yield from self._begin()
        count = None
        while count != len(self.held):
            count = len(self.held)
            yield from self._release(self._is_beyond)

    def _begin(self) -> Iterator[_T]:
        times = sorted(time_ms for time_ms, _ in self.held)
        self.largest_ms = times[(len(times) - 1) // 2]
        yield from self._release(self._is_beyond)

    def _is_beyond(self, time_ms: int) -> bool:
        if self._max_jump_ms is None or self.largest_ms is None:
            return False
        return time_ms > self.largest_ms + self._max_jump_ms

    def _release(self, keep: Callable[[int], bool]) -> Iterator[_T]:
        """Give out the held events, one after the other, but those of a time that is to be kept."""
        waiting, self.held = self.held, []
        for time_ms, item in waiting:
            if keep(time_ms):
                self.held.append((time_ms, item))
            else:
                self.largest_ms = max(self.largest_ms or 0, time_ms)
                yield item
