"""What a partition counts is what Prometheus sees."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from stream.metrics import WorkerMetrics
from stream.partitions import JobPartition
from stream.policy import DAY_MS, HOUR_MS, Policy
from tests.kit import NOW_MS, Market, application, engagement


def test_counts_of_a_partition_are_told_once() -> None:
    """Labels by what decided, ages, pending ones; told twice, nothing counts double."""
    market = Market(Policy(), 1)
    market.produce(
        [
            application("a", 0),
            application("b", 1),
            application("c", 3 * HOUR_MS),
        ]
    )
    market.run()
    market.produce([engagement("e", "b", 1 + HOUR_MS), engagement("o", "nobody", 2 * HOUR_MS)])
    market.run()
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, "test")
    partition = market.partitions["job", 0]
    assert isinstance(partition, JobPartition)
    for _ in range(2):
        metrics.applied(partition)
        metrics.standing(partition, {"engagements": 3}, NOW_MS)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("hearback_labels_total", kind="positive", rule="action") == 1
    inferred = value("hearback_labels_total", kind="negative_inferred", rule="later_response")
    assert inferred == 1
    assert value("hearback_time_to_label_seconds_count", label="first") == 2
    assert value("hearback_time_to_label_seconds_sum", label="positive") == HOUR_MS / 1000
    day = str(DAY_MS / 1000)
    assert value("hearback_time_to_label_seconds_bucket", label="first", le=day) == 2
    assert value("hearback_pending_applications", partition="0") == 1
    assert value("hearback_orphans", partition="0") == 1
    assert value("hearback_entities", effect="per_job", partition="0") == 1
    assert value("hearback_read_lag_records", topic="engagements", partition="0") == 3


def test_a_partition_that_comes_again_counts_on() -> None:
    """A new session counts from nothing; the totals only grow."""
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, "test")
    for _ in range(2):
        market = Market(Policy(), 1)
        market.produce([application("a", 0), engagement("e", "a", HOUR_MS)])
        market.run()
        partition = market.partitions["job", 0]
        metrics.owned([partition])
        metrics.applied(partition)
    first = registry.get_sample_value("hearback_time_to_label_seconds_count", {"label": "first"})
    assert first == 2
    labels = {"kind": "positive", "rule": "action"}
    assert registry.get_sample_value("hearback_labels_total", labels) == 2
