"""The metrics summed up: is the worker healthy, is it learning, does it help?"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from prometheus_client import CollectorRegistry

Answer = tuple[bool, str]
"""Yes or no, and the reason."""


class About(msgspec.Struct, frozen=True):
    """Who the worker is."""

    application_id: str
    version: str
    model_version: str


class PartitionStatus(msgspec.Struct, kw_only=True):
    """One partition of one stage. None: not known yet."""

    stage: str
    partition: int
    lag_records: int | None = None
    watermark_lag_s: float | None = None
    unattended_s: float = 0.0
    recovery_remaining: int = 0
    state_bytes: int = 0


class Latency(msgspec.Struct, frozen=True):
    """Upper ends of the buckets that hold these quantiles, in seconds."""

    count: int
    p50_s: float | None
    p99_s: float | None


class Worth(msgspec.Struct, frozen=True):
    """What one score was worth over the newest judged applications of this worker."""

    judged: str
    score: str
    applications: int
    auc: float | None
    log_loss: float
    observed_over_expected: float | None


class Ordering(msgspec.Struct, frozen=True):
    """How well one order ranked in the newest decisions of this worker: means.

    The last three are None where every decision had more candidates than are ranked.
    """

    order: str
    decisions: int
    auc: float
    reciprocal_rank: float | None
    ndcg_at_10: float | None
    top_1: float | None


class Gates(msgspec.Struct, frozen=True):
    """The gates of one effect: partitions that publish, that do not, and entities held back."""

    effect: str
    open: int
    paused: int
    held: int


class Status(msgspec.Struct, kw_only=True):
    """All that the page shows. Counts are since the worker started.

    ``events``: what was read of the inputs, each once. ``ignored``: what of it changed nothing.
    """

    about: About
    now_ms: int
    uptime_s: float
    memory_bytes: int
    ready: bool
    why: str
    places: list[PartitionStatus]
    events: dict[str, int]
    dead_letters: dict[str, int]
    ignored: dict[str, int]
    sessions_lost: int
    labels: dict[str, int]
    flips: int
    pending: int
    orphans: int
    refits: dict[str, int]
    entities: dict[str, int]
    event_to_coefficients: dict[str, Latency]
    quality: list[Worth]
    rankings: list[Ordering]
    gates: list[Gates]
    models: dict[str, int]


class _Sample(NamedTuple):
    labels: Mapping[str, str]
    value: float


class _Samples:
    """Everything in a registry, by the names of its samples."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._by_name: dict[str, list[_Sample]] = defaultdict(list)
        for family in registry.collect():
            for sample in family.samples:
                self._by_name[sample.name].append(_Sample(sample.labels, sample.value))

    def of(self, name: str) -> list[_Sample]:
        """Return the samples of a name."""
        return self._by_name.get(name, [])

    def total(self, name: str) -> float:
        """Sum of a name's samples."""
        return sum(sample.value for sample in self.of(name))

    def by(self, name: str, label: str) -> dict[str, int]:
        """Sums of a name's samples by the values of a label, sorted."""
        sums = self.sums(name, label)
        return {key: int(value) for (key,), value in sorted(sums.items()) if value}

    def sums(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Sums of a name's samples by the values of several labels."""
        sums: dict[tuple[str, ...], float] = defaultdict(float)
        for sample in self.of(name):
            sums[tuple(sample.labels[label] for label in labels)] += sample.value
        return sums


def status(registry: CollectorRegistry, about: About, ready: Answer, now_s: float) -> Status:
    """Read the metrics.

    Args:
        registry: of one worker. about: who it is.
        ready: whether it is ready, and why not.
        now_s: the wall clock.

    """
    found = _Samples(registry)
    return Status(
        about=about,
        now_ms=int(now_s * 1000.0),
        uptime_s=max(now_s - (found.total("process_start_time_seconds") or now_s), 0.0),
        memory_bytes=int(found.total("process_resident_memory_bytes")),
        ready=ready[0],
        why=ready[1],
        places=_places(found),
        events=_events(found),
        dead_letters=found.by("hearback_dead_letters_total", "reason"),
        ignored=found.by("hearback_ignored_total", "reason"),
        sessions_lost=int(found.total("hearback_sessions_lost_total")),
        labels=found.by("hearback_labels_total", "kind"),
        flips=int(found.total("hearback_label_flips_total")),
        pending=int(found.total("hearback_pending_applications")),
        orphans=int(found.total("hearback_orphans")),
        refits=found.by("hearback_refits_total", "effect"),
        entities=found.by("hearback_entities", "effect"),
        event_to_coefficients=_latencies(found, "hearback_event_to_coefficients_seconds", "effect"),
        quality=_quality(found),
        rankings=_rankings(found),
        gates=_gates(found),
        models=found.by("hearback_model_partitions", "model_version"),
    )


_OF_OWN_TOPICS = {("job", "application"), ("member", "label")}
"""Stage and type of records that the worker has written itself, on an application's way."""


def _events(found: _Samples) -> dict[str, int]:
    """Count what came from outside, by type."""
    counts: Counter[str] = Counter()
    for (stage, kind), count in found.sums("hearback_events_total", "stage", "type").items():
        if (stage, kind) not in _OF_OWN_TOPICS:
            counts[kind] += int(count)
    return dict(sorted(counts.items()))


_STAGE_OF_TOPIC = {
    "applications": "member",
    "labels": "member",
    "engagements": "job",
    "applications-by-job": "job",
}


def _places(found: _Samples) -> list[PartitionStatus]:
    places: dict[tuple[int, str], PartitionStatus] = {}

    def place(sample: _Sample, stage: str | None = None) -> PartitionStatus:
        key = int(sample.labels["partition"]), stage or sample.labels["stage"]
        return places.setdefault(key, PartitionStatus(stage=key[1], partition=key[0]))

    for sample in found.of("hearback_unattended_seconds"):
        place(sample).unattended_s = sample.value
    for sample in found.of("hearback_watermark_lag_seconds"):
        place(sample).watermark_lag_s = sample.value
    for sample in found.of("hearback_recovery_remaining_records"):
        place(sample).recovery_remaining = int(sample.value)
    for sample in found.of("hearback_state_bytes"):
        place(sample).state_bytes = int(sample.value)
    for sample in found.of("hearback_read_lag_records"):
        at = place(sample, _STAGE_OF_TOPIC[sample.labels["topic"]])
        at.lag_records = (at.lag_records or 0) + int(sample.value)
    return [places[key] for key in sorted(places)]


def _quality(found: _Samples) -> list[Worth]:
    applications = found.by("hearback_quality_applications", "judged")
    positives = found.by("hearback_quality_positives", "judged")
    losses = found.sums("hearback_quality_log_loss_nats", "judged", "score")
    expected = found.sums("hearback_quality_expected_positives", "judged", "score")
    aucs = found.sums("hearback_quality_pooled_auc", "judged", "score")
    return [
        Worth(
            judged,
            score,
            applications[judged],
            aucs.get((judged, score)),
            loss / applications[judged],
            positives.get(judged, 0) / expected[judged, score] if expected[judged, score] else None,
        )
        for (judged, score), loss in losses.items()
        if applications.get(judged)
    ]


def _rankings(found: _Samples) -> list[Ordering]:
    decisions = found.sums("hearback_ranking_decisions", "measure")
    sums = found.sums("hearback_ranking_sum", "order", "measure")
    orders = dict.fromkeys(order for order, _ in sums)

    def mean(order: str, measure: str) -> float | None:
        count = decisions.get((measure,), 0.0)
        return sums[order, measure] / count if count else None

    return [
        Ordering(
            order,
            int(decisions["auc",]),
            auc,
            *(mean(order, measure) for measure in ("reciprocal_rank", "ndcg_at_10", "top_1")),
        )
        for order in orders
        if (auc := mean(order, "auc")) is not None
    ]


def _gates(found: _Samples) -> list[Gates]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for sample in found.of("hearback_gate_open"):
        counts[sample.labels["effect"]][int(sample.value)] += 1
    held = found.by("hearback_gate_held_entities", "effect")
    return [
        Gates(effect, open_, paused, held.get(effect, 0))
        for effect, (paused, open_) in sorted(counts.items())
    ]


def _latencies(found: _Samples, name: str, label: str) -> dict[str, Latency]:
    buckets: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for sample in found.of(f"{name}_bucket"):
        buckets[sample.labels[label]].append((float(sample.labels["le"]), int(sample.value)))
    return {
        key: Latency(counts[-1][1], _quantile(counts, 0.5), _quantile(counts, 0.99))
        for key, counts in sorted(buckets.items())
    }


def _quantile(cumulative: list[tuple[float, int]], quantile: float) -> float | None:
    """Interpolate within the bucket that holds the quantile; None: unknown, or beyond the last."""
    total = cumulative[-1][1]
    if not total:
        return None
    below_end, below = 0.0, 0
    for end, count in cumulative:
        if count >= quantile * total:
            if math.isinf(end):
                return None
            share = (quantile * total - below) / max(count - below, 1)
            return below_end + share * (end - below_end)
        below_end, below = end, count
    return None
