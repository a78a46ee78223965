"""The clock: the smallest mark over all channels; idle ones follow the others at a distance."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import InvalidTimeError
from stream.partitions.clock import MAX_AHEAD_MS, EventClock, EventTime
from stream.policy import DAY_MS

NOW = 1 << 40
LATENESS = 5
IDLE = 1_000


def clock_of(count: int, state: EventTime | None = None) -> EventClock:
    """Clock of ``count`` channels, the last of which is its own."""
    return EventClock(
        state or EventTime.of(count),
        own=count - 1,
        allowed_lateness_ms=LATENESS,
        idle_timeout_ms=IDLE,
        max_jump_ms=30 * DAY_MS,
    )


def test_a_channel_never_heard_from_holds_the_watermark_back() -> None:
    """There is no watermark until every channel has a mark; that one is idle is none."""
    clock = clock_of(3)
    clock.read_mark(0, 100, NOW, record=True)
    clock.read_clock(50, NOW, sure=False)
    assert clock.watermark_ms is None
    clock.read_mark(1, None, NOW, idle=True)
    assert clock.watermark_ms is None
    assert clock.slowest() == 1
    clock.read_mark(1, 70, NOW, record=True)
    assert clock.state.watermark_ms == 50
    assert clock.slowest() == 2


def test_the_slowest_channel_counts() -> None:
    """The fast channel's marks move nothing until the slow one follows."""
    clock = clock_of(2)
    clock.read_mark(0, 1000, NOW, record=True)
    clock.read_clock(10, NOW, sure=False)
    assert clock.watermark_ms == 10
    clock.read_clock(500, NOW, sure=False)
    assert clock.watermark_ms == 500


def test_an_idle_channel_follows_what_the_others_had_read_the_time_before() -> None:
    """It is raised when it was idle once more, to what the others had come to the time before."""
    clock = clock_of(3)
    clock.read_clock(9_000, NOW, sure=False)
    clock.read_mark(0, 10, NOW, record=True)
    clock.read_mark(1, 1_000, NOW, record=True)
    clock.read_mark(0, 10, NOW, idle=True)
    assert clock.watermark_ms == 10
    clock.read_mark(1, 2_000, NOW, record=True)
    clock.read_mark(0, 10, NOW, idle=True)
    assert clock.watermark_ms == 1_000
    clock.read_mark(0, 10, NOW, idle=True)
    assert clock.watermark_ms == 2_000
    clock.read_mark(0, 10, NOW, idle=True)
    assert clock.watermark_ms == 2_000  # nobody has read anything since


def test_a_record_between_cancels_the_candidate_and_returns_a_channel_to_its_own_mark() -> None:
    """The watermark stays where it was, and waits for the channel that came back."""
    clock = clock_of(3)
    clock.read_clock(9_000, NOW, sure=False)
    for mark in (1_000, 2_000):
        clock.read_mark(1, mark, NOW, record=True)
        clock.read_mark(0, 10, NOW, idle=True)
    assert clock.watermark_ms == 10  # its first message told of its mark: that was a record
    clock.read_mark(0, 10, NOW, idle=True)
    assert clock.watermark_ms == 2_000
    clock.read_mark(1, 5_000, NOW, record=True)
    clock.read_mark(0, 10, NOW, idle=True)
    clock.read_mark(0, 20, NOW, record=True)
    clock.read_mark(0, 20, NOW, idle=True)
    assert clock.watermark_ms == 2_000
    clock.read_mark(0, 3_000, NOW, record=True)
    assert clock.watermark_ms == 3_000


def test_an_idle_channel_without_a_mark_follows_too() -> None:
    """A partition that is never used holds event time back for two idle timeouts only."""
    clock = clock_of(3)
    clock.read_clock(9_000, NOW, sure=False)
    clock.read_mark(1, 1_000, NOW, record=True)
    clock.read_mark(0, None, NOW, idle=True)
    assert clock.watermark_ms is None
    clock.read_mark(1, 1_100, NOW, record=True)
    clock.read_mark(0, None, NOW, idle=True)
    assert clock.watermark_ms == 1_000


def test_engagements_follow_the_members_only_while_they_are_written_somewhere() -> None:
    """An outage of all engagements holds event time; one partition that gets none does not."""
    clock = clock_of(2)
    clock.read_clock(10, NOW, sure=False)
    clock.read_mark(0, 500, NOW, record=True)
    clock.observe_end(0, at_end=True, written=7)
    clock.follow_members(7)
    clock.follow_members(7)
    assert clock.watermark_ms == 10
    clock.follow_members(None)  # the broker did not say
    clock.follow_members(9)
    assert clock.watermark_ms == 10
    clock.follow_members(10)
    clock.follow_members(10)
    assert clock.watermark_ms == 500


