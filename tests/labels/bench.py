"""A label machine with its surroundings, and random logs for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import strategies as st

from stream.events.ladder import BY_NAME, rung, target
from stream.events.structs import DeadLetter
from stream.labels.changes import Change, Entered, Ignored, Step
from stream.labels.machine import LabelMachine
from stream.policy import LabelPolicy
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from stream.state.stored_facts import StoredFacts
from tests import kit, oracle
from tests.kit import TestEvent, application, closing, engagement

W = 1000  # the label window of these tests, ms
LATENESS = 60
STEPS = [(300, 0.4), (600, 0.8)]
"""Ages (ms) and weights of :data:`AGED`: its curve reaches 0.35 and 0.7 there, 0.9 at the end."""

SKEW = 20
POLICY = LabelPolicy(
    window_ms=W, clock_skew_ms=SKEW, allowed_lateness_ms=LATENESS, orphan_ttl_ms=100, aging=()
)
"""Nothing but evidence is evidence."""
AGED = msgspec.structs.replace(
    POLICY,
    aging=(0.35, 0.7, 0.9),
    delay_curve=frozenset({"300ms:0.4", "600ms:0.8", "1s:1"}),
    later_response="full",
)
"""All rules are on."""


def with_settings(**settings: Any) -> LabelPolicy:
    """Return :data:`POLICY` with other settings."""
    return msgspec.structs.replace(POLICY, **settings)


class Bench:
    """A machine with its surroundings, and the last label of each application."""

    def __init__(self, policy: LabelPolicy = POLICY) -> None:
        self.store = MemoryStore()
        self.ignored: Counter[str] = Counter()
        self.entered: list[str] = []
        self.dead: list[DeadLetter] = []
        self.restart(policy)
        self.watermark_ms: int | None = None
        self.last: dict[tuple[str, str], oracle.Verdict] = {}
        self.changes: list[Change] = []

    def restart(self, policy: LabelPolicy = POLICY) -> None:
        """Go on from the store alone, with another policy if need be."""
        self.overlay = Overlay(self.store)
        self.book = StoredFacts(self.overlay)
        self.machine = LabelMachine(policy, self.book)

    def apply(self, event: TestEvent) -> list[Change]:
        """Apply one event, without moving the watermark."""
        return self._note(self.machine.apply(event, kit.source(), self.watermark_ms))

    def move(self, watermark_ms: int) -> list[Change]:
        """Move the watermark."""
        if self.watermark_ms is None or watermark_ms > self.watermark_ms:
            self.watermark_ms = watermark_ms
        return self._note(self.machine.close_due(self.watermark_ms))

    def label(self, name: str, job: str = "j") -> oracle.Verdict | None:
        """Return the last label of an application."""
        return self.last.get((job, name))

    def _note(self, steps: Iterable[Step]) -> list[Change]:
        changes = []
        for step in steps:
            match step:
                case Change():
                    changes.append(step)
                case DeadLetter():
                    self.dead.append(step)
                case Ignored(reason):
                    self.ignored[reason] += 1
                case Entered(app):
                    self.entered.append(app.application_id)
        for change in changes:
            key = change.job_id, change.application_id
            assert change.evidence_time_ms is None or (
                change.evidence_time_ms <= change.label_time_ms
            )
            if change.label:
                before = self.last.get(key)
                weight = change.facts.weight
                after = (target(change.kind), change.kind.wire, change.final, weight)
                if before is not None:
                    assert before[1] == change.previous.wire
                    assert before[3] == change.previous_weight
                    was = rung(BY_NAME[before[1]], before[2]), before[3]
                    assert was < (rung(change.kind, change.final), weight)
                else:
                    assert change.previous == 0
                self.last[key] = after
        self.changes += changes
        return changes


POSITIVE = (1, "positive", True, 1.0)
EXPLICIT = (0, "negative_explicit", False, 1.0)
EXPLICIT_FINAL = (0, "negative_explicit", True, 1.0)
INFERRED = (0, "negative_inferred", False, 1.0)
CONCLUSIVE = (0, "negative_conclusive", True, 1.0)


@st.composite
def logs(draw: st.DrawFn) -> list[TestEvent]:
    """Small random logs on a few jobs, with ties, times at the edges and strangers."""
    times = st.one_of(st.integers(0, 2500), st.sampled_from([0, 500, 1000, 1500, 2000]))
    jobs = st.sampled_from(["j", "k"])
    names = st.sampled_from("abcdef")
    members = st.one_of(st.none(), st.sampled_from(["m", "n"]))
    apps = [
        application(name, draw(times), job=job, member=draw(members))
        for name, job in draw(st.lists(st.tuples(names, jobs), unique=True, max_size=8))
    ]
    events: list[TestEvent] = [*apps]
    actions = st.sampled_from(["message", "reject", "note", "hire", "skip"])
    for number in range(draw(st.integers(0, 10))):
        if apps and not draw(st.sampled_from([False] * 9 + [True])):
            app = draw(st.sampled_from(apps))
            near = (-SKEW - 1, -SKEW, -1, 0, 1, W - 1, W, W + 1)
            edges = [app.event_time_ms + after for after in near]
            time_ms = draw(st.one_of(times, st.sampled_from(edges)))
            of, job = app.application_id, app.job_id
            member = draw(st.sampled_from([app.member_id] * 9 + ["another"]))
        else:
            time_ms, of, job, member = draw(times), draw(names), draw(jobs), None
        action = draw(actions)
        events.append(engagement(f"e{number}", of, max(time_ms, 0), action, job=job, member=member))
    closings = range(draw(st.integers(0, 2)))
    return events + [closing(f"x{number}", draw(times), job=draw(jobs)) for number in closings]


@st.composite
def arrivals(draw: st.DrawFn) -> list[TestEvent]:
    """A log in an order of arrival within the allowed lateness, with repeats."""
    events = draw(logs())
    delayed = [
        (event.event_time_ms + draw(st.integers(0, LATENESS)), number, event)
        for number, event in enumerate(events)
    ]
    for number, event in enumerate(events):
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
            late = event.event_time_ms + draw(st.integers(0, 3000))
            delayed.append((late, len(delayed) + number, event))
    return [event for _, _, event in sorted(delayed, key=lambda item: item[:2])]
