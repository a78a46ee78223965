"""Parquet logs: the same events as in JSON Lines, damage told as in them."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from producers.simulate import SimulationSettings, simulate
from stream.errors import LogError
from stream.events.wire import decode_event
from stream.features.blocks import FeatureSpace
from stream.logs.files import LogLine, ReadProgress, merge, write_lines

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: Parquet logs are not tested")
pq = pytest.importorskip("pyarrow.parquet")

SETTINGS = SimulationSettings(members=60, jobs=40, days=8, applications_per_member=6)
SPACE = FeatureSpace(tuple(f"g{k}" for k in range(8)), tuple("abcd"), tuple("wxyz"))


def written(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    """Write rows as a Parquet file."""
    names = {name: None for row in rows for name in row}  # the first row's are not all there are
    pq.write_table(pa.Table.from_pylist([names | row for row in rows]), path, **options)
    return path


def decoded(path: Path) -> list[dict[str, Any]]:
    """Lines of a log as JSON objects."""
    return [json.loads(line.raw) for line in merge([path])]


def test_a_log_in_parquet_is_the_log(tmp_path: Path) -> None:
    """Every event of a simulated log comes back as the same event, in the same order."""
    lines = list(simulate(SETTINGS))
    path = written(tmp_path / "log.parquet", [json.loads(line) for line in lines])
    found = list(merge([path]))
    assert [line.number for line in found] == list(range(1, len(lines) + 1))
    assert [decode_event(line.raw, SPACE) for line in found] == [
        decode_event(line, SPACE) for line in lines
    ]


def test_times_may_be_timestamps(tmp_path: Path) -> None:
    """Timestamps with or without a zone, in any unit, are milliseconds in UTC."""
    moment = datetime(2017, 4, 1, 11, 11, 34, 123_000, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=5)))
    for time in (moment, elsewhere, moment.replace(tzinfo=None)):
        path = written(tmp_path / "t.parquet", [{"type": "clock", "event_time_ms": time}])
        assert decoded(path) == [{"type": "clock", "event_time_ms": 1_491_045_094_123}]


def test_what_columns_hold_becomes_what_json_has(tmp_path: Path) -> None:
    """Maps, structs, decimals and bytes are read; nulls are absent, also within blocks."""
    schema = pa.schema(
        {
            "type": pa.dictionary(pa.int8(), pa.string()),
            "event_time_ms": pa.decimal128(18, 0),
            "application_id": pa.binary(),
            "features": pa.struct(
                {
                    "global": pa.list_(pa.float32()),
                    "per_member": pa.map_(pa.string(), pa.float64()),
                    "per_job": pa.struct({"intercept": pa.float64(), "gap": pa.float64()}),
                }
            ),
            "channel": pa.string(),
        }
    )
    row = {
        "type": "application", "event_time_ms": Decimal(1000), "application_id": b"a1",
        "features": {
            "global": None, "per_member": [("x", 0.5)], "per_job": {"intercept": 1.0, "gap": None},
        },
        "channel": None,
    }  # fmt: skip
    path = tmp_path / "odd.pq"
    pq.write_table(pa.Table.from_pylist([row], schema=schema), path)
    assert decoded(path) == [
        {
            "type": "application",
            "event_time_ms": 1000,
            "application_id": "a1",
            "features": {"per_member": {"x": 0.5}, "per_job": {"intercept": 1.0}},
        }
    ]


def test_parquet_and_lines_are_merged_by_time(tmp_path: Path) -> None:
    """Files of both sorts merge by event time; the same as if all were lines."""
    lines = [msgspec.json.encode({"type": "clock", "event_time_ms": at}) for at in range(40)]
    as_lines, mixed = [], []
    for number in range(4):
        own = lines[number::4]
        path = tmp_path / f"{number}.jsonl"
        write_lines(path, own)
        as_lines.append(path)
        rows = [json.loads(line) for line in own]
        mixed.append(written(path.with_suffix(".parquet"), rows) if number % 2 else path)
    assert [line.raw for line in merge(mixed)] == [line.raw for line in merge(as_lines)] == lines


def test_progress_counts_to_the_files_size(tmp_path: Path) -> None:
    """Bytes read grow with the rows, up to the size on disk."""
    rows = [{"type": "clock", "event_time_ms": at} for at in range(5000)]
    path = written(tmp_path / "log.parquet", rows)
    progress = ReadProgress()
    seen = [progress.done_bytes for _ in merge([path], progress)]
    assert 0 < seen[0] < seen[-1]
    assert progress.done_bytes == progress.total_bytes == path.stat().st_size


def test_damage_within_is_a_damaged_line(tmp_path: Path) -> None:
    """What comes before a corrupt part is read; then the log says so."""
    rows = [{"type": "clock", "event_time_ms": at, "tag": f"{at * 7919}"} for at in range(6000)]
    path = written(tmp_path / "log.parquet", rows, row_group_size=2000, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 200 : middle + 200] = bytes(400)
    path.write_bytes(content)
    found: list[LogLine] = list(merge([path]))
    assert found[-1].damaged is not None
    assert "log.parquet: the Parquet file is corrupt" in found[-1].damaged
    assert "\n" not in found[-1].damaged
    assert 1000 < len(found) < 6000
    assert all(line.damaged is None for line in found[:-1])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"hello\n" * 100])
def test_what_is_no_parquet_is_refused_at_once(tmp_path: Path, content: bytes) -> None:
    """A file without a Parquet footer is an error before anything is read, alone or with others."""
    path = tmp_path / "log.parquet"
    path.write_bytes(content)
    other = tmp_path / "other.jsonl"
    other.write_bytes(b"{}")
    for paths in ([path], [other, path]):
        with pytest.raises(LogError, match=r"log.parquet is no readable Parquet file"):
            merge(paths)


def test_other_tables_are_refused_by_their_columns(tmp_path: Path) -> None:
    """A table that holds no events is refused, and its columns are named."""
    path = written(tmp_path / "log.parquet", [{"user": 1, "job": 2}])
    with pytest.raises(LogError, match="columns user, job: columns must be the fields"):
        merge([path])


def test_without_pyarrow_the_way_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the library the error names what to install."""
    path = written(tmp_path / "log.parquet", [{"type": "clock", "event_time_ms": 1}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LogError, match=r"pip install 'hearback-stream\[parquet\]'"):
        merge([path])


def test_parquet_is_not_written(tmp_path: Path) -> None:
    """Writing to such a name is refused rather than giving JSON under it."""
    with pytest.raises(LogError, match="only read"):
        write_lines(tmp_path / "log.parquet", [b"{}"])
    assert not list(tmp_path.iterdir())
