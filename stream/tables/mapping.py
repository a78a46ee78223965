"""The map: which column of which table is what, as a TOML file says it."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from stream.errors import ConfigError, meant
from stream.text import read_text

Names = dict[str, str]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table's columns; those that are optional are absent or empty."""

    def columns(self) -> dict[str, list[str]]:
        """Return the columns that are named, by the key that names them."""
        found: dict[str, list[str]] = {}
        for key in self.__struct_fields__:
            value = getattr(self, key)
            if key in {"names", "lists"} or not value:
                continue
            if isinstance(value, dict):
                value = list(value.values())
            found[key] = [value] if isinstance(value, str) else value
        return found


class _Described(_Table, frozen=True, kw_only=True):
    """A table with attributes.

    ``lists`` gives the separator of columns that hold several values in one text, such as
    ``python;sql``.
    """

    attributes: list[str] = []
    lists: Names = {}


class Applications(_Described, frozen=True, kw_only=True):
    """Each row an application.

    Of its columns, ``attributes`` say what is true of the application alone (they become
    ``context``), ``member_attributes`` and ``job_attributes`` what was true then of either side.
    ``terms``, by type, are the candidate's.
    """

    id: str
    member: str
    job: str
    time: str
    channel: str | None = None
    member_attributes: list[str] = []
    job_attributes: list[str] = []
    terms: Names = {}


class Actions(_Table, frozen=True, kw_only=True):
    """Each row something that a recruiter did; ``names`` gives what it is called → the action."""

    application: str
    time: str
    action: str
    id: str | None = None
    channel: str | None = None
    names: Names = {}


class Jobs(_Described, frozen=True, kw_only=True):
    """Each row a job, or what was true of one from ``since`` on, to before ``until``."""

    id: str
    since: str | None = None
    until: str | None = None
    closed: str | None = None


class Members(_Described, frozen=True, kw_only=True):
    """Each row a member, or what was true of one from ``since`` on, to before ``until``."""

    id: str
    since: str | None = None
    until: str | None = None
    terms: Names = {}


class Map(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it.

    Attributes:
        zone: of times that name none, such as ``Europe/Berlin``.
        missing: texts that stand for nothing, beside the empty one.

    """

    applications: Applications
    actions: Actions
    jobs: Jobs | None = None
    members: Members | None = None
    zone: str | None = None
    missing: list[str] = []


TIMES: Final = ("time", "since", "until", "closed")
"""Keys that name columns of times."""


def read_map(path: Path, actions: Collection[str]) -> Map:
    """Read a map; called by ``hearback import``.

    Args:
        path: the file. actions: those of the label policy.

    Raises:
        ConfigError: it cannot be read, or names what there is not.

    """
    try:
        document = tomllib.loads(read_text(path))
        found = msgspec.convert(document, Map)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"map {path}: {why}") from None
    except ConfigError as error:
        raise ConfigError(f"map {path}: {error}") from None
    _check(found, path, actions)
    return found


def zone_of(mapping: Map) -> tzinfo | None:
    """Zone of times that name none.

    Raises:
        ConfigError: there is no such zone.

    """
    if mapping.zone is None:
        return None
    if mapping.zone.upper() in {"UTC", "Z"}:
        return UTC
    try:
        return ZoneInfo(mapping.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f"zone {mapping.zone!r} is not known: give a name such as Europe/Berlin or UTC"
        ) from None


def _check(found: Map, path: Path, actions: Collection[str]) -> None:
    zone_of(found)
    seen: dict[str, str] = {}
    for name, action in found.actions.names.items():
        if action not in actions:
            raise ConfigError(
                f"map {path}: [actions.names] has {name!r} = {action!r}, an action that the policy"
                f" does not list{meant(action, actions)}"
            )
        if seen.setdefault(name.strip().lower(), action) != action:
            raise ConfigError(f"map {path}: [actions.names] has {name!r} twice with other actions")
    for section in ("jobs", "members"):
        table = getattr(found, section)
        if table is not None and table.until and not table.since:
            raise ConfigError(
                f"map {path}: [{section}] has until without since: name the column of the time from"
                " which a row holds"
            )
    for what, names in _attributes(found).items():
        lower = [name.lower() for name in names]
        twice = [name for name in names if lower.count(name.lower()) > 1]
        if twice:
            raise ConfigError(
                f"map {path}: {what} would have the attribute {twice[0]!r} twice: rename a column,"
                " or leave one out"
            )


def _attributes(found: Map) -> dict[str, list[str]]:
    jobs = [] if found.jobs is None else found.jobs.attributes
    members = [] if found.members is None else found.members.attributes
    return {
        "the application": found.applications.attributes,
        "the job": found.applications.job_attributes + jobs,
        "the member": found.applications.member_attributes + members,
    }
