"""What ``hearback serve`` tells Prometheus: its part of the catalogue, and what fills it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from stream import VERSION
from stream.metrics.metric import Group, Metric

REQUESTS = Metric(
    "hearback_serve_requests",
    "counter",
    ("route", "status"),
    "Requests answered. `route` is a path of the documentation, `status` the code of HTTP.",
)
SECONDS = Metric(
    "hearback_serve_seconds",
    "histogram",
    ("route",),
    "From a request's first byte that the service looked at to its answer.",
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
SERVED = Metric(
    "hearback_serve_learned_seconds",
    "histogram",
    (),
    "From the event that coefficients were learned of, by Kafka's time, until they are served.",
    (0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0),
)
CANDIDATES = Metric("hearback_serve_candidates", "counter", (), "Candidates that were scored.")
REFUSED = Metric(
    "hearback_serve_refused_candidates",
    "counter",
    (),
    "Candidates that could not be scored; the answers say why.",
)
UNKNOWN = Metric(
    "hearback_serve_unknown",
    "counter",
    ("effect",),
    "Members or jobs of candidates that nothing is known of: the prior stood for them.",
)
SHED = Metric(
    "hearback_serve_shed",
    "counter",
    (),
    "Requests refused with 503 because more were waiting than are taken.",
)
ENTITIES = Metric("hearback_serve_entities", "gauge", ("effect",), "Entities that are known.")
APPLICANTS = Metric(
    "hearback_serve_applicants",
    "gauge",
    (),
    "Applications that are held, open or decided lately; 0 where `[applicants]` is not enabled.",
)
LEFT_OUT = Metric(
    "hearback_serve_left_out",
    "counter",
    ("reason",),
    "Messages that were not taken: of another model, or unreadable.",
)
STALENESS = Metric(
    "hearback_serve_staleness_seconds",
    "gauge",
    (),
    "How old what is served may be; NaN while it was never all there.",
)
DEGRADED = Metric(
    "hearback_serve_degraded",
    "gauge",
    ("reason",),
    "1 while answers say under `degraded` that they are not what they should be, else 0.",
)
READY = Metric("hearback_serve_ready", "gauge", (), "1 while `/readyz` is green, else 0.")
BUILD = Metric(
    "hearback_serve_build_info",
    "gauge",
    ("version", "model_version"),
    "Always 1: which release serves, and which global model scores applications of now.",
)

SERVICE = Group(
    "The service",
    (
        *(REQUESTS, SECONDS, SERVED, CANDIDATES, REFUSED, UNKNOWN, SHED),
        *(ENTITIES, APPLICANTS, LEFT_OUT, STALENESS, DEGRADED, READY, BUILD),
    ),
)


class State:
    """How a service stands, when it is asked.

    ``staleness_s``: None: what it has was never all there. ``degraded``: as answers say it.
    ``model_version``: of the global model that scores applications of now.
    """

    def __init__(
        self,
        *,
        ready: bool,
        staleness_s: float | None,
        entities: dict[str, int],
        applicants: int,
        left_out: dict[str, int],
        degraded: Collection[str],
        model_version: str,
    ) -> None:
        self.ready = ready
        self.staleness_s = staleness_s
        self.entities = entities
        self.applicants = applicants
        self.left_out = left_out
        self.degraded = degraded
        self.model_version = model_version


class ServiceMetrics(Collector):
    """The metrics of one service.

    Args:
        registry: where they go.
        state: asked when they are read.

    """

    def __init__(self, registry: CollectorRegistry, state: Callable[[], State]) -> None:
        self._state = state
        self._requests = _counter(REQUESTS, registry)
        self._seconds = Histogram(
            SECONDS.name, SECONDS.text, SECONDS.labels, buckets=SECONDS.buckets, registry=registry
        )
        self._served = Histogram(
            SERVED.name, SERVED.text, SERVED.labels, buckets=SERVED.buckets, registry=registry
        )
        self._of_route = {}  # type: ignore[var-annotated]  # children, by route and status
        self._candidates = _counter(CANDIDATES, registry)
        self._refused = _counter(REFUSED, registry)
        self._unknown = _counter(UNKNOWN, registry)
        self.shed = _counter(SHED, registry)
        registry.register(self)

    def answered(self, route: str, status: int, began_s: float) -> None:
        """Note an answer to a request that began at a time of ``time.perf_counter``."""
        found = self._of_route.get((route, status))
        if found is None:
            found = self._requests.labels(route, str(status)), self._seconds.labels(route)
            self._of_route[route, status] = found
        requests, seconds = found
        requests.inc()
        seconds.observe(time.perf_counter() - began_s)

    def served(self, seconds: list[float]) -> None:
        """Note how long it took until coefficients were served."""
        for each in seconds:
            self._served.observe(each)

    def scored(self, candidates: int, refused: int, unknown: Mapping[str, int]) -> None:
        """Note candidates that were scored and refused, and the entities that were not known."""
        self._candidates.inc(candidates)
        self._refused.inc(refused)
        for effect, count in unknown.items():
            if count:
                self._unknown.labels(effect).inc(count)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Give what is asked of the store."""
        state = self._state()
        yield _gauge(ENTITIES, {(name,): float(n) for name, n in state.entities.items()})
        yield _gauge(APPLICANTS, {(): float(state.applicants)})
        left_out = CounterMetricFamily(LEFT_OUT.name, LEFT_OUT.text, labels=LEFT_OUT.labels)
        for reason, count in ({"other_model": 0} | state.left_out).items():
            left_out.add_metric([reason], count)
        yield left_out
        age_s = float("nan") if state.staleness_s is None else state.staleness_s
        yield _gauge(STALENESS, {(): age_s})
        gates = (f"gate_shut:{effect}" for effect in state.entities)
        reasons = dict.fromkeys(("stale", "other_model_in_force", *gates), 0.0)
        reasons |= dict.fromkeys(state.degraded, 1.0)
        yield _gauge(DEGRADED, {(reason,): each for reason, each in reasons.items()})
        yield _gauge(READY, {(): float(state.ready)})
        yield _gauge(BUILD, {(VERSION, state.model_version): 1.0})


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.text, metric.labels, registry=registry)


def _gauge(metric: Metric, values: dict[tuple[str, ...], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
