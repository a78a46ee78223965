"""What a file holds is told by its bytes: compression, encoding, and formats that are not read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from stream.errors import LogError
from stream.logs.files import LogLine, merge

MARK = b"\xef\xbb\xbf"
LINES = [json.dumps({"type": "clock", "event_time_ms": n, "to": "Zürich €𝄞"}) for n in range(3000)]
TEXT = "\n".join(LINES)


def zstd(content: bytes) -> bytes:
    """Compress by zstd."""
    return zstandard.ZstdCompressor().compress(content)


def read(path: Path) -> list[str]:
    """Read a log that has no damage."""
    found = list(merge([path]))
    assert [line.damaged for line in found] == [None] * len(found)
    return [line.raw.decode() for line in found]


def written(path: Path, content: bytes) -> Path:
    """Write a file."""
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "name", ["log", "log.jsonl", "log.gz", "log.zst", "log.json", "log.parquet"]
)
@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, zstd, lambda raw: gzip.compress(gzip.compress(raw))],
    ids=["plain", "gzip", "zstd", "gzip twice"],
)
def test_compression_is_told_by_content(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    """Plain, gzip and zstd are read under any name."""
    assert read(written(tmp_path / name, pack(TEXT.encode()))) == LINES


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_unicode_is_told_by_content(
    tmp_path: Path, pack: Callable[[bytes], bytes], encoding: str, *, mark: bool
) -> None:
    """UTF-8, UTF-16 and UTF-32 of either byte order are read, with or without a mark."""
    content = ("\ufeff" * mark + TEXT).encode(encoding)
    assert read(written(tmp_path / "log.jsonl", pack(content))) == LINES


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_line_ends_of_any_system_are_read(tmp_path: Path, end: str, encoding: str) -> None:
    """Line ends of Unix, Windows and the old Mac give the same lines under the same numbers."""
    path = written(tmp_path / "log.jsonl", (end.join(LINES) + end).encode(encoding))
    assert list(merge([path])) == [
        LogLine("log.jsonl", number, line.encode()) for number, line in enumerate(LINES, 1)
    ]


def test_marks_in_the_middle_are_left_out(tmp_path: Path) -> None:
    """Files that begin with a mark each and were put one after the other lose no line."""
    part = MARK + b"\n".join(line.encode() for line in LINES[:700]) + b"\r\n"
    assert read(written(tmp_path / "log", part * 3)) == LINES[:700] * 3
    open_ended = MARK + b"\n".join(line.encode() for line in LINES[:700])
    found = list(merge([written(tmp_path / "log", open_ended * 3)]))
    assert [line.raw.decode() for line in found] == LINES[:700] * 3
    # Where no line ends, two objects stand in one line, and have its number.
    numbers = [1 + at - at // 700 for at in range(2100)]
    assert [line.number for line in found] == numbers
    alone = MARK + LINES[0].encode() + b"\n" + MARK + b"\r\n" + MARK * 2 + b"\n" + MARK
    assert read(written(tmp_path / "log", alone)) == LINES[:1]  # a file that holds only its mark
    spaced = b" " + MARK + LINES[0].encode() + MARK + b"\n"
    assert read(written(tmp_path / "log", spaced * 2)) == LINES[:1] * 2
    inner = json.dumps({"x": "\ufeff"}, ensure_ascii=False)
    assert read(written(tmp_path / "log", inner.encode())) == [inner]  # in a string it is text


def test_half_a_character_costs_its_line(tmp_path: Path) -> None:
    """Of UTF-16 with half a surrogate pair only that line is no UTF-8; a cut end is told."""
    lines = ['{"a":1}', '{"a":"\ud800"}', '{"a":3}']
    content = "\n".join(lines).encode("utf-16-le", "surrogatepass")
    first, bad, last = merge([written(tmp_path / "log", content)])
    assert (first.raw, last.raw) == (b'{"a":1}', b'{"a":3}')
    with pytest.raises(UnicodeDecodeError):
        bad.raw.decode()
    *_, end = merge([written(tmp_path / "log", content[:-1])])
    assert end.damaged is not None
    assert "UTF-16-LE text is damaged" in end.damaged


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04rest", "is a ZIP archive"),
        (b"BZh91AY", "is compressed with bzip2"),
        (b"\xfd7zXZ\0\0", "is compressed with xz"),
        (b"Obj\x01\x04", "is Avro"),
        (b"ORC\n", "is ORC"),
        (b"log.jsonl".ljust(257, b"\0") + b"ustar\0", "is a tar archive: unpack it"),
    ],
)
def test_other_formats_are_named_at_once(tmp_path: Path, content: bytes, what: str) -> None:
    """A format that is known and not read is an error before anything is read, also in gzip."""
    good = written(tmp_path / "good", b"{}")
    for name in ("log.jsonl", "log.gz", "log.parquet"):
        with pytest.raises(LogError, match=what):
            merge([good, written(tmp_path / name, content)])
    with pytest.raises(LogError, match=what):
        merge([written(tmp_path / "log.gz", gzip.compress(content))])
    with pytest.raises(LogError, match="is compressed Parquet"):
        merge([written(tmp_path / "log.gz", gzip.compress(b"PAR1"))])


def test_several_frames_and_padding_are_one_log(tmp_path: Path) -> None:
    """Members of gzip, padded by zeros, and frames of zstd, also skippable ones, follow on."""
    parts = [TEXT[:9000].encode(), TEXT[9000:].encode()]
    skippable = b"\x5e\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    members = b"".join(gzip.compress(part) + bytes(600) for part in parts)
    frames = skippable + b"".join(zstd(part) + skippable for part in parts)
    for content in (members, frames):
        assert read(written(tmp_path / "log", content)) == LINES
