"""Labels converge: any order, any lateness, any repeat, any cut, any crash."""

from __future__ import annotations

import gzip
import math
from contextlib import suppress
from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stream.configuration.load import load_config
from stream.errors import EventError, MismatchError, UnmatchedError
from stream.events.structs import Application, Clock, Engagement, Forget, JobEvent
from stream.events.wire import decode_event
from stream.features.blocks import FeatureSpace
from stream.policy import Policy
from tests import oracle
from tests.conftest import thorough
from tests.kit import CONTEST, Market, TestEvent, application, last_labels, with_contest
from tests.labels.bench import AGED, LATENESS, POLICY, SKEW, STEPS, Bench, W, arrivals, logs
from tests.partitions import test_partitions

ORPHAN_TTL = POLICY.orphan_ttl_ms


class ReadSet:
    """The events that count, by spec's order of reading and closing; shares no code.

    Too late is an application read when the watermark is past its window, and an engagement read
    when that of its application has closed. An engagement whose application is not known yet waits
    until the watermark is past its time plus ``orphan_ttl``.
    """

    def __init__(self) -> None:
        self.counted: list[TestEvent] = []
        self._apps: dict[tuple[str, str], Application] = {}
        self._waiting: list[Engagement] = []

    def read(self, event: TestEvent, watermark_ms: float) -> None:
        """Read one event at a watermark."""
        if isinstance(event, Application):
            self._application(event, watermark_ms)
        elif isinstance(event, JobEvent):
            self.counted.append(event)
        elif event not in self.counted and event not in self._waiting:
            app = self._apps.get((event.job_id, event.application_id))
            if app is not None:
                if watermark_ms <= app.event_time_ms + W:
                    self.counted.append(event)
            elif watermark_ms <= event.event_time_ms + ORPHAN_TTL:
                self._waiting.append(event)

    def move(self, watermark_ms: float) -> None:
        """Let orphans expire."""
        self._waiting = [
            event for event in self._waiting if watermark_ms <= event.event_time_ms + ORPHAN_TTL
        ]

    def _application(self, app: Application, watermark_ms: float) -> None:
        key = app.job_id, app.application_id
        if key in self._apps or watermark_ms > app.event_time_ms + W:
            return
        self._apps[key] = app
        self.counted.append(app)
        mine = [e for e in self._waiting if (e.job_id, e.application_id) == key]
        self._waiting = [event for event in self._waiting if event not in mine]
        self.counted += mine


@st.composite
def late_arrivals(draw: st.DrawFn) -> list[TestEvent]:
    """A log in any order whatever: many events are far too late."""
    events = draw(logs())
    delayed = [
        (event.event_time_ms + draw(st.integers(0, 4000)), number, event)
        for number, event in enumerate(events)
    ]
    repeats = [
        (at + draw(st.integers(0, 4000)), len(events) + number, event)
        for at, number, event in delayed
        if draw(st.booleans())
    ]
    return [event for _, _, event in sorted(delayed + repeats, key=lambda item: item[:2])]


@thorough
@given(late_arrivals(), st.integers(0, 3), st.booleans())
def test_every_label_is_the_verdict_on_what_was_read_in_time(
    events: list[TestEvent], flush_every: int, aged: bool
) -> None:
    """However late events are: after each, labels are the oracle's on those read in time."""
    bench = Bench(AGED if aged else POLICY)
    known = ReadSet()
    largest, watermark_ms = 0, -math.inf
    final: dict[tuple[str, str], oracle.Verdict | None] = {}
    for count, event in enumerate(events):
        with suppress(UnmatchedError, MismatchError):
            bench.apply(event)
        known.read(event, watermark_ms)
        largest = max(largest, event.event_time_ms)
        watermark_ms = largest - LATENESS
        bench.move(largest - LATENESS)
        known.move(watermark_ms)
        verdicts = oracle.verdicts(
            known.counted,
            window_ms=W,
            clock_skew_ms=SKEW,
            steps=STEPS if aged else (),
            watermark_ms=watermark_ms,
        )
        # What was final stays: events read later than a window's end are not in its set.
        final = {
            key: final[key] if (old := final.get(key)) is not None and old[2] else verdict
            for key, verdict in verdicts.items()
        }
        assert {key: bench.label(key[1], key[0]) for key in final} == final
        if flush_every and count % flush_every == 0:
            bench.overlay.flush()
    assert bench.last.keys() <= final.keys()


@thorough
@given(
    arrivals(),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
    st.sampled_from([test_partitions.POLICY, test_partitions.AGED]),
)
def test_crashes_and_interleavings_change_nothing(
    events: list[TestEvent], partitions: int, random: Random, policy: Policy
) -> None:
    """Any interleaving, any cut, crashes before and after outputs were sent: the oracle's labels.

    A crash after sending and before the state was written sends outputs again, so a reader keeps
    the highest kind, as the ladder says.
    """
    market = Market(policy, partitions)
    market.produce(events)
    market.clock(20_000)
    for _ in range(40):
        stage = random.choice(["member", "job"])
        number = random.randrange(partitions)
        topic = random.choice(market.partitions[stage, number].topics)
        market.now_ms += random.choice([0, 400, 1100])
        crash = random.random() < 0.15
        market.step(stage, number, topic, random.choice([1, 2, 5, 50]), crash=crash)
        if not crash and random.random() < 0.3:
            market.tick(stage, number)
    market.run()
    wanted = oracle.verdicts(events, window_ms=W, clock_skew_ms=SKEW, watermark_ms=20_000)
    assert last_labels(market.labels()) == wanted


def test_a_job_partition_waits_for_a_member_partition_that_is_away() -> None:
    """While one member partition is not served, job partitions close nothing; then all is well."""
    market = Market(test_partitions.POLICY, 2)
    events = [application(name, ord(name) * 10) for name in "abcdefgh"]
    market.produce(events)
    market.clock(20_000)
    for _ in range(5):
        market.now_ms += 2000
        for stage, number in (("member", 0), ("job", 0), ("job", 1)):
            for topic in market.partitions[stage, number].topics:
                market.step(stage, number, topic, 100)
            market.tick(stage, number)
    assert market.labels() == []
    market.run()
    assert len(last_labels(market.labels())) == len(events)


@with_contest
def test_contest_log_in_three_orders_gives_the_same_final_labels() -> None:
    """A real log in three random arrival orders within lateness ends with identical labels."""
    policy = load_config(None, {}, CONTEST.parent / "policy.toml").policy.labels
    names = msgspec.json.decode((CONTEST.parent / "features.json").read_bytes())
    space = FeatureSpace(names["global"], names["per_member"], names["per_job"])
    with gzip.open(CONTEST) as file:
        events = [decode_event(line.rstrip(), space) for line in file]
    results = []
    for seed in range(3):
        random = Random(seed)
        order = sorted(
            ((event.event_time_ms + random.randrange(policy.allowed_lateness_ms + 1), number)
             for number, event in enumerate(events))
        )  # fmt: skip
        bench = Bench(policy)
        largest = 0
        for count, (_, number) in enumerate(order):
            event = events[number]
            assert not isinstance(event, Clock | Forget)
            with suppress(EventError):
                bench.apply(event)
            largest = max(largest, event.event_time_ms)
            bench.move(largest - policy.allowed_lateness_ms)
            if count % 2000 == 0:
                bench.overlay.flush()
        bench.move(policy.past_everything_ms(largest))
        results.append(bench.last)
    assert len(results[0]) == 35_850
    assert results[0] == results[1] == results[2]
