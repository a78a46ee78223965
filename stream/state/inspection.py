"""Looks at the files of a RocksDB before it is opened: is something in the middle missing?

RocksDB keeps what was written lately in logs (``*.log``), all else in tables (``*.sst``), and says
in its manifest which tables there are. It checks what it reads, and that each table is there in
full. But a manifest that ends early, or a log that is missing or ends early, looks like one that
was written no further: RocksDB would open with the newest writes and without some before them.
Every write has a number, which logs and manifest say, so that such a hole shows.

Formats: ``db/log_format.h`` and ``db/write_batch.cc`` of RocksDB, unchanged for ten years.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple

_BLOCK = 32 << 10  # no header of a record goes over the end of one
_HEADER = Struct("<IHB")  # checksum, length, type
_FULL, _FIRST = 1, 2
_RECYCLED = range(5, 9)  # RocksDB reads on for ever where it meets one in a manifest; we write none
_BATCH = Struct("<QI")  # the number of the first write, and how many there are


class Recorded(NamedTuple):
    """What a manifest says."""

    last_write: int
    """All up to this write are in tables, and maybe some after it."""
    first_log: int
    """What is not in a table is in this log, or a later one."""


def what_is_missing(path: Path, recorded: Callable[[], Recorded]) -> str | None:
    """Say what a folder lacks, so that it must not be opened; None: nothing that shows here.

    Args:
        path: of the folder.
        recorded: reads the manifest; called when that can do no harm.

    Raises:
        OSError: a file cannot be read.

    """
    if not (path / "CURRENT").exists():
        some = next(path.glob("*.sst"), None) or next(path.glob("*.log"), None)
        return None if some is None else "CURRENT is missing"
    for manifest in path.glob("MANIFEST-*"):
        if any(kind in _RECYCLED for kind, _ in _records(manifest)):
            return f"{manifest.name} holds what is none of its records"
    logs = sorted((int(log.stem), log) for log in path.glob("*.log") if log.stem.isdecimal())
    if not any(log.stat().st_size for _, log in logs):
        return None
    last_write, first_log = recorded()
    logs = [(number, log) for number, log in logs if number >= first_log]
    for at, (_, log) in enumerate(logs):
        first, after = _writes(log, whole=at + 1 < len(logs))
        if first > last_write + 1:
            return f"writes {last_write + 1} to {first - 1} are in no file, later ones are"
        last_write = max(last_write, after - 1)
    return None


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Type and first bytes of each record, or part of one, of a log or manifest."""
    data = path.read_bytes()
    at = 0
    while at + _HEADER.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER.size:
            at += left
            continue
        _, length, kind = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        if kind == 0 and length == 0:
            at += left - _HEADER.size  # filled up
            continue
        yield kind, data[at : at + min(length, _BATCH.size)]
        at += length


def _writes(log: Path, *, whole: bool) -> tuple[int, int]:
    """Return the number of a log's first write and, where ``whole``, that after its last one."""
    first = after = 0
    for kind, data in _records(log):
        if kind in {_FULL, _FIRST} and len(data) == _BATCH.size:
            number, count = _BATCH.unpack(data)
            first, after = first or number, number + count
            if not whole:
                break
    return first, after
