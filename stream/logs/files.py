"""Log files: JSON, plain or compressed by gzip or zstd, or Parquet, whatever they are called.

Read, merged and written; Parquet is only read (:mod:`stream.logs.parquet`).

Reading is lenient, because a log is history: what cannot be read becomes a line that its consumer
sets aside, never an exception half-way through. Only what is known before the first line (a file
that is missing or cannot be opened) is an error. No file is ever held in memory as a whole.
"""

from __future__ import annotations

import gzip
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Final

import msgspec
import zstandard

from stream.errors import LogError
from stream.logs import parquet
from stream.logs.content import is_parquet, text
from stream.logs.lines import MAX_LINE_BYTES, LogLine, lines_of
from stream.logs.order import LineHead, Place, ordered, read_head

__all__ = [
    "MAX_LINE_BYTES",
    "LineHead",
    "LogLine",
    "ReadProgress",
    "check_logs",
    "merge",
    "read_head",
    "write_lines",
]

_LINES_PER_WRITE: Final = 256


class ReadProgress(msgspec.Struct):
    """How much of the logs was read, in bytes on disk: right for compressed files too."""

    done_bytes: int = 0
    total_bytes: int = 0


def check_logs(paths: Sequence[Path]) -> None:
    """Make sure that every file can be opened.

    Raises:
        LogError: one is missing, is not a regular file, may not be read or is of a format that is
            known and not read; or none was given.

    """
    if not paths:
        raise LogError("no log file was given")
    for path in paths:
        if not path.exists():
            raise LogError(f"log {path} does not exist")
        if not path.is_file():
            raise LogError(f"log {path} is not a file")
        is_parquet(path, parquet.SUFFIXES)


def merge(paths: Sequence[Path], progress: ReadProgress | None = None) -> Iterator[LogLine]:
    """Read one log, or several as one by ``event_time_ms``, each file in its own order.

    Empty lines are left out, and a line beyond :data:`MAX_LINE_BYTES` is cut there. A compressed
    file that is truncated or corrupt gives every line that can be read, then a last one with
    ``damaged`` set.

    One file is read in its line order, which is arrival order. Of several files' next lines the
    earliest comes first; ties: applications, then engagements, then anything else, then by the
    order of ``paths``. A line that is no usable event goes with the line before it in its file, and
    one that lies far ahead of its file waits (:mod:`stream.logs.order`). A file is open only from
    its first line's turn to its last's, so that a year of daily files takes no more memory than two
    days.

    Args:
        paths: the files.
        progress: counts along; its total grows by the files' sizes at once.

    Raises:
        LogError: at once where any file cannot be opened; later where the disk fails.

    """
    check_logs(paths)
    if progress is None:
        progress = ReadProgress()
    progress.total_bytes += sum(path.stat().st_size for path in paths)
    if len(paths) == 1:
        return _opened(paths[0], progress)
    turns: list[tuple[Place, LogLine | None]] = [
        (place, None)
        for file, path in enumerate(paths)
        for place, _ in islice(ordered(_opened(path, ReadProgress()), file), 1)
    ]
    return _merged(paths, turns, progress)


def write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Write lines to a log, compressed as its suffix says; called by the command line.

    Parquet is not written.

    The same lines give the same bytes. The file appears under its name only when it is complete.

    Returns:
        The number of lines.

    Raises:
        LogError: the file cannot be written.

    """
    if path.suffix in parquet.SUFFIXES:
        raise LogError(f"log {path}: Parquet is only read; write .jsonl, .gz or .zst")
    partial = path.with_name(path.name + ".part")
    count = 0
    try:
        with ExitStack() as stack:
            write = _writer(path.suffix, stack.enter_context(partial.open("wb")), stack)
            rest = iter(lines)
            while block := list(islice(rest, _LINES_PER_WRITE)):
                write(b"\n".join(block) + b"\n")
                count += len(block)
        partial.replace(path)
    except OSError as error:
        raise LogError(f"log {path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return count


def _opened(path: Path, progress: ReadProgress) -> Iterator[LogLine]:
    def count(more: int) -> None:
        progress.done_bytes += more

    if is_parquet(path, parquet.SUFFIXES):
        return _numbered(path.name, parquet.rows(path, count))
    return lines_of(path.name, text(path, count))


def _numbered(name: str, rows: Iterator[bytes | parquet.Lost]) -> Iterator[LogLine]:
    number = 1
    for row in rows:
        if isinstance(row, bytes):
            yield LogLine(name, number, row[:MAX_LINE_BYTES])
            number += 1
        else:
            yield LogLine(name, number, b"", f"{name}: {row.rows:,} rows are lost: {row.why}")
            number += row.rows


def _merged(
    paths: Sequence[Path], turns: list[tuple[Place, LogLine | None]], progress: ReadProgress
) -> Iterator[LogLine]:
    """Merge files by the places of their first lines, opening each when it is that one's turn."""
    opened: dict[int, Iterator[tuple[Place, LogLine]]] = {}
    heapq.heapify(turns)
    while turns:
        (_, _, file), line = turns[0]
        if line is None:
            opened[file] = ordered(_opened(paths[file], progress), file)
        else:
            yield line
        following = next(opened[file], None)
        if following is None:
            del opened[file]
            heapq.heappop(turns)
        else:
            heapq.heapreplace(turns, following)


def _writer(suffix: str, file: IO[bytes], stack: ExitStack) -> Callable[[bytes], object]:
    if suffix == ".gz":
        # No name and no time in the header: equal lines give equal files.
        return stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0)).write
    if suffix == ".zst":
        compressor = zstandard.ZstdCompressor()
        return stack.enter_context(compressor.stream_writer(file, closefd=False)).write
    return file.write
