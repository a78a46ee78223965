"""SHELL: every Prometheus collector, on a registry passed in. Base units, bounded labels."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import version
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from stream.errors import ConfigError
from stream.partitions import JobPartition, Partition, Unit
from stream.records import COEFFICIENTS

_LATENCY_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip


class WorkerMetrics:
    """What a worker tells Prometheus.

    Args:
        registry: where the collectors go; one set per registry.
        model_version: of the frozen global model.

    """

    def __init__(self, registry: CollectorRegistry, model_version: str) -> None:
        self.registry = registry
        self._events = Counter(
            "hearback_events",
            "Records applied, by stage and type.",
            ["stage", "type"],
            registry=registry,
        )
        self._labels = Counter(
            "hearback_labels", "Labels emitted, by kind.", ["kind"], registry=registry
        )
        self._flips = Counter(
            "hearback_label_flips",
            "Labels that turned positive, by what had made them negative.",
            ["rule"],
            registry=registry,
        )
        self._first_within = Counter(
            "hearback_first_labels_within",
            "First labels of applications that came within an age; age 'any' counts all.",
            ["age"],
            registry=registry,
        )
        self._positives_within = Counter(
            "hearback_positives_within",
            "Positive labels that were known within an age; age 'any' counts all.",
            ["age"],
            registry=registry,
        )
        self._dead_letters = Counter(
            "hearback_dead_letters",
            "Records set aside, by stage and reason.",
            ["stage", "reason"],
            registry=registry,
        )
        self._ignored = Counter(
            "hearback_ignored",
            "Events that changed nothing: repeats, late ones, those outside their window; and"
            " engagements that waited for their application (orphans).",
            ["reason"],
            registry=registry,
        )
        self._refits = Counter(
            "hearback_refits", "Entities refitted, by effect.", ["effect"], registry=registry
        )
        self._unconverged = Counter(
            "hearback_refits_unconverged",
            "Refits that ended without convergence, by effect: absurd features.",
            ["effect"],
            registry=registry,
        )
        self._folded = Counter(
            "hearback_folded",
            "Examples folded into an entity's summary, by effect and sort (final, open).",
            ["effect", "sort"],
            registry=registry,
        )
        self._newton_steps = Counter(
            "hearback_newton_steps", "Newton steps taken, by effect.", ["effect"], registry=registry
        )
        self._to_coefficients = Histogram(
            "hearback_event_to_coefficients_seconds",
            "From the Kafka timestamp of the event that caused a label to its coefficients being"
            " acknowledged, by effect.",
            ["effect"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self._flush = Histogram(
            "hearback_flush_seconds",
            "Time to send a unit of work's messages, wait for them and write the state.",
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self._watermark_lag = Gauge(
            "hearback_watermark_lag_seconds",
            "Wall clock less the partition's watermark; years for a played log of old.",
            ["stage", "partition"],
            registry=registry,
        )
        self._read_lag = Gauge(
            "hearback_read_lag_records",
            "Records between a partition's position and its end, by topic.",
            ["topic", "partition"],
            registry=registry,
        )
        self._partitions = Gauge(
            "hearback_partitions", "Partitions owned, by stage.", ["stage"], registry=registry
        )
        self._unattended = Gauge(
            "hearback_unattended_seconds",
            "For how long a partition that is assigned here has had no session, or a flush that"
            " hangs; 0: it is worked on. Grows while the broker is away.",
            ["stage", "partition"],
            registry=registry,
        )
        self._unassigned = Gauge(
            "hearback_unassigned_seconds",
            "For how long this worker has had no partitions: it waits for its group, or the broker"
            " is away. 0: it has some.",
            registry=registry,
        )
        self._standbys = Gauge(
            "hearback_standby_partitions",
            "Copies kept of partitions that another worker owns, to be taken over from it.",
            registry=registry,
        )
        self._standbys_behind = Gauge(
            "hearback_standby_partitions_behind",
            "Copies that have not come to the end of their changelogs.",
            registry=registry,
        )
        self._lost = Counter(
            "hearback_sessions_lost",
            "Sessions of a partition that ended before their time, by stage and reason (fenced,"
            " broker); new ones follow.",
            ["stage", "reason"],
            registry=registry,
        )
        self._recovered = Counter(
            "hearback_recovered_records",
            "Changelog records applied when partitions were taken over, by stage.",
            ["stage"],
            registry=registry,
        )
        self._recovery = Histogram(
            "hearback_recovery_seconds",
            "Time to take a partition over: fence earlier owners, read the changelog, open.",
            ["stage"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        Gauge(
            "hearback_build_info",
            "1, labelled with the release and the global model.",
            ["version", "model_version"],
            registry=registry,
        ).labels(version("hearback"), model_version).set(1)
        self._seen: dict[tuple[Partition, str], Tally[str]] = {}

    def owned(self, partitions: Collection[Partition]) -> None:
        """Say which partitions are owned; forget those that went."""
        for stage in ("member", "job"):
            owned = sum(partition.stage == stage for partition in partitions)
            self._partitions.labels(stage).set(owned)
        self._watermark_lag.clear()
        self._read_lag.clear()
        self._unattended.clear()
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] in partitions}

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

    def lost(self, stage: str, reason: str) -> None:
        """A session ended before its time."""
        self._lost.labels(stage, reason).inc()

    def recovered(self, stage: str, records: int, seconds: float) -> None:
        """A partition was taken over."""
        self._recovered.labels(stage).inc(records)
        self._recovery.labels(stage).observe(seconds)

    def flushed(self, unit: Unit, seconds: float, now_ms: int) -> None:
        """A unit of work is safe: take the time of the flush and of its coefficients."""
        self._flush.observe(seconds)
        for message in unit:
            if message.topic == COEFFICIENTS and message.key and message.value is not None:
                effect = message.key.split(b":", 1)[0].decode()
                self._to_coefficients.labels(effect).observe(
                    max(now_ms - message.timestamp_ms, 0) / 1000.0
                )

    def applied(self, partition: Partition) -> None:
        """Take over what a partition counted since the last call."""
        stage = partition.stage
        self._grow(partition, "events", partition.events, self._events, stage)
        self._grow(partition, "dead", partition.dead_letters, self._dead_letters, stage)
        effect = partition.effect
        self._grow(partition, "refits", {effect.name: effect.refits}, self._refits)
        self._grow(partition, "newton", {effect.name: effect.newton_steps}, self._newton_steps)
        folded = {"final": effect.folded, "open": effect.overflowed}
        self._grow(partition, "folded", folded, self._folded, effect.name)
        self._grow(partition, "fail", {effect.name: effect.unconverged}, self._unconverged)
        if isinstance(partition, JobPartition):
            self._grow(partition, "labels", partition.timeliness.labels, self._labels)
            self._grow(partition, "flips", partition.timeliness.flips, self._flips)
            self._grow(partition, "ignored", partition.tally, self._ignored)
            known = partition.timeliness
            self._grow(partition, "first", known.first_within, self._first_within)
            self._grow(partition, "positives", known.positives_known_within, self._positives_within)

    def standing(self, partition: Partition, lags: Mapping[str, int], now_ms: int) -> None:
        """Take the partition's lags: ``lags`` in records by topic."""
        number = str(partition.number)
        if partition.watermark_ms is not None:
            self._watermark_lag.labels(partition.stage, number).set(
                (now_ms - partition.watermark_ms) / 1000.0
            )
        for topic, records in lags.items():
            self._read_lag.labels(topic, number).set(records)

    def _grow(
        self,
        partition: Partition,
        what: str,
        counts: Mapping[str, int],
        counter: Counter,
        *labels: str,
    ) -> None:
        seen = self._seen.setdefault((partition, what), Tally())
        for name, count in counts.items():
            if count > seen[name]:
                counter.labels(*labels, name).inc(count - seen[name])
                seen[name] = count


def serve(registry: CollectorRegistry, host: str, port: int) -> WSGIServer:
    """Serve ``/metrics`` from a thread; the caller shuts the server down.

    Raises:
        ConfigError: the port cannot be had.

    """
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigError(
            f"metrics cannot be served on {host}:{port} ({error.strerror}):"
            " choose another --metrics-port, or 0 for any free one"
        ) from None
    return server