def test_a_topic_that_never_had_an_engagement_holds_nothing_back() -> None:
    """Windows close where nobody ever answers."""
    clock = clock_of(2)
    clock.read_mark(0, 500, NOW, record=True)
    clock.observe_end(0, at_end=True, written=0)
    clock.follow_members(0)
    assert clock.watermark_ms is None
    clock.follow_members(0)
    assert clock.watermark_ms == 500


def test_engagements_wait_for_members_that_were_never_heard_from() -> None:
    """While one member partition has no mark there is no candidate."""
    clock = clock_of(3)
    clock.read_mark(0, 500, NOW, record=True)
    for written in range(4):
        clock.observe_end(0, at_end=True, written=written)
        clock.follow_members(written)
    assert clock.state.channels[2].mark_ms is None


def test_the_own_input_is_idle_once_more_for_every_timeout_at_the_end() -> None:
    """A record that raises the mark, or an end that is not known, begins anew; others do not."""
    clock = clock_of(1)
    clock.observe_end(0, at_end=True, written=None)
    assert not clock.idle_once_more(IDLE - 1)
    assert clock.idle_once_more(IDLE)
    assert not clock.idle_once_more(IDLE)
    assert clock.idle_once_more(2 * IDLE)
    clock.read_event(100, NOW)
    clock.observe_end(2 * IDLE, at_end=True, written=None)
    assert not clock.idle_once_more(3 * IDLE - 1)
    clock.read_event(90, NOW)  # out of order: it raises nothing
    assert clock.idle_once_more(3 * IDLE)
    clock.observe_end(3 * IDLE, at_end=None, written=None)
    clock.observe_end(3 * IDLE + 1, at_end=True, written=None)
    assert not clock.idle_once_more(4 * IDLE)
    assert clock.idle_once_more(4 * IDLE + 1)


def test_dead_letters_that_come_all_the_time_do_not_end_idleness() -> None:
    """Behind the end for a moment it is not idle once more, and the time runs on."""
    clock = clock_of(1)
    clock.observe_end(0, at_end=True, written=None)
    idle = 0
    for now in range(100, 10 * IDLE + 1, 100):
        at_end = now % 300 == 0
        clock.observe_end(now, at_end=at_end, written=None)
        once_more = clock.idle_once_more(now)
        assert at_end or not once_more
        idle += once_more
    assert idle == 8


def test_the_first_count_of_engagements_may_come_after_the_first_look() -> None:
    """It costs no idle timeout: what moved is told from when it is first known."""
    clock = clock_of(2)
    clock.read_clock(10, NOW, sure=False)
    clock.read_mark(0, 500, NOW, record=True)
    clock.observe_end(0, at_end=True, written=None)
    clock.observe_end(1, at_end=True, written=7)
    clock.observe_end(2, at_end=True, written=8)
    clock.follow_members(8)
    clock.follow_members(8)
    assert clock.watermark_ms == 500


def test_an_event_that_raises_nothing_cancels_the_candidate_of_its_channel() -> None:
    """One far ahead that waits to be confirmed, and one behind: both came between."""
    for time_ms in (40 * DAY_MS, 3):
        clock = clock_of(2)
        clock.read_clock(10, NOW, sure=False)
        clock.read_mark(0, 500, NOW, record=True)
        clock.observe_end(0, at_end=True, written=0)
        clock.follow_members(0)
        clock.read_event(time_ms, NOW)
        clock.follow_members(0)
        assert clock.watermark_ms == 10
        clock.follow_members(0)
        assert clock.watermark_ms == 500


def test_events_count_less_the_lateness_and_clocks_as_they_are() -> None:
    """Both move event time to now at most; what is more than a day ahead is refused."""
    clock = clock_of(1)
    clock.read_event(NOW - 10 * DAY_MS, NOW)
    assert clock.own_mark_ms == NOW - 10 * DAY_MS - LATENESS
    clock.read_clock(NOW - 10 * DAY_MS, NOW, sure=False)
    assert clock.own_mark_ms == NOW - 10 * DAY_MS
    clock.check(NOW + MAX_AHEAD_MS, NOW)
    with pytest.raises(InvalidTimeError, match="more than a day ahead"):
        clock.check(NOW + MAX_AHEAD_MS + 1, NOW)
    clock.read_event(NOW + MAX_AHEAD_MS, NOW)
    assert clock.own_mark_ms == NOW - LATENESS
    clock.read_clock(NOW + MAX_AHEAD_MS, NOW, sure=False)
    assert clock.watermark_ms == NOW


