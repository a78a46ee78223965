"""What a replay counts on the way, and ``metrics.json`` made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from stream.labels.timeliness import Timeliness
from stream.quality.prequential import Prequential
from stream.replay.reader import Reader
from stream.replay.run_folder import RunMetrics

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
        theirs = msgspec.structs.asdict(other)
        both: dict[str, Any] = {
            name: _sum(mine, theirs[name]) if isinstance(mine, dict) else mine + theirs[name]
            for name, mine in msgspec.structs.asdict(self).items()
        }
        return RunCounts(**both)


def run_metrics(
    counts: Iterable[RunCounts],
    prequential: Prequential,
    reader: Reader,
    *,
    entities: Mapping[str, int],
    model_version: str,
    score_from_ms: int,
) -> RunMetrics:
    """Sum up a run of one or several shares."""
    total = sum(counts, RunCounts())
    timeliness = Timeliness()
    timeliness.first_within = Counter(total.first_within)
    timeliness.positives_known_within = Counter(total.positives_within)
    return RunMetrics(
        model_version=model_version,
        events=_sorted(reader.events),
        ignored=_sorted(total.ignored),
        dead_letters=_sorted(total.dead_letters),
        labels=_sorted(total.labels),
        flips=_sorted(total.flips),
        first_label_within=timeliness.first_label_within(),
        positives_within=timeliness.positives_within(),
        applications=total.applications,
        closed=total.closed,
        entities=_sorted(entities),
        refits=_sorted(total.refits),
        score_from_ms=score_from_ms,
        newest_event_ms=reader.time.largest_ms,
        watermark_ms=reader.time.watermark_ms,
        quality=prequential.summary(),
    )


def _sum(one: Counted, other: Counted) -> Counted:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _sorted(counts: Mapping[str, int]) -> Counted:
    return dict(sorted(counts.items()))
