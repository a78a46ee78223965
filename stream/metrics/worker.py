"""SHELL: fills the metrics of the catalogue, on a registry passed in."""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from stream import VERSION
from stream.errors import TooLargeError
from stream.events.records import COEFFICIENTS
from stream.labels.delays import LiveDelays
from stream.labels.timeliness import AGES_MS
from stream.labels.transitions import WAITED
from stream.metrics.catalogue import BY_NAME
from stream.metrics.metric import Metric
from stream.metrics.quality import QualityMetrics
from stream.partitions.base import Partition, Unit
from stream.partitions.commands import Refusal
from stream.partitions.job import JobPartition
from stream.state.store import RocksStore, StoreSize

_ANY_AGE = (*AGES_MS, "any")


class CountedHistogram(Collector):
    """A histogram of what was counted elsewhere: the core counts, it does not call back.

    Sums cumulative counts of several sources, each of which only grows.

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


class WorkerMetrics:
    """What a worker tells Prometheus.

    Args:
        registry: where the collectors go; one set per registry.
        model_version: of the frozen global model.

    """

    def __init__(self, registry: CollectorRegistry, model_version: str) -> None:
        self.registry = registry
        self._events = self._counter("hearback_events")
        self._dead_letters = self._counter("hearback_dead_letters")
        self._redone = self._counter("hearback_batches_redone")
        self._ignored = self._counter("hearback_ignored")
        self._early = self._counter("hearback_early_engagements")
        self._skipped = self._counter("hearback_lost_records")
        self._read_lag = self._gauge("hearback_read_lag_records")
        self._watermark_lag = self._gauge("hearback_watermark_lag_seconds")
        self._slowest = self._gauge("hearback_slowest_channel")
        self._slowest_since = self._gauge("hearback_slowest_channel_since_seconds")
        self._slowest_seen: dict[int, tuple[int, int]] = {}  # partition → channel, wall clock
        self._labels = self._counter("hearback_labels")
        self._flips = self._counter("hearback_label_flips")
        self._ages = CountedHistogram(BY_NAME["hearback_time_to_label_seconds"], registry)
        # Over all partitions: once when it is asked for, not at every look at one of them.
        self._gauge("hearback_delay_curve_distance").set_function(self._delay_distance)
        self._matches = self._counter("hearback_matches")
        self._matches_closed = self._counter("hearback_matches_closed")
        self._closed = self._counter("hearback_applications_closed")
        self._pending = self._gauge("hearback_pending_applications")
        self._orphans = self._gauge("hearback_orphans")
        self._pairs = self._gauge("hearback_pairs")
        self._terms_refused = self._counter("hearback_terms_refused")
        self._refits = self._counter("hearback_refits")
        self._newton_steps = self._counter("hearback_newton_steps")
        self._unconverged = self._counter("hearback_refits_unconverged")
        self._folded = self._counter("hearback_folded")
        self._entities = self._gauge("hearback_entities")
        self._left = self._counter("hearback_entities_left")
        self._to_coefficients = self._histogram("hearback_event_to_coefficients_seconds")
        self._quality = QualityMetrics(registry)
        self._flush = self._histogram("hearback_flush_seconds")
        self._commit = self._histogram("hearback_commit_seconds")
        self._write = self._histogram("hearback_state_write_seconds")
        self._partitions = self._gauge("hearback_partitions")
        self._unattended = self._gauge("hearback_unattended_seconds")
        self._unassigned = self._gauge("hearback_unassigned_seconds")
        self._takeover = self._histogram("hearback_takeover_seconds")
        self._standbys = self._gauge("hearback_standby_partitions")
        self._standbys_behind = self._gauge("hearback_standby_partitions_behind")
        self._lost = self._counter("hearback_sessions_lost")
        self._remaining = self._gauge("hearback_recovery_remaining_records")
        self._recovered = self._counter("hearback_recovered_records")
        self._recovery = self._histogram("hearback_recovery_seconds")
        self._state_bytes = self._gauge("hearback_state_bytes")
        self._damaged = self._gauge("hearback_damaged_stores")
        self._cache_hits = self._counter("hearback_state_cache_hits")
        self._cache_misses = self._counter("hearback_state_cache_misses")
        self._cache_bytes = self._gauge("hearback_state_cache_bytes")
        self._ready = self._gauge("hearback_ready")
        self._gauge("hearback_build_info").labels(VERSION, model_version).set(1)
        self._models = self._gauge("hearback_model_partitions")
        self._refused = self._gauge("hearback_refresh_refused_until_seconds")
        self._in_force: dict[int, str] = {}  # versions by job partition
        self._seen: dict[tuple[Partition, str], Tally[Hashable]] = {}
        # A store may stay open from one session to the next.
        self._sizes: WeakKeyDictionary[RocksStore, StoreSize] = WeakKeyDictionary()

    def ask_ready(self, ready: Callable[[], bool]) -> None:
        """Ask this whether all partitions that are assigned here are worked on."""
        self._ready.set_function(lambda: float(ready()))

    def refresh_refused(self, refusal: Refusal) -> None:
        """A refresher has refused a model."""
        self._refused.clear()
        self._refused.labels(refusal.reason).set(refusal.until_ms / 1000.0)

    def owned(self, partitions: Collection[Partition], assigned: Collection[int]) -> None:
        """Say which partitions are worked on; forget those that went.

        ``assigned``: the numbers of all that belong here, also while their sessions are renewed.
        """
        for stage in ("member", "job"):
            owned = sum(partition.stage == stage for partition in partitions)
            self._partitions.labels(stage).set(owned)
        for gauge in (self._watermark_lag, self._slowest, self._slowest_since):
            gauge.clear()
        self._slowest_seen = {
            number: seen for number, seen in self._slowest_seen.items() if number in assigned
        }
        self._read_lag.clear()
        self._unattended.clear()
        self._remaining.clear()
        for partition in partitions:
            self.recovering(partition.stage, partition.number, 0)
        gauges = (self._pending, self._orphans, self._pairs, self._entities, self._state_bytes)
        for gauge in gauges:
            gauge.clear()
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] in partitions}
        jobs = {partition.number for partition in partitions if partition.stage == "job"}
        self._scored_by({at: version for at, version in self._in_force.items() if at in jobs})
        self._ages.keep_only(dict.fromkeys(partitions))
        self._quality.clear()

    def unattended(self, stage: str, number: int, seconds: float) -> None:
        """Say for how long nobody has worked on a partition."""
        self._unattended.labels(stage, str(number)).set(seconds)

    def unassigned(self, seconds: Callable[[], float]) -> None:
        """Say how to find out for how long the worker has had no partitions."""
        self._unassigned.set_function(seconds)

    def standbys(self, count: Callable[[], int], behind: Callable[[], int]) -> None:
        """Say how to find out how many copies are kept, and how many are behind."""
        self._standbys.set_function(count)
        self._standbys_behind.set_function(behind)

    def damaged(self, count: Callable[[], int]) -> None:
        """Say how to find out how many damaged stores are kept."""
        self._damaged.set_function(count)

    def redone(self, stage: str) -> None:
        """A batch is done again, record by record."""
        self._redone.labels(stage).inc()

    def taken_over(self, seconds: float) -> None:
        """All partitions of an assignment are worked on, so long after it came."""
        self._takeover.observe(seconds)

    def lost(self, stage: str, reason: str) -> None:
        """A session ended before its time."""
        self._lost.labels(stage, reason).inc()

    def recovering(self, stage: str, number: int, remaining: int) -> None:
        """A partition is being taken over; may be called from any thread."""
        self._remaining.labels(stage, str(number)).set(remaining)

    def recovered(self, stage: str, records: int, seconds: float) -> None:
        """A partition was taken over."""
        self._recovered.labels(stage).inc(records)
        self._recovery.labels(stage).observe(seconds)

    def flushed(
        self, unit: Unit, seconds: float, commit_s: float, write_s: float, now_ms: int
    ) -> None:
        """A unit of work is safe: take the time of the flush and of its coefficients."""
        self._flush.observe(seconds)
        self._commit.observe(commit_s)
        self._write.observe(write_s)
        for message in unit:
            if message.topic == COEFFICIENTS and message.key and message.value is not None:
                effect = message.key.split(b":", 1)[0].decode()
                self._to_coefficients.labels(effect).observe(
                    max(now_ms - message.timestamp_ms, 0) / 1000.0
                )

    def skipped(self, topic: str, number: int, records: int) -> None:
        """Records were gone before they were read."""
        self._skipped.labels(topic, str(number)).inc(records)

    def refused(self, stage: str, count: int) -> None:
        """Messages became dead letters because their topics did not take them."""
        if count:
            self._dead_letters.labels(stage, TooLargeError.reason).inc(count)

    def applied(self, partition: Partition) -> None:
        """Take over what a partition counted since the last call."""
        stage = partition.stage
        self._grow(partition, "events", partition.events, self._events, stage)
        self._grow(partition, "dead", partition.dead_letters, self._dead_letters, stage)
        own = partition.learning.effect
        self._grow(partition, "removed", partition.removed, self._left, own.name)
        for effect in partition.learning.effects:
            name, fitter = effect.name, effect.fitter
            self._grow(partition, f"refits {name}", {name: fitter.refits}, self._refits)
            steps = {name: fitter.newton_steps}
            self._grow(partition, f"newton {name}", steps, self._newton_steps)
            self._grow(partition, f"fail {name}", {name: fitter.unconverged}, self._unconverged)
            folded = {"final": fitter.folded, "open": fitter.overflowed}
            self._grow(partition, f"folded {name}", folded, self._folded, name)
        if isinstance(partition, JobPartition):
            self._grow(partition, "labels", partition.timeliness.decided, self._labels)
            self._grow(partition, "flips", partition.timeliness.flips, self._flips)
            ignored = {name: n for name, n in partition.ignored.items() if name != WAITED}
            self._grow(partition, "ignored", ignored, self._ignored)
            refused = partition.terms_refused
            self._grow(partition, "terms", {(): refused}, self._terms_refused)
            self._grow(partition, "early", {(): partition.ignored[WAITED]}, self._early)
            self._take_matches(partition)
            self._take_ages(partition)

    def standing(self, partition: Partition, lags: Mapping[str, int], now_ms: int) -> None:
        """Take the partition's lags: ``lags`` in records by topic."""
        number = str(partition.number)
        if partition.watermark_ms is not None:
            self._watermark_lag.labels(partition.stage, number).set(
                (now_ms - partition.watermark_ms) / 1000.0
            )
        for topic, records in lags.items():
            self._read_lag.labels(topic, number).set(records)
        self._quality.take(partition)
        counts = partition.learning.census.counts
        self._entities.labels(partition.learning.effect.name, number).set(counts.entities)
        if isinstance(partition, JobPartition):
            self._hold(partition, now_ms)
            version = partition.learning.succession.version_at(partition.watermark_ms or 0)
            if self._in_force.get(partition.number) != version:
                self._scored_by(self._in_force | {partition.number: version})
            self._pending.labels(number).set(counts.pending)
            self._orphans.labels(number).set(counts.orphans)
            self._pairs.labels(number).set(counts.pairs)

    def _scored_by(self, in_force: dict[int, str]) -> None:
        """Tell in how many partitions each model is in force."""
        for version in {*self._in_force.values()} - {*in_force.values()}:
            self._models.remove(version)
        for version, count in Tally(in_force.values()).items():
            self._models.labels(version).set(count)
        self._in_force = in_force

    def _take_matches(self, partition: JobPartition) -> None:
        known = partition.matches
        self._grow(partition, "matches", {(): known.told}, self._matches)
        closed = {"yes": known.answered, "no": known.closed - known.answered}
        self._grow(partition, "matches closed", closed, self._matches_closed)
        everyone = {"yes": known.all_answered, "no": known.all_closed - known.all_answered}
        self._grow(partition, "closed", everyone, self._closed)

    def _hold(self, partition: JobPartition, now_ms: int) -> None:
        """Tell which channel holds a job partition back, and since when."""
        channel = partition.clock.slowest()
        seen = self._slowest_seen.get(partition.number)
        if seen is None or seen[0] != channel:
            seen = self._slowest_seen[partition.number] = channel, now_ms
        number = str(partition.number)
        own = channel == partition.partitions
        self._slowest.labels(number).set(-1 if own else channel)
        self._slowest_since.labels(number).set(max(now_ms - seen[1], 0) / 1000.0)

    def stored(self, stores: Mapping[tuple[str, int], RocksStore], cache_bytes: int) -> None:
        """Take what the open stores, by stage and partition, say of themselves.

        ``cache_bytes``: of the cache that they share.
        """
        self._cache_bytes.set(cache_bytes)
        for (stage, number), store in stores.items():
            size = store.size()
            before = self._sizes.get(store)
            self._state_bytes.labels(stage, str(number)).set(size.total_bytes)
            hits, misses = (before.cache_hits, before.cache_misses) if before else (0, 0)
            self._cache_hits.labels(stage).inc(max(size.cache_hits - hits, 0))
            self._cache_misses.labels(stage).inc(max(size.cache_misses - misses, 0))
            self._sizes[store] = size

    def _delay_distance(self) -> float:
        """Compare how long answers took, in the job partitions worked on, with the curve."""
        jobs = {one for one, _ in list(self._seen) if isinstance(one, JobPartition)}
        distance = LiveDelays.distance(one.delays for one in jobs if one.delays is not None)
        return math.nan if distance is None else distance

    def _take_ages(self, partition: JobPartition) -> None:
        known = partition.timeliness
        for label, within, total_ms in (
            ("first", known.first_within, known.first_age_ms),
            ("positive", known.positives_known_within, known.positive_age_ms),
        ):
            cumulative = [within[age] for age in _ANY_AGE]
            self._ages.take(partition, label, cumulative, total_ms / 1000.0)

    def _grow(
        self,
        partition: Partition,
        what: str,
        counts: Mapping[Any, int],  # a label's value, or several
        counter: Counter,
        *labels: str,
    ) -> None:
        """Let a counter grow by what was counted since the last call."""
        seen = self._seen.setdefault((partition, what), Tally())
        for name, count in counts.items():
            if count > seen[name]:
                names = (name,) if isinstance(name, str) else name
                child = counter.labels(*labels, *names) if labels or names else counter
                child.inc(count - seen[name])
                seen[name] = count

    def _counter(self, name: str) -> Counter:
        metric = BY_NAME[name]
        return Counter(name, metric.text, metric.labels, registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        metric = BY_NAME[name]
        return Gauge(name, metric.text, metric.labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        metric = BY_NAME[name]
        return Histogram(
            name, metric.text, metric.labels, buckets=metric.buckets, registry=self.registry
        )
