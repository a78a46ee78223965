"""The clock: the watermark is that of the slowest channel that is not idle."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.errors import InvalidTimeError
from stream.partitions.clock import MAX_AHEAD_MS, Channels, EventClock

NOW = 1 << 40
LATENESS = 5
IDLE = 1_000


def clock_of(count: int, *, channels: Channels | None = None) -> EventClock:
    """Clock of ``count`` channels, the last of which is its own."""
    return EventClock(
        channels or Channels.of(count),
        own=count - 1,
        allowed_lateness_ms=LATENESS,
        idle_timeout_ms=IDLE,
        grows_when_idle=True,
    )


def test_a_channel_never_heard_from_holds_the_watermark_back() -> None:
    """There is no watermark until every channel said something, even only that it is idle."""
    clock = clock_of(3)
    clock.read_watermark(0, 100, idle=False)
    clock.read_watermark(1, 50, idle=False)
    assert clock.watermark_ms is None
    clock.read_watermark(2, None, idle=True)
    assert clock.watermark_ms == 50


def test_the_slowest_channel_counts() -> None:
    """The fast channel's marks move nothing until the slow one follows."""
    clock = clock_of(2)
    clock.read_watermark(0, 1000, idle=False)
    clock.read_watermark(1, 10, idle=False)
    assert clock.watermark_ms == 10
    clock.read_watermark(1, 500, idle=False)
    assert clock.watermark_ms == 500


def test_an_idle_channel_that_wakes_up_does_not_turn_time_back() -> None:
    """The watermark stays where it was, and waits for the channel that woke up."""
    clock = clock_of(2)
    clock.read_watermark(0, 1000, idle=False)
    clock.read_watermark(1, 10, idle=False)
    clock.read_watermark(1, None, idle=True)
    assert clock.watermark_ms == 1000
    clock.read_watermark(1, 20, idle=False)
    clock.read_watermark(0, 2000, idle=False)
    assert clock.watermark_ms == 1000
    clock.read_watermark(1, 1500, idle=False)
    assert clock.watermark_ms == 1500


def test_wall_time_counts_only_while_all_are_idle() -> None:
    """Event time grows with the wall clock on a quiet Sunday, and is never set to it."""
    clock = clock_of(2)
    clock.read_watermark(0, 1000, idle=False)
    clock.read_clock(1000, NOW)
    clock.tick(NOW)
    clock.tick(NOW + 60)
    assert clock.watermark_ms == 1000
    clock.read_watermark(0, None, idle=True)
    clock.observe_end(NOW + 60, at_end=True)
    assert not clock.tick(NOW + 60 + IDLE)
    assert clock.tick(NOW + 120 + IDLE)
    assert clock.watermark_ms == 1060
    assert not clock.tick(NOW + 120)  # the wall clock was set back
    assert clock.watermark_ms == 1060


def test_nothing_grows_before_anything_was_read() -> None:
    """Idle channels without a mark give no watermark to grow."""
    clock = clock_of(1)
    clock.observe_end(NOW, at_end=True)
    clock.tick(NOW + IDLE)
    clock.tick(NOW + IDLE + 60)
    assert clock.watermark_ms is None


def test_the_own_input_is_idle_after_its_timeout_at_the_end() -> None:
    """Idle means at the end for the whole timeout; a record, or not being there, begins anew."""
    clock = clock_of(1)
    clock.observe_end(NOW, at_end=True)
    assert not clock.is_idle(NOW + IDLE - 1)
    assert clock.is_idle(NOW + IDLE)
    clock.brought_records()
    assert not clock.is_idle(NOW + IDLE)
    clock.observe_end(NOW + IDLE, at_end=True)
    clock.observe_end(NOW + IDLE + 1, at_end=False)
    clock.observe_end(NOW + IDLE + 2, at_end=True)
    assert not clock.is_idle(NOW + 2 * IDLE)
    assert clock.is_idle(NOW + 2 * IDLE + 2)


def test_events_count_less_the_lateness_and_clocks_as_they_are() -> None:
    """Both move event time to now at most; what is more than a day ahead is refused."""
    clock = clock_of(1)
    clock.read_event(100, NOW)
    assert clock.own_mark_ms == 100 - LATENESS
    clock.read_clock(100, NOW)
    assert clock.own_mark_ms == 100
    clock.check(NOW + MAX_AHEAD_MS, NOW)
    with pytest.raises(InvalidTimeError, match="more than a day ahead"):
        clock.check(NOW + MAX_AHEAD_MS + 1, NOW)
    clock.read_event(NOW + MAX_AHEAD_MS, NOW)
    assert clock.own_mark_ms == NOW - LATENESS
    clock.read_clock(NOW + MAX_AHEAD_MS, NOW)
    assert clock.watermark_ms == NOW


def test_idleness_is_observed_anew_after_a_restart() -> None:
    """What is stored of the own channel's idleness is not believed, that of the others is."""
    stored = Channels([70, 50], [True, True], 40)
    clock = clock_of(2, channels=stored)
    assert clock.channels.idle == [True, False]
    assert clock.watermark_ms == 50


@example([(0, "idle"), (1, 0), (1, "idle"), (2, "idle"), (1, "idle")])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.one_of(st.sampled_from(["idle", "wake"]), st.integers(0, 30))
        )
    )
)
def test_the_watermark_is_the_slowest_live_channels_at_every_moment(
    moves: list[tuple[int, int | str]],
) -> None:
    """It is the largest that the smallest live mark has been, however a channel came to live."""
    clock = clock_of(3)
    marks: list[int | None] = [None, None, None]
    idle = [False, False, False]
    expected: int | None = None
    for channel, move in moves:
        if move == "idle":
            clock.read_watermark(channel, None, idle=True)
        elif isinstance(move, str):
            clock.read_watermark(channel, None, idle=False)
        else:
            clock.read_watermark(channel, move, idle=False)
            marks[channel] = max(move, marks[channel] or 0)
        # A message that a channel is idle is heard from it first: it is live, then idle.
        for idle[channel] in (False, True) if move == "idle" else (False,):
            live = [mark for mark, off in zip(marks, idle, strict=True) if not off]
            known = [mark for mark in live if mark is not None]
            if known and len(known) == len(live):
                expected = max(min(known), expected or 0)
        assert clock.watermark_ms == expected


@given(st.lists(st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(0, 100)))))
def test_watermark_never_goes_back_and_never_outruns_a_live_channel(
    moves: list[tuple[int, int | None]],
) -> None:
    """Whatever the channels say, the watermark only grows; a live channel bounds its growth."""
    clock = clock_of(3)
    best: list[int | None] = [None, None, None]
    before: int | None = None
    for channel, mark in moves:
        if mark is None:
            clock.read_watermark(channel, None, idle=True)
        else:
            clock.read_watermark(channel, mark, idle=False)
            best[channel] = max(mark, best[channel] or 0)
        now = clock.watermark_ms
        if before is not None:
            assert now is not None
            assert now >= before
        if now != before:
            live = [mark for mark, idle in zip(best, clock.channels.idle, strict=True) if not idle]
            assert all(mark is not None and now is not None and mark >= now for mark in live)
        before = now
