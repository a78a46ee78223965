"""Files and frames as logs: what is read of a frame is what its events are."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import stream as hb
from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.errors import LogError
from stream.events.structs import Event
from stream.events.wire import decode_event
from stream.features.blocks import FeatureSpace
from stream.logs.files import merge

MARKET = SimulationSettings(seed=2, members=8, jobs=60, days=8, global_score=True)
ROWS: list[dict[str, Any]] = [json.loads(line) for line in simulate(MARKET)]
_SIZES = {name: len(block) for name, block in ROWS[0]["features"].items()}
SPACE = FeatureSpace(
    None,
    tuple(map(str, range(_SIZES["per_member"]))),
    tuple(map(str, range(_SIZES["per_job"]))),
)
FRAMES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(ROWS),
    "polars": lambda: pl.DataFrame(ROWS, infer_schema_length=None),
    "arrow": lambda: pl.DataFrame(ROWS, infer_schema_length=None).to_arrow(),
}


def events(log: hb.Log) -> list[Event]:
    """Read a log."""
    return [decode_event(line.raw, SPACE) for line in merge(log.paths)]


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_holds_the_events_that_it_was_made_of(kind: str) -> None:
    """Rows of pandas, Polars and Arrow are read as the JSON lines are, nulls left out."""
    expected = [decode_event(json.dumps(row).encode(), SPACE) for row in ROWS]
    assert events(hb.read(FRAMES[kind]())) == expected


def test_several_frames_are_one_log() -> None:
    """Tables of applications and of engagements are merged by time."""
    frame = pl.DataFrame(ROWS, infer_schema_length=None).sort("event_time_ms", maintain_order=True)
    parts = [frame.filter(pl.col("type") == kind) for kind in frame["type"].unique()]
    found = events(hb.read(*parts))
    assert len(parts) > 1
    assert [event.event_time_ms for event in found] == sorted(row["event_time_ms"] for row in ROWS)


def test_the_copy_of_a_frame_goes_with_the_log() -> None:
    """People's data lies in a folder of the owner's alone, and no longer than the log is there."""
    log = hb.read(FRAMES["arrow"]())
    folder = log.paths[0].parent
    assert folder.stat().st_mode & 0o777 == 0o700
    del log
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("there-is-none.jsonl", "does not exist"),
        ([1, 2], "a list is no log"),
        (pl.DataFrame({"type": ["application"]}), "columns must be the fields of events"),
    ],
    ids=["missing", "list", "columns"],
)
def test_what_is_no_log_is_refused_in_a_line(given: Any, said: str) -> None:
    """The package's own error says what was expected."""
    with pytest.raises(LogError, match=said):
        hb.read(given)


def test_a_log_shows_its_files(tmp_path: Path) -> None:
    """A notebook shows names and sizes, escaped."""
    path = tmp_path / "<b>.jsonl"
    path.write_text("{}\n")
    shown = hb.read(path)._repr_html_()
    assert "&lt;b&gt;.jsonl" in shown
    assert "<b>" not in shown
