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
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.simulate import SimulationSettings, simulate
from stream.errors import EventError, InvalidFeaturesError, LogError
from stream.events.structs import Application
from stream.events.wire import decode_event, decode_raw, numbers
from stream.features.blocks import FeatureSpace
from stream.logs.files import LogLine, ReadProgress, merge, write_lines

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: Parquet logs are not tested")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("pyarrow.compute")

SETTINGS = SimulationSettings(members=60, jobs=40, days=8, applications_per_member=6)
SPACE = FeatureSpace(tuple(f"g{k}" for k in range(8)), tuple("abcd"), tuple("wxyz"))


def written(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    """Write rows as a Parquet file."""
    names = {name: None for row in rows for name in row}  # the first row's are not all there are
    pq.write_table(pa.Table.from_pylist([names | row for row in rows]), path, **options)
    return path


def clock(time_ms: int) -> dict[str, Any]:
    """Make the smallest event."""
    return {"type": "clock", "event_time_ms": time_ms}


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


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
def test_a_global_score_that_is_no_number_is_refused(tmp_path: Path, kind: Any) -> None:
    """As in lines: infinity and NaN cost their row, and only null is a score that was not sent."""
    scores = pa.array([0.5, float("inf"), float("-inf"), float("nan"), None], kind)
    events = {
        "type": "application", "application_id": "a", "member_id": "m", "job_id": "j",
        "event_time_ms": 1000, "features": {"per_member": [1.0], "per_job": [1.0]},
    }  # fmt: skip
    table = pa.Table.from_pylist([events] * 5).append_column("global_score", scores)
    path = tmp_path / "scores.parquet"
    pq.write_table(table, path)
    first, *bad, last = merge([path])
    assert json.loads(first.raw)["global_score"] == 0.5
    for line in bad:
        with pytest.raises(InvalidFeaturesError, match="global_score"):
            decode_raw(line.raw)
    assert "global_score" not in json.loads(last.raw)


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


def test_damage_costs_the_rest_of_its_row_group(tmp_path: Path) -> None:
    """What comes before it and the other row groups are read; the log says how much is lost."""
    rows = [clock(at) | {"channel": f"{at * 7919}"} for at in range(6000)]
    path = tmp_path / "log.parquet"
    written(path, rows, row_group_size=2000, write_page_checksum=True, use_dictionary=False)
    content = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(1).column(2)
    middle = column.data_page_offset + column.total_compressed_size // 2
    content[middle - 200 : middle + 200] = bytes(400)
    path.write_bytes(content)
    found: list[LogLine] = list(merge([path]))
    (damage,) = (line for line in found if line.damaged is not None)
    read = [json.loads(line.raw)["event_time_ms"] + 1 for line in found if line.damaged is None]
    lost = 6000 - len(read)
    assert damage.damaged is not None
    assert f"log.parquet: {lost:,} rows are lost: row group 2 of 3 is corrupt" in damage.damaged
    assert "\n" not in damage.damaged
    assert 0 < lost <= 2000
    assert read == [*range(1, damage.number), *range(4001, 6001)]
    assert [line.number for line in found if line.damaged is None] == read


def test_damage_in_other_columns_is_no_matter(tmp_path: Path) -> None:
    """What is in columns that are no field of an event is not even looked at."""
    rows = [clock(at) | {"tag": f"{at * 7919}"} for at in range(6000)]
    path = written(tmp_path / "log.parquet", rows, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 200 : middle + 200] = bytes(400)
    path.write_bytes(content)
    assert decoded(path) == [clock(at) for at in range(6000)]


OTHERS = {
    "a duration with nanoseconds": pa.array([1, 2], pa.duration("ns")),
    "a time of day with nanoseconds": pa.array([1, 2], pa.time64("ns")),
    "a year that no calendar holds": pa.array([2**60, -(2**60)], pa.timestamp("us")),
    "nanoseconds": pa.array([1, 2], pa.timestamp("ns")),
    "no UTF-8": pa.array([b"\xff", b"\xfe"], pa.binary()).view(pa.string()),
    "a duplicate key": pa.array([[("a", 1), ("a", 2)], []], pa.map_(pa.string(), pa.int8())),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_columns_may_hold_anything(tmp_path: Path, name: str) -> None:
    """A column that is no field of an event never keeps a row from being read."""
    path = tmp_path / "log.parquet"
    table = pa.table({"type": ["clock", "clock"], "event_time_ms": [5, 6], "mine": OTHERS[name]})
    pq.write_table(table, path)
    assert decoded(path) == [clock(5), clock(6)]


@pytest.mark.parametrize(
    ("unit", "value", "ms"),
    [
        ("s", 1_491_021_494, 1_491_021_494_000),
        ("ms", 1_491_021_494_123, 1_491_021_494_123),
        ("us", 1_491_021_494_123_999, 1_491_021_494_123),
        ("ns", 1_491_021_494_123_999_999, 1_491_021_494_123),
        ("us", 253_402_300_799_999_999, 253_402_300_799_999),
        ("s", 253_402_300_799, 253_402_300_799_000),
    ],
)
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_timestamps_of_every_unit_are_integers(
    tmp_path: Path, unit: str, value: int, ms: int, zone: str | None
) -> None:
    """Whatever the unit and the year, a timestamp is its milliseconds, cut off below."""
    path = tmp_path / "log.parquet"
    times = pa.array([value, None, 0], pa.timestamp(unit, zone))
    pq.write_table(pa.table({"type": ["clock"] * 3, "event_time_ms": times}), path)
    assert decoded(path) == [clock(ms), {"type": "clock"}, clock(0)]


def test_old_timestamps_keep_far_years(tmp_path: Path) -> None:
    """INT96, which Spark and Impala have written, holds years that nanoseconds do not."""
    moment = datetime(2999, 1, 1, tzinfo=UTC)
    path = tmp_path / "log.parquet"
    times = pa.array([int(moment.timestamp())], pa.timestamp("s"))
    table = pa.table({"type": ["clock"], "event_time_ms": times})
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    assert decoded(path) == [clock(32_472_144_000_000)]


GOOD_TIMES: list[Any] = [
    pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(20, 0), pa.decimal128(30, 4),
    *(pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")),
    pa.dictionary(pa.int32(), pa.int64()), "iso",
]  # fmt: skip
BAD_TIMES: list[Any] = [
    pa.float32(), pa.date32(), pa.bool_(), pa.duration("ns"), pa.time64("ns"), pa.binary(),
    pa.list_(pa.int64()), "far", "fraction", "no zone",
]  # fmt: skip
GOOD_IDS: list[Any] = [
    pa.string(), pa.large_string(), pa.binary(), pa.int8(), pa.int64(), pa.uint16(), pa.float64(),
    pa.float32(), pa.decimal128(9, 0), pa.dictionary(pa.int16(), pa.string()),
    pa.dictionary(pa.int16(), pa.int32()),
]  # fmt: skip
BAD_IDS: list[Any] = [pa.bool_(), pa.list_(pa.string()), pa.duration("ns"), "no UTF-8", "fraction"]
GOOD_BLOCKS: list[Any] = [
    pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.float16()), pa.list_(pa.int8()),
    pa.large_list(pa.float64()), pa.list_(pa.float64(), 1), pa.list_(pa.decimal128(9, 2)),
    pa.map_(pa.string(), pa.float64()), pa.struct({"x": pa.float32()}),
]  # fmt: skip
BAD_BLOCKS: list[Any] = [
    pa.float64(), pa.list_(pa.string()), pa.list_(pa.bool_()), pa.list_(pa.timestamp("ns")),
    pa.list_(pa.duration("ns")),
]  # fmt: skip
ONE = FeatureSpace(None, ("x",), ("x",))
START_S = 1_491_021_494


def times_of(kind: Any, count: int) -> Any:
    """A column of times, one second apart."""
    seconds = [START_S + at for at in range(count)]
    ms = [at * 1_000 for at in seconds]
    match kind:
        case "iso":
            return pa.array([datetime.fromtimestamp(at, UTC).isoformat() for at in seconds])
        case "no zone":
            return pa.array([datetime.fromtimestamp(at, UTC).isoformat()[:19] for at in seconds])
        case "far":
            return pa.array([2**62] * count, pa.timestamp("us"))
        case "fraction":
            return pa.array([at + 0.5 for at in ms])
    if pa.types.is_timestamp(kind):
        factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        return pa.array([at * factor for at in seconds], kind)
    if pa.types.is_decimal(kind):
        return pa.array([Decimal(at) for at in ms], kind)
    if pa.types.is_list(kind):
        return pa.array([[at] for at in ms], kind)
    if pa.types.is_boolean(kind):
        return pa.array([True] * count)
    if pa.types.is_binary(kind):
        return pa.array([str(at).encode() for at in ms])
    if pa.types.is_date(kind):
        return pa.array([17_257] * count, pa.int32()).cast(kind)
    if pa.types.is_float32(kind):
        return pa.array([float(at) for at in ms], kind)
    if pa.types.is_time(kind):
        ms = [at - START_S * 1_000 for at in ms]
    return pa.array(ms, kind)


def ids_of(kind: Any, count: int) -> Any:
    """A column of the ids from 1 on."""
    numbers = list(range(1, count + 1))
    match kind:
        case "no UTF-8":
            return pa.array([b"\xff"] * count, pa.binary()).view(pa.string())
        case "fraction":
            return pa.array([at + 0.5 for at in numbers])
    values: list[Any] = numbers
    held = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(held) or pa.types.is_large_string(held):
        values = [str(at) for at in numbers]
    elif pa.types.is_binary(held):
        values = [str(at).encode() for at in numbers]
    elif pa.types.is_boolean(held):
        values = [True] * count
    elif pa.types.is_list(held):
        values = [[str(at)] for at in numbers]
    elif pa.types.is_decimal(held):
        values = [Decimal(at) for at in numbers]
    elif pa.types.is_floating(held):
        values = [float(at) for at in numbers]
    return pa.array(values, kind)


def blocks_of(kind: Any, count: int) -> Any:
    """A column of blocks that hold 1."""
    value: Any = [1]
    if pa.types.is_map(kind):
        value = [("x", 1)]
    elif pa.types.is_struct(kind):
        value = {"x": 1}
    elif pa.types.is_floating(kind):
        value = 1.0
    elif pa.types.is_decimal(kind.value_type):
        value = [Decimal(1)]
    elif pa.types.is_string(kind.value_type):
        value = ["1"]
    elif pa.types.is_boolean(kind.value_type):
        value = [True]
    return pa.array([value] * count, kind)


def mixed(draw: Any, good: Any, bad: Any, make: Any, count: int) -> tuple[Any, set[int]]:
    """Draw a column, and the rows whose value is a null, or all where the type is a bad one."""
    kind = draw(st.sampled_from([*good, *bad]))
    column = make(kind, count)
    if any(kind is one for one in bad):
        return column, set(range(count))
    nulls = draw(st.sets(st.integers(0, count - 1), max_size=2))
    mask = pa.array([at in nulls for at in range(count)])
    return pa.compute.if_else(mask, pa.scalar(None, column.type), column), nulls


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 50))
def test_tables_of_any_types_are_read_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int, group: int
) -> None:
    """Whatever the columns' types: no exception; good rows are the events, bad ones are refused."""
    draw = data.draw
    times, bad = mixed(draw, GOOD_TIMES, BAD_TIMES, times_of, count)
    columns = {
        "type": pa.array(["application"] * count).dictionary_encode(),
        "event_time_ms": times,
    }
    for name in ("application_id", "member_id", "job_id"):
        columns[name], more = mixed(draw, GOOD_IDS, BAD_IDS, ids_of, count)
        bad |= more
    member, bad_member = mixed(draw, GOOD_BLOCKS, BAD_BLOCKS, blocks_of, count)
    job, bad_job = mixed(draw, GOOD_BLOCKS, [], blocks_of, count)
    features = pa.StructArray.from_arrays([member, job], ["per_member", "per_job"])
    columns["features"] = features
    columns["global_score"] = pa.array(
        [0.5] * count, draw(st.sampled_from([pa.float32(), pa.float64()]))
    )
    columns["mine"] = OTHERS["nanoseconds"].take(pa.array([0] * count))
    bad |= bad_member | bad_job
    path = tmp_path_factory.mktemp("logs") / "log.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=group)
    found = list(merge([path]))
    assert [(line.number, line.damaged) for line in found] == [
        (at + 1, None) for at in range(count)
    ]
    for at, line in enumerate(found):
        if at in bad:
            with pytest.raises(EventError):
                decode_event(line.raw, ONE)
            continue
        app = decode_event(line.raw, ONE)
        assert isinstance(app, Application)
        number = str(at + 1)
        assert (app.application_id, app.member_id, app.job_id) == (number, number, number)
        assert app.event_time_ms == (START_S + at) * 1_000
        assert numbers(app.features.per_member) == numbers(app.features.per_job) == [1.0]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Which of two columns of one name is meant nobody can tell."""
    path = tmp_path / "log.parquet"
    values = [pa.array(["clock"]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(values, ["type", "event_time_ms", "event_time_ms"]), path)
    with pytest.raises(LogError, match="has the column event_time_ms twice"):
        merge([path])


def test_parquet_is_told_by_content(tmp_path: Path) -> None:
    """A Parquet file is read under any name."""
    for name in ("log", "log.jsonl", "log.gz"):
        assert decoded(written(tmp_path / name, [clock(5)])) == [clock(5)]


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
