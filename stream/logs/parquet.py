"""Logs in Parquet: each row an event, each column a field of it, given as the JSON line it means.

Columns are the fields of the wire formats (docs/events.md): ``type``, ``event_time_ms``, the ids,
``action``, ``features`` (a struct of lists, of structs or of maps), … Other columns are not read. A
null is a field that is not there. A timestamp column counts as milliseconds, UTC where it has no
zone, cut off below; dictionaries and decimals are read as what they hold. Rows are in order of
arrival, as lines are.

A value that has no place in JSON, or cannot be turned into one, stands as ``{"unreadable": why}``
in its row: that is refused wherever it stands, and no other row suffers. Where a part of the file
is damaged, the row group that it belongs to is lost from there on, and the next one is read.

Needs pyarrow (``pip install 'hearback-stream[parquet]'``), imported only where such a file is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import msgspec

from stream.errors import LogError
from stream.events.lenient import IDS
from stream.events.wire import RawEvent

SUFFIXES: Final = (".parquet", ".pq")

_ROWS: Final = 1024  # read at a time
_FIELDS: Final = {"type"} | {
    field.encode_name for kind in get_args(RawEvent) for field in msgspec.structs.fields(kind)
}
_PER_MS: Final = {"us": 1_000, "ns": 1_000_000}
_MS_PER: Final = {"s": 1_000, "ms": 1}
_EXACT: Final = {"float": 1 << 24, "halffloat": 1 << 11}
"""Whole numbers beyond these may stand for another one, by the Arrow type that holds them."""


_SIMPLE: Final = {
    *("string", "large_string", "bool", "double", "float", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
}
_AS_IT_IS: Final = (float, str, int)


class Lost(NamedTuple):
    """So many rows cannot be read, and why."""

    rows: int
    why: str


def rows(path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> Iterator[bytes | Lost]:
    """Read a file's rows as JSON; called by :func:`stream.logs.files.merge`.

    Args:
        path: the file.
        on_bytes: told how many more of its bytes were read, in proportion to the rows.

    Raises:
        LogError: at once, where it is no Parquet file, lacks what every event has, or pyarrow is
            not installed.

    """
    return _rows(_opened(path), path.stat().st_size, on_bytes)


def _opened(path: Path) -> Any:  # pyarrow has hardly any types
    try:
        pyarrow = import_module("pyarrow")
        parquet = import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise LogError(
            f"log {path} is Parquet, which needs pyarrow: pip install 'hearback-stream[parquet]'"
        ) from None
    try:
        file = parquet.ParquetFile(
            path,
            page_checksum_verification=True,
            coerce_int96_timestamp_unit="ms",  # as nanoseconds, far years would come out as others
        )
        names: list[str] = file.schema_arrow.names
    except (pyarrow.ArrowException, OSError) as error:
        raise LogError(f"log {path} is no readable Parquet file: {_one_line(error)}") from None
    twice = {name for name in names if name in _FIELDS and names.count(name) > 1}
    if twice or not {"type", "event_time_ms"} <= set(names):
        file.close()
        if twice:
            raise LogError(f"log {path} has the column {min(twice)} twice: rename one")
        raise LogError(
            f"log {path} has the columns {', '.join(names[:8])}: columns must be the fields of"
            " events, type and event_time_ms among them"
        )
    return file


def _rows(file: Any, size: int, on_bytes: Callable[[int], None]) -> Iterator[bytes | Lost]:
    errors = (import_module("pyarrow").ArrowException, OSError, ValueError)
    names = [name for name in file.schema_arrow.names if name in _FIELDS]
    total, done, told = max(file.metadata.num_rows, 1), 0, 0
    with file:
        groups = file.metadata.num_row_groups
        for group in range(groups):
            left = file.metadata.row_group(group).num_rows
            batches = file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=names)
            while left > 0:
                try:
                    batch = next(batches)
                except (*errors, StopIteration) as error:
                    why = _one_line(error) or "it has fewer rows than it says"
                    yield Lost(left, f"row group {group + 1} of {groups} is corrupt ({why})")
                    batch = None
                count = left if batch is None else batch.num_rows
                left -= count
                done += count
                read = size * done // total
                on_bytes(read - told)
                told = read
                if batch is not None:
                    yield from _lines(batch, names)
    on_bytes(size - told)


def _lines(batch: Any, names: list[str]) -> Iterator[bytes]:
    plain: dict[str, list[Any]] = {}
    others: dict[str, list[Any]] = {}
    for name in names:
        array = batch.column(batch.schema.get_field_index(name))
        values = _exactly(array, name)
        if values is not None:
            others[name] = [_present(value) for value in values]
        else:
            plain[name] = _columnwise(array) or _one_by_one(batch.select([name]), name)
    columns = plain | others
    for row in zip(*columns.values(), strict=True):
        yield _encode(
            {k: value for k, value in zip(columns, row, strict=True) if value is not None}
        )


def _columnwise(array: Any) -> list[Any]:
    """Return the values of a column without what is null; nothing where that takes longer.

    A struct or list is put together of the values of its children, which takes a third of the time
    that pyarrow takes for each by itself.
    """
    if not _is_simple(array.type):
        return []
    try:
        return _values(array)
    except Exception:  # noqa: BLE001 - one of the values has none in Python: then each by itself
        return []


def _is_simple(kind: Any) -> bool:
    """Whether values are texts, numbers and truth values, or lists or structs of such."""
    if _types().is_struct(kind):
        fields = [kind.field(at) for at in range(kind.num_fields)]
        return 0 < len(fields) == len({field.name for field in fields}) and all(
            _is_simple(field.type) for field in fields
        )
    if _types().is_list(kind) or _types().is_large_list(kind):
        return _is_simple(kind.value_type)
    return str(kind) in _SIMPLE


def _values(array: Any) -> list[Any]:
    kind = array.type
    if _types().is_struct(kind):
        names = [kind.field(at).name for at in range(kind.num_fields)]
        found: list[Any] = [
            {name: value for name, value in zip(names, row, strict=True) if value is not None}
            for row in zip(*map(_values, array.flatten()), strict=True)
        ]
        if array.null_count:
            there = array.is_valid().to_pylist()
            found = [row if known else None for row, known in zip(found, there, strict=True)]
        return found
    if str(kind) not in _SIMPLE:
        values, at, found = _values(array.flatten()), 0, []
        for length in array.value_lengths().to_pylist():
            found.append(None if length is None else values[at : at + length])
            at += length or 0
        return found
    plain: list[Any] = array.to_pylist()
    return plain


def _types() -> Any:
    return import_module("pyarrow").types


def _one_by_one(batch: Any, name: str) -> list[Any]:
    return [_present(row[name]) for row in _rows_of(batch)]


def _exactly(array: Any, name: str) -> list[Any] | None:
    """Array of a column that Python's values do not hold as it is → values; None: they do."""
    pyarrow = import_module("pyarrow")
    kind = array.type
    if name == "event_time_ms" and pyarrow.types.is_timestamp(kind):
        # By integers: a datetime holds neither nanoseconds nor the year 10000.
        times = array.view(pyarrow.int64()).to_pylist()
        factor, divisor = _MS_PER.get(kind.unit, 1), _PER_MS.get(kind.unit, 1)
        return [None if time is None else time * factor // divisor for time in times]
    if name in IDS and pyarrow.types.is_integer(kind):
        digits: list[Any] = array.cast(pyarrow.string()).to_pylist()
        return digits
    if name == "global_score" and pyarrow.types.is_floating(kind):
        # JSON has no word for others; as null, the score would count as not sent.
        scores = [None if score is None else float(score) for score in array.to_pylist()]
        return [
            score if score is None or isfinite(score) else _unreadable("not a finite number")
            for score in scores
        ]
    exact = _EXACT.get(str(kind))
    if exact is None or not (name in IDS or name == "event_time_ms"):
        return None
    return [
        value if value is None or abs(value) < exact else _unreadable(f"rounded to {kind}")
        for value in array.to_pylist()
    ]


def _rows_of(batch: Any) -> list[dict[str, Any]]:
    """Rows as Python values; one value that has none does not take the others with it."""
    try:
        found: list[dict[str, Any]] = batch.to_pylist(maps_as_pydicts="lossy")
    except Exception as error:  # noqa: BLE001 - whatever a library makes of odd values
        if batch.num_rows > 1:
            return [row for at in range(batch.num_rows) for row in _rows_of(batch.slice(at, 1))]
        if batch.num_columns > 1:
            names = batch.schema.names
            return [{name: _rows_of(batch.select([name]))[0][name] for name in names}]
        return [{batch.schema.names[0]: _unreadable(_one_line(error))}]
    return found


def _present(value: Any) -> Any:
    """Leave out what is null; write what JSON has no word for as text, and numbers as numbers."""
    if type(value) in _AS_IT_IS:  # nearly everything
        return value
    if isinstance(value, dict):
        return {str(key): _present(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_present(one) for one in value]
    if isinstance(value, Decimal):
        if not value.is_finite():
            return _unreadable("not a number")
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return _unreadable("bytes that are not UTF-8")
    if isinstance(value, date):
        return value.isoformat()
    return value


def _other(value: Any) -> Any:
    """Of what the encoder does not know: numbers of NumPy, and nothing else."""
    return float(value) if hasattr(value, "__float__") else _unreadable(type(value).__name__)


def _unreadable(why: str) -> dict[str, str]:
    return {"unreadable": why}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


_encode: Final = msgspec.json.Encoder(enc_hook=_other).encode
