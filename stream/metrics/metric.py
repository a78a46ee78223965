"""What a metric is; the catalogue lists them all."""

from __future__ import annotations

from typing import Literal

import msgspec

LATENCY_S = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Upper ends of the buckets of everything that should take less than a second."""


class Metric(msgspec.Struct, frozen=True):
    """One metric. ``buckets``: upper ends, of a histogram."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    text: str
    buckets: tuple[float, ...] = LATENCY_S

    @property
    def exported(self) -> str:
        """The name that is asked for in Prometheus."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


class Group(msgspec.Struct, frozen=True):
    """Metrics that answer one question."""

    title: str
    metrics: tuple[Metric, ...]
