"""A run as Parquet holds what its JSON lines hold, however it came about."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.errors import ConfigError
from stream.events import wire
from stream.events.structs import Coefficients
from stream.logs.files import merge, write_lines
from stream.policy import Policy
from stream.replay import tables
from stream.replay.columns import ARROW, TABLES, Format
from stream.replay.document import PAGE, page
from stream.replay.reader import first_look
from stream.replay.resumable import replay_into
from stream.replay.run_folder import CHECKPOINT, DEAD_LETTERS, METRICS, STATE, ScoreLine
from stream.replay.savepoint import Options

MARKET = SimulationSettings(
    seed=7, members=60, jobs=30, days=15, global_score=True, applications_per_member=12
)
parquet: Any = import_module("pyarrow.parquet")  # it has hardly any types
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FLOAT32 = {"global", "per_member", "per_job", "history"}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated log, half of whose applications have terms."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    write_lines(path, simulate(MARKET))
    return path


def replayed(
    log: Path, out: Path, form: Format, *, workers: int = 1, resume: bool = False, stop: int = 0
) -> Path:
    """Replay the log; ``stop`` so many lines Ctrl-C comes."""

    def progress(count: int) -> None:
        if stop and count >= stop:
            raise KeyboardInterrupt

    lines, space = first_look(merge([log]), None)
    options = Options(close=True, workers=workers, flush_every=1024, checkpoint_every=1024)
    replay_into(
        *(out, [log], lines, Policy(), None, space, options),
        resume=resume, form=form, progress=progress,
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def as_lines(log: Path) -> Path:
    """Return the run as JSON lines."""
    return replayed(log, log.parent / "lines", "json")


def expected(path: Path) -> Iterator[dict[str, Any]]:
    """Read lines as the columns' names and types have them, by the standard library alone."""
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        row.pop("type", None)
        row |= row.pop("features", {})
        yield {name.removesuffix("_ms"): _typed(name, value) for name, value in row.items()}


def _typed(name: str, value: Any) -> Any:
    if name.endswith("_ms") and value is not None:
        return EPOCH + timedelta(milliseconds=value)
    if isinstance(value, dict):
        return {key.removesuffix("_ms"): _typed(key, one) for key, one in value.items()}
    if name in FLOAT32 and value is not None:
        return array("f", value).tolist()  # lines have the fewest digits that tell them apart
    return value


def _plain(value: Any) -> Any:
    """Parquet's row as JSON has it: without what is null."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if one is not None}
    return value


def same(run: Path, lines: Path) -> None:
    """Fail unless a run as Parquet holds what one as JSON lines holds, row by row."""
    for name in TABLES:
        found = parquet.read_table(run / f"{name}.parquet")
        rows = found.to_pylist(maps_as_pydicts="strict")
        assert [_plain(row) for row in rows] == [
            _plain(row) for row in expected(lines / f"{name}.jsonl")
        ]
        assert rows
        assert (run / f"{name}.parquet").stat().st_mode & 0o777 == 0o600
    for name in (DEAD_LETTERS, METRICS):
        assert (run / name).read_bytes() == (lines / name).read_bytes()
    there = {path.name for path in run.iterdir()}
    assert there == {*(f"{name}.parquet" for name in TABLES), DEAD_LETTERS, METRICS, STATE}


def test_parquet_holds_what_lines_hold(log: Path, as_lines: Path, tmp_path: Path) -> None:
    """Every value of labels, scores and coefficients is in its column."""
    same(replayed(log, tmp_path / "run", "parquet"), as_lines)


def test_an_interrupted_replay_resumes_to_the_same_tables(log: Path, tmp_path: Path) -> None:
    """After Ctrl-C, and after a failure while tables are written, --resume ends the same.

    By two processes, whose merged lines are those of their own uninterrupted run.
    """
    lines = replayed(log, tmp_path / "lines", "json", workers=2)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        replayed(log, out, "parquet", workers=2, stop=1024)
    in_the_way = out / "scores.parquet.part"
    in_the_way.mkdir()
    with pytest.raises(IsADirectoryError):
        replayed(log, out, "parquet", workers=2, resume=True)
    assert (out / CHECKPOINT).exists()
    in_the_way.rmdir()
    replayed(log, out, "parquet", workers=2, resume=True)
    same(out, lines)


def test_rows_are_written_in_groups(
    as_lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more rows than a row group has are held, and a table may be empty."""
    monkeypatch.setattr(tables, "_AT_ONCE", 64)
    monkeypatch.setattr(tables, "_GROUP", 128)
    for name in TABLES:
        text = (as_lines / f"{name}.jsonl").read_bytes()
        (tmp_path / f"{name}.jsonl").write_bytes(b"" if name == "coefficients" else text)
    tables.to_parquet(tmp_path)
    metadata = parquet.ParquetFile(tmp_path / "labels.parquet").metadata
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert len(groups) > 2
    assert set(groups[:-1]) == {128}
    assert parquet.read_table(tmp_path / "coefficients.parquet").num_rows == 0


def test_types_are_those_of_the_page() -> None:
    """The Arrow types that are written are those that the documentation names."""
    for columns in TABLES.values():
        for column, field in zip(columns, tables._schema(columns), strict=True):
            assert field.name == column.name
            if column.kind != "past":
                found = str(field.type).replace("item: ", "").replace("tz=", "")
                assert found == ARROW[column.kind]


@pytest.mark.parametrize(
    ("table", "message", "inside"),
    [
        ("labels", wire.LabelMessage, {"features": wire.AllFeatures}),
        ("scores", ScoreLine, {}),
        ("coefficients", Coefficients, {}),
    ],
)
def test_every_field_has_a_column(
    table: str, message: type[msgspec.Struct], inside: dict[str, type[msgspec.Struct]]
) -> None:
    """No field of a message is left out of its table."""
    fields = {field.encode_name for field in msgspec.structs.fields(message)}
    fields -= {"control", "read"}  # of records that only workers write
    for name, struct in inside.items():
        fields.remove(name)
        fields |= {f"{name}.{field.encode_name}" for field in msgspec.structs.fields(struct)}
    assert {column.path for column in TABLES[table]} == fields


def test_without_pyarrow_nothing_is_begun(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pyarrow is missing, that is said in one line before anything is written."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="pip install 'hearback-stream"):
        replayed(log, tmp_path / "run", "parquet")
    assert not (tmp_path / "run").exists()


def test_the_page_is_up_to_date() -> None:
    """``make docs`` has written the page of the columns."""
    assert PAGE.read_text("utf-8") == page()
