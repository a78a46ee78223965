"""Logs: read whatever state they are in, merged by event time, written the same every time."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from pathlib import Path
from typing import IO, Any

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.errors import LogError
from stream.logs.files import (
    MAX_LINE_BYTES,
    LogLine,
    ReadProgress,
    check_logs,
    merge,
    read_head,
    write_lines,
)

SUFFIXES = ["", ".gz", ".zst"]


def store(path: Path, content: bytes) -> Path:
    """Write a file, compressed as its suffix says."""
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = zstandard.ZstdCompressor(write_checksum=True).compress(content)
    path.write_bytes(content)
    return path


def event(time_ms: int, kind: str = "application", tag: str = "") -> bytes:
    """Make a line of a log that is a usable event."""
    ids = {
        f"{name}_id": "x" for name in ("application", "member", "job", "engagement", "job_event")
    }
    features = {"per_member": [1], "per_job": [1]}
    more = {"action": "message", "features": features, "tag": tag}
    return json.dumps({"type": kind, "event_time_ms": time_ms} | ids | more).encode()


def many_lines(count: int = 4_000) -> list[bytes]:
    """Make lines that do not compress to nothing."""
    return [event(i, tag=str(zlib.crc32(b"%d" % i)) * 5) for i in range(count)]


def raws(lines: list[LogLine]) -> list[bytes]:
    """Take the bytes."""
    return [line.raw for line in lines]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_lines_come_as_they_are_and_counted(tmp_path: Path, suffix: str) -> None:
    """Every line comes unchanged under its number; empty ones are counted and left out."""
    path = store(tmp_path / f"log.jsonl{suffix}", b'{"a":1}\n\n  \nx\xff\r\n{"b": 2}')
    assert list(merge([path])) == [
        LogLine(path.name, 1, b'{"a":1}'),
        LogLine(path.name, 4, b"x\xff"),
        LogLine(path.name, 5, b'{"b": 2}'),
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"\n", b"\n\r\n \n"])
def test_a_log_without_lines_is_no_error(tmp_path: Path, suffix: str, content: bytes) -> None:
    """A file with nothing in it has no lines and no damage."""
    assert list(merge([store(tmp_path / f"log{suffix}", content)])) == []


@settings(max_examples=60, deadline=None)
@example([b'{"\xef', b'{"\xef \xbb\xbf'], "")
@given(
    st.lists(
        st.sampled_from([b"", b" "])
        # Without what ends a line or an object, and whole byte order marks: see test_lines.py.
        | st.binary(max_size=20)
        .filter(lambda raw: not re.search(rb"[\n\r]|\}\{|\xef\xbb\xbf", raw))
        .map(lambda raw: b'{"' + raw),
        max_size=20,
    ),
    st.sampled_from(SUFFIXES),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], suffix: str
) -> None:
    """Reading gives back what was written, but for empty lines and line ends."""
    path = tmp_path_factory.mktemp("logs") / f"log{suffix}"
    assert write_lines(path, lines) == len(lines)
    expected = [line.removesuffix(b"\r") for line in lines if line and not line.isspace()]
    assert raws(list(merge([path]))) == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_long_logs_cross_the_chunks_unharmed(tmp_path: Path, suffix: str) -> None:
    """Lines that lie across the chunks in which a file is read are whole; numbers are right."""
    lines = [b"x" * (i * 97 % 70_000) + b"y" for i in range(300)]
    path = store(tmp_path / f"log{suffix}", b"\n".join(lines))
    read = list(merge([path]))
    assert raws(read) == lines
    assert [line.number for line in read] == list(range(1, 301))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_endless_line_is_cut(tmp_path: Path, suffix: str) -> None:
    """A line far beyond the limit is cut, in bounded memory, and what follows it is read."""
    path = store(tmp_path / f"log{suffix}", b"a\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\nb\n")
    first, long, last = merge([path])
    assert (first.raw, last.raw, last.number) == (b"a", b"b", 3)
    assert long.raw == b"x" * MAX_LINE_BYTES


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    """A file that an editor began with a byte order mark reads like any other."""
    path = store(tmp_path / "log", b"\xef\xbb\xbf" + event(1) + b"\n")
    assert raws(list(merge([path]))) == [event(1)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_concatenated_streams_are_one_log(tmp_path: Path, suffix: str) -> None:
    """Compressed files that were put one after the other, and padded, read as one."""
    one = store(tmp_path / f"one{suffix}", b"a\nb").read_bytes()
    two = store(tmp_path / f"two{suffix}", b"c\nd\n").read_bytes()
    path = tmp_path / f"both{suffix}"
    path.write_bytes(one + two + (b"\0" * 512 if suffix == ".gz" else b""))
    assert raws(list(merge([path]))) == [b"a", b"bc", b"d"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_stream_gives_what_it_holds(tmp_path: Path, suffix: str) -> None:
    """Cut anywhere, a compressed log gives a prefix of its lines, then one that says so."""
    lines = many_lines()
    whole = store(tmp_path / f"log{suffix}", b"\n".join(lines)).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for cut in [0, 1, 9, 30, len(whole) // 3, len(whole) * 2 // 3, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        *read, last = merge([path])
        assert raws(read) == lines[: len(read)]
        assert all(line.damaged is None for line in read)
        assert last.damaged is not None
        assert "truncated" in last.damaged
        assert "\n" not in last.damaged
        assert last.number == len(read) + 1
        if len(read) < len(lines):
            assert lines[len(read)].startswith(last.raw)
    assert len(read) == len(lines)  # only the end mark was missing


def test_a_corrupt_gzip_gives_all_that_comes_before(tmp_path: Path) -> None:
    """Lines before the damage are all there, to within the compressor's own block."""
    lines = many_lines()
    whole = bytearray(store(tmp_path / "log.gz", b"\n".join(lines)).read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 64] = b"\xff" * 64
    path = tmp_path / "bad.gz"
    path.write_bytes(whole)
    *read, last = merge([path])
    assert last.damaged is not None
    assert "corrupt" in last.damaged
    good = sum(1 for line, expected in zip(read, lines, strict=False) if line.raw == expected)
    assert good >= 0.45 * len(lines)
    assert raws(read[:good]) == lines[:good]


