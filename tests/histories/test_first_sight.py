"""Histories as of first sight: in a replay, and in partitions that keep up with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events.structs import Application, Label
from stream.histories.history import NAMES, NUMBERS
from stream.labels.changes import Scores
from stream.policy import DAY_MS, FeaturePolicy, LabelPolicy, Policy
from tests.bootstrap.test_split import Sink, replayed
from tests.histories import oracle
from tests.kit import Market, TestEvent, application, engagement
from tests.labels.bench import LATENESS, SKEW, W, logs

SCALE = 14 * DAY_MS // W
"""Milliseconds of these logs for one of ``bench``: a window is one of 14 days."""

POLICY = Policy(
    labels=LabelPolicy(
        window_ms=W * SCALE,
        clock_skew_ms=SKEW * SCALE,
        allowed_lateness_ms=LATENESS * SCALE,
        orphan_ttl_ms=10_000 * SCALE,
    )
)

Key = tuple[str, str]


class Seen(Sink):
    """A replay's results, with the history of each application's first sight."""

    def __init__(self) -> None:
        super().__init__()
        self.histories: dict[Key, bytes | None] = {}

    def scored(self, app: Application, scores: Scores) -> None:
        """Keep the history."""
        assert (app.job_id, app.application_id) not in self.histories
        self.histories[app.job_id, app.application_id] = scores.history


def ordered(events: Sequence[TestEvent], members: int) -> list[TestEvent]:
    """A log in order of time, on the scale of days; members apply more than once."""

    def of(event: TestEvent) -> Any:
        at_ms = event.event_time_ms * SCALE
        changed = msgspec.structs.replace(event, event_time_ms=at_ms)
        member = getattr(event, "member_id", "")
        if member.startswith("m-"):
            member = f"m{ord(member[-1]) % members}"
            changed = msgspec.structs.replace(changed, member_id=member)
        return changed

    return sorted(map(of, events), key=lambda event: event.event_time_ms)


def unpacked(history: bytes | None) -> np.ndarray[Any, Any]:
    """Numbers of a history."""
    assert history is not None
    return np.frombuffer(history, "<f4")


def check_labels(labels: Sequence[Label], wanted: dict[Key, oracle.Numbers]) -> None:
    """Every label carries the numbers that its application is to have."""
    for label in labels:
        found = unpacked(label.history)
        np.testing.assert_allclose(
            found, wanted[label.job_id, label.application_id], rtol=2e-6, atol=1e-6
        )
    assert {(label.job_id, label.application_id) for label in labels} == wanted.keys()


@given(logs(), st.integers(1, 3))
def test_numbers_are_those_of_all_that_was_read_before(
    events: list[TestEvent], members: int
) -> None:
    """Each of the 36 numbers of each application equals the brute-force one; labels carry them."""
    log = ordered(events, members)
    sink = Seen()
    replayed(log, POLICY, sink=sink, close=True)
    wanted = oracle.first_sights(
        log, window_ms=W * SCALE, skew_ms=SKEW * SCALE, lateness_ms=LATENESS * SCALE
    )
    assert sink.histories.keys() == wanted.keys()
    for key, numbers in wanted.items():
        np.testing.assert_allclose(unpacked(sink.histories[key]), numbers, rtol=2e-6, atol=1e-6)
    check_labels(sink.labels, wanted)


@settings(max_examples=50)
@given(logs(), st.integers(1, 3), st.integers(1, 3), st.randoms(use_true_random=False))
def test_live_partitions_that_keep_up_read_what_a_replay_reads(
    events: list[TestEvent], members: int, partitions: int, random: Any
) -> None:
    """In order, with restarts in between: labels carry the numbers of a replay of the same log.

    For two windows, after which pairs expire: by each partition's own event time.
    """
    log = [event for event in ordered(events, members) if event.event_time_ms <= 2 * W * SCALE]
    market = Market(POLICY, partitions)
    for event in log:
        market.produce([event])
        market.run()
        if random.random() < 0.3:
            market.restart(random.choice(["member", "job"]), random.randrange(partitions))
    for windows in range(1, 6):
        market.clock(windows * W * SCALE)
        market.run()
    wanted = oracle.first_sights(
        log, window_ms=W * SCALE, skew_ms=SKEW * SCALE, lateness_ms=LATENESS * SCALE
    )
    check_labels(market.labels(), wanted)


def test_the_numbers_have_names() -> None:
    """Thirty-six names, of member, job and pair, in the order of the numbers."""
    assert len(NUMBERS) == 12
    assert len(set(NAMES)) == 36
    assert (NAMES[0], NAMES[12 + 1], NAMES[-1]) == (
        "member.applications",
        "job.answers",
        "pair.hours_since_positive",
    )


def test_an_example_by_hand() -> None:
    """A second application to the same job, a week after the first, answered a day later."""
    log: list[TestEvent] = [
        application("a", 0, member="m"),
        engagement("e", "a", DAY_MS, "reject", member="m"),
        application("b", 7 * DAY_MS, member="m"),
    ]
    sink = Seen()
    replayed(log, POLICY, sink=sink, close=True)
    wanted = [1, 1, 0, 0.1, 0.1, 0.5, 0.5, 0.2 / 1.5, 0.2 / 1.5, 0, 144, -1]
    assert unpacked(sink.histories["j", "b"]) == pytest.approx([*wanted, *wanted, *wanted])
    none = [0, 0, 0, 0.2, 0.2, 0, 0, 0.2, 0.2, 0, -1, -1]
    assert unpacked(sink.histories["j", "a"]) == pytest.approx([*none, *none, *none])


@pytest.mark.parametrize("live", [False, True])
def test_without_histories_there_are_none(live: bool) -> None:
    """With ``histories = false`` nothing is kept, and labels carry none."""
    policy = msgspec.structs.replace(POLICY, features=FeaturePolicy(histories=False))
    log: list[TestEvent] = [application("a", 0), engagement("e", "a", 5)]
    if live:
        market = Market(policy, 1)
        market.produce(log)
        market.run()
        labels, stores = market.labels(), list(market.stores.values())
    else:
        sink = replayed(log, policy)
        labels, stores = sink.labels, [sink.store]
    assert [label.history for label in labels] == [None]
    for store in stores:
        assert not list(store.scan(b"c", b"d"))
        assert not list(store.scan(b"m", b"n"))
