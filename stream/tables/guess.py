"""A first map, from the names and values of the columns; called by ``hearback import --guess``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import UTC
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from stream.errors import ConfigError
from stream.tables.database import Database, Progress, database
from stream.tables.sources import JSON, Source, open_table
from stream.tables.staging import text_of
from stream.tables.times import Times

_SAMPLED: Final = 5_000
_MOST_NAMES: Final = 100
_NONE: Final = "?"
_SEPARATORS: Final = ";|,"
_OFTEN: Final = 0.2

_MEMBER: Final = "member candidate applicant person user profile seeker"
_JOB: Final = "job requisition req position vacancy posting opening"
_NAMES: Final = {
    "id": "application app",
    "application": "application app",
    "member": _MEMBER,
    "job": _JOB,
    "time": "applied_at applied_on applied submitted_at submitted application_date application_time"
    " occurred_at happened_at event_time moved_at changed_at created_at created timestamp time date"
    " at",
    "action": "action stage to_stage new_stage status new_status event activity step type",
    "channel": "channel source origin utm_source",
    "since": "valid_from effective_from since from changed_at updated_at modified_at",
    "until": "valid_to valid_until effective_to until",
    "closed": "closed_at closed_on closed closing_date filled_at archived_at expired_at",
}
"""What columns are called, the likeliest first."""

_PERSONAL: Final = re.compile(
    r"(^|_)(e?mail|phone|mobile|name|firstname|lastname|surname|address|street|birth\w*|dob|url)(_|$)"
)
_AFTERWARDS: Final = re.compile(
    r"(^|_)(status|stage|outcome|result|decision|reason|hired?|reject\w*|rating|score|withdrawn|"
    r"updated|modified|closed|final)(_|$)"
)
_ACTIONS: Final = {
    "reject": r"reject|declin|unsuccessful|not selected|disqualif|absage|abgelehnt",
    "archive": r"archiv",
    "hire": r"\bhired?\b|placed|eingestellt",
    "offer": r"offer|angebot",
    "interview": r"interview|screen|on-?site|assessment|gespräch",
    "shortlist": r"short-?list",
    "message": r"messag|contact|e-?mail|replied|invit|nachricht",
    "view_profile": r"view|open(ed)? (profile|cv|resume)|(profile|cv|resume) open",
    "note": r"\bnote|comment",
    "forward": r"forward|shared",
    "skip": r"skip",
}
"""What stages are called that mean an action, the first that fits."""


class Guess(NamedTuple):
    """A map's text, and the keys for which no column was found, as ``section.key``."""

    text: str
    unknown: list[str]


class _Column(msgspec.Struct):
    """A column's name, its name in one spelling, and a sample of its values as text.

    ``rows`` are all of the sample, ``values`` those that are there.
    """

    name: str
    plain: str
    values: list[str]
    rows: list[str | None]
    times: bool
    zoned: bool
    separator: str | None


def guess_map(files: dict[str, Path], actions: Collection[str], progress: Progress) -> Guess:
    """Guess which column is what.

    Args:
        files: by table. actions: those of the label policy. progress: told of each step.

    Returns:
        The map, with comments; ``"?"`` stands for what no column looks like.

    Raises:
        LogError: a table cannot be read. ConfigError: what reads tables is not installed.

    """
    with database(next(iter(files.values())), progress) as opened:
        sources = {name: open_table(opened, path) for name, path in files.items()}
        tables = {name: _columns(opened, source) for name, source in sources.items()}
        guesser = _Guesser(opened, actions)
        lines: list[str] = []
        for name, columns in tables.items():
            lines += ["", *guesser.section(sources[name], name, columns)]
    head = ["# Which column of which table is what. This was guessed: check each line."]
    if guesser.unzoned:
        head.append(f'zone = "UTC"  # a guess: {", ".join(guesser.unzoned)} name no zone')
    return Guess("\n".join([*head, *lines, ""]), guesser.unknown)


class _Guesser:
    """Writes sections; keeps what columns have times without a zone, and what was not found."""

    def __init__(self, opened: Database, actions: Collection[str]) -> None:
        self._database, self._actions = opened, actions
        self.unzoned: list[str] = []
        self.unknown: list[str] = []

    def section(self, source: Source, name: str, columns: list[_Column]) -> list[str]:
        """Return a table's lines."""
        lines = [f"[{name}]"]
        used: list[str] = []
        found_by: dict[str, _Column] = {}
        keys = {
            "applications": ["id", "member", "job", "time", "channel"],
            "actions": ["application", "time", "action"],
            "jobs": ["id", "closed"],
            "members": ["id"],
        }[name]
        if name in {"jobs", "members"} and _repeats(_called(columns, "id", name, used)):
            keys += ["since", "until"]
        for key in keys:
            found = _called(columns, key, name, used)
            if found is not None:
                used.append(found.name)
                found_by[key] = found
                lines.append(f"{key} = {_text(found.name)}")
                if found.times and not found.zoned and key in {"time", "since", "until", "closed"}:
                    self.unzoned.append(f"{name}.{found.name}")
            elif key not in {"channel", "closed", "until"}:
                self.unknown.append(f"{name}.{key}")
                known = ", ".join(column.name for column in columns)
                lines.append(f'{key} = "{_NONE}"  # none looks like it: {known}')
        if name == "actions":
            column = found_by.get("action")
            return lines if column is None else lines + self._stages(source, column.name)
        return lines + _attributes(name, [one for one in columns if one.name not in used], found_by)

    def _stages(self, source: Source, column: str) -> list[str]:
        text = text_of(source.columns[column], source.kinds[column], "''")
        found = self._database.rows(
            f"SELECT {text} AS name, count(*) AS rows FROM {source.relation} WHERE name IS NOT NULL"
            f" GROUP BY name ORDER BY rows DESC, name LIMIT {_MOST_NAMES}"
        )
        lines, unknown = [], []
        for name, count in found:
            if name.lower() in self._actions:
                continue
            for action, pattern in _ACTIONS.items():
                if action in self._actions and re.search(
                    pattern, name.replace("_", " "), re.IGNORECASE
                ):
                    lines.append(f"{_text(name)} = {_text(action)}  # {count:,} rows")
                    break
            else:
                unknown.append(f"# {_text(name)} = {_text(_NONE)}  # {count:,} rows; left out")
        if not lines + unknown:
            return []
        known = f"# the policy has {', '.join(self._actions)}"
        return ["", "[actions.names]", *([known] if unknown else []), *lines, *unknown]


