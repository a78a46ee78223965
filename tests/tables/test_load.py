"""Tables become the log that a plain join of dictionaries makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tables.kit import rows_of, run
from tests.tables.oracle import FORMATS, Row, events, spelled, without_nothing, write

NAMES = {"Phone, screen": "interview", "Absage": "reject"}

MAP = """
zone = "Europe/Berlin"
missing = ["n/a"]

[applications]
id = "Application"
member = "member"
job = "job"
time = "applied at"
channel = "channel"
attributes = ["device"]

[actions]
id = "id"
application = "application"
time = "time"
action = "stage"
names = { "Phone, screen" = "interview", "absage " = "reject" }

[jobs]
id = "id"
since = "since"
until = "until"
attributes = ["title", "pay"]

[members]
id = "id"
since = "since"
until = "until"
attributes = ["skills"]
terms = { skill = "skills" }
lists = { skills = ";" }
"""

# Round the changes of clocks in Berlin, 2024-03-31 and 2024-10-27 at 01:00 UTC, and not in them.
CHANGES_MS = (1_711_846_800_000, 1_729_990_800_000)
HOUR_MS = 3_600_000
times = st.builds(
    lambda change, hours, seconds: change + hours * HOUR_MS + 1000 * seconds,
    st.sampled_from(CHANGES_MS),
    st.sampled_from([-30, -3, 2, 30]),
    st.integers(0, 20),
)
spellings = st.sampled_from(["zulu", "offset", "milliseconds", "seconds", "local"])
ids = st.sampled_from(["007", "a,b", 'q"x"', "zwei\nZeilen", "ü;ß", "1e5", "-1", "Ä"])
entities = st.sampled_from(["m;1", "02", "x"])
channels = st.none() | st.sampled_from(["web", "'; DROP TABLE jobs"])
skills = st.none() | st.lists(st.sampled_from(["sql", "c++", "Größe", "0"]), min_size=1, max_size=3)


def sides(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Row]]:
    """Rows of jobs or members; at most one of each holds from the same time on."""
    row = st.fixed_dictionaries(
        {"id": entities, "since": st.none() | times, "until": st.none() | times, **more}
    )
    return st.lists(row, max_size=5, unique_by=lambda row: (row["id"], row["since"] or -1))


applications_of = st.lists(
    st.fixed_dictionaries(
        {
            "id": ids,
            "member": st.none() | entities,
            "job": entities,
            "time": st.none() | times,
            "channel": channels,
            "device": st.none() | st.sampled_from(["phone", "Möbel, 3"]),
        }
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row["id"],
)
actions_of = st.lists(
    st.fixed_dictionaries(
        {
            "application": ids,
            "time": st.none() | times,
            "action": st.none() | st.sampled_from([*NAMES, "hire", "Pool", "moved; away"]),
        }
    ),
    min_size=1,
    max_size=6,
)


def in_file(rows: Sequence[Row], names: dict[str, str], how: list[str]) -> list[Row]:
    """Rows as a file has them: columns renamed, times spelled each in its way."""
    ways = iter(how * (3 * len(rows) + 1))
    found: list[Row] = []
    for row in rows:
        spell = {
            key: None if row[key] is None else spelled(row[key], next(ways))
            for key in ("time", "since", "until")
            if key in row
        }
        found.append({names.get(key, key): value for key, value in {**row, **spell}.items()})
    return found


@settings(max_examples=15)
@given(st.data())
def test_the_log_is_that_of_a_plain_join(data: st.DataObject) -> None:
    """Formats, spellings of times, validity and missing rows: the events, and their order."""
    applications, actions = data.draw(applications_of), data.draw(actions_of)
    jobs = data.draw(
        sides(title=st.none() | st.just("Köchin"), pay=st.none() | st.integers(-9, 9_000))
    )
    members = data.draw(sides(skills=skills))
    actions = [{**row, "id": f"e{at}"} for at, row in enumerate(actions)]
    how = data.draw(st.lists(spellings, min_size=1, max_size=5))
    formats = data.draw(st.lists(st.sampled_from(FORMATS), min_size=4, max_size=4))
    renamed = {"id": "Application", "time": "applied at"}
    tables: dict[str, list[Row]] = {
        "applications": in_file(applications, renamed, how),
        "actions": in_file(actions, {"action": "stage"}, how),
        "jobs": in_file(jobs, {}, how),
        "members": in_file(members, {}, how),
    }
    empty = {"id": "nobody", "since": None, "until": None}
    tables["jobs"] = tables["jobs"] or [{**empty, "title": "x", "pay": 1}]
    tables["members"] = tables["members"] or [{**empty, "skills": ["x"]}]
    with TemporaryDirectory() as name:
        folder = Path(name)
        files = {
            table: write(folder, table, rows, one)
            for (table, rows), one in zip(tables.items(), formats, strict=True)
        }
        log, told = run(folder, MAP, files)
        expected = events(applications, actions, jobs, members, {**NAMES, "hire": "hire"})
        assert rows_of(log) == [without_nothing(event) for event in expected]
    assert sum(told.written.values()) == len(expected)
    assert told.read == {table: len(rows) for table, rows in tables.items()}
    unmapped = [row["action"] for row in actions if row["action"] in {"Pool", "moved; away"}]
    assert told.unmapped == {one: unmapped.count(one) for one in unmapped}
    lost = told.read["applications"] - told.written.get("application", 0)
    without = [key for key in told.left_out if key.startswith("applications without")]
    assert bool(without) == bool(lost)
