"""What the scores are worth and what the gates make of it, as Prometheus sees it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from stream.metrics.catalogue import GATE, QUALITY, RANKINGS
from stream.partitions.base import Partition
from stream.partitions.job import JobPartition
from stream.quality.gate import Judged, worse_by
from stream.quality.ranking import MEASURES, ORDERS, Decisions
from stream.quality.tally import SCORES, Tally, merged

_JUDGED: tuple[Judged, ...] = ("early", "final")


class QualityMetrics:
    """Quality is told of the job partitions, where every label is made; gates of all.

    Args:
        registry: where the collectors go.

    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauges = {
            metric.name.removeprefix("hearback_"): Gauge(
                metric.name, metric.text, metric.labels, registry=registry
            )
            for group in (QUALITY, RANKINGS, GATE)
            for metric in group.metrics
        }
        self._told: dict[tuple[Judged, str, int], Tally] = {}
        self._decisions: dict[int, Decisions] = {}

    def clear(self) -> None:
        """Forget the partitions: others may be owned now."""
        self._told.clear()
        self._decisions.clear()
        for gauge in self._gauges.values():
            gauge.clear()

    def take(self, partition: Partition) -> None:
        """Take a partition's gate as it stands, and what was judged since the last call."""
        effect, number = partition.learning.effect.name, str(partition.number)
        self._gauges["gate_open"].labels(effect, number).set(partition.judged.gate.open)
        self._gauges["gate_held_entities"].labels(effect, number).set(partition.judged.held)
        if isinstance(partition, JobPartition):
            self._tell_rankings(partition.number, partition.judged.rankings.decisions)
        for judged in _JUDGED:
            tally = partition.judged.newest(judged)
            key = judged, partition.stage, partition.number
            if self._told.get(key) is tally:
                continue
            self._told[key] = tally
            worse, _ = worse_by(tally, effect, judged)
            self._gauges["gate_worse_nats"].labels(effect, judged, number).set(worse)
            if isinstance(partition, JobPartition):
                self._tell(tally, judged, number)

    def _tell_rankings(self, number: int, decisions: Decisions) -> None:
        if self._decisions.get(number) is decisions:
            return
        self._decisions[number] = decisions
        counts, sums = sum(self._decisions.values(), Decisions()).sums()
        for at, measure in enumerate(MEASURES):
            self._gauges["ranking_decisions"].labels(measure).set(counts[at])
            for order, of_order in zip(ORDERS, sums, strict=True):
                self._gauges["ranking_sum"].labels(order, measure).set(of_order[at])

    def _tell(self, tally: Tally, judged: Judged, number: str) -> None:
        gauges = self._gauges
        gauges["quality_applications"].labels(judged, number).set(tally.weight)
        gauges["quality_positives"].labels(judged, number).set(tally.positives)
        for name, score in zip(SCORES, tally.scores, strict=True):
            gauges["quality_expected_positives"].labels(judged, name, number).set(score.expected)
            gauges["quality_log_loss_nats"].labels(judged, name, number).set(score.log_loss)
        _tell_auc(tally, gauges["quality_auc"], judged, number)
        pooled = merged(
            each
            for (when, stage, _), each in self._told.items()
            if when == judged and stage == JobPartition.stage
        )
        _tell_auc(pooled, gauges["quality_pooled_auc"], judged)


def _tell_auc(tally: Tally, gauge: Gauge, judged: Judged, *more: str) -> None:
    for name in SCORES:
        quality = tally.quality(name)
        if quality is not None and quality.auc is not None:
            gauge.labels(judged, name, *more).set(quality.auc)