def _attributes(section: str, columns: list[_Column], keys: dict[str, _Column]) -> list[str]:
    taken: dict[str, list[str]] = {}
    lists: list[str] = []
    left: dict[str, list[str]] = {}
    for column in columns:
        reason = None
        if not column.values:
            reason = "empty"
        elif _PERSONAL.search(column.plain):
            reason = "personal"
        elif _AFTERWARDS.search(column.plain):
            reason = "perhaps written after the application"
        elif column.times and (section == "applications" or None in column.rows):
            reason = "times, perhaps of what came after the application"
        if reason is not None:
            left.setdefault(reason, []).append(column.name)
            continue
        sides = (side for side in ("member", "job") if _is_of(column, keys.get(side)))
        taken.setdefault("_".join([*islice(sides, 1), "attributes"]), []).append(column.name)
        if column.separator is not None:
            lists.append(f"{_text(column.name)} = {_text(column.separator)}")
    lines = [f"{key} = [{', '.join(map(_text, names))}]" for key, names in taken.items()]
    if lists:
        lines.append(f"lists = {{ {', '.join(lists)} }}")
    return lines + [f"# left out, {reason}: {', '.join(names)}" for reason, names in left.items()]


def _is_of(column: _Column, key: _Column | None) -> bool:
    """Tell whether a column of applications is the same in all rows of a member, or of a job."""
    if key is None:
        return False
    by_id: dict[str | None, set[str | None]] = {}
    for one, value in zip(key.rows, column.rows, strict=True):
        by_id.setdefault(one, set()).add(value)
    constant = all(len(values) == 1 for values in by_id.values())
    return constant and len(by_id) < len(key.rows) and len(set(column.rows)) > 1


def _called(
    columns: list[_Column], key: str, section: str, used: Collection[str]
) -> _Column | None:
    """Choose the column whose name is likeliest for a key, if any is likely."""
    free = [column for column in columns if column.name not in used]
    if key in {"time", "since", "until", "closed"}:
        free = [column for column in free if column.times]
    names = _NAMES[key].split()
    if key == "id" and section != "applications":
        names = _NAMES[section.removesuffix("s")].split()
    whole = [f"{name}{end}" for end in ("_id", "id", "_number", "_key", "") for name in names]
    for name in names if key in {"time", "action", "since", "until", "closed"} else whole:
        for column in free:
            if column.plain == name:
                return column
    if key == "id":
        return next((column for column in free if column.plain == "id"), None)
    if key in {"channel", "since", "until", "closed", "action"}:
        return None
    for name in names:
        for column in free:
            if column.plain.startswith(f"{name}_") or column.plain.endswith(f"_{name}"):
                return column
    return free[0] if key == "time" and len(free) == 1 else None


def _columns(opened: Database, source: Source) -> list[_Column]:
    names = list(source.columns)
    texts = [text_of(source.columns[name], source.kinds[name], "''") for name in names]
    rows = opened.rows(
        f"SELECT {', '.join(texts)} FROM {source.relation} LIMIT {_SAMPLED}",
        f"looking at {source.path.name}",
    )
    return [
        _column(name, [row[at] for row in rows], source.kinds[name])
        for at, name in enumerate(names)
    ]


def _column(name: str, rows: list[str | None], kind: str) -> _Column:
    values = [value for value in rows if value is not None]
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    plain = re.sub(r"[^\w]+", "_", plain).strip("_").lower()
    times = bool(values) and _all_times(values, Times(UTC))
    listed = times or kind.endswith("[]") or _is_list(kind, values)
    return _Column(
        name,
        plain,
        values,
        rows,
        times,
        zoned=times and _all_times(values, Times(None)),
        separator=None if listed else _separator(values),
    )


def _all_times(values: Iterable[str], times: Times) -> bool:
    with suppress(ConfigError):
        for value in values:
            if value.isdigit() and len(value) < 10:  # a number, sooner than a day
                return False
            times.read(value)
        return True
    return False


def _is_list(kind: str, values: list[str]) -> bool:
    return kind == JSON and any(value.startswith("[") for value in values)


def _separator(values: list[str]) -> str | None:
    """Choose what separates several values in a text: it is there often, between short ones."""
    for separator in _SEPARATORS:
        several = [value for value in values if separator in value]
        pieces = [piece for value in several for piece in value.split(separator)]
        # A text for people has a space after a comma, and long parts.
        short = sum(len(piece.split()) <= 3 for piece in pieces)
        if len(several) > _OFTEN * len(values) and short > 0.9 * len(pieces):
            return separator
    return None


def _repeats(column: _Column | None) -> bool:
    return column is not None and len(set(column.values)) < len(column.values)


def _text(value: str) -> str:
    """Text → string of TOML, which are those of JSON."""
    return msgspec.json.encode(value).decode()
