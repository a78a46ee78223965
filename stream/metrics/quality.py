"""What the scores are worth and what the gates make of it, as Prometheus sees it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from stream.metrics.catalogue import BY_NAME
from stream.partitions.base import Partition
from stream.partitions.job import JobPartition
from stream.quality.gate import Judged, worse_by
from stream.quality.tally import SCORES, Tally, merged

_JUDGED: tuple[Judged, ...] = ("early", "final")


def gauge_of(name: str, registry: CollectorRegistry) -> Gauge:
    """Make a gauge of the catalogue."""
    metric = BY_NAME[name]
    return Gauge(name, metric.text, metric.labels, registry=registry)


class QualityMetrics:
    """Quality is told of the job partitions, where every label is made; gates of all.

    Args:
        registry: where the collectors go.

    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._applications = gauge_of("hearback_quality_applications", registry)
        self._positives = gauge_of("hearback_quality_positives", registry)
        self._expected = gauge_of("hearback_quality_expected_positives", registry)
        self._log_loss = gauge_of("hearback_quality_log_loss_nats", registry)
        self._auc = gauge_of("hearback_quality_auc", registry)
        self._pooled_auc = gauge_of("hearback_quality_pooled_auc", registry)
        self._open = gauge_of("hearback_gate_open", registry)
        self._held = gauge_of("hearback_gate_held_entities", registry)
        self._worse = gauge_of("hearback_gate_worse_nats", registry)
        self._told: dict[tuple[Judged, str, int], Tally] = {}

    def clear(self) -> None:
        """Forget the partitions: others may be owned now."""
        self._told.clear()
        for gauge in (
            *(self._applications, self._positives, self._expected, self._log_loss, self._auc),
            *(self._pooled_auc, self._open, self._held, self._worse),
        ):
            gauge.clear()

    def take(self, partition: Partition) -> None:
        """Take a partition's gate as it stands, and what was judged since the last call."""
        effect, number = partition.learning.effect.name, str(partition.number)
        self._open.labels(effect, number).set(partition.judged.gate.open)
        self._held.labels(effect, number).set(partition.judged.held)
        for judged in _JUDGED:
            tally = partition.judged.newest(judged)
            key = judged, partition.stage, partition.number
            if self._told.get(key) is tally:
                continue
            self._told[key] = tally
            worse, _ = worse_by(tally, effect, judged)
            self._worse.labels(effect, judged, number).set(worse)
            if isinstance(partition, JobPartition):
                self._tell(tally, judged, number)

    def _tell(self, tally: Tally, judged: Judged, number: str) -> None:
        self._applications.labels(judged, number).set(tally.applications)
        self._positives.labels(judged, number).set(tally.positives)
        for name, score in zip(SCORES, tally.scores, strict=True):
            self._expected.labels(judged, name, number).set(score.expected)
            self._log_loss.labels(judged, name, number).set(score.log_loss)
        _tell_auc(tally, self._auc, judged, number)
        pooled = merged(
            each
            for (when, stage, _), each in self._told.items()
            if when == judged and stage == JobPartition.stage
        )
        _tell_auc(pooled, self._pooled_auc, judged)


def _tell_auc(tally: Tally, gauge: Gauge, judged: Judged, *more: str) -> None:
    for name in SCORES:
        quality = tally.quality(name)
        if quality is not None and quality.auc is not None:
            gauge.labels(judged, name, *more).set(quality.auc)
