"""Log files: JSON Lines, plain, ``.gz`` or ``.zst``, or Parquet (the suffix decides).

Read, merged and written; Parquet is only read (:mod:`stream.logs.parquet`).

Reading is lenient, because a log is history: what cannot be read becomes a line that its consumer
sets aside, never an exception half-way through. Only what is known before the first line (a file
that is missing or cannot be opened) is an error. No file is ever held in memory as a whole.
"""

from __future__ import annotations

import gzip
import heapq
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import zstandard

from stream.errors import LogError
from stream.events.lenient import as_time_ms
from stream.logs import parquet
from stream.units import MAX_TIME_MS

MAX_LINE_BYTES: Final = 1 << 20
"""A longer line is cut here: far above what an event may have, so that it stays too large."""

_CHUNK_BYTES: Final = 1 << 16  # read at a time; decompressors keep little more
_LINES_PER_WRITE: Final = 256
# zstd gives nothing of the input in which it finds damage, so it gets the input in small pieces:
# then at most what these pieces held is lost. Costs a third more than pieces of 64 KiB (measured).
_ZSTD_PIECE_BYTES: Final = 256
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class LogLine(msgspec.Struct, frozen=True, gc=False):
    """One line of a log.

    ``source`` is the file's name without its folder, ``number`` counts its lines from 1, ``raw`` is
    the line without its end. ``damaged`` is None, or says in one line why the file could not be
    read beyond this point; then ``raw`` is what there was of the last line, possibly nothing.
    """

    source: str
    number: int
    raw: bytes
    damaged: str | None = None


class ReadProgress(msgspec.Struct):
    """How much of the logs was read, in bytes on disk: right for compressed files too."""

    done_bytes: int = 0
    total_bytes: int = 0


class LineHead(msgspec.Struct, frozen=True):
    """The fields of an event that tell where and when it belongs, whatever their types."""

    type: Any = None
    event_time_ms: Any = None
    member_id: Any = None
    job_id: Any = None

    def time_ms(self) -> int | None:
        """Return the event's time, or None where it is no time that a calendar holds."""
        time_ms = self.event_time_ms
        if type(time_ms) is not int:
            time_ms = as_time_ms(time_ms)
        if type(time_ms) is int and 0 <= time_ms <= MAX_TIME_MS:
            return time_ms
        return None


_HEAD_DECODER: Final = msgspec.json.Decoder(LineHead)


def read_head(raw: bytes) -> LineHead | None:
    """Read type, time and keys of a line; None where it is not a JSON object."""
    try:
        return _HEAD_DECODER.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def check_logs(paths: Sequence[Path]) -> None:
    """Make sure that every file can be opened.

    Raises:
        LogError: one is missing, is not a regular file or may not be read; or none was given.

    """
    if not paths:
        raise LogError("no log file was given")
    for path in paths:
        if not path.exists():
            raise LogError(f"log {path} does not exist")
        if not path.is_file():
            raise LogError(f"log {path} is not a file")
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise _unreadable(path, error) from error


def merge(paths: Sequence[Path], progress: ReadProgress | None = None) -> Iterator[LogLine]:
    """Read one log, or several as one by ``event_time_ms``, each file in its own order.

    Empty lines are left out, and a line beyond :data:`MAX_LINE_BYTES` is cut there. A compressed
    file that is truncated or corrupt gives every line that can be read, then a last one with
    ``damaged`` set.

    One file is read in its line order, which is arrival order. Of several files' next lines the
    earliest comes first; ties: applications, then engagements, then anything else, then by the
    order of ``paths``. A line whose time cannot be read takes the time of the line before it in
    its file. A file is open only from its first line's turn to its last's, so that a year of daily
    files takes no more memory than two days.

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
    turns: list[tuple[_Place, LogLine | None]] = [
        (place, None)
        for file, path in enumerate(paths)
        for place, _ in islice(_ordered(_opened(path, ReadProgress()), file), 1)
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


class _DamagedError(Exception):
    """A compressed stream cannot be read on; the message says why."""


def _opened(path: Path, progress: ReadProgress) -> Iterator[LogLine]:
    if path.suffix not in parquet.SUFFIXES:
        return _lines(path.name, _decompressed(path, progress))

    def count(more: int) -> None:
        progress.done_bytes += more

    return _numbered(path.name, parquet.rows(path, count))


def _numbered(name: str, rows: Iterator[bytes]) -> Iterator[LogLine]:
    number = 0
    try:
        for number, raw in enumerate(rows, 1):
            yield LogLine(name, number, raw[:MAX_LINE_BYTES])
    except parquet.BrokenParquetError as error:
        yield LogLine(name, number + 1, b"", f"{name}: {error}")


_Place = tuple[int, int, int]
"""What the merge compares: time, kind of event, file. No two files' are equal."""


