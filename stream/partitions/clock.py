"""Event time of one partition: what its inputs say goes in, one watermark comes out.

A *channel* is one input partition, heard at its own pace. Each has its own mark: the largest event
time read there less the allowed lateness, or what its clocks say. What is read from several is only
as far as the slowest of them: the watermark is the smallest mark over the channels that are not
idle. A channel never heard from holds it back. It never goes back.

The clock is the only thing that moves a partition's event time, and knows nothing of records: a
partition tells it what it read, and what the shell observed. Wall time is passed in. Its state,
:class:`Channels`, is stored with the positions; what concerns idleness is observed anew after a
restart. (The model is bytewax's ``ClockLogic``.)
"""

from __future__ import annotations

import msgspec

from stream.errors import InvalidTimeError
from stream.policy import DAY_MS

MAX_AHEAD_MS = DAY_MS
"""How far ahead of the wall clock an event's time may lie."""


class Channels(msgspec.Struct, array_like=True):
    """What is stored of a clock: marks by channel, and the watermark (ms; None: not known yet)."""

    marks: list[int | None]
    idle: list[bool]
    watermark_ms: int | None = None

    @classmethod
    def of(cls, count: int) -> Channels:
        """``count`` channels, none heard from yet."""
        return cls([None] * count, [False] * count)


class EventClock:
    """The event time of one partition.

    Args:
        own: the channel of the partition's own input; the others are told by messages.
        allowed_lateness_ms: how far out of order events may arrive.
        idle_timeout_ms: wall time at the end of the own input after which it counts as idle.
        grows_when_idle: whether event time passes with the wall clock while all is idle.

    """

    def __init__(
        self,
        channels: Channels,
        *,
        own: int,
        allowed_lateness_ms: int,
        idle_timeout_ms: int,
        grows_when_idle: bool,
    ) -> None:
        self._own = own
        self._allowed_lateness_ms = allowed_lateness_ms
        self._idle_timeout_ms = idle_timeout_ms
        self._grows_when_idle = grows_when_idle
        self._at_end_since_ms: int | None = None  # the own input, by the wall clock
        self._ticked_ms: int | None = None
        self.restore(channels)

    def restore(self, channels: Channels) -> None:
        """Go on from a stored state. Whether the own input is idle is to be observed anew."""
        self.channels = channels
        channels.idle[self._own] = False
        self._merge()

    # -- what is asked of it -----------------------------------------------------------------

    @property
    def watermark_ms(self) -> int | None:
        """How far event time has come; None: not known yet."""
        return self.channels.watermark_ms

    @property
    def own_mark_ms(self) -> int | None:
        """How far the own input has come; None: nothing was read."""
        return self.channels.marks[self._own]

    def is_idle(self, now_ms: int) -> bool:
        """Whether the own input has been at its end for so long that it counts as idle."""
        since_ms = self._at_end_since_ms
        return since_ms is not None and now_ms - since_ms >= self._idle_timeout_ms

    # -- what it is told ---------------------------------------------------------------------

    @staticmethod
    def check(time_ms: int, now_ms: int) -> None:
        """Refuse a time that cannot be true.

        Raises:
            InvalidTimeError: it lies more than :data:`MAX_AHEAD_MS` ahead of the wall clock.

        """
        if time_ms > now_ms + MAX_AHEAD_MS:
            raise InvalidTimeError(f"event_time_ms {time_ms} is more than a day ahead")

    def read_event(self, time_ms: int, now_ms: int) -> None:
        """An event of the own input was applied; it moves event time to now at most."""
        self._advance(self._own, min(time_ms, now_ms) - self._allowed_lateness_ms)

    def read_clock(self, time_ms: int, now_ms: int) -> None:
        """The own input's producer says that nothing earlier will follow."""
        self._advance(self._own, min(time_ms, now_ms))

    def read_watermark(self, channel: int, mark_ms: int | None, *, idle: bool) -> None:
        """Another channel says how far it is, or only that it is idle."""
        self._advance(channel, mark_ms)
        if idle:
            self.channels.idle[channel] = True
            self._merge()

    def brought_records(self) -> None:
        """The own input brought something, whatever it is: it is not idle."""
        self._at_end_since_ms = None

    def observe_end(self, now_ms: int, *, at_end: bool) -> None:
        """Take note whether the own input's position equals its end."""
        if not at_end:
            self._at_end_since_ms = None
        elif self._at_end_since_ms is None:
            self._at_end_since_ms = now_ms

    def tick(self, now_ms: int) -> bool:
        """Judge idleness; let event time pass where all is idle. Return whether it moved."""
        channels = self.channels
        before_ms = channels.watermark_ms
        all_were_idle = all(channels.idle)
        if self.is_idle(now_ms):
            channels.idle[self._own] = True
            self._merge()
        if (
            self._grows_when_idle
            and all_were_idle
            and self._ticked_ms is not None
            and channels.watermark_ms is not None
        ):
            channels.watermark_ms += max(now_ms - self._ticked_ms, 0)
        self._ticked_ms = now_ms
        return channels.watermark_ms != before_ms

    # -- the rule ----------------------------------------------------------------------------

    def _advance(self, channel: int, mark_ms: int | None) -> None:
        """A channel is alive and says how far it is; a smaller mark than before is ignored."""
        channels = self.channels
        known_ms, merged_ms = channels.marks[channel], channels.watermark_ms
        was_idle = channels.idle[channel]
        channels.idle[channel] = False
        if mark_ms is not None and (known_ms is None or mark_ms > known_ms):
            channels.marks[channel] = mark_ms
        if was_idle or known_ms is None or merged_ms is None or known_ms <= merged_ms:
            self._merge()
        # Else another channel is the slowest, and stays it.

    def _merge(self) -> None:
        channels = self.channels
        smallest_ms: int | None = None
        for mark_ms, idle in zip(channels.marks, channels.idle, strict=True):
            if idle:
                continue
            if mark_ms is None:
                return
            if smallest_ms is None or mark_ms < smallest_ms:
                smallest_ms = mark_ms
        merged_ms = channels.watermark_ms
        if smallest_ms is not None and (merged_ms is None or smallest_ms > merged_ms):
            channels.watermark_ms = smallest_ms
