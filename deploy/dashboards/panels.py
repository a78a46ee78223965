"""What a dashboard consists of, as data: boards of rows of panels of queries."""

from __future__ import annotations

from typing import Literal

import msgspec

RATE = "$__rate_interval"
"""Grafana's own: a range that always holds enough samples for a rate."""

Unit = Literal["short", "cps", "s", "bytes", "percentunit", "none", "locale"]
"""Grafana's names of units; ``cps`` is a count per second."""


class Query(msgspec.Struct, frozen=True):
    """One query of PromQL; ``legend`` may name labels, ``{{stage}}``."""

    expr: str
    legend: str = ""


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One panel.

    ``kind``: graph, or stat, a number. ``warn`` and ``bad``: from there on it is shown yellow, red;
    where ``low_is_bad``, below there. ``span``: columns of 24.
    """

    title: str
    text: str
    queries: tuple[Query, ...]
    kind: Literal["graph", "stat"] = "graph"
    unit: Unit = "short"
    span: int = 8
    warn: float | None = None
    bad: float | None = None
    low_is_bad: bool = False


class Row(msgspec.Struct, frozen=True):
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


class Board(msgspec.Struct, frozen=True):
    """A dashboard; ``key`` is its file's name and the end of its address."""

    key: str
    title: str
    text: str
    rows: tuple[Row, ...]


def or_zero(expr: str) -> str:
    """Return a query that is 0 where nothing of it was ever counted, as of rare trouble."""
    return f"{expr} or on() vector(0)"


def per_second(counter: str, *by: str) -> str:
    """Return the rate of a counter, summed by these labels."""
    return f"sum by ({', '.join(by)}) (rate({counter}[{RATE}]))"


def quantiles(histogram: str, *by: str) -> tuple[Query, ...]:
    """Return the median and the 99th percentile of a histogram."""
    labels = "".join(f" {{{{{label}}}}}" for label in by)
    inner = f"sum by ({', '.join((*by, 'le'))}) (rate({histogram}_bucket[{RATE}]))"
    return tuple(
        Query(f"histogram_quantile({share}, {inner})", f"{name}{labels}")
        for share, name in ((0.5, "p50"), (0.99, "p99"))
    )
