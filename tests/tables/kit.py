"""What the tests of tables share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stream.policy import Policy
from stream.tables.load import Imported, import_tables
from stream.tables.mapping import read_map
from tests.tables.oracle import Row, without_nothing, write

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: no tables")

LABELS = Policy().labels
ACTIONS = [*LABELS.positive_actions, *LABELS.negative_actions, *LABELS.neutral_actions]

SHORT = """
[applications]
id = "id"
member = "member"
job = "job"
time = "time"
attributes = ["value"]

[actions]
application = "id"
time = "time"
action = "action"
"""
APPLICATION: dict[str, Any] = {
    "id": "a1",
    "member": "m1",
    "job": "j1",
    "time": "2024-01-31T12:00:00Z",
    "value": "x",
}
ACTION: dict[str, Any] = {"id": "a1", "time": "2024-02-01T12:00:00+01:00", "action": "Message"}


CLOSING = f"""
{SHORT}
[jobs]
id = "id"
closed = "closed"
"""


def files(folder: Path, **more: Sequence[Row]) -> dict[str, Path]:
    """Write tables of CSV."""
    tables: dict[str, Sequence[Row]] = {"applications": [APPLICATION], "actions": [ACTION], **more}
    return {name: write(folder, name, rows, "csv") for name, rows in tables.items()}


def run(
    folder: Path, text: str, tables: dict[str, Path], suffix: str = ".parquet"
) -> tuple[Path, Imported]:
    """Import tables; return the path of the log and what is told."""
    (folder / "map.toml").write_text(text, "utf-8")
    mapping = read_map(folder / "map.toml", ACTIONS)
    out = folder / f"log{suffix}"
    return out, import_tables(tables, mapping, ACTIONS, out, lambda _what, _share: None)


def rows_of(log: Path) -> list[dict[str, Any]]:
    """Read a log of Parquet, without this product."""
    return [without_nothing(row) for row in pq.ParquetFile(log).read().to_pylist()]


def values_of(log: Path) -> list[Any]:
    """Return the attribute ``value`` of each application."""
    rows = pq.ParquetFile(log).read().to_pylist()
    return [row["context"].get("value") for row in rows if row["context"]]
