"""Tables and maps that cannot be used: one line says where, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.errors import ConfigError, LogError
from stream.tables.mapping import read_map
from tests.tables.kit import ACTION, ACTIONS, APPLICATION, CLOSING, SHORT, files, run
from tests.tables.oracle import Row

VALID = CLOSING.replace('closed = "closed"', 'since = "since"')


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        (
            SHORT,
            {"applications": [APPLICATION, APPLICATION]},
            r"applications.csv:3: 'a1' is in appl",
        ),
        (
            SHORT,
            {"applications": [APPLICATION, {**APPLICATION, "id": "b", "time": "soon"}]},
            r"^applications.csv:3: time: 'soon' is no time: write ISO 8601",
        ),
        (
            SHORT,
            {"actions": [{**ACTION, "time": "2024-02-01 12:00"}]},
            r"^actions.csv:2: time: '2024-02-01 12:00' has no zone: say in the map",
        ),
        (
            SHORT,
            {"actions": [{**ACTION, "time": "1950-01-01T00:00Z"}]},
            "actions.csv:2.*before 1970",
        ),
        (
            SHORT.replace('member = "member"', 'member = "membr"'),
            {},
            r"applications.csv has no column 'membr'.* as member in \[applications\]: did",
        ),
        (SHORT, {"jobs": [{"id": "j1"}]}, r"the map has no section \[jobs\]"),
        (CLOSING, {}, r"the map has a section \[jobs\]: give the table, --jobs FILE"),
        (
            VALID.replace('since = "since"', ""),
            {"jobs": [{"id": "j1"}, {"id": "j2"}, {"id": "j1"}]},
            r"jobs.csv:4: 'j1' is in jobs.csv:2 already: remove one, or let the map name",
        ),
        (
            VALID,
            {"jobs": [{"id": "j1", "since": ""}, {"id": "j1", "since": ""}]},
            r"jobs.csv:3: 'j1' is in jobs.csv:2 already: two rows may not hold from the same time",
        ),
        (
            SHORT,
            {"applications": [{**APPLICATION, "job": "j" * 257}]},
            "applications.csv:2: 'job' has",
        ),
    ],
)
def test_what_would_make_a_wrong_log_is_an_error(
    text: str, more: dict[str, list[Row]], says: str, tmp_path: Path
) -> None:
    """One line names the file, the row and what to do; nothing is written."""
    with pytest.raises(LogError, match=says) as error:
        run(tmp_path, text, files(tmp_path, **more))
    assert "\n" not in str(error.value)
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".toml"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b"id,member,job,time,value\na,b,c,d,e,f\n",
            "applications.csv:2: 6 values, where the first",
        ),
        (b"id,member,job,time,value\na,b\n", "applications.csv:2: 2 values"),
        (b'id,member,job,time,value\n"a,b,c,d,e\n', "applications.csv:2: a double quote is not"),
        (b"id,member,job,time,value\na,M\xfcller,c,d,e\n", "applications.csv:2: this is not UTF-8"),
        (b"id,member,job,time,id\n", "applications.csv:1: the column 'id' is there twice"),
        (b"", "is empty"),
        (b'{"id":"a"}\n{"id":\n', ":[23]: cannot be read: Malformed JSON"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"PAR1", "cannot be read"),
        (b"\x1f\x8bxx", "gzip"),
    ],
)
def test_files_that_are_damaged_are_named(content: bytes, says: str, tmp_path: Path) -> None:
    """Each is an error of one line that says where."""
    tables = files(tmp_path)
    tables["applications"].write_bytes(content)
    with pytest.raises(LogError, match=says) as error:
        run(tmp_path, SHORT, tables)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('time = "time"', ""), r"missing required field `time` - at `\$.applications`"),
        (('time = "time"', 'tme = "time"'), "unknown field `tme`"),
        (("[actions]", "zone = 3\n[actions]"), "unknown field `zone`"),
        (('action = "action"', 'action = "action"\nnames = { X = "hired" }'), "did you mean hire"),
        (
            ('action = "action"', 'action = "action"\nnames = { X = "hire", "x " = "note" }'),
            "'x ' twice with other actions",
        ),
        (('["value"]', '["value", "Value"]'), "would have the attribute 'value' twice"),
        (("[actions]", '[jobs]\nid = "id"\nuntil = "u"\n[actions]'), "until without since"),
        (
            ("[applications]", 'zone = "Mars/North"\n[applications]'),
            "zone 'Mars/North' is not known",
        ),
        (("[applications]", "[applications"), "map .*map.toml: "),
    ],
)
def test_a_map_that_cannot_be_meant_is_an_error(
    change: tuple[str, str], says: str, tmp_path: Path
) -> None:
    """One line names the file, the key and what is accepted."""
    (tmp_path / "map.toml").write_text(SHORT.replace(*change, 1))
    with pytest.raises(ConfigError, match=says) as error:
        read_map(tmp_path / "map.toml", ACTIONS)
    assert "\n" not in str(error.value)
