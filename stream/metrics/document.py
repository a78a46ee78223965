"""``docs/metrics.md``, from the catalogue: ``make docs`` writes it, a test keeps it equal."""

from __future__ import annotations

from pathlib import Path

from stream.metrics.catalogue import GROUPS, PROCESS
from stream.metrics.metric import Group, Metric
from stream.metrics.service import SERVICE

PAGE = Path("docs/metrics.md")

_HEAD = """# Metrics

Made from `stream/metrics/catalogue.py` by `make docs`; do not edit. A worker serves them on
`/metrics`, in base units, for Prometheus. `stage` is `member` or `job`, `effect` is `per_member` or
`per_job`, `partition` a number; no label has an unbounded number of values. What to watch, and what
to do, is in [operations](operations.md).
"""

_OF_SERVICE = """What `hearback serve` tells on its own `/metrics`, and a worker does not.

"""


def page() -> str:
    """Return the page's text."""
    parts = [_HEAD]
    for group in GROUPS:
        parts += _table(group)
    parts += _table(SERVICE, _OF_SERVICE)
    parts.append("\n## The process\n\nAs of every Python process: ")
    parts.append(", ".join(f"`{name}`" for name in PROCESS) + ".\n")
    return "".join(parts)


def _table(group: Group, about: str = "") -> list[str]:
    head = f"\n## {group.title}\n\n{about}| metric | kind | meaning |\n| --- | --- | --- |\n"
    return [head, *(_row(metric) for metric in group.metrics)]


def _row(metric: Metric) -> str:
    labels = "{" + ",".join(metric.labels) + "}" if metric.labels else ""
    return f"| `{metric.exported}{labels}` | {metric.kind} | {metric.text} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
