"""Many channels, one watermark.

A channel is one input partition, heard at its own pace; each brings its own watermark (the
largest event time it has seen less the allowed lateness, or what its clocks say). What is read
from several is only as far as the slowest of them: the merged watermark is the smallest over the
channels that are not idle. A channel never heard from holds it back. It never goes back.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Channels(msgspec.Struct, array_like=True):
    """The watermarks of the channels and the merged one (milliseconds; None: not known yet)."""

    marks: list[int | None]
    idle: list[bool]
    watermark_ms: int | None = None

    @classmethod
    def of(cls, count: int) -> Channels:
        """``count`` channels, none heard from yet."""
        return cls([None] * count, [False] * count)

    def advance(self, channel: int, mark_ms: int | None) -> None:
        """A channel is alive and says how far it is; a smaller mark than before is ignored."""
        known, merged_ms, was_idle = self.marks[channel], self.watermark_ms, self.idle[channel]
        self.idle[channel] = False
        if mark_ms is not None and (known is None or mark_ms > known):
            self.marks[channel] = mark_ms
        if was_idle or known is None or merged_ms is None or known <= merged_ms:
            self._merge()
        # Else another channel is the slowest, and stays it.

    def set_idle(self, channel: int) -> None:
        """A channel has nothing to read and does not hold the others back."""
        self.idle[channel] = True
        self._merge()

    def wake(self, channel: int) -> None:
        """A channel is listened to again."""
        self.idle[channel] = False
        self._merge()

    @property
    def all_idle(self) -> bool:
        """Whether nothing is to be read anywhere."""
        return all(self.idle)

    def grow(self, elapsed_ms: int) -> None:
        """Wall time passed while all channels were idle: event time passes with it."""
        if self.watermark_ms is not None and elapsed_ms > 0 and self.all_idle:
            self.watermark_ms += elapsed_ms

    def _merge(self) -> None:
        marks = [mark for mark, idle in zip(self.marks, self.idle, strict=True) if not idle]
        known = _smallest(marks)
        if known is not None and (self.watermark_ms is None or known > self.watermark_ms):
            self.watermark_ms = known


def _smallest(marks: Sequence[int | None]) -> int | None:
    """The smallest mark; None while there is none or one is not known yet."""
    known = [mark for mark in marks if mark is not None]
    return min(known) if known and len(known) == len(marks) else None