def test_a_corrupt_zstd_gives_all_blocks_before(tmp_path: Path) -> None:
    """Lines of the blocks before the damaged one are all there."""
    lines = many_lines(20_000)
    whole = bytearray(store(tmp_path / "log.zst", b"\n".join(lines)).read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 64] = b"\xff" * 64
    path = tmp_path / "bad.zst"
    path.write_bytes(whole)
    *read, last = merge([path])
    assert last.damaged is not None
    assert "corrupt" in last.damaged
    assert raws(read) == lines[: len(read)]
    block = (128 << 10) / len(lines[-1])  # zstd's largest block, in lines
    assert len(read) >= len(lines) // 2 - 2 * block


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("content", [b"\0\1\2\3" * 9, b"hello\n", b"\x1f"])
def test_what_is_neither_compressed_nor_json_is_damaged(
    tmp_path: Path, suffix: str, content: bytes
) -> None:
    """Anything else under a compressed suffix gives no lines but the one that says so."""
    path = tmp_path / f"log{suffix}"
    path.write_bytes(content)
    (only,) = merge([path])
    assert only.damaged is not None
    assert only.raw == b""


def test_missing_logs_are_told_before_anything_is_read(tmp_path: Path) -> None:
    """If any of the logs is missing, is a folder, or none is given, nothing is read at all."""
    good = store(tmp_path / "log", event(1))
    with pytest.raises(LogError, match="none does not exist"):
        merge([good, tmp_path / "none"])
    with pytest.raises(LogError, match="is not a file"):
        merge([good, tmp_path])
    with pytest.raises(LogError, match="no log file"):
        merge([])
    with pytest.raises(LogError, match="does not exist"):
        merge([tmp_path / "none"])
    check_logs([good])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_logs_are_told(tmp_path: Path) -> None:
    """A file that may not be read is an error at once."""
    path = store(tmp_path / "log", event(1))
    path.chmod(0)
    with pytest.raises(LogError, match="cannot be read: Permission denied"):
        merge([path])


def test_one_file_keeps_its_order(tmp_path: Path) -> None:
    """The order of one file is arrival order, whatever its times are."""
    lines = [event(3), b"?", event(1), event(2)]
    assert raws(list(merge([store(tmp_path / "log", b"\n".join(lines))]))) == lines


def test_several_files_are_merged_by_time(tmp_path: Path) -> None:
    """The earliest next line comes first; ties: application, engagement, others, file order."""
    one = [event(1, "engagement"), event(5, tag="1"), event(7, "clock"), event(7, "engagement")]
    two = [event(1), event(5, tag="2"), event(7, "job"), event(9)]
    three = [event(1, "engagement", "3"), event(5, tag="3"), event(7)]
    paths = [
        store(tmp_path / "1.jsonl", b"\n".join(one)),
        store(tmp_path / "2.jsonl.gz", b"\n".join(two)),
        store(tmp_path / "3.jsonl.zst", b"\n".join(three)),
    ]
    assert raws(list(merge(paths))) == [
        *(two[0], one[0], three[0]),
        *(one[1], two[1], three[1]),
        *(three[2], one[2], one[3], two[2]),
        two[3],
    ]


