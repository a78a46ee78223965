"""A histogram of what was counted elsewhere: the core counts, it does not call back."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from stream.metrics.catalogue import Metric


class CountedHistogram(Collector):
    """Sums cumulative counts of several sources, each of which only grows.

    Args:
        metric: of the catalogue.
        registry: where it goes.

    """

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._metric = metric
        self._ends = (*map(str, metric.buckets), "+Inf")
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._seen: dict[tuple[Hashable, str], tuple[list[int], float]] = {}
        registry.register(self)

    def take(self, source: Hashable, label: str, cumulative: Sequence[int], total: float) -> None:
        """Take over what a source has counted by now.

        Args:
            source: who counts; one that starts from zero again is another source.
            label: the one label's value.
            cumulative: how many lie within each bucket's end; the last one counts all.
            total: the sum of all that was counted.

        """
        nothing = [0] * len(self._ends)
        before, before_total = self._seen.get((source, label), (nothing, 0.0))
        counts = self._counts.setdefault(label, list(nothing))
        for at, (now, then) in enumerate(zip(cumulative, before, strict=True)):
            counts[at] += now - then
        self._sums[label] = self._sums.get(label, 0.0) + total - before_total
        self._seen[source, label] = (list(cumulative), total)

    def keep_only(self, sources: Mapping[Hashable, object]) -> None:
        """Forget sources that went; what they counted stays."""
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] in sources}

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Give what Prometheus is told."""
        family = HistogramMetricFamily(
            self._metric.name, self._metric.text, labels=self._metric.labels
        )
        for label, counts in list(self._counts.items()):
            buckets = list(zip(self._ends, map(float, counts), strict=True))
            family.add_metric([label], buckets, self._sums[label])
        yield family
