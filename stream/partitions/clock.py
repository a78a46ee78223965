"""Event time of one partition: what its inputs say goes in, one watermark comes out.

A *channel* is one input partition, heard at its own pace. Its *own mark* comes from its records and
clocks alone: the largest event time read there less the allowed lateness, or what a clock says. The
watermark is the smallest mark over **all** channels, whatever their state. It never goes back, and
a channel never heard from holds it back.

**Idle channels follow the others at a distance.** A partition is idle while its position is at its
end and no record raises its own mark. Each time this has held for another ``idle_timeout``, its
channel

1. is raised to the candidate that was noted the time before, unless a record came between;
2. notes a new candidate: the smallest own mark among the channels whose records have raised them
   since the time before; none, if there are none.

So what an idle partition could still bring would have to be older than what the others had read an
``idle_timeout`` before it was proven empty. Its next record returns it to its own mark. When
everything is silent, nothing moves.

A job partition has one channel for each member partition, which says by message when it was idle,
and one for its own engagements, which follows at the same pace: its candidate is the smallest
member mark, noted only if engagements have been written to some partition since, or never. So an
outage of one producer holds event time; it does not push it on.

The clock is the only thing that moves a partition's event time, and knows nothing of records: a
partition tells it what it read, and what the shell observed. Wall and monotonic time are passed in.
Its state, :class:`EventTime`, is stored with the positions; idleness is observed anew after a
restart. (The model is bytewax's ``ClockLogic``.)
"""

from __future__ import annotations

import msgspec

from stream.errors import InvalidTimeError
from stream.partitions.jumps import JumpGuard, Jumps
from stream.policy import DAY_MS

MAX_AHEAD_MS = DAY_MS
"""How far ahead of the wall clock an event's time may lie."""

_SETTLED_MS = 10_000
"""At its end for so long, a partition has said all that it has to say for now."""


class Channel(msgspec.Struct, array_like=True):
    """One input partition, as a clock knows it (ms; None: not known).

    ``own_ms`` is its own mark, ``mark_ms`` the one that counts: that, or a candidate it was raised
    to. ``raised_at`` and ``since`` are numbers of messages: of the last one that raised its own
    mark, and of the last one that was its own.
    """

    own_ms: int | None = None
    mark_ms: int | None = None
    candidate_ms: int | None = None
    raised_at: int = 0
    since: int = 0
    jumps: Jumps | None = None
    """Marks far ahead that wait to be confirmed; None: there are none."""


class EventTime(msgspec.Struct, array_like=True):
    """What is stored of a clock. ``messages`` numbers what channels have said so far."""

    channels: list[Channel]
    watermark_ms: int | None = None
    messages: int = 0

    @classmethod
    def of(cls, count: int, mark_ms: int | None = None) -> EventTime:
        """``count`` channels that all stand at one mark; None: none was heard from yet."""
        return cls([Channel(mark_ms, mark_ms) for _ in range(count)], mark_ms)