def test_a_mark_in_a_message_is_never_believed_beyond_now() -> None:
    """A forged or mistaken watermark message cannot close windows of the future."""
    clock = clock_of(2)
    clock.read_clock(NOW, NOW, sure=False)
    clock.read_mark(0, NOW + 10 * DAY_MS, NOW)
    assert clock.watermark_ms == NOW


def test_a_lone_far_time_raises_nothing_and_a_clock_that_closes_a_log_does() -> None:
    """One event years ahead of its channel waits for others; the end of a log needs none."""
    clock = clock_of(1)
    clock.read_event(1_000, NOW)
    clock.read_event(1_000 + 40 * DAY_MS, NOW)
    assert clock.watermark_ms == 1_000 - LATENESS
    clock.read_clock(2_000 + 40 * DAY_MS, NOW, sure=True)
    assert clock.watermark_ms == 2_000 + 40 * DAY_MS


def test_what_waits_counts_no_more_once_a_sure_clock_has_passed_it() -> None:
    """Times that a sure clock has passed confirm nothing that lies beyond them."""
    clock = clock_of(1)
    clock.read_event(1_000, NOW)
    for _ in range(99):
        clock.read_event(1_000 + 40 * DAY_MS, NOW)
    clock.read_clock(41 * DAY_MS, NOW, sure=True)
    assert clock.state.channels[0].jumps is None
    for _ in range(2):
        clock.read_event(90 * DAY_MS, NOW)
    assert clock.watermark_ms == 41 * DAY_MS


def test_a_channel_told_far_ahead_waits_for_others_or_for_a_sure_one() -> None:
    """One forged or damaged message does not end windows, whichever channel it names."""
    clock = clock_of(2)
    clock.read_clock(NOW, NOW, sure=False)
    clock.read_mark(0, 1_000, NOW, record=True)
    for mark, idle in ((2_000, False), (3_000, True)):
        clock.read_mark(0, mark + 31 * DAY_MS, NOW, idle=idle)
        clock.read_mark(0, mark - 1_000, NOW, record=True)
        assert clock.watermark_ms == mark - 1_000
    assert clock.state.channels[0].jumps is None
    clock.read_mark(0, 2_000 + 31 * DAY_MS, NOW, sure=True)
    assert clock.watermark_ms == 2_000 + 31 * DAY_MS
    for _ in range(101):
        clock.read_mark(0, 2_000 + 90 * DAY_MS, NOW, record=True)
    assert clock.watermark_ms == 2_000 + 90 * DAY_MS


_MOVES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(st.none(), st.integers(0, 30)),
        st.booleans(),
        st.booleans(),
    )
)


@given(_MOVES)
def test_the_watermark_follows_the_rule_whatever_is_said_and_restarted(
    moves: list[tuple[int, int | None, bool, bool]],
) -> None:
    """It equals the rule written with sets, for all orders, also when its state was stored."""
    clock = clock_of(4)
    clock.read_clock(100, NOW, sure=False)
    own: list[int | None] = [None] * 3
    mark: list[int | None] = [None] * 3
    candidate: list[int | None] = [None] * 3
    read_since: list[set[int]] = [set(), set(), set()]
    expected: int | None = None
    for channel, said, idle, restart in moves:
        if restart:
            stored = msgspec.msgpack.encode(clock.state)
            clock = clock_of(4, msgspec.msgpack.decode(stored, type=EventTime))
        clock.read_mark(channel, said, NOW, record=not idle, idle=idle)
        raised = said is not None and (own[channel] is None or said > (own[channel] or 0))
        if raised:
            own[channel] = said
            for since in read_since:
                since.add(channel)
        if raised or not idle:
            mark[channel], candidate[channel] = own[channel], None
            read_since[channel].clear()
        if idle:
            noted, now = candidate[channel], mark[channel]
            if noted is not None and (now is None or noted > now):
                mark[channel] = noted
            others = [own[each] for each in read_since[channel] if each != channel]
            candidate[channel] = min((one for one in others if one is not None), default=None)
            read_since[channel].clear()
        known = [one for one in mark if one is not None]
        if len(known) == 3:
            expected = max(min(known), expected or 0)
        assert clock.watermark_ms == expected
