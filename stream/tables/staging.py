"""A table's file → a table of the database, with the columns that the map names, checked.

Of each row: ``k_KEY`` the text in the column that the map names as KEY, ``t_KEY`` a time in
milliseconds since 1970, ``SECTION_N`` an attribute as the file has it. Texts are stripped; empty
ones, and those that the map calls missing, are null.
"""

from __future__ import annotations

from typing import Any, Final

from stream.errors import ConfigError, LogError
from stream.events.structs import MAX_ID_CHARS
from stream.tables.database import Database
from stream.tables.mapping import TIMES, Map
from stream.tables.sources import JSON, TEXT, UNTYPED, Source, quoted, why
from stream.tables.times import UNREADABLE, Times

_DESCRIBING: Final = ("attributes", "member_attributes", "job_attributes", "terms")
_WHOLE: Final = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_FLOATS: Final = ("FLOAT", "DOUBLE", "DECIMAL", "HUGEINT", "UBIGINT", "UHUGEINT")
_NUMBER: Final = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_CODE: Final = "[+-]?0[0-9].*"  # a leading zero: a postcode, no number
_DIGITS: Final = "[+-]?[0-9]{1,15}"
_MOSTLY: Final = 0.9


class Staged:
    """A table of the database.

    Attributes:
        name: the section's. source: its file. rows: how many it has.
        notes: what is odd about its columns, a line each.

    """

    def __init__(
        self,
        database: Database,
        source: Source,
        name: str,
        mapping: Map,
        times: Times,
        limit: int | None = None,
    ) -> None:
        """Read the file.

        Raises:
            LogError: it cannot be read, has not what the map names, or has what is no time or id.

        """
        self.name, self.source = name, source
        self._database, self._times = database, times
        self._table = getattr(mapping, name)
        self.columns: dict[str, str] = {}
        self._attributes: dict[str, str] = {}
        self.notes: list[str] = []
        missing = ", ".join(quoted(text) for text in ["", *mapping.missing])
        selected = []
        for key, names in self._table.columns().items():
            for column in names:
                expression = source.column(column, name, key)
                if key in _DESCRIBING:
                    if column in self._attributes:
                        continue
                    self._attributes[column] = f"{name}_{len(self._attributes)}"
                    value = self._native(column, expression, missing)
                    selected.append(f"{value} AS {self._attributes[column]}")
                    continue
                text = text_of(expression, source.kinds[column], missing)
                own = f"{'t' if key in TIMES else 'k'}_{key}"
                self.columns[key] = own
                selected.append(f"{f'time_ms({text})' if key in TIMES else text} AS {own}")
        rows = f"SELECT {', '.join(selected)} FROM {source.relation}" + (
            "" if limit is None else f" LIMIT {limit}"
        )
        try:
            database.rows(f"CREATE TABLE {name} AS {rows}", f"reading {source.path.name}")
        except database.errors as error:
            raise LogError(why(error, source)) from None
        self.rows: int = database.row(f"SELECT count(*) FROM {name}")[0]
        self._check(missing)
        self._typed = self._types()

    def attributes(self, columns: list[str]) -> dict[str, str]:
        """Columns → expressions of their values."""
        return {column: self._typed[column] for column in columns}

    def terms(self) -> dict[str, str]:
        """Types of terms → expressions of their lists."""
        return {kind: self._listed(column) for kind, column in self._table.terms.items()}

    def without(self, key: str) -> int:
        """Count rows in which the column of a key is empty."""
        own = self.columns[key]
        found: int = self._database.row(f"SELECT count(*) FROM {self.name} WHERE {own} IS NULL")[0]
        return found

    def at(self, row: int) -> str:
        """Name a row in a message."""
        return self.source.at(row)

    def first(self, condition: str) -> Any:
        """Return the number of the first row of which a condition holds, or None."""
        return self._database.row(f"SELECT min(rowid) FROM {self.name} WHERE {condition}")[0]

    def _check(self, missing: str) -> None:
        for key, own in self.columns.items():
            (column,) = self._table.columns()[key]
            if own.startswith("k_"):
                if key == "action":
                    continue
                row = self.first(f"length({own}) > {MAX_ID_CHARS}")
                if row is not None:
                    raise LogError(
                        f"{self.at(row)}: {column!r} has more than {MAX_ID_CHARS} characters: name"
                        f" the right column as {key} of [{self.name}]"
                    )
                continue
            row = self.first(f"{own} = {UNREADABLE}")
            if row is None:
                continue
            text = text_of(self.source.columns[column], self.source.kinds[column], missing)
            (found,) = self._database.row(
                f"SELECT {text} FROM {self.source.relation} LIMIT 1 OFFSET {row}"
            )
            try:
                self._times.read(found)
            except ConfigError as error:
                raise LogError(f"{self.at(row)}: {column}: {error}") from None

    def _native(self, column: str, expression: str, missing: str) -> str:
        kind = self.source.kinds[column]
        if kind in {TEXT, UNTYPED}:
            return text_of(expression, kind, missing)
        if kind == JSON:
            # As text it is null, too, where it is the null of JSON.
            return f"CASE WHEN ({expression} ->> '$') NOT IN ({missing}) THEN {expression} END"
        if kind.startswith(_FLOATS):
            number = f"{expression}::DOUBLE"
            return f"CASE WHEN isfinite({number}) THEN {number} END"
        if kind.endswith("[]") and kind.count("[") == 1:
            return f"{expression}::VARCHAR[]"
        if kind == "TIMESTAMP WITH TIME ZONE":
            return f"strftime({expression}::TIMESTAMP, '%Y-%m-%dT%H:%M:%S.%gZ')"
        if kind.startswith("TIMESTAMP"):
            return f"strftime({expression}::TIMESTAMP, '%Y-%m-%dT%H:%M:%S.%g')"
        if kind == "DATE":
            return f"{expression}::VARCHAR"
        if kind == "BOOLEAN" or kind in _WHOLE:
            return expression
        raise LogError(
            f"{self.source.path.name}: the attribute {column!r} holds {kind[:40]}: an attribute is"
            " a number, a text, a truth value, a time or a list of texts; leave it out of the map"
        )

    def _types(self) -> dict[str, str]:
        """Columns of attributes → expressions of one type each."""
        typed = {}
        for column, own in self._attributes.items():
            kind = self.source.kinds[column]
            if column in self._table.lists or kind.endswith("[]"):
                typed[column] = self._listed(column)
            elif kind == UNTYPED:
                typed[column] = self._of_text(column, own)
            elif kind == JSON:
                typed[column] = self._of_json(column, own)
            else:
                typed[column] = own
        return typed

    def _of_text(self, column: str, own: str) -> str:
        number = (
            f"regexp_full_match({own}, {quoted(_NUMBER)}) AND NOT"
            f" regexp_full_match({own}, {quoted(_CODE)}) AND isfinite(TRY_CAST({own} AS DOUBLE))"
        )
        values, numbers, whole, other = self._database.row(
            f"SELECT count({own}), count(*) FILTER ({number}),"
            f" count(*) FILTER (regexp_full_match({own}, {quoted(_DIGITS)})),"
            f" min({own}) FILTER (NOT coalesce({number}, false)) FROM {self.name}"
        )
        if not values:
            self.notes.append(f"{self.source.path.name}: the attribute {column!r} is always empty")
        if numbers < values or not values:
            if values > numbers > _MOSTLY * values:
                self.notes.append(
                    f"{self.source.path.name}: {column!r} is a number in {numbers:,} of"
                    f" {values:,} rows, but not {str(other)[:40]!r}: all of it counts as text,"
                    " unless the map lists what stands for nothing as missing"
                )
            return own
        return f"{own}::{'BIGINT' if whole == values else 'DOUBLE'}"

    def _of_json(self, column: str, own: str) -> str:
        kinds = {
            kind
            for (kind,) in self._database.rows(f"SELECT DISTINCT json_type({own}) FROM {self.name}")
            if kind not in {None, "NULL"}
        }
        if "OBJECT" in kinds:
            row = self.first(f"json_type({own}) = 'OBJECT'")
            raise LogError(
                f"{self.at(row)}: the attribute {column!r}"
                " is an object: leave it out of the map, or write its fields as columns"
            )
        if kinds <= {"BIGINT", "UBIGINT", "DOUBLE"} and kinds:
            return f"({own} ->> '$')::{'DOUBLE' if 'DOUBLE' in kinds else 'HUGEINT'}"
        if kinds == {"BOOLEAN"}:
            return f"({own} ->> '$')::BOOLEAN"
        if "ARRAY" in kinds:
            return self._listed(column)
        if len(kinds) > 1:
            self.notes.append(
                f"{self.source.path.name}: {column!r} holds values of several kinds"
                f" ({', '.join(sorted(kinds)).lower()}): all of them count as text"
            )
        return f"({own} ->> '$')"

    def _listed(self, column: str) -> str:
        """Expression of a column's values as a list of texts, stripped, without empty ones."""
        own, kind = self._attributes[column], self.source.kinds[column]
        separator = self._table.lists.get(column)
        text = f"({own} ->> '$')" if kind == JSON else f"{own}::VARCHAR"
        one = f"[{text}]" if separator is None else f"string_split({text}, {quoted(separator)})"
        if kind == JSON:
            many = f"({own} ->> '$[*]')::VARCHAR[]"
            one = f"CASE WHEN json_type({own}) = 'ARRAY' THEN {many} ELSE {one} END"
        elif kind.endswith("[]"):
            one = own
        stripped = f"list_transform({one}, lambda x: trim(x))"
        return f"CASE WHEN {own} IS NOT NULL THEN list_filter({stripped}, lambda x: x <> '') END"


def text_of(expression: str, kind: str, missing: str) -> str:
    """Expression of a column of this kind → of its text, stripped, null where it is missing."""
    text = f"{expression}::VARCHAR"
    if kind == JSON:
        text = f"({expression} ->> '$')"
    elif kind in {"FLOAT", "DOUBLE"}:  # ids of a column in which some are missing
        whole = f"{expression}::HUGEINT::VARCHAR"
        text = f"CASE WHEN {expression} = trunc({expression}) THEN {whole} ELSE {text} END"
    text = f"trim({text})"
    return f"CASE WHEN {text} NOT IN ({missing}) THEN {text} END"