class EventClock:
    """The event time of one partition.

    Args:
        state: to go on from.
        own: the channel of the partition's own input; messages tell of the others.
        allowed_lateness_ms: how far out of order events may arrive.
        idle_timeout_ms: how long the own input must be at its end to count as idle once more.
        max_jump_ms: how far ahead of its mark a channel may jump unconfirmed.

    """

    def __init__(
        self,
        state: EventTime,
        *,
        own: int,
        allowed_lateness_ms: int,
        idle_timeout_ms: int,
        max_jump_ms: int,
    ) -> None:
        self._own = own
        self._allowed_lateness_ms = allowed_lateness_ms
        self._idle_timeout_ms = idle_timeout_ms
        self._max_jump_ms = max_jump_ms
        self._guard = JumpGuard(max_jump_ms)
        self._at_end = False  # by the newest answer of the broker
        self._at_end_since_ms: int | None = None  # monotonic; no record has raised the mark since
        self._idle_since_ms = 0  # monotonic; when it was idle last, or came to the end
        self._written: int | None = None  # engagements written when it was idle last
        self.restore(state)

    def restore(self, state: EventTime) -> None:
        """Go on from a stored state."""
        self.state = state
        self._merge()

    # -- what is asked of it -----------------------------------------------------------------

    @property
    def watermark_ms(self) -> int | None:
        """How far event time has come; None: not known yet."""
        return self.state.watermark_ms

    @property
    def own_mark_ms(self) -> int | None:
        """How far the own input has come by its records; None: nothing was read."""
        return self.state.channels[self._own].own_ms

    def slowest(self) -> int:
        """The channel that holds the watermark back; one never heard from before all others."""
        marks = [channel.mark_ms for channel in self.state.channels]
        return min(range(len(marks)), key=lambda at: -1 if (mark := marks[at]) is None else mark)

    def is_settled(self, monotonic_ms: int) -> bool:
        """Whether the own input has been at its end for a moment."""
        return self._has_been_at_end(
            self._at_end_since_ms, monotonic_ms, min(_SETTLED_MS, self._idle_timeout_ms)
        )

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
        self._read_own(min(time_ms, now_ms) - self._allowed_lateness_ms, now_ms, sure=False)

    def read_clock(self, time_ms: int, now_ms: int, *, sure: bool) -> None:
        """The own input's producer says that nothing earlier will follow.

        ``sure``: it needs no confirmation, however far it jumps.
        """
        self._read_own(min(time_ms, now_ms), now_ms, sure=sure)

    def read_mark(
        self,
        channel: int,
        mark_ms: int | None,
        now_ms: int,
        *,
        record: bool = False,
        idle: bool = False,
        sure: bool = False,
    ) -> None:
        """Another channel says how far it is, with a record or bare, and if it was idle once more.

        What it says is never believed beyond now, and not far ahead of what it said before unless
        it is ``sure`` or others confirm it. A bare mark that it had said before, as after a
        restart, says nothing new.
        """
        own_ms = None if mark_ms is None else min(mark_ms, now_ms)
        if own_ms is not None:
            own_ms = self._believed(channel, own_ms, now_ms, sure=sure)
            idle = idle and own_ms is not None
        self._heard(channel, own_ms, record=record)
        if idle:
            marks = (
                each.own_ms
                for at, each in enumerate(self.state.channels)
                if at != self._own and each.raised_at > self.state.channels[channel].since
            )
            self._follow(channel, min((own for own in marks if own is not None), default=None))

    def observe_end(self, monotonic_ms: int, *, at_end: bool | None, written: int | None) -> None:
        """Take note of where the own input's position is.

        What lies before the end may turn out to be dead letters, which do not end idleness: it
        begins anew where a record raises the mark, or where the end was not known for a while.

        Args:
            monotonic_ms: now.
            at_end: whether it is at the input's end; None: there is no fresh answer of the broker.
            written: offsets written to all partitions of the topic; None: not known.

        """
        self._at_end = bool(at_end)
        if at_end is None:
            self._at_end_since_ms = None
        elif self._at_end_since_ms is not None:
            if self._written is None:  # the first answer may come later than the first look
                self._written = written
        elif at_end:
            self._at_end_since_ms = self._idle_since_ms = monotonic_ms
            self._written = written

    def idle_once_more(self, monotonic_ms: int) -> bool:
        """Whether the own input has been idle for another ``idle_timeout``; true once for each."""
        if not self._has_been_at_end(self._idle_since_ms, monotonic_ms, self._idle_timeout_ms):
            return False
        self._idle_since_ms = monotonic_ms
        return True

    def _has_been_at_end(self, since_ms: int | None, monotonic_ms: int, for_ms: int) -> bool:
        known = self._at_end and self._at_end_since_ms is not None
        return known and since_ms is not None and monotonic_ms - since_ms >= for_ms

    def follow_members(self, written: int | None) -> None:
        """The own input, of engagements, was idle once more: let its channel follow.

        ``written``: offsets written to all partitions of the topic so far; None: not known.
        """
        before, self._written = self._written, written
        moved = written is not None and before is not None and written > before
        candidate_ms: int | None = None
        if moved or written == 0:
            marks = [each.mark_ms for at, each in enumerate(self.state.channels) if at != self._own]
            known = [mark for mark in marks if mark is not None]
            if len(known) == len(marks):
                candidate_ms = min(known)
        self._follow(self._own, candidate_ms)

    # -- the rules ---------------------------------------------------------------------------

    def _read_own(self, mark_ms: int, now_ms: int, *, sure: bool) -> None:
        own_ms = self.own_mark_ms
        believed_ms = self._believed(self._own, mark_ms, now_ms, sure=sure)
        if believed_ms is not None and (own_ms is None or believed_ms > own_ms):
            self._at_end_since_ms = None
        self._heard(self._own, believed_ms, record=True)

    def _believed(self, channel: int, mark_ms: int, now_ms: int, *, sure: bool) -> int | None:
        """Return how far a channel may be raised by what it says; None: not at all yet."""
        each = self.state.channels[channel]
        if each.own_ms is None or (
            each.jumps is None and (sure or mark_ms <= each.own_ms + self._max_jump_ms)
        ):
            return mark_ms  # nearly always
        jumps = each.jumps or Jumps()
        believed_ms = self._guard.take(jumps, mark_ms if sure else each.own_ms, mark_ms, now_ms)
        each.jumps = jumps if jumps.waiting else None
        return believed_ms

    def _heard(self, channel: int, own_ms: int | None, *, record: bool) -> None:
        """Take a channel's own mark in; where it stands for a record, it counts from now on."""
        state = self.state
        each = state.channels[channel]
        state.messages += 1
        before_ms = each.mark_ms
        if own_ms is not None and (each.own_ms is None or own_ms > each.own_ms):
            each.own_ms = own_ms
            each.raised_at = state.messages
            record = True
        if record:
            each.mark_ms = each.own_ms
            each.candidate_ms = None
            each.since = state.messages
            if before_ms is None or state.watermark_ms is None or before_ms <= state.watermark_ms:
                self._merge()
            # Else another channel is the slowest, and stays it.

    def _follow(self, channel: int, candidate_ms: int | None) -> None:
        """Raise an idle channel to its candidate, and note the next one."""
        each = self.state.channels[channel]
        if each.candidate_ms is not None and (
            each.mark_ms is None or each.candidate_ms > each.mark_ms
        ):
            each.mark_ms = each.candidate_ms
            self._merge()
        each.candidate_ms = candidate_ms
        each.since = self.state.messages

    def _merge(self) -> None:
        smallest_ms: int | None = None
        for each in self.state.channels:
            mark_ms = each.mark_ms
            if mark_ms is None:
                return
            if smallest_ms is None or mark_ms < smallest_ms:
                smallest_ms = mark_ms
        merged_ms = self.state.watermark_ms
        if smallest_ms is not None and (merged_ms is None or smallest_ms > merged_ms):
            self.state.watermark_ms = smallest_ms
