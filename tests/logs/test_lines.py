"""Lines, elements of arrays, and objects over many lines."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.logs.content import DamagedError
from stream.logs.files import MAX_LINE_BYTES, LogLine, merge
from stream.logs.lines import lines_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from('"\\[]{},\n'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), max_size=6)


def cut(content: bytes, size: int) -> Iterator[bytes]:
    """Cut a text into chunks."""
    return (content[at : at + size] for at in range(0, len(content), size))


def undamaged(lines: Iterator[LogLine]) -> list[Any]:
    """Read each line as JSON."""
    found = list(lines)
    assert [line.damaged for line in found] == [None] * len(found)
    assert [line.number for line in found] == list(range(1, len(found) + 1))
    return [json.loads(line.raw) for line in found]


@given(OBJECTS, st.sampled_from([None, 2]), st.booleans(), st.integers(1, 40))
def test_an_array_is_its_elements(
    objects: list[Any], indent: int | None, escaped: bool, size: int
) -> None:
    """Objects of an array come one by one, on one line or many, however the text is cut."""
    text = json.dumps(objects, indent=indent, ensure_ascii=escaped)
    content = text.encode("utf-8", "surrogatepass")
    assert undamaged(lines_of("log", cut(content, size))) == objects
    twice = content + b"\r\n" + content  # two such files, one after the other
    assert undamaged(lines_of("log", cut(twice, size))) == objects * 2


@given(OBJECTS, st.integers(1, 40), st.sampled_from(["\n", "\n,\n", "", "\r\n"]))
def test_objects_over_many_lines_come_one_by_one(
    objects: list[Any], size: int, between: str
) -> None:
    """What jq and json.tool print is read: objects beside each other, each over many lines."""
    objects = [{"type": "clock"}, *objects]
    content = between.join(json.dumps(one, indent=2) for one in objects).encode()
    assert undamaged(lines_of("log", cut(content, size))) == objects


@given(OBJECTS, OBJECTS, st.sampled_from(["}\n", "}"]), st.integers(1, 40))
def test_files_put_one_after_the_other_lose_nothing(
    first: list[Any], then: list[Any], end: str, size: int
) -> None:
    """Line ends of another system, none at the end, or an array after lines: all objects come."""
    first = [{"type": "clock"}, *first]
    head = "\n".join(json.dumps(one) for one in first).removesuffix("}") + end
    old = "\r".join(json.dumps(one) for one in then)
    lines = "".join(json.dumps(one) + "\n" for one in then)
    contents = [head + lines, head + old + "\r", head + old, old + "\r" * (old > "") + head]
    contents += ["".join(json.dumps(one) for one in then) + head]
    if end == "}\n" and then:  # an empty array among lines is a line that is no event
        contents += [head + json.dumps(then), head + json.dumps(then) + "\n" + head]
    for content in contents:
        found = list(lines_of("log", cut(content.encode(), size)))
        assert [line.damaged for line in found] == [None] * len(found)
        got = [json.loads(line.raw) for line in found]
        assert sorted(map(str, got)) in (
            sorted(map(str, first + then)),
            sorted(map(str, first + then + first)),
        )


def test_objects_of_one_line_have_its_number() -> None:
    """Only line ends count; a single carriage return between objects is one."""
    content = b'{"a":1}\r{"a":2}\n{"a":3}{"a":"}{"}\n[{"a":4},{"a":5}]\r\nx}{"a":6}\r{"b":\n{}\n'
    content += b'{"c":1}\r\r \r{"c":2,\r"d":[\r{},\r{}\r]\r}\r\r\n{"c":3}'
    long = b'{"z":"' + b"x" * (1 << 16) + b'"}'  # the first 64 KiB are read together
    for size in (1, 2, 5, 17, 999):
        lines = lines_of("log", chain([long + b"\n"], cut(content, size)))
        first, *found = [(line.number - 1, line.raw) for line in lines]
        assert first == (0, long)
        assert found == [
            (1, b'{"a":1}'),
            (2, b'{"a":2}'),
            (3, b'{"a":3}'),
            (3, b'{"a":"}{"}'),
            (4, b'{"a":4}'),
            (4, b'{"a":5}'),
            (5, b'x}{"a":6}'),
            (6, b'{"b":'),
            (7, b"{}"),
            (8, b'{"c":1}'),
            (11, b'{"c":2,\r"d":[\r{},\r{}\r]\r}'),
            (12, b'{"c":3}'),
        ]


@pytest.mark.parametrize("start", [b'{"a":1}', b'[{"a":1},'])
def test_damage_in_a_line_of_several_objects_costs_the_last(start: bytes) -> None:
    """Where a file cannot be read on, the whole objects before that come."""

    def chunks() -> Iterator[bytes]:
        yield b'{"z":1}\n' + start + b'{"a":'
        raise DamagedError("truncated")

    assert [(line.number, line.raw, line.damaged) for line in lines_of("log", chunks())] == [
        (1, b'{"z":1}', None),
        (2, b'{"a":1}', None),
        (2, b'{"a":', "log: truncated"),
    ]


@pytest.mark.parametrize("between", ["", "\r", ","])
def test_a_line_of_many_objects_is_read_in_little_memory(between: str) -> None:
    """20 MB without a line end, of objects or an array of them, are no line that is too large."""

    def chunks() -> Iterator[bytes]:
        yield b'{"a":0}\n' + b"[" * (between == ",")
        for at in range(400):
            yield (between if at else "").encode() + b'{"a":"%s"}' % (b"}{" * 25_000)
        yield b"]" * (between == ",") + b'\n{"a":1}'

    tracemalloc.start()
    found = [(line.number, len(line.raw)) for line in lines_of("log", chunks())]
    assert found[0] == (1, 7)
    assert [size for _, size in found[1:-1]] == [50_008] * 400
    assert found[-1] == (401 + 1 if between == "\r" else 3, 7)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_lines_are_counted_as_lines(tmp_path: Path) -> None:
    """A log whose lines begin as arrays or braces do is still one of lines."""
    for first in (b'["a","b"]', b"[", b"[1]", b"{", b"{}", b'{"a":', b'[{"a":1}'):
        path = tmp_path / "log"
        path.write_bytes(first + b'x\n{"b":1}\n')
        assert [line.number for line in merge([path])][-1] == 2 or first == b'[{"a":1}'


@pytest.mark.parametrize("text", ["[]", "[ ]", "[\n]", "[{}]", '[{"a":1},]', "[{},{}]\n\n"])
def test_small_arrays(text: str) -> None:
    """Empty arrays have no elements; a comma before the end adds none."""
    count = text.count("{")
    assert len(undamaged(lines_of("log", iter([text.encode()])))) == count


def test_what_is_no_object_is_an_element_too() -> None:
    """Anything between two commas is one element, for its reader to refuse."""
    content = b'[{"a":1}, 7, "x,y", {"b":[1,{"c":2}]} {"d":1}, nonsense}]'
    assert [line.raw for line in lines_of("log", iter([content]))] == [
        b'{"a":1}',
        b"7",
        b'"x,y"',
        b'{"b":[1,{"c":2}]} {"d":1}',
        b"nonsense}",
    ]


def test_an_array_that_is_cut_off_says_so() -> None:
    """Cut anywhere, an array gives its whole elements and then one line that says that it ends."""
    objects = [{"n": n, "s": "],}"} for n in range(20)]
    content = json.dumps(objects).encode()
    for end in range(5, len(content) - 1):
        *whole, last = lines_of("log", iter([content[:end]]))
        assert [json.loads(line.raw) for line in whole] == objects[: len(whole)]
        assert len(whole) >= content[:end].count(b"}, ")
        assert last.damaged == "log: the file ends before its last bracket is closed"


def test_an_array_in_damaged_gzip_gives_what_it_holds(tmp_path: Path) -> None:
    """A truncated stream is told as it is for lines."""
    path = tmp_path / "log.json.gz"
    content = gzip.compress(json.dumps([{"n": n * 7919} for n in range(3000)]).encode())
    path.write_bytes(content[: len(content) // 2])
    *whole, last = merge([path])
    assert [json.loads(line.raw)["n"] for line in whole] == [n * 7919 for n in range(len(whole))]
    assert len(whole) > 1000
    assert last.damaged is not None
    assert "truncated" in last.damaged


def test_an_open_string_ends_with_its_line() -> None:
    """A quotation mark too many or too few costs its own object, not all that follows."""
    for broken in (b'{"a":"x}', b'{"a":"x"y"}', b'{"a":[{"x}]}'):
        content = b'[{"z":1},\n' + broken + b',\n{"b":1},\n{"c":1}]'
        found = list(lines_of("log", iter([content])))
        assert [line.raw for line in found] == [b'{"z":1}', broken + b",", b'{"b":1}', b'{"c":1}']
        assert found[-1].damaged is None


def test_memory_is_bounded() -> None:
    """An array of 20 MB, and an element of 20 MB in one, are read in little memory."""

    def chunks(piece: bytes) -> Iterator[bytes]:
        yield b"[{},"
        for _ in range(400):
            yield piece
        yield b'"}]'

    tracemalloc.start()
    count = sum(1 for _ in lines_of("log", chunks(b'{"a":"%s"},' % (b"x" * 50_000))))
    assert count == 402
    first, long = lines_of("log", chunks(b'{"a":"' + b"x" * 50_000))
    assert (first.raw, len(long.raw)) == (b"{}", MAX_LINE_BYTES)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
