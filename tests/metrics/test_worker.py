"""What a partition counts is what Prometheus sees."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry

from stream.events.structs import Forget
from stream.events.wire import encode
from stream.metrics.worker import WorkerMetrics
from stream.partitions.job import JobPartition
from stream.policy import DAY_MS, HOUR_MS, GateSettings, LabelPolicy, Policy
from tests.kit import NOW_MS, Market, application, engagement
from tests.partitions.test_rolls import NEW, OLD, command, told
from tests.partitions.test_rolls import POLICY as ROLLED


def test_counts_of_a_partition_are_told_once() -> None:
    """Labels by what decided, ages, pending ones; told twice, nothing counts double."""
    market = Market(Policy(labels=LabelPolicy(aging=())), 1)
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
        metrics.owned([partition], {partition.number})
        metrics.applied(partition)
    first = registry.get_sample_value("hearback_time_to_label_seconds_count", {"label": "first"})
    assert first == 2
    labels = {"kind": "positive", "rule": "action"}
    assert registry.get_sample_value("hearback_labels_total", labels) == 2


def test_the_slowest_channel_is_named_with_the_time_since_when() -> None:
    """A member partition by its number, the own engagements as −1; another one counts anew."""
    market = Market(Policy(), 2)
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, "test")
    partition = market.partitions["job", 1]
    seen = []
    for second, heard in enumerate([None, 2, 0, None, 1]):
        if heard == 2:
            partition.clock.read_clock(5, NOW_MS, sure=True)
        elif heard is not None:
            partition.clock.read_mark(heard, 6, NOW_MS, record=True)
        metrics.standing(partition, {}, NOW_MS + 1000 * second)
        seen.append(
            tuple(
                registry.get_sample_value(f"hearback_slowest_channel{name}", {"partition": "1"})
                for name in ("", "_since_seconds")
            )
        )
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1), (-1, 0)]


def test_a_renewed_session_does_not_hide_since_when_a_channel_is_the_slowest() -> None:
    """Neither its own nor another partition's; one that went and comes back begins anew."""
    market = Market(Policy(), 2)
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, "test")
    both = [market.partitions["job", number] for number in range(2)]

    def since(second: int) -> list[float | None]:
        for partition in both:
            metrics.standing(partition, {}, NOW_MS + 1000 * second)
        name = "hearback_slowest_channel_since_seconds"
        return [registry.get_sample_value(name, {"partition": str(at)}) for at in range(2)]

    metrics.owned(both, {0, 1})
    assert since(0) == [0, 0]
    metrics.owned(both[:1], {0, 1})
    assert since(5) == [5, 5]
    metrics.owned(both[:1], {0})
    assert since(9) == [9, 0]


def test_who_left_is_counted_by_reason() -> None:
    """Somebody was forgotten: one less is there, one more has left."""
    market = Market(Policy(), 1)
    market.produce([application("a", 0), engagement("e", "a", HOUR_MS)])
    market.run()
    market.append("engagements", 0, b"j", encode(Forget(job_id="j", event_time_ms=2 * HOUR_MS)))
    market.run()
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, "test")
    partition = market.partitions["job", 0]
    metrics.applied(partition)
    metrics.standing(partition, {}, NOW_MS)
    left = {"effect": "per_job", "reason": "forget"}
    assert registry.get_sample_value("hearback_entities_left_total", left) == 1
    there = {"effect": "per_job", "partition": "0"}
    assert registry.get_sample_value("hearback_entities", there) == 0


def test_quality_can_be_merged_over_partitions() -> None:
    """Sums of log loss, of expected and of observed positives come from the judged applications."""
    market = Market(
        Policy(labels=LabelPolicy(aging=()), gate=GateSettings(applications=1, age_ms=DAY_MS)), 1
    )
    market.produce([application(f"a{at}", at, score=-1.0) for at in range(4)])
    market.run()
    market.produce([engagement("e", "a3", HOUR_MS)])
    market.run()
    market.clock(2 * DAY_MS)
    market.run()
    market.now_ms += 60_000  # that time has moved alone is taken note of once a minute
    market.run()
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, "test")
    for partition in market.partitions.values():
        metrics.standing(partition, {}, NOW_MS)
    early = {"judged": "early", "partition": "0"}

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"hearback_{name}", early | labels)

    assert value("quality_applications") == 4
    assert value("quality_positives") == 1
    assert value("quality_expected_positives", score="global") == pytest.approx(4 / (1 + math.e))
    loss = 4 * math.log1p(math.exp(-1)) + 1
    assert value("quality_log_loss_nats", score="global") == pytest.approx(loss)
    assert value("quality_auc", score="full") == 0.5
    pooled = {"judged": "early", "score": "global"}
    assert registry.get_sample_value("hearback_quality_pooled_auc", pooled) == 0.5
    gate = {"effect": "per_job", "partition": "0"}
    assert registry.get_sample_value("hearback_gate_open", gate) == 1.0


def test_the_delays_of_answers_are_compared_with_the_curve() -> None:
    """Unknown at first; answers count once windows close; quick ones lie far from a slow curve."""
    curve = frozenset({"1d:0", "180h:0.5", "14d:1"})
    market = Market(Policy(labels=LabelPolicy(delay_curve=curve)), 1)
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, "test")
    partition = market.partitions["job", 0]

    def distance() -> float | None:
        metrics.applied(partition)
        metrics.standing(partition, {}, NOW_MS)
        return registry.get_sample_value("hearback_delay_curve_distance")

    for number in range(120):
        market.produce([application(f"a{number}", number * DAY_MS)])
        market.produce([engagement(f"e{number}", f"a{number}", number * DAY_MS + HOUR_MS)])
    assert math.isnan(distance() or 0.0)
    market.run()
    assert distance() == pytest.approx(1.0)  # all came at once, none should have


def test_the_model_in_force_is_told_of_partitions_that_score_by_it() -> None:
    """The first one until event time is where another one was rolled in; then that one alone."""
    market = Market(ROLLED, 2, global_model=OLD)
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, OLD.version)
    jobs = [one for one in market.partitions.values() if isinstance(one, JobPartition)]

    def in_force() -> dict[str, float]:
        for partition in jobs:
            metrics.standing(partition, {}, NOW_MS)
        return {
            sample.labels["model_version"]: sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "hearback_model_partitions"
        }

    told(market, [command(NEW, 1000, 1)])
    market.produce([application("a", 0, score=None)])
    market.run()
    assert in_force() == {OLD.version: len(jobs)}
    market.clock(2000)
    market.run()
    assert in_force() == {NEW.version: len(jobs)}
    jobs.pop()
    metrics.owned(jobs, [0])
    assert in_force() == {NEW.version: len(jobs)}
    jobs.clear()
    metrics.owned(jobs, [])
    assert in_force() == {}
