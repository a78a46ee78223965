"""What a query of PromQL asks for, as far as these tests need it."""

from __future__ import annotations

import re

from stream.metrics.catalogue import BY_NAME, PROCESS
from stream.metrics.metric import Metric
from stream.metrics.service import SERVICE

_SELECTOR = re.compile(r"\b((?:hearback|process|python)_\w+|up|ALERTS)\b(?:\{([^}]*)\})?")
_PROMETHEUS_OWN = {"job", "instance"}
_FALLBACK = re.compile(r"\bor( on ?\(\))? vector\(0\)")


def exported() -> dict[str, Metric]:
    """Every name that Prometheus gets of workers and services → its metric."""
    names: dict[str, Metric] = {}
    for metric in (*BY_NAME.values(), *SERVICE.metrics):
        endings = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        names |= {metric.exported + ending: metric for ending in endings}
    return names


def selectors(expr: str) -> list[tuple[str, set[str]]]:
    """Names that a query asks for, each with the labels that it selects by."""
    return [
        (name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen or "")))
        for name, chosen in _SELECTOR.findall(expr)
    ]


def unknown(expr: str) -> list[str]:
    """What of a query the catalogue, or Prometheus, does not have."""
    names = exported()
    found, known_labels = [], set(_PROMETHEUS_OWN) | {"alertstate"}
    for name, labels in selectors(expr):
        if name in names:
            own = set(names[name].labels) | _PROMETHEUS_OWN
            own |= {"le"} if name.endswith("_bucket") else set()
            found += [f"{name}{{{label}}}" for label in labels - own]
            known_labels |= own
        elif name not in {*PROCESS, "up", "ALERTS"}:
            found.append(name)
    for grouped in re.findall(r"\b(?:by|on|group_left|group_right) ?\(([^)]*)\)", expr):
        labels = {label.strip() for label in grouped.split(",")} - {""}
        found += sorted(labels - known_labels)
    return found


def without_fallback(expr: str) -> str:
    """Return the query without the zero that stands in where nothing was counted."""
    return _FALLBACK.sub("", expr)


def without_comparison(expr: str) -> str:
    """Return an alert's expression without the comparison that ends it."""
    cut = re.sub(r"\s*(==|!=|<=|>=|<|>)\s*[\d.]+\s*$", "", expr)
    if cut == expr:
        raise ValueError(f"this ends in no comparison: {expr}")
    return cut
