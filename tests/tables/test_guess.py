"""``hearback import --guess``: a first map from the names and values of columns."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stream.tables.guess import guess_map
from stream.tables.mapping import read_map
from tests.tables.kit import ACTIONS, rows_of, run
from tests.tables.oracle import FORMATS, Row, write

APPLICATIONS = [
    {
        "ApplicationId": f"a{at}",
        "Candidate": f"c{at % 3}",
        "Requisition": f"r{at % 2}",
        "Applied At": f"2024-01-0{at + 1} 09:00:00",
        "Source": "web",
        "Email": "x@example.com",
        "Final status": "hired",
        "Years": at % 3,
        "Skills": ["sql", "excel"] if at % 3 else ["java"],
        "Cover letter": at * 7,
    }
    for at in range(6)
]
ACTED = [
    {"application": "a1", "occurred_at": "2024-01-09T10:00:00Z", "stage": stage}
    for stage in ("Phone screen", "Rejected by manager", "Talent pool", "hire", "Absage")
]
JOBS = [
    {"requisition_id": f"r{at}", "title": "Cook", "closed_at": closed, "posted": "2023-12-01"}
    for at, closed in enumerate(["2024-01-08", None])
]


def guessed(folder: Path, how: str = "csv", **more: Sequence[Row]) -> tuple[str, list[str], Any]:
    """Guess a map of tables; return it, what was not found, and the files."""
    tables: dict[str, Sequence[Row]] = {
        "applications": APPLICATIONS,
        "actions": ACTED,
        "jobs": JOBS,
        **more,
    }
    files = {name: write(folder, name, rows, how) for name, rows in tables.items()}
    guess = guess_map(files, ACTIONS, lambda _what, _share: None)
    return guess.text, guess.unknown, files


@pytest.mark.parametrize("how", FORMATS)
def test_columns_are_found_by_their_names_and_values(how: str, tmp_path: Path) -> None:
    """In every format: keys, sides, lists, zone and stages; and what is left out is named."""
    text, unknown, files = guessed(tmp_path, how)
    assert unknown == []
    found = tomllib.loads(text)
    lists = {"lists": {"Skills": ";"}} if "csv" in how else {}
    assert found["applications"] == {
        "id": "ApplicationId",
        "member": "Candidate",
        "job": "Requisition",
        "time": "Applied At",
        "channel": "Source",
        "attributes": ["Cover letter"],
        "member_attributes": sorted(["Years", "Skills"], key=text.index),
        **lists,
    }
    assert found["actions"] == {
        "application": "application",
        "time": "occurred_at",
        "action": "stage",
        "names": {
            "Absage": "reject",
            "Phone screen": "interview",
            "Rejected by manager": "reject",
        },
    }
    assert found["jobs"] == {
        "id": "requisition_id",
        "closed": "closed_at",
        "attributes": sorted(["title", "posted"], key=text.index),
    }
    assert found["zone"] == "UTC"
    for line in (
        "# left out, personal: Email",
        '# "Talent pool" = "?"',
        "the application: Final",
    ):
        assert line in text
    log, told = run(tmp_path, text, files)
    assert told.written == {"application": 6, "engagement": 4, "job": 1}
    first = rows_of(log)[0]
    assert first["member"] == {"Years": 0, "Skills": ["java"]}
    assert first["job"] == {"title": "Cook", "posted": "2023-12-01"}


def test_what_no_column_looks_like_is_asked_for(tmp_path: Path) -> None:
    """A key without a column stands as a question, which the import refuses by name."""
    text, unknown, _ = guessed(tmp_path, actions=[{"application": "a1", "x": "2024", "y": "hire"}])
    assert unknown == ["actions.time", "actions.action"]
    assert 'time = "?"  # none looks like it: application, x, y' in text


def test_jobs_that_change_have_a_time_from_which_they_hold(tmp_path: Path) -> None:
    """Only where an id is there more than once."""
    jobs = [{"job_id": "r1", "valid_from": f"2024-01-0{at}T00:00Z", "pay": at} for at in (1, 5)]
    text, _, _ = guessed(tmp_path, jobs=jobs)
    (tmp_path / "map.toml").write_text(text)
    found = read_map(tmp_path / "map.toml", ACTIONS).jobs
    assert found is not None
    assert (found.id, found.since, found.attributes) == ("job_id", "valid_from", ["pay"])
    text, _, _ = guessed(tmp_path, jobs=jobs[:1])
    assert tomllib.loads(text)["jobs"]["attributes"] == ["valid_from", "pay"]
