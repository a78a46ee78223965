"""What a log file holds, told by its first bytes: its name says nothing for sure.

gzip and zstd are decompressed, UTF-16 and UTF-32 become UTF-8: what comes out is chunks of text, of
which :mod:`stream.logs.lines` makes lines. No file is ever held in memory as a whole.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import zstandard

from stream.errors import LogError
from stream.text import BYTE_ORDER_MARK, encoding_of

CHUNK_BYTES: Final = 1 << 16
"""Read at a time; decompressors keep little more."""

# zstd gives nothing of the input in which it finds damage, so it gets the input in small pieces:
# then at most what these pieces held is lost. Costs a third more than pieces of 64 KiB (measured).
_ZSTD_PIECE_BYTES: Final = 256
_HEAD_BYTES: Final = 512

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPED: Final = b"\x2a\x4d\x18"  # after a byte from 0x50 to 0x5f
_PARQUET: Final = b"PAR1"
_OTHERS: Final = {
    b"PK\x03\x04": "a ZIP archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\0": "compressed with xz",
    b"\x04\x22\x4d\x18": "compressed with LZ4",
    b"Obj\x01": "Avro",
    b"ORC": "ORC",
    b"PARE": "encrypted Parquet",
}
_TAR: Final = (257, b"ustar")


class DamagedError(Exception):
    """A file cannot be read on; the message says why."""


def is_parquet(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Tell whether a file is Parquet, or would have to be: nothing else fits its suffix.

    Raises:
        LogError: it is of another known format, or cannot be read.

    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    _refuse_others(path, head)
    if head.startswith(_PARQUET):
        return True
    return path.suffix in suffixes and _compression(head) is None and not _is_text(head)


def text(path: Path, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    """Read a file's text as chunks of UTF-8, without the byte order mark.

    Args:
        path: the file, which is not Parquet.
        on_bytes: told how many more of its bytes were read.

    Raises:
        LogError: at once, where it is compressed and holds another known format; later where the
            disk fails. DamagedError: later, where it is damaged.

    """
    chunks = _chunks(path, on_bytes)
    expected = {".gz": _gunzipped, ".zst": _unzstd}.get(path.suffix)
    head, chunks = peek(chunks, _HEAD_BYTES)
    decompress = _compression(head)
    if decompress is None and not _is_text(head):
        decompress = expected  # which says what is wrong with it
    for _ in range(2):  # what was compressed may have been compressed once more on its way
        if decompress is None:
            break
        head, chunks = peek(decompress(chunks), _HEAD_BYTES)
        _refuse_others(path, head)
        if head.startswith(_PARQUET):
            raise LogError(f"log {path} is compressed Parquet: decompress it first")
        decompress = _compression(head)
    encoding = encoding_of(head)
    return _without_mark(chunks if encoding is None else _decoded(chunks, encoding))


def peek(chunks: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """Look at the first ``size`` bytes, or a chunk more; give them and, again, all chunks."""
    head = b""
    failure: DamagedError | None = None
    try:
        while len(head) < size and (chunk := next(chunks, None)) is not None:
            head += chunk
    except DamagedError as error:
        failure = error

    def again() -> Iterator[bytes]:
        yield head
        if failure is not None:
            raise failure
        yield from chunks

    return head, again()


def unreadable(path: Path, error: OSError) -> LogError:
    """Say that a file cannot be read."""
    return LogError(f"log {path} cannot be read: {error.strerror or error}")


def _refuse_others(path: Path, head: bytes) -> None:
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise LogError(
                f"log {path} is {what}: make it JSON Lines (plain, gzip or zstd) or Parquet"
            )
    at, magic = _TAR
    if head[at : at + len(magic)] == magic:
        raise LogError(f"log {path} is a tar archive: unpack it and name the files in it")


def _compression(head: bytes) -> Callable[[Iterator[bytes]], Iterator[bytes]] | None:
    if head.startswith(_GZIP):
        return _gunzipped
    if head.startswith(_ZSTD) or (head[1:4] == _ZSTD_SKIPPED and 0x50 <= head[0] <= 0x5F):
        return _unzstd
    return None


def _is_text(head: bytes) -> bool:
    """Tell whether a file begins as JSON does."""
    encoding = encoding_of(head)
    start = head.removeprefix(BYTE_ORDER_MARK)
    if encoding is not None:
        start = head.decode(encoding, "ignore").removeprefix("\ufeff").encode("utf-8", "ignore")
    return start.lstrip()[:1] in (b"{", b"[")


def _without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    _, chunks = peek(chunks, len(BYTE_ORDER_MARK))
    yield next(chunks, b"").removeprefix(BYTE_ORDER_MARK)
    yield from chunks


def _decoded(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    # Half a surrogate pair passes, and makes the line that has it no UTF-8.
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        decoder.decode(b"", True)
    except UnicodeError as error:
        raise DamagedError(f"the {encoding.upper()} text is damaged ({error})") from error


def _chunks(path: Path, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                on_bytes(len(chunk))
                yield chunk
    except OSError as error:
        raise unreadable(path, error) from error


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
                raise DamagedError(f"the gzip stream is corrupt ({error})") from error
            pending = inflater.unused_data
    if not inflater.eof:
        raise DamagedError("the gzip stream is truncated")


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
                    raise DamagedError(f"the zstd stream is corrupt ({error})") from error
                pending = frame.unused_data
    if not frame.eof:
        raise DamagedError("the zstd stream is truncated")
