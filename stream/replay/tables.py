"""SHELL: JSON lines of a run → Parquet, once the run is over.

While a replay goes on it writes lines: they can be cut where a checkpoint was, and those of several
processes merged. So what a run is does not depend on the format of its files, and neither does how
it is resumed.

Needs pyarrow (``pip install 'hearback-stream[parquet]'``), imported only here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from stream.errors import ConfigError
from stream.histories.history import NAMES, Summary
from stream.replay.columns import TABLES, Column, Kind
from stream.replay.run_folder import private

_AT_ONCE: Final = 1 << 10  # lines held as Python objects: 3 MB of labels; more are slower
_GROUP: Final = 1 << 16
"""Rows of a row group: some 30 MB of labels, before they are compressed."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def check_parquet() -> None:
    """Refuse to write Parquet where that cannot be.

    Raises:
        ConfigError: pyarrow is not installed.

    """
    _arrow("pyarrow")


def to_parquet(run: Path) -> None:
    """Write the tables of a finished run beside its lines, which stay.

    Memory does not grow with the run: lines are read some at a time, and written as row groups.

    Args:
        run: the folder.

    Raises:
        ConfigError: pyarrow is not installed.

    """
    parquet = _arrow("pyarrow.parquet")
    for name, columns in TABLES.items():
        made = run / f"{name}.parquet"
        part = made.with_name(made.name + ".part")
        schema = _schema(columns)
        with (
            (run / f"{name}.jsonl").open("rb") as lines,
            open(part, "wb", opener=private) as file,
            parquet.ParquetWriter(file, schema, compression="zstd") as writer,
        ):
            for table in _tables(lines, columns, schema):
                writer.write_table(table, row_group_size=_GROUP)
        part.replace(made)


def _tables(lines: Iterator[bytes], columns: tuple[Column, ...], schema: Any) -> Iterator[Any]:
    """Row groups of a file."""
    pyarrow = _arrow("pyarrow")
    held: list[Any] = []
    while some := list(islice(lines, _AT_ONCE)):
        rows = [_decode(line) for line in some]
        arrays = [
            pyarrow.array(map(_reader(column), rows), field.type)
            for column, field in zip(columns, schema, strict=True)
        ]
        held.append(pyarrow.RecordBatch.from_arrays(arrays, schema=schema))
        if len(held) * _AT_ONCE >= _GROUP:
            yield pyarrow.Table.from_batches(held)
            held = []
    if held:
        yield pyarrow.Table.from_batches(held)


def _reader(column: Column) -> Callable[[dict[str, Any]], Any]:
    """Return what takes a column's value out of a decoded line; None: it is null."""
    block, _, name = column.path.rpartition(".")
    find = partial(_found, block, name)
    change = _CHANGES.get(column.kind)
    return find if change is None else partial(_changed, find, change)


def _found(block: str, name: str, row: dict[str, Any]) -> Any:
    return (row[block] if block else row).get(name)


def _changed(
    find: Callable[[dict[str, Any]], Any], change: Callable[[Any], Any], row: dict[str, Any]
) -> Any:
    value = find(row)
    return None if value is None else change(value)


def _pairs(value: dict[str, Any]) -> list[tuple[str, Any]]:
    return list(value.items())  # a map is made of pairs


def _preferences(value: dict[str, Any]) -> dict[str, Any]:
    return {"counts": value["counts"], "weights": _pairs(value["weights"])}


def _past(value: dict[str, Any]) -> dict[str, Any]:
    return {name.removesuffix("_ms"): one for name, one in value.items()}


_CHANGES: Final[dict[Kind, Callable[[Any], Any]]] = {
    "scores": _pairs,
    "terms": _pairs,
    "preferences": _preferences,
    "past": _past,
}


def _schema(columns: tuple[Column, ...]) -> Any:
    pyarrow = _arrow("pyarrow")
    text, number, count = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
    time = pyarrow.timestamp("ms", "UTC")
    by_type = {int: count, float: number}
    kinds: dict[Kind, Any] = {
        "text": text,
        "count": count,
        "number": number,
        "flag": pyarrow.bool_(),
        "time": time,
        "float32s": pyarrow.list_(pyarrow.float32()),
        "numbers": pyarrow.list_(number),
        "history": pyarrow.list_(pyarrow.float32(), len(NAMES)),
        "scores": pyarrow.map_(text, number),
        "terms": pyarrow.map_(text, pyarrow.list_(text)),
        "preferences": pyarrow.struct(
            [
                ("counts", pyarrow.list_(number)),
                ("weights", pyarrow.map_(text, pyarrow.list_(number))),
            ]
        ),
        "past": pyarrow.struct(
            [
                (field.name.removesuffix("_ms"), time)
                if field.name.endswith("_ms")
                else (field.name, by_type[field.type])
                for field in msgspec.structs.fields(Summary)
            ]
        ),
    }
    return pyarrow.schema(
        [
            pyarrow.field(column.name, kinds[column.kind], nullable=bool(column.null))
            for column in columns
        ]
    )


def _arrow(module: str) -> Any:  # pyarrow has hardly any types
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise ConfigError("Parquet needs pyarrow: pip install 'hearback-stream[parquet]'") from None
