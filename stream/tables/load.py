"""Tables → a log: joined as of the time of application, sorted by time, counted.

What is left out is counted by its reason, and actions that the map does not name are named. What
would make a wrong log (an id that is there twice, a time that cannot be read) is an error.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

import msgspec

from stream.errors import LogError
from stream.logs import parquet
from stream.logs.files import write_lines
from stream.tables.database import Database, Progress, database
from stream.tables.mapping import Map, zone_of
from stream.tables.sources import Source, open_table, quoted
from stream.tables.staging import Staged
from stream.tables.times import Times

TABLES: Final = ("applications", "actions", "jobs", "members")
"""Sections of a map, each a table."""

_COMPLETE: Final = "id IS NOT NULL AND member IS NOT NULL AND job IS NOT NULL AND time IS NOT NULL"


class Imported(msgspec.Struct):
    """What became of the tables' rows.

    Attributes:
        read: rows, by table. written: events, by type.
        joined: applications for which a row was found that held at their time, by table.
        left_out: rows (of applications: what was not found) by the reason.
        unmapped: rows of actions by what they are called, where the map and the policy do not say
            what that means.
        notes: what is odd, a line each.

    """

    read: dict[str, int] = {}
    written: dict[str, int] = {}
    joined: dict[str, int] = {}
    left_out: dict[str, int] = {}
    unmapped: dict[str, int] = {}
    notes: list[str] = []


def import_tables(
    files: dict[str, Path],
    mapping: Map,
    actions: Collection[str],
    out: Path,
    progress: Progress,
    limit: int | None = None,
) -> Imported:
    """Read tables and write a log; called by ``hearback import``.

    Args:
        files: by table, ``applications`` and ``actions`` among them.
        mapping: which column is what. actions: those of the label policy, which need no name.
        out: the log: Parquet, or JSON lines, as its suffix says. It appears when it is complete.
        progress: told of each step. limit: read so many rows of each table.

    Raises:
        LogError: a table cannot be read, or would make a wrong log.
        ConfigError: what reads tables is not installed.

    """
    with database(out, progress) as opened:
        return _Import(opened, files, mapping, actions, limit).write(out)


class _Import:
    def __init__(
        self,
        opened: Database,
        files: dict[str, Path],
        mapping: Map,
        actions: Collection[str],
        limit: int | None,
    ) -> None:
        self._database = opened
        self._map = mapping
        self._done = Imported()
        times = Times(zone_of(mapping))
        opened.connection.create_function(
            "time_ms", times.read_all, ["VARCHAR"], "BIGINT", type="arrow", null_handling="special"
        )
        sources: dict[str, Source] = {
            name: open_table(opened, path) for name, path in files.items()
        }
        self._tables: dict[str, Staged] = {}
        for name, source in sources.items():
            if getattr(mapping, name) is None:
                raise LogError(f"{source.path.name} is given, but the map has no section [{name}]")
            staged = Staged(opened, source, name, mapping, times, limit)
            self._tables[name] = staged
            self._done.read[name] = staged.rows
            self._done.notes += staged.notes
        for name in TABLES:
            if name not in files and getattr(mapping, name) is not None:
                raise LogError(f"the map has a section [{name}]: give the table, --{name} FILE")
        if times.doubtful:
            self._done.notes.append(
                f"{times.doubtful:,} times lie in an hour that the clocks of {mapping.zone} have"
                " twice, or skip: taken as before the clocks were changed"
            )
        self._applications()
        for name in ("jobs", "members"):
            if name in self._tables:
                self._side(name)
        self._actions(actions)
        if "closed" in self._columns("jobs"):
            self._closings()

    def write(self, out: Path) -> Imported:
        """Write the log."""
        partial = out if out.suffix in parquet.SUFFIXES else self._database.folder / "log.parquet"
        partial = partial.with_name(partial.name + ".part")
        try:
            self._database.rows(
                f"COPY ({self._events()}) TO {quoted(str(partial))} (FORMAT parquet, COMPRESSION"
                " zstd, ROW_GROUP_SIZE 65536)",
                "joining and sorting",
            )
            for kind, count in self._database.rows(
                f"SELECT type, count(*) FROM read_parquet({quoted(str(partial))})"
                " GROUP BY type ORDER BY type"
            ):
                self._done.written[kind] = count
            lost = self._understood - self._done.written.get("engagement", 0)
            self._count("actions on applications that are not there", lost)
            if out.suffix in parquet.SUFFIXES:
                partial.replace(out)
            else:
                write_lines(out, (row for row in parquet.rows(partial) if isinstance(row, bytes)))
        finally:
            partial.unlink(missing_ok=True)
        return self._done

    def _columns(self, name: str) -> dict[str, str]:
        return self._tables[name].columns if name in self._tables else {}

    def _count(self, reason: str, count: int) -> None:
        if count:
            self._done.left_out[reason] = count

    def _applications(self) -> None:
        table = self._tables["applications"]
        self._unique(table, "k_id", "an application's id must be its own: remove one")
        self._database.rows(
            "CREATE VIEW complete AS SELECT * FROM (SELECT rowid AS row, k_id AS id, k_member AS"
            f" member, k_job AS job, t_time AS time, * FROM applications) WHERE {_COMPLETE}"
        )
        for key in ("id", "member", "job", "time"):
            self._count(f"applications without a value of {key}", table.without(key))

    def _unique(self, table: Staged, key: str, what: str) -> None:
        first = key.split(",", maxsplit=1)[0]
        found = self._database.rows(
            f"SELECT {first}, min(rowid) AS one, max(rowid) FROM {table.name}"
            f" WHERE {first} IS NOT NULL GROUP BY {key} HAVING count(*) > 1 ORDER BY one LIMIT 1"
        )
        for value, one, other in found:
            raise LogError(f"{table.at(other)}: {value!r} is in {table.at(one)} already: {what}")

    def _side(self, name: str) -> None:
        """Make a view of jobs or members, by id and the time from which a row holds."""
        table = self._tables[name]
        since = "coalesce(t_since, -1)" if "since" in table.columns else "-1"
        until = "t_until" if "until" in table.columns else "NULL::BIGINT"
        if "since" in table.columns:
            self._unique(table, f"k_id, {since}", "two rows may not hold from the same time on")
        else:
            which = "remove one, or let the map name the column of the time from which a row holds"
            self._unique(table, "k_id", f"{which}, since = ...")
        self._database.rows(
            f"CREATE VIEW {name}_then AS SELECT *, k_id AS id, {since} AS since, {until} AS until"
            f" FROM {name} WHERE k_id IS NOT NULL"
        )
        self._count(f"{name} without a value of id", table.without("id"))
        found, other = self._database.row(
            f"SELECT count(*) FILTER ({_holds(name)}), count(*) FILTER (NOT {_holds(name)})"
            f" FROM complete a {_as_of(name)}"
        )
        self._done.joined[name] = found
        self._count(f"{name} that applications name, but no row held then", other)

    def _actions(self, actions: Collection[str]) -> None:
        names = {action.lower(): action for action in actions}
        names |= {name.strip().lower(): action for name, action in self._map.actions.names.items()}
        connection = self._database.connection
        connection.execute("CREATE TABLE names (name VARCHAR, action VARCHAR)")
        connection.executemany("INSERT INTO names VALUES (?, ?)", list(names.items()))
        table = self._tables["actions"]
        has_id, has_channel = "id" in table.columns, "channel" in table.columns
        # Without ids of their own, the same twice is the same event.
        own = "k_id" if has_id else "concat_ws('-', action, t_time, left(md5(k_application), 16))"
        self._database.rows(
            "CREATE VIEW understood AS SELECT x.rowid AS row, k_application, t_time, action,"
            f" {own} AS id, {'k_channel' if has_channel else 'NULL::VARCHAR'} AS channel FROM"
            " actions x JOIN names ON lower(k_action) = names.name WHERE t_time IS NOT NULL"
            f" AND k_application IS NOT NULL AND {'k_id' if has_id else 'true'} IS NOT NULL"
        )
        for value, count in self._database.rows(
            "SELECT k_action, count(*) AS rows FROM actions WHERE lower(k_action) NOT IN"
            " (SELECT name FROM names) GROUP BY k_action ORDER BY rows DESC, k_action"
        ):
            self._done.unmapped[value] = count
        self._count("actions that are not mapped", sum(self._done.unmapped.values()))
        for key in ("application", "action", "time", *(["id"] if has_id else [])):
            self._count(f"actions without a value of {key}", table.without(key))
        (self._understood,) = self._database.row("SELECT count(*) FROM understood")

    def _closings(self) -> None:
        """Take closings up to the last event: one that is planned for later has not happened."""
        (last_ms,) = self._database.row(
            "SELECT max(t) FROM (SELECT max(time) AS t FROM complete"
            " UNION ALL SELECT max(t_time) FROM understood)"
        )
        applied = "k_id IN (SELECT job FROM complete)"
        past = f"t_closed <= {last_ms or 0}"
        self._database.rows(
            "CREATE TABLE closings AS SELECT k_id AS job_id, t_closed AS event_time_ms, min(rowid)"
            f" AS row FROM jobs WHERE {past} AND {applied} GROUP BY ALL"
        )
        later, unknown = self._database.row(
            f"SELECT count(*) FILTER (NOT {past}), count(*) FILTER ({past} AND NOT {applied})"
            " FROM jobs WHERE k_id IS NOT NULL AND t_closed IS NOT NULL"
        )
        self._count("closings after the last event", later)
        self._count("closings of jobs that nobody applied for", unknown)

    def _events(self) -> str:
        """Query of all events, in order."""
        parts = [
            self._application_rows(),
            "SELECT 1 AS rank, x.row AS row, 'engagement' AS type, x.t_time AS event_time_ms, a.id"
            " AS application_id, a.member AS member_id, a.job AS job_id, x.id AS engagement_id,"
            " x.action AS action, x.channel AS channel FROM understood x"
            " JOIN complete a ON x.k_application = a.id",
        ]
        if "closed" in self._columns("jobs"):
            parts.append(
                "SELECT 2 AS rank, row, 'job' AS type, event_time_ms, job_id,"
                " concat_ws('-', 'closed', event_time_ms, left(md5(job_id), 16)) AS job_event_id,"
                " 'closed' AS action FROM closings"
            )
        return (
            f"SELECT * EXCLUDE (rank, row) FROM ({' UNION ALL BY NAME '.join(parts)})"
            " ORDER BY event_time_ms, rank, row"
        )

    def _application_rows(self) -> str:
        applications = self._map.applications
        own = self._tables["applications"]
        fields = {
            "context": own.attributes(applications.attributes),
            "member": own.attributes(applications.member_attributes),
            "job": own.attributes(applications.job_attributes),
            "terms": own.terms(),
        }
        joins = ""
        for name, side in (("jobs", "job"), ("members", "member")):
            section = getattr(self._map, name)
            if section is None:
                continue
            table = self._tables[name]
            joins += f" {_as_of(name)}"
            fields[side] |= _while_held(name, table.attributes(section.attributes))
            if name == "members":
                fields["terms"] |= _while_held(name, table.terms())
        structs = "".join(
            f", {{{', '.join(f'{quoted(key)}: {value}' for key, value in of.items())}}} AS {name}"
            for name, of in fields.items()
            if of
        )
        channel = ", a.k_channel AS channel" if "channel" in own.columns else ""
        return (
            "SELECT 0 AS rank, a.row AS row, 'application' AS type, a.time AS event_time_ms,"
            f" a.id AS application_id, a.member AS member_id, a.job AS job_id{structs}{channel}"
            f" FROM complete a{joins}"
        )


def _as_of(name: str) -> str:
    """Join a view of jobs or members with the applications ``a``."""
    side = name.removesuffix("s")
    return f"ASOF LEFT JOIN {name}_then {name} ON a.{side} = {name}.id AND a.time >= {name}.since"


def _holds(name: str) -> str:
    """Condition: a row was found, and holds still at the time of application."""
    return f"({name}.id IS NOT NULL AND ({name}.until IS NULL OR a.time < {name}.until))"


def _while_held(name: str, values: dict[str, str]) -> dict[str, str]:
    return {key: f"CASE WHEN {_holds(name)} THEN {value} END" for key, value in values.items()}
