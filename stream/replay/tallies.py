"""What a replay counts on the way, and ``metrics.json`` made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from stream.events.structs import DeadLetter
from stream.labels.changes import Entered, Ignored, Step
from stream.labels.timeliness import Timeliness
from stream.quality.prequential import Prequential
from stream.replay.run_folder import RunMetrics
from stream.stages.job import JobStage, Labelled
from stream.stages.member import MemberStage

Counted = dict[str, int]


class RunCounts(msgspec.Struct, frozen=True, kw_only=True):
    """All that one share of a replay has counted; shares add up."""

    dead_letters: Counted = {}
    ignored: Counted = {}
    labels: Counted = {}
    flips: Counted = {}
    first_within: Counted = {}
    positives_within: Counted = {}
    refits: Counted = {}
    applications: int = 0
    closed: int = 0

    def __add__(self, other: RunCounts) -> RunCounts:
        """Return the counts of both."""
        return RunCounts(
            dead_letters=_sum(self.dead_letters, other.dead_letters),
            ignored=_sum(self.ignored, other.ignored),
            labels=_sum(self.labels, other.labels),
            flips=_sum(self.flips, other.flips),
            first_within=_sum(self.first_within, other.first_within),
            positives_within=_sum(self.positives_within, other.positives_within),
            refits=_sum(self.refits, other.refits),
            applications=self.applications + other.applications,
            closed=self.closed + other.closed,
        )


class Tallies:
    """RunCounts of one share of a replay, while it goes on.

    Args:
        score_from_ms: applications before it are left out of the quality.

    Attributes:
        dead_letters, ignored: by reason. applications: scored.
        prequential: scores whose truth is known.

    """

    def __init__(self, score_from_ms: int) -> None:
        self.dead_letters: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.applications = 0
        self.prequential = Prequential(score_from_ms)
        self._timeliness = Timeliness()

    def observe(self, step: Labelled | Step) -> None:
        """Take in what a stage gave."""
        match step:
            case Labelled(change):
                self._timeliness.observe(change)
                self.prequential.observe(change)
            case Entered():
                self.applications += 1
            case Ignored(reason):
                self.ignored[reason] += 1
            case DeadLetter(reason):
                self.dead_letters[reason] += 1

    def counts(self, jobs: JobStage, members: MemberStage) -> RunCounts:
        """Return what was counted here and in the stages."""
        timeliness = self._timeliness
        return RunCounts(
            dead_letters=dict(self.dead_letters),
            ignored=dict(self.ignored),
            labels=dict(timeliness.labels),
            flips=dict(timeliness.flips),
            first_within=dict(timeliness.first_within),
            positives_within=dict(timeliness.positives_known_within),
            refits={"per_job": jobs.effect.refits, "per_member": members.effect.refits},
            applications=self.applications,
            closed=timeliness.closed,
        )

    def restore(self, counts: RunCounts, rows: bytes, jobs: JobStage, members: MemberStage) -> None:
        """Go on from what was counted before, with the rows of ``prequential``."""
        timeliness = self._timeliness
        self.dead_letters = Counter(counts.dead_letters)
        self.ignored = Counter(counts.ignored)
        timeliness.labels = Counter(counts.labels)
        timeliness.flips = Counter(counts.flips)
        timeliness.first_within = Counter(counts.first_within)
        timeliness.positives_known_within = Counter(counts.positives_within)
        jobs.effect.refits = counts.refits["per_job"]
        members.effect.refits = counts.refits["per_member"]
        self.applications = counts.applications
        timeliness.closed = counts.closed
        self.prequential.extend(rows)


def run_metrics(
    counts: Iterable[RunCounts],
    prequential: Prequential,
    *,
    events: Mapping[str, int],
    entities: Mapping[str, int],
    model_version: str,
    score_from_ms: int,
    newest_event_ms: int,
    watermark_ms: int | None,
) -> RunMetrics:
    """Sum up a run of one or several shares."""
    total = sum(counts, RunCounts())
    timeliness = Timeliness()
    timeliness.first_within = Counter(total.first_within)
    timeliness.positives_known_within = Counter(total.positives_within)
    return RunMetrics(
        model_version=model_version,
        events=_sorted(events),
        ignored=_sorted(total.ignored),
        dead_letters=_sorted(total.dead_letters),
        labels=_sorted(total.labels),
        flips=_sorted(total.flips),
        first_label_within=timeliness.first_label_within(),
        positives_within=timeliness.positives_within(),
        applications=total.applications,
        closed=total.closed,
        entities=_sorted(entities),
        refits={"per_job": 0, "per_member": 0} | _sorted(total.refits),
        score_from_ms=score_from_ms,
        newest_event_ms=newest_event_ms,
        watermark_ms=watermark_ms,
        quality=prequential.summary(),
    )


def _sum(one: Counted, other: Counted) -> Counted:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _sorted(counts: Mapping[str, int]) -> Counted:
    return dict(sorted(counts.items()))
