"""Logs in Parquet: each row an event, each column a field of it, given as the JSON line it means.

Columns are the fields of the wire formats (docs/events.md): ``type``, ``event_time_ms``, the ids,
``action``, ``features`` (a struct of lists, of structs or of maps), … A null is a field that is not
there. A timestamp column counts as milliseconds; dictionaries and decimals are read as what they
hold. Rows are in order of arrival, as lines are.

Needs pyarrow (``pip install 'hearback-stream[parquet]'``), imported only where such a file is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec

from stream.errors import LogError

SUFFIXES: Final = (".parquet", ".pq")

_ROWS: Final = 1024  # read at a time
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)  # timestamps without a zone are UTC too

_encode = msgspec.json.Encoder().encode


class BrokenParquetError(Exception):
    """A Parquet file cannot be read on; the message says why."""


def rows(path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """Read a file's rows as JSON; called by :func:`stream.logs.files.merge`.

    Args:
        path: the file.
        on_bytes: told how many more of its bytes were read, in proportion to the rows.

    Raises:
        LogError: at once, where it is no Parquet file, lacks what every event has, or pyarrow is
            not installed. BrokenParquetError: later, where a part of the file is corrupt.

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
        file = parquet.ParquetFile(path, page_checksum_verification=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise LogError(f"log {path} is no readable Parquet file: {_one_line(error)}") from None
    names: list[str] = file.schema_arrow.names
    if not {"type", "event_time_ms"} <= set(names):
        file.close()
        raise LogError(
            f"log {path} has the columns {', '.join(names[:8])}: columns must be the fields of"
            " events, type and event_time_ms among them"
        )
    return file


def _rows(file: Any, size: int, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    errors = (import_module("pyarrow").ArrowException, OSError, ValueError)
    total, done, told = max(file.metadata.num_rows, 1), 0, 0
    with file:
        batches = file.iter_batches(batch_size=_ROWS)
        while True:
            try:
                batch = next(batches, None)
                found = None if batch is None else batch.to_pylist(maps_as_pydicts="lossy")
            except errors as error:
                raise BrokenParquetError(
                    f"the Parquet file is corrupt ({_one_line(error)})"
                ) from error
            if found is None:
                break
            done += len(found)
            read = size * done // total
            on_bytes(read - told)
            told = read
            for row in found:
                yield _line(row)
    on_bytes(size - told)


def _line(row: dict[str, Any]) -> bytes:
    time = row.get("event_time_ms")
    if isinstance(time, datetime):
        row["event_time_ms"] = _milliseconds(time)
    return _encode(_present(row))


def _milliseconds(time: datetime) -> int:
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)


def _present(value: Any) -> Any:
    """Leave out what is null; write what JSON has no word for as text, and numbers as numbers."""
    if isinstance(value, dict):
        return {str(key): _present(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_present(one) for one in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, date):
        return value.isoformat()
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
