"""``docs/reference/parquet.md``: ``make docs`` writes it, a test keeps it equal."""

from __future__ import annotations

from pathlib import Path

from stream.replay.columns import ARROW, TABLES

PAGE = Path("docs/reference/parquet.md")

_HEAD = """# Parquet files of a run

Made from `stream/replay/columns.py` by `make docs`; do not edit.

`hearback replay --format parquet` writes `labels.parquet`, `scores.parquet` and
`coefficients.parquet` in place of the `.jsonl` files of the same names ([replay](../replay.md)).
A row is a line, in the same order, and a column has the name of its field. Three things differ.
Times are timestamps in UTC, and their names lose the ending `_ms`. The feature blocks of a label
are columns of their own, not below `features`. What a line leaves out is null. The fields are
explained in [events](../events.md) and [labels](../labels.md). Files are compressed with zstd; a
row group has 65,536 rows.

Feature blocks and histories are float32, as they are learned; the order of a history's numbers is
that of `stream/histories/history.py`. Several labels of one application follow each other as
they came: the newest replaces those before it.
"""


def page() -> str:
    """Return the page's text."""
    parts = [_HEAD]
    for name, columns in TABLES.items():
        parts.append(f"\n## {name}.parquet\n\n| column | type | meaning | null |\n")
        parts.append("| --- | --- | --- | --- |\n")
        parts += [
            f"| `{one.name}` | `{ARROW[one.kind]}` | {one.meaning} | {one.null or 'never'} |\n"
            for one in columns
        ]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