def test_lines_without_a_time_stay_with_the_line_before(tmp_path: Path) -> None:
    """Garbage, times of a wrong type and absurd times travel at the time of the line before."""
    bad = [
        b"garbage",
        b"[1]",
        b'{"type":"application"}',
        b'{"type":"application","event_time_ms":"9"}',
        event(-1),
        event(10**17),
    ]
    one = [bad[0], event(1), *bad, event(8)]
    two = [event(0), event(2), event(7)]
    paths = [store(tmp_path / "1", b"\n".join(one)), store(tmp_path / "2", b"\n".join(two))]
    merged = raws(list(merge(paths)))
    assert merged == [event(0), bad[0], event(1), *bad, event(2), event(7), event(8)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), max_size=15), min_size=1, max_size=4))
def test_a_merge_loses_nothing_and_keeps_each_order(
    tmp_path_factory: pytest.TempPathFactory, times: list[list[int]]
) -> None:
    """Every line comes once, each file's in its own order; sorted files give a sorted whole."""
    folder = tmp_path_factory.mktemp("logs")
    paths = [
        store(folder / str(k), b"\n".join(event(t, tag=str(k)) for t in file))
        for k, file in enumerate(times)
    ]
    merged = list(merge(paths))
    for k, file in enumerate(times):
        own = [line for line in merged if line.source == str(k)]
        assert raws(own) == [event(t, tag=str(k)) for t in file]
        assert [line.number for line in own] == list(range(1, len(file) + 1))
    assert len(merged) == sum(map(len, times))
    if all(file == sorted(file) for file in times):
        merged_times = [json.loads(line.raw)["event_time_ms"] for line in merged]
        assert merged_times == sorted(merged_times)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_progress_counts_the_bytes_on_disk(tmp_path: Path, suffix: str) -> None:
    """Progress knows the files' size at once, grows while they are read, and ends at the size."""
    paths = [store(tmp_path / f"{k}{suffix}", b"\n".join(many_lines(20_000 * k))) for k in (1, 2)]
    progress = ReadProgress()
    seen = set()
    lines = merge(paths, progress)
    assert progress.total_bytes == sum(path.stat().st_size for path in paths)
    for _ in lines:
        seen.add(progress.done_bytes)
    assert progress.done_bytes == progress.total_bytes
    assert len(seen) > 5


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b"{",
        b'{"type":}',
        b"\xff\xfe",
        b'{"type":"\xff"}',
        b"[" * 100_000,
    ],
)
def test_a_head_is_none_where_there_is_no_object(raw: bytes) -> None:
    """Whatever a line holds, looking at its head raises nothing."""
    assert read_head(raw) is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_written_logs_are_equal_byte_by_byte(tmp_path: Path, suffix: str) -> None:
    """The same lines make the same file, whatever its name and the time of writing."""
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    for path in (one, two):
        write_lines(path, many_lines(600))
    assert one.read_bytes() == two.read_bytes()
    assert sorted(tmp_path.iterdir()) == [one, two]


def test_a_log_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    """Writing leaves either the whole file or none, and keeps what was there before."""

    def failing() -> list[bytes]:
        raise KeyboardInterrupt

    path = store(tmp_path / "log", b"before\n")
    with pytest.raises(KeyboardInterrupt):
        write_lines(path, (line for k in range(9) for line in (failing() if k == 5 else [b"x"])))
    assert path.read_bytes() == b"before\n"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(LogError, match="cannot be written"):
        write_lines(tmp_path / "no" / "log", [b"x"])


def test_many_files_are_open_only_in_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A year of daily files is merged in order with two files open at a time."""
    paths = []
    for day in range(365):
        lines = [event(day * 1000 + 10 * at) for at in range(120)]  # a fifth laps over
        paths.append(store(tmp_path / f"{day:03}.jsonl", b"\n".join(lines)))
    opened = most = 0
    real = Path.open

    class Counted:
        """A file that counts itself."""

        def __init__(self, file: IO[Any]) -> None:
            self._file = file

        def __enter__(self) -> IO[Any]:
            nonlocal opened, most
            opened += 1
            most = max(most, opened)
            return self._file.__enter__()

        def __exit__(self, *_: object) -> None:
            nonlocal opened
            opened -= 1
            self._file.close()

    monkeypatch.setattr(Path, "open", lambda self, *a, **k: Counted(real(self, *a, **k)))
    progress = ReadProgress()
    times = [json.loads(line.raw)["event_time_ms"] for line in merge(paths[::-1], progress)]
    assert times == sorted(times)
    assert len(times) == 365 * 120
    assert most <= 3
    assert progress.done_bytes == progress.total_bytes
