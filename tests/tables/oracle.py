"""Tables in every format, and what a plain join of dictionaries makes of them."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: no tables")
pq = pytest.importorskip("pyarrow.parquet")

Row = Mapping[str, Any]

FORMATS = (
    *("csv", "csv of Excel", "csv with tabs", "csv.gz", "csv in UTF-16"),
    *("jsonl", "json array", "jsonl in UTF-16", "parquet"),
)
BERLIN = ZoneInfo("Europe/Berlin")


def write(folder: Path, name: str, rows: Sequence[Row], how: str) -> Path:
    """Write a table; lists are texts with semicolons, in CSV."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    path = folder / f"{name}.{how.split(maxsplit=1)[0]}"
    if how == "parquet":
        pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in columns}), path)
        return path
    if how.startswith("json"):
        lines = [msgspec.json.encode(row) for row in rows]
        text = b"[" + b",\n".join(lines) + b"]" if "array" in how else b"\n".join(lines)
        path.write_bytes(text.decode().encode("utf-16") if "UTF-16" in how else text)
        return path
    file = io.StringIO(newline="")
    excel = "Excel" in how
    writer = csv.writer(
        file,
        delimiter=";" if excel else "\t" if "tabs" in how else ",",
        lineterminator="\r\n" if excel else "\n",
        quoting=csv.QUOTE_ALL if excel else csv.QUOTE_MINIMAL,
    )
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(key)) for key in columns])
    encoded = file.getvalue().encode("utf-8-sig" if excel else "utf-16" if "16" in how else "utf-8")
    path.write_bytes(gzip.compress(encoded) if how == "csv.gz" else encoded)
    return path


def _cell(value: Any) -> Any:
    return ";".join(value) if isinstance(value, list) else "" if value is None else value


def spelled(time_ms: int, how: str) -> str:
    """Write a time in one of several ways; ``local`` in Berlin, without saying so."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    match how:
        case "zulu":
            return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case "offset":
            return moment.astimezone(BERLIN).isoformat(" ", timespec="milliseconds")
        case "milliseconds":
            return str(time_ms)
        case "seconds":
            return str(time_ms // 1000)
        case _:
            return moment.astimezone(BERLIN).replace(tzinfo=None).isoformat(timespec="milliseconds")


def events(
    applications: Sequence[Row],
    actions: Sequence[Row],
    jobs: Sequence[Row],
    members: Sequence[Row],
    names: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Join rows, whose times are milliseconds, by loops over dictionaries."""
    found: list[tuple[int, int, int, dict[str, Any]]] = []
    by_id: dict[str, Row] = {}
    for at, row in enumerate(applications):
        if None in (row["id"], row["member"], row["job"], row["time"]):
            continue
        by_id[row["id"]] = row
        job, member = (
            _then(jobs, row["job"], row["time"]),
            _then(members, row["member"], row["time"]),
        )
        event = {
            "type": "application",
            "event_time_ms": row["time"],
            "application_id": row["id"],
            "member_id": row["member"],
            "job_id": row["job"],
            "channel": row["channel"],
            "context": _present(row, "device"),
            "job": _present(job, "title", "pay"),
            "member": _present(member, "skills"),
            "terms": {"skill": member["skills"]} if member.get("skills") is not None else {},
        }
        found.append((row["time"], 0, at, event))
    for at, row in enumerate(actions):
        action = names.get(row["action"] or "")
        application = by_id.get(row["application"])
        if action is None or application is None or row["time"] is None:
            continue
        event = {
            "type": "engagement",
            "event_time_ms": row["time"],
            "application_id": row["application"],
            "member_id": application["member"],
            "job_id": application["job"],
            "engagement_id": row["id"],
            "action": action,
        }
        found.append((row["time"], 1, at, event))
    return [event for *_, event in sorted(found, key=lambda one: one[:3])]


def _then(rows: Sequence[Row], entity: str, time_ms: int) -> Row:
    begun = [row for row in rows if row["id"] == entity and (row["since"] or 0) <= time_ms]
    if not begun:
        return {}
    last = max(begun, key=lambda row: row["since"] or 0)
    return last if last["until"] is None or time_ms < last["until"] else {}


def _present(row: Row, *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names if row.get(name) is not None}


def without_nothing(value: Any) -> Any:
    """Leave out nulls, and objects and lists in which nothing is left... but empty lists."""
    if isinstance(value, dict):
        kept = {key: without_nothing(one) for key, one in value.items() if one is not None}
        return {key: one for key, one in kept.items() if one != {}}
    return value
