"""Event time of member partitions and a job partition over random markets, clocks alone.

The oracle knows only the market: an event that is in order within the allowed lateness, and whose
partition trails the others by less than ``idle_timeout``, is never late; and as long as each topic
gets records, every window closes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from stream.partitions.announcements import Announcements
from stream.partitions.clock import EventClock, EventTime

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WINDOW = 14 * DAY
LATENESS = HOUR
ORPHAN_TTL = DAY
IDLE_TIMEOUT = 30 * MINUTE
STEP = 2 * MINUTE  # between two looks of a worker
BEGIN = 1_700_000_000_000
SPAN = 30 * DAY


def clock_of(count: int) -> EventClock:
    """Clock of ``count`` channels, the last of which is its own."""
    return EventClock(
        EventTime.of(count),
        own=count - 1,
        allowed_lateness_ms=LATENESS,
        idle_timeout_ms=IDLE_TIMEOUT,
        max_jump_ms=30 * DAY,
    )


@dataclass(order=True)
class Event:
    """Something that is written at a time of the wall clock."""

    written_ms: int
    time_ms: int
    partition: int  # of the applications; the job partition has one of engagements
    id: int


@dataclass
class Market:
    """What happens, and when nobody or not everybody reads."""

    partitions: int
    applications: list[Event]
    engagements: list[Event]
    stops: list[tuple[int, int]] = field(default_factory=list)
    """When the worker is down."""
    orphaned: dict[int, tuple[int, int]] = field(default_factory=dict)
    """When a member partition has no owner."""


@dataclass
class Outcome:
    """What a job partition made of a market."""

    late_applications: int = 0
    unmatched: int = 0
    late_engagements: int = 0
    counted: int = 0
    watermark_ms: int | None = None


class Member:
    """A member partition: reads its input, tells the job partition."""

    def __init__(self, number: int, events: list[Event]) -> None:
        self.number = number
        self.events = events
        self.at = 0
        self.clock = clock_of(1)
        self.announcements = Announcements(1, WINDOW, 30 * DAY, None)

    def look(self, now_ms: int) -> Iterator[tuple[int, Event | None, int | None, bool]]:
        """Read what is there; give the messages to the job partition."""
        while self.at < len(self.events) and self.events[self.at].written_ms <= now_ms:
            event = self.events[self.at]
            self.at += 1
            self.clock.read_event(event.time_ms, now_ms)
            self.announcements.told(0, self.clock.own_mark_ms)
            yield self.number, event, self.clock.own_mark_ms, False
        self.clock.observe_end(now_ms, at_end=True, written=None)
        if self.clock.idle_once_more(now_ms):
            self.announcements.was_idle()
        mark_ms, settled = self.clock.own_mark_ms, self.clock.is_settled(now_ms)
        for _, idle, _ in self.announcements.take(mark_ms, now_ms, settled=settled):
            yield self.number, None, mark_ms, idle

    def interrupted(self, now_ms: int) -> None:
        """Nothing is known of the input's end."""
        self.clock.observe_end(now_ms, at_end=None, written=None)


