"""Values of tables: ids, types of attributes, times, closings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream.logs.files import merge
from tests.tables.kit import ACTION, APPLICATION, CLOSING, SHORT, files, rows_of, run, values_of
from tests.tables.oracle import write

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: no tables")
pq = pytest.importorskip("pyarrow.parquet")


def test_ids_of_actions_are_made_of_what_they_say(tmp_path: Path) -> None:
    """The same action twice is one event, and the log is the same each time; names have no case."""
    tables = files(tmp_path, actions=[ACTION, ACTION, {**ACTION, "action": "message "}])
    first = rows_of(run(tmp_path, SHORT, tables)[0])
    again = rows_of(run(tmp_path, SHORT, tables)[0])
    assert first == again
    assert [row["type"] for row in first] == ["application", *["engagement"] * 3]
    assert len({row["engagement_id"] for row in first[1:]}) == 1
    assert first[1]["action"] == "message"


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_a_log_of_lines_says_the_same(suffix: str, tmp_path: Path) -> None:
    """JSON Lines, plain or compressed, hold the events of the Parquet log."""
    tables = files(tmp_path)
    expected = rows_of(run(tmp_path, SHORT, tables)[0])
    log, _ = run(tmp_path, SHORT, tables, suffix)
    assert [msgspec.json.decode(line.raw) for line in merge([log])] == expected
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("cells", "values", "note"),
    [
        (["1", "-2", ""], [1, -2, None], None),
        (["1", "2.5", "1e3"], [1.0, 2.5, 1000.0], None),
        (["01067", "1", "2"], ["01067", "1", "2"], None),
        (["1", "inf", "nan"], ["1", "inf", "nan"], None),
        (["3,5", "1", "2"], ["3,5", "1", "2"], None),
        (["true", "false", " "], ["true", "false", None], None),
        (["1"] * 19 + ["n/a"], ["1"] * 19 + ["n/a"], "number in 19 of 20 rows, but not 'n/a'"),
        (["", "", ""], [None] * 3, "'value' is always empty"),
    ],
)
def test_a_column_of_csv_has_one_type(
    cells: list[str], values: list[Any], note: str | None, tmp_path: Path
) -> None:
    """Numbers only where all are; codes with leading zeros are text; what is odd is told."""
    rows = [{**APPLICATION, "id": f"a{at}", "value": cell} for at, cell in enumerate(cells)]
    log, told = run(tmp_path, SHORT, files(tmp_path, applications=rows))
    found = values_of(log)
    assert found == values
    assert [type(one) for one in found] == [type(one) for one in values]
    assert (note is None) == (told.notes == [])
    assert note is None or note in told.notes[0]


@pytest.mark.parametrize(
    ("given_values", "values"),
    [
        ([1, 2], [1, 2]),
        ([1, 2.5], [1.0, 2.5]),
        ([True, False], [True, False]),
        ([1, "x"], ["1", "x"]),
        ([["a", " b "], None], [["a", "b"], None]),
        (["a", ["b"]], [["a"], ["b"]]),
        (["01", None], ["01", None]),
    ],
)
@pytest.mark.parametrize("how", ["jsonl", "parquet"])
def test_values_keep_the_types_that_a_file_has(
    given_values: list[Any], values: list[Any], how: str, tmp_path: Path
) -> None:
    """JSON and Parquet know their types; values of several kinds become one."""
    kinds = {type(one) for one in given_values} - {type(None)}
    if how == "parquet" and len(kinds) > 1 and kinds != {int, float}:
        return  # a column of Parquet has one type
    rows = [{**APPLICATION, "id": f"a{at}", "value": one} for at, one in enumerate(given_values)]
    tables = files(tmp_path) | {"applications": write(tmp_path, "applications", rows, how)}
    log, _ = run(tmp_path, SHORT, tables)
    found = values_of(log)
    assert found == values


def test_times_and_numbers_of_parquet_are_read(tmp_path: Path) -> None:
    """Timestamps of each unit, dates, float ids and what is no number, as pandas writes them."""
    table = pa.table(
        {
            "id": pa.array([1.0, 2.0, None]),
            "member": pa.array([7, 8, 9], pa.int32()),
            "job": pa.array(["j", "k", "l"]).dictionary_encode(),
            "time": pa.array([10**18, 10**18 + 1_500_000, 0], pa.timestamp("ns", "Asia/Tokyo")),
            "value": pa.array([math.nan, 0.5, math.inf]),
        }
    )
    pq.write_table(table, tmp_path / "applications.parquet")
    actions = pa.table({"id": ["1"], "time": pa.array([20_000], pa.date32()), "action": ["hire"]})
    pq.write_table(actions, tmp_path / "actions.parquet")
    text = 'zone = "UTC"\n' + SHORT
    tables = {name: tmp_path / f"{name}.parquet" for name in ("applications", "actions")}
    log, told = run(tmp_path, text, tables)
    first, second, third = rows_of(log)
    assert first == {
        "type": "application",
        "event_time_ms": 10**12,
        "application_id": "1",
        "member_id": "7",
        "job_id": "j",
    }
    assert (second["event_time_ms"], second["context"]) == (10**12 + 1, {"value": 0.5})
    assert third["event_time_ms"] == 20_000 * 86_400_000
    assert told.left_out == {"applications without a value of id": 1}


def test_closings_are_events_until_the_last_of_the_others(tmp_path: Path) -> None:
    """A closing that is planned for later, or of a job without applications, is left out."""
    jobs = [
        {"id": "j1", "closed": "2024-01-31T13:00:00Z"},
        {"id": "j2", "closed": "2030-01-01T00:00:00Z"},
        {"id": "j3", "closed": "2024-01-31T13:00:00Z"},
        {"id": "j4", "closed": ""},
    ]
    applications = [APPLICATION, {**APPLICATION, "id": "a2", "job": "j2"}]
    log, told = run(tmp_path, CLOSING, files(tmp_path, applications=applications, jobs=jobs))
    (closing,) = [row for row in rows_of(log) if row["type"] == "job"]
    assert (closing["job_id"], closing["action"]) == ("j1", "closed")
    assert closing["event_time_ms"] == 1_706_706_000_000
    assert told.left_out == {
        "closings after the last event": 1,
        "closings of jobs that nobody applied for": 1,
    }


def test_times_that_clocks_have_twice_or_skip_are_told(tmp_path: Path) -> None:
    """They are read by the offset before the change, and counted."""
    rows = [
        {**APPLICATION, "id": str(at), "time": time}
        for at, time in enumerate(["2024-03-31 02:30", "2024-10-27 02:30", "2024-10-27 04:30"])
    ]
    text = 'zone = "Europe/Berlin"\n' + SHORT
    log, told = run(tmp_path, text, files(tmp_path, applications=rows))
    found = [row["event_time_ms"] for row in rows_of(log) if row["type"] == "application"]
    assert found == [1_711_848_600_000, 1_729_989_000_000, 1_729_999_800_000]
    assert told.notes == [
        "2 times lie in an hour that the clocks of Europe/Berlin have twice, or skip: taken as"
        " before the clocks were changed"
    ]


def test_a_key_that_comes_late_in_a_file_of_json_is_there(tmp_path: Path) -> None:
    """The columns of JSON are the keys of all its objects; names are told apart by case."""
    rows = [{**APPLICATION, "id": str(at)} for at in range(3000)]
    rows = [{key: one for key, one in row.items() if key != "value"} for row in rows]
    rows.append({**APPLICATION, "id": "x", "ID": "y", "value": 7})
    tables = files(tmp_path) | {"applications": write(tmp_path, "applications", rows, "jsonl")}
    log, told = run(tmp_path, SHORT, tables)
    assert told.written["application"] == 3001
    (found,) = [row for row in rows_of(log) if row.get("context")]
    assert (found["application_id"], found["context"]) == ("x", {"value": 7})
