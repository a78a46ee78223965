"""Make the tables in this folder: three files of CSV of an invented company.

    python examples/tables.py examples
    python examples/tables.py FOLDER members=3450 jobs=2000     # a larger company

They hold what ``hearback simulate --attributes`` simulates, as an applicant tracking system exports
it: times in Berlin without saying so, stages with names of their own, skills in one cell.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from producers.simulate import lively, simulate

MARKET: Final = {
    "members": 140,
    "jobs": 60,
    "days": 90,
    "applications_per_member": 30.0,
    # Preferences wider apart than usual: so few applications then show what there is to learn.
    "global_sd": 1.3,
    "precision_member": 0.8,
    "precision_job": 1.2,
}
_STAGES: Final = {
    "view_profile": "Profile opened",
    "message": "Candidate contacted",
    "shortlist": "Shortlisted",
    "interview": "Phone screen",
    "offer": "Offer sent",
    "hire": "Hired",
    "reject": "Rejected",
    "archive": "Archived",
    "skip": "Skipped",
    "note": "Note added",
    "forward": "Forwarded to team",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BERLIN: Final = ZoneInfo("Europe/Berlin")
_OF_CANDIDATE: Final = ("title", "skills", "years", "city", "joined")
_OF_JOB: Final = ("title", "skills", "years", "pay", "city", "posted", "language")


def write(folder: Path, market: dict[str, Any]) -> None:
    """Write the tables of a market into a folder."""
    start = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
    settings = lively(seed=5, start_ms=start, attributes=True, **market)
    events = [msgspec.json.decode(line) for line in simulate(settings)]
    jobs: dict[str, dict[str, Any]] = {}
    applications: dict[str, list[Any]] = {}
    actions: dict[str, list[Any]] = {}
    for event in events:
        if event["type"] == "application":
            jobs.setdefault(event["job_id"], {**event["job"], "closed_on": ""})
            applications[event["application_id"]] = [
                *(event["application_id"], event["member_id"], event["job_id"]),
                *(_local(event["event_time_ms"]), event.get("channel", "")),
                *_cells(event["context"] | event["member"], ("device", *_OF_CANDIDATE)),
            ]
        elif event["type"] == "engagement":
            stage = _STAGES[event["action"]]
            actions[event["engagement_id"]] = [
                *(event["application_id"], _local(event["event_time_ms"]), stage)
            ]
    for event in events:
        if event["type"] == "job" and event["job_id"] in jobs:
            jobs[event["job_id"]]["closed_on"] = _local(event["event_time_ms"])
    columns = ("application_id", "candidate_id", "job_id", "applied_at", "source", "device")
    _write(folder / "applications.csv", (*columns, *_OF_CANDIDATE), applications.values())
    _write(folder / "actions.csv", ("application_id", "at", "stage"), actions.values())
    rows = ([name, *_cells(job, (*_OF_JOB, "closed_on"))] for name, job in sorted(jobs.items()))
    _write(folder / "jobs.csv", ("job_id", *_OF_JOB, "closed_on"), rows)


def _cells(values: dict[str, Any], names: Iterable[str]) -> list[Any]:
    found = (values.get(name, "") for name in names)
    return [";".join(value) if isinstance(value, list) else value for value in found]


def _local(time_ms: int) -> str:
    moment = (_EPOCH + timedelta(milliseconds=time_ms)).astimezone(_BERLIN)
    return moment.replace(tzinfo=None).isoformat(" ", timespec="seconds")


def _write(path: Path, columns: Iterable[str], rows: Iterable[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


if __name__ == "__main__":
    asked = dict(each.split("=") for each in sys.argv[2:])
    write(Path(sys.argv[1]), MARKET | {name: int(value) for name, value in asked.items()})
