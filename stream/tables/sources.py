"""A table's file → what DuckDB can read, and its columns, whatever format it is in.

The format is told by the content, as that of logs is: Parquet; JSON Lines or an array of objects;
else CSV, whose separator is the one that its first row has most of. What is compressed, or in
UTF-16 or UTF-32, is copied as plain UTF-8 first. Columns are named by their position, for DuckDB
takes ``ID`` and ``id`` for one name.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Final, NamedTuple

from stream.errors import LogError, meant
from stream.logs import parquet
from stream.logs.content import DamagedError, is_parquet, text
from stream.tables.database import Database
from stream.text import BYTE_ORDER_MARK, encoding_of

_HEAD_BYTES: Final = 1 << 20
_COMPRESSED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
_SEPARATORS: Final = ",;\t|"

TEXT: Final = "text"
"""Of a column: its values are text."""

UNTYPED: Final = "untyped"
"""Of a column of CSV: its values are text, and may mean numbers."""

JSON: Final = "json"
"""Of a column: each value has its own kind."""


class Source(NamedTuple):
    """A table's file.

    Attributes:
        path: as it was given. relation: what follows FROM.
        columns: expressions of the columns by their names. kinds: by the same, :data:`TEXT`,
            :data:`UNTYPED`, :data:`JSON`, or DuckDB's type.
        first_row: what the first row is called in messages.

    """

    path: Path
    relation: str
    columns: dict[str, str]
    kinds: dict[str, str]
    first_row: int

    def at(self, row: int) -> str:
        """Name a row, counted from 0, in a message."""
        return f"{self.path.name}:{row + self.first_row}"

    def column(self, name: str, section: str, key: str) -> str:
        """Return a column's expression.

        Raises:
            LogError: there is none of this name.

        """
        if name not in self.columns:
            raise LogError(
                f"{self.path.name} has no column {name!r}, which the map names as {key} in"
                f" [{section}]{meant(name, list(self.columns)[:20])}"
            )
        return self.columns[name]


def quoted(value: str) -> str:
    """Text → literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Text → name of SQL."""
    return '"' + name.replace('"', '""') + '"'


def open_table(database: Database, path: Path) -> Source:
    """Look at a file; called once for each table.

    Args:
        database: its folder is where copies are made. path: the file.

    Raises:
        LogError: it is missing, or of no format that is read.

    """
    if not path.is_file():
        raise LogError(f"table {path} does not exist, or is no file")
    if is_parquet(path, parquet.SUFFIXES):
        return _parquet(database, path)
    plain = _plain(path, database.folder)
    with plain.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    start = head.lstrip()[:1]
    if not start:
        raise LogError(f"table {path} is empty")
    return _json(database, path, plain) if start in b"{[" else _csv(path, plain, head)


def why(error: Exception, source: Source) -> str:
    """Say in a line what DuckDB could not read, and where."""
    message = str(error)
    line = re.search(r"[Ll]ine:? (\d+)", message)
    where = f"{source.path.name}:{line[1]}" if line else source.path.name
    columns = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message)
    if columns:
        return (
            f"{where}: {columns[2]} values, where the first row has {columns[1]} columns: put"
            " values that hold the separator in double quotes"
        )
    if "utf-8" in message.lower() or "unicode" in message.lower():
        return f"{where}: this is not UTF-8: save the file as UTF-8 (iconv -f CP1252 -t UTF-8)"
    if "unterminated quote" in message:
        return f"{where}: a double quote is not closed, or one within a value is not doubled"
    short = next(iter(message.splitlines()), "").split(": ", 1)[-1]
    return f"{where}: cannot be read: {short[:200]}"


def _plain(path: Path, folder: Path) -> Path:
    with path.open("rb") as file:
        head = file.read(4)
    marked = head.startswith((*_COMPRESSED, BYTE_ORDER_MARK))
    if not marked and encoding_of(head) is None and path.suffix not in {".gz", ".zst"}:
        return path
    copy = folder / f"{len(list(folder.iterdir()))}-{path.name}.txt"
    try:
        with copy.open("wb") as file:
            file.writelines(text(path, lambda _: None))
    except DamagedError as error:
        raise LogError(f"table {path}: {error}") from None
    return copy


def _csv(path: Path, plain: Path, head: bytes) -> Source:
    try:
        first = head.decode()
    except UnicodeDecodeError as error:
        # The head may end within a character.
        if error.start < len(head) - 4:
            row = head[: error.start].count(b"\n") + 1
            raise LogError(
                f"{path.name}:{row}: this is not UTF-8: save the file as UTF-8 (iconv -f CP1252 -t"
                " UTF-8)"
            ) from None
        first = head[: error.start].decode()
    rows = {
        separator: next(csv.reader(io.StringIO(first, newline=""), delimiter=separator), [])
        for separator in _SEPARATORS
    }
    separator = max(rows, key=lambda one: len(rows[one]))
    names = [name.strip() for name in rows[separator]]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise LogError(f"{path.name}:1: the column {twice[0]!r} is there twice: rename one")
    columns = ", ".join(f"'c{at}': 'VARCHAR'" for at in range(len(names)))
    relation = (
        f"read_csv({quoted(str(plain))}, auto_detect=false, header=true, columns={{{columns}}},"
        f" delim={quoted(separator)}, quote='\"', escape='\"')"
    )
    return Source(
        path,
        relation,
        {name: f"c{at}" for at, name in enumerate(names)},
        dict.fromkeys(names, UNTYPED),
        2,
    )


def _json(database: Database, path: Path, plain: Path) -> Source:
    relation = f"read_json_objects({quoted(str(plain))}, format='auto')"
    source = Source(path, relation, {}, {}, 1)
    try:
        keys = database.rows(f"SELECT DISTINCT unnest(json_keys(json)) FROM {relation}")
    except database.errors as error:
        raise LogError(why(error, source)) from None
    for (key,) in sorted(keys):
        pointer = "/" + key.replace("~", "~0").replace("/", "~1")
        source.columns[key] = f"json_extract(json, {quoted(pointer)})"
        source.kinds[key] = JSON
    return source


def _parquet(database: Database, path: Path) -> Source:
    relation = f"read_parquet({quoted(str(path))})"
    source = Source(path, relation, {}, {}, 1)
    try:
        described = database.rows(f"DESCRIBE FROM {relation}")
    except database.errors as error:
        raise LogError(why(error, source)) from None
    for name, kind, *_ in described:
        nothing = kind.strip('"') == "NULL"  # a column without a type, as one without values is
        source.columns[name] = "NULL::VARCHAR" if nothing else identifier(name)
        is_text = nothing or kind == "VARCHAR" or (kind.startswith("ENUM") and kind[-1] == ")")
        source.kinds[name] = TEXT if is_text else kind
    return source