class Job:
    """A job partition that only tells what is late."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.clock = clock_of(market.partitions + 1)
        self.at = 0
        self.open: dict[int, int] = {}
        self.closed: set[int] = set()
        self.waiting: dict[int, int] = {}
        self.outcome = Outcome()

    def application(self, event: Event) -> None:
        """Read an application, by the watermark as it stands."""
        waited = self.waiting.pop(event.id, None)
        if self.past(event.time_ms + WINDOW):
            self.outcome.late_applications += 1
            self.outcome.late_engagements += waited is not None
            self.closed.add(event.id)
            return
        self.open[event.id] = event.time_ms
        self.outcome.counted += waited is not None

    def engagements(self, now_ms: int) -> None:
        """Read the engagements that are there."""
        events = self.market.engagements
        while self.at < len(events) and events[self.at].written_ms <= now_ms:
            event = events[self.at]
            self.at += 1
            if event.id in self.open:
                self.outcome.counted += 1
            elif event.id in self.closed:
                self.outcome.late_engagements += 1
            elif self.past(event.time_ms + ORPHAN_TTL):
                self.outcome.unmatched += 1
            else:
                self.waiting[event.id] = event.time_ms
            self.clock.read_event(event.time_ms, now_ms)
            self.close()

    def past(self, time_ms: int) -> bool:
        """Whether event time is past a time."""
        return self.clock.watermark_ms is not None and self.clock.watermark_ms > time_ms

    def close(self) -> None:
        """End windows and waits."""
        over = [one for one, time_ms in self.open.items() if self.past(time_ms + WINDOW)]
        for one in over:
            del self.open[one]
            self.closed.add(one)
        expired = [one for one, time_ms in self.waiting.items() if self.past(time_ms + ORPHAN_TTL)]
        for one in expired:
            del self.waiting[one]
            self.outcome.unmatched += 1


def play(market: Market, until_ms: int, *, engagements_first: bool) -> Outcome:
    """Let a worker read a market, looking every :data:`STEP`."""
    members = [
        Member(number, [event for event in market.applications if event.partition == number])
        for number in range(market.partitions)
    ]
    job = Job(market)

    def read_by_job(now_ms: int) -> None:
        for number, event, mark_ms, idle in messages:
            if event is not None:
                job.application(event)
            job.clock.read_mark(number, mark_ms, now_ms, record=event is not None, idle=idle)
            job.close()

    written = 0
    for now_ms in range(BEGIN, until_ms, STEP):
        if any(begin <= now_ms < end for begin, end in market.stops):
            for member in members:
                member.interrupted(now_ms)
            job.clock.observe_end(now_ms, at_end=None, written=None)
            continue
        messages: list[tuple[int, Event | None, int | None, bool]] = []
        for member in members:
            begin, end = market.orphaned.get(member.number, (0, 0))
            if begin <= now_ms < end:
                member.interrupted(now_ms)
            else:
                messages += member.look(now_ms)
        order: list[Callable[[int], None]] = [job.engagements, read_by_job]
        for read in order if engagements_first else reversed(order):
            read(now_ms)
        while written < len(market.engagements) and (
            market.engagements[written].written_ms <= now_ms
        ):
            written += 1
        job.clock.observe_end(now_ms, at_end=True, written=written)
        if job.clock.idle_once_more(now_ms):
            job.clock.follow_members(written)
            job.close()
    job.outcome.watermark_ms = job.clock.watermark_ms
    return job.outcome


def random_market(draw: random.Random) -> Market:
    """Sparse and unused partitions, outages, stops, a partition without an owner, backlogs."""
    partitions = draw.choice([2, 3, 5, 8])
    weights = [draw.random() ** 3 + 1e-3 for _ in range(partitions)]
    if draw.random() < 0.5:
        weights[0] = 0.0
    backlog_ms = draw.choice([0, 0, 25 * DAY])
    applications: list[Event] = []
    engagements: list[Event] = []
    for one in range(draw.choice([60, 300, 1500])):
        time_ms = BEGIN - backlog_ms + int(draw.random() * (SPAN + backlog_ms))
        (partition,) = draw.choices(range(partitions), weights)
        late_ms = int(draw.random() * 0.8 * LATENESS)
        applications.append(Event(time_ms + late_ms, time_ms, partition, one))
        if draw.random() < 0.5:
            answered_ms = time_ms + int(draw.random() * WINDOW * 0.9999)
            late_ms = int(draw.random() * 0.8 * LATENESS)
            if answered_ms < BEGIN + SPAN:
                engagements.append(Event(answered_ms + late_ms, answered_ms, 0, one))
    if backlog_ms:  # it comes after a while of nothing, and partitions trail each other
        begin = BEGIN + int(draw.random() * 2 * HOUR)
        begins = [begin + int(draw.random() * 25 * MINUTE) for _ in range(partitions)]
        for event in applications:
            event.written_ms = max(event.written_ms, begins[event.partition])
        for event in engagements:
            event.written_ms = max(event.written_ms, begin)
    for _ in range(draw.choice([0, 1, 2])):
        begin = BEGIN + int(draw.random() * 25 * DAY)
        end = begin + int(draw.random() * 4 * DAY)
        trails = [int(draw.random() * 1500) * 1000 for _ in range(partitions)]
        of = draw.choice(["both", "applications", "engagements"])
        if of != "engagements":
            _hold(applications, begin, [end + trail for trail in trails])
        if of != "applications":
            _hold(engagements, begin, [end] * partitions)
    market = Market(partitions, sorted(applications), sorted(engagements))
    if draw.random() < 0.4:
        begin = BEGIN + int(draw.random() * 20 * DAY)
        owner = draw.randrange(partitions)
        market.orphaned[owner] = (begin, begin + int(draw.random() * 5 * DAY))
    if draw.random() < 0.4:
        begin = BEGIN + int(draw.random() * 20 * DAY)
        market.stops.append((begin, begin + int(draw.random() * 3 * DAY)))
    return market


def _hold(events: list[Event], begin_ms: int, ends_ms: list[int]) -> None:
    """An outage upstream: what would have been written meanwhile is written when it ends."""
    for event in events:
        if begin_ms <= event.written_ms < ends_ms[event.partition]:
            event.written_ms = ends_ms[event.partition]


@pytest.mark.parametrize("seed", range(40))
def test_nothing_in_order_is_ever_late(seed: int) -> None:
    """Whatever stops, stalls, is never used or comes as a backlog, every engagement counts."""
    draw = random.Random(seed)
    market = random_market(draw)
    found = play(market, BEGIN + SPAN + DAY // 2, engagements_first=draw.random() < 0.5)
    assert found.late_applications == found.late_engagements == found.unmatched == 0
    assert found.counted + len(_unread(market, BEGIN + SPAN + DAY // 2)) == len(market.engagements)


def _unread(market: Market, until_ms: int) -> list[Event]:
    """Engagements of applications that were written too late to be read."""
    read = {event.id for event in market.applications if event.written_ms <= until_ms - STEP}
    return [
        event
        for event in market.engagements
        if event.written_ms > until_ms - STEP or event.id not in read
    ]


@pytest.mark.parametrize("seed", range(8))
def test_every_window_closes_while_each_topic_gets_records(seed: int) -> None:
    """Unused and sparse partitions hold event time back by a few idle timeouts, not for ever."""
    draw = random.Random(1000 + seed)
    partitions = draw.choice([2, 5, 8])
    applications = [
        Event(time_ms, time_ms, draw.choice([0, 0, 0, partitions - 2]), number)
        for number, time_ms in enumerate(range(BEGIN, BEGIN + 5 * DAY, 20 * MINUTE))
    ]
    engagements = [
        Event(time_ms, time_ms, 0, number)
        for number, time_ms in enumerate(range(BEGIN, BEGIN + 5 * DAY, 3 * HOUR))
    ]
    found = play(
        Market(partitions, applications, engagements), BEGIN + 5 * DAY, engagements_first=True
    )
    assert found.watermark_ms is not None
    assert BEGIN + 5 * DAY - found.watermark_ms < LATENESS + 3 * HOUR + 6 * IDLE_TIMEOUT


def test_when_all_is_silent_nothing_moves() -> None:
    """A market that ends leaves its last windows open, for as long as nothing comes."""
    events = [Event(BEGIN + at * HOUR, BEGIN + at * HOUR, at % 2, at) for at in range(48)]
    market = Market(2, events, [Event(one.written_ms, one.time_ms, 0, one.id) for one in events])
    soon = play(market, BEGIN + 3 * DAY, engagements_first=True).watermark_ms
    assert play(market, BEGIN + 60 * DAY, engagements_first=True).watermark_ms == soon
    assert soon is not None
    assert soon <= BEGIN + 47 * HOUR - LATENESS