def _merged(
    paths: Sequence[Path], turns: list[tuple[_Place, LogLine | None]], progress: ReadProgress
) -> Iterator[LogLine]:
    """Merge files by the places of their first lines, opening each when it is that one's turn."""
    opened: dict[int, Iterator[tuple[_Place, LogLine]]] = {}
    heapq.heapify(turns)
    while turns:
        (_, _, file), line = turns[0]
        if line is None:
            opened[file] = _ordered(_opened(paths[file], progress), file)
        else:
            yield line
        following = next(opened[file], None)
        if following is None:
            del opened[file]
            heapq.heappop(turns)
        else:
            heapq.heapreplace(turns, following)


def _ordered(lines: Iterator[LogLine], file: int) -> Iterator[tuple[_Place, LogLine]]:
    """Attach its place to each line.

    Two lines never compare as such: of one file only one line waits at a time, and of two files the
    numbers differ.
    """
    time_ms = 0
    for line in lines:
        head = read_head(line.raw)
        rank = 2
        if head is not None:
            own_ms = head.time_ms()
            time_ms = time_ms if own_ms is None else own_ms
            rank = 0 if head.type == "application" else 1 if head.type == "engagement" else 2
        yield (time_ms, rank, file), line


def _lines(name: str, chunks: Iterator[bytes]) -> Iterator[LogLine]:
    number = 0
    rest = b""
    damaged = None
    try:
        for chunk in chunks:
            first, *others = chunk.split(b"\n")
            if len(rest) <= MAX_LINE_BYTES:
                rest += first
            if not others:
                continue
            number += 1
            if rest and not rest.isspace():
                yield LogLine(name, number, _cut(rest))
            rest = others.pop()
            for raw in others:
                number += 1
                if raw and not raw.isspace():
                    yield LogLine(name, number, _cut(raw))
    except _DamagedError as error:
        damaged = f"{name}: {error}"
    # The last line needs no line end; in a damaged file it counts only if it is whole.
    if rest and not rest.isspace() and (damaged is None or read_head(rest) is not None):
        number += 1
        yield LogLine(name, number, _cut(rest))
        rest = b""
    if damaged is not None:
        yield LogLine(name, number + 1, _cut(rest), damaged)


def _cut(raw: bytes) -> bytes:
    return raw[:MAX_LINE_BYTES].removesuffix(b"\r")


def _decompressed(path: Path, progress: ReadProgress) -> Iterator[bytes]:
    chunks = _chunks(path, progress)
    if path.suffix == ".gz":
        chunks = _gunzipped(chunks)
    elif path.suffix == ".zst":
        chunks = _unzstd(chunks)
    first = True
    for chunk in chunks:
        if chunk:
            yield chunk.removeprefix(_BYTE_ORDER_MARK) if first else chunk
            first = False


def _chunks(path: Path, progress: ReadProgress) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                progress.done_bytes += len(chunk)
                yield chunk
    except OSError as error:
        raise _unreadable(path, error) from error


def _gunzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate gzip members one after the other (``cat a.gz b.gz`` is a gzip file)."""
    inflater = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        pending = chunk
        while pending:
            if inflater.eof:
                pending = pending.lstrip(b"\0")  # padding, as gzip itself allows
                if not pending:
                    break
                inflater = zlib.decompressobj(wbits=31)
            before = inflater.copy()
            try:
                yield inflater.decompress(pending)
            except zlib.error as error:
                yield from _until_damage(before, pending)
                raise _DamagedError(f"the gzip stream is corrupt ({error})") from error
            pending = inflater.unused_data
    if not inflater.eof:
        raise _DamagedError("the gzip stream is truncated")


def _until_damage(inflater: zlib._Decompress, chunk: bytes) -> Iterator[bytes]:
    """Feed byte by byte: zlib gives nothing of the input in which it finds damage."""
    try:
        for index in range(len(chunk)):
            yield inflater.decompress(chunk[index : index + 1])
    except zlib.error:
        return


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress zstd frames one after the other."""
    # As far as the format goes, so that logs written with --long are read too.
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = decompressor.decompressobj()
    for chunk in chunks:
        for start in range(0, len(chunk), _ZSTD_PIECE_BYTES):
            pending = chunk[start : start + _ZSTD_PIECE_BYTES]
            while pending:
                if frame.eof:
                    frame = decompressor.decompressobj()
                try:
                    yield frame.decompress(pending)
                except zstandard.ZstdError as error:
                    raise _DamagedError(f"the zstd stream is corrupt ({error})") from error
                pending = frame.unused_data
    if not frame.eof:
        raise _DamagedError("the zstd stream is truncated")


def _writer(suffix: str, file: IO[bytes], stack: ExitStack) -> Callable[[bytes], object]:
    if suffix == ".gz":
        # No name and no time in the header: equal lines give equal files.
        return stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0)).write
    if suffix == ".zst":
        compressor = zstandard.ZstdCompressor()
        return stack.enter_context(compressor.stream_writer(file, closefd=False)).write
    return file.write


def _unreadable(path: Path, error: OSError) -> LogError:
    return LogError(f"log {path} cannot be read: {error.strerror or error}")
