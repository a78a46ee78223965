"""Channels: the merged watermark is that of the slowest channel that is not idle."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.partitions.channels import Channels


def test_a_channel_never_heard_from_holds_the_watermark_back() -> None:
    """There is no watermark until every channel said something, even only that it is idle."""
    channels = Channels.of(3)
    channels.advance(0, 100)
    channels.advance(1, 50)
    assert channels.watermark_ms is None
    channels.set_idle(2)
    assert channels.watermark_ms == 50


def test_the_slowest_channel_counts() -> None:
    """The fast channel's marks move nothing until the slow one follows."""
    channels = Channels.of(2)
    channels.advance(0, 1000)
    channels.advance(1, 10)
    assert channels.watermark_ms == 10
    channels.advance(1, 500)
    assert channels.watermark_ms == 500


def test_an_idle_channel_that_wakes_up_does_not_turn_time_back() -> None:
    """The watermark stays where it was, and waits for the channel that woke up."""
    channels = Channels.of(2)
    channels.advance(0, 1000)
    channels.advance(1, 10)
    channels.set_idle(1)
    assert channels.watermark_ms == 1000
    channels.advance(1, 20)
    channels.advance(0, 2000)
    assert channels.watermark_ms == 1000
    channels.advance(1, 1500)
    assert channels.watermark_ms == 1500


def test_wall_time_counts_only_while_all_are_idle() -> None:
    """Event time grows with the wall clock on a quiet Sunday, and is never set to it."""
    channels = Channels.of(2)
    channels.advance(0, 1000)
    channels.advance(1, 1000)
    channels.grow(60)
    assert channels.watermark_ms == 1000
    channels.set_idle(0)
    channels.set_idle(1)
    channels.grow(60)
    assert channels.watermark_ms == 1060


def test_nothing_grows_before_anything_was_read() -> None:
    """Idle channels without a mark give no watermark to grow."""
    channels = Channels.of(1)
    channels.set_idle(0)
    channels.grow(60)
    assert channels.watermark_ms is None


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
    channels = Channels.of(3)
    marks: list[int | None] = [None, None, None]
    idle = [False, False, False]
    expected: int | None = None
    for channel, move in moves:
        if move == "idle":
            channels.set_idle(channel)
        elif isinstance(move, str):
            channels.wake(channel)
        else:
            channels.advance(channel, move)
            marks[channel] = max(move, marks[channel] or 0)
        idle[channel] = move == "idle"
        live = [mark for mark, off in zip(marks, idle, strict=True) if not off]
        known = [mark for mark in live if mark is not None]
        if known and len(known) == len(live):
            expected = max(min(known), expected or 0)
        assert channels.watermark_ms == expected


@given(st.lists(st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(0, 100)))))
def test_watermark_never_goes_back_and_never_outruns_a_live_channel(
    moves: list[tuple[int, int | None]],
) -> None:
    """Whatever the channels say, the watermark only grows; a live channel bounds its growth."""
    channels = Channels.of(3)
    best: list[int | None] = [None, None, None]
    before: int | None = None
    for channel, mark in moves:
        if mark is None:
            channels.set_idle(channel)
        else:
            channels.advance(channel, mark)
            best[channel] = max(mark, best[channel] or 0)
        now = channels.watermark_ms
        if before is not None:
            assert now is not None
            assert now >= before
        if now != before:
            live = [mark for mark, idle in zip(best, channels.idle, strict=True) if not idle]
            assert all(mark is not None and now is not None and mark >= now for mark in live)
        before = now
