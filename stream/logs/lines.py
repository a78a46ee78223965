"""Chunks of text → the lines of a log; or the elements of JSON arrays, or objects over many lines.

Line ends are those of Unix and Windows, and the old Mac's between objects, or anywhere where a file
has no others. A line may hold several objects, where files were put one after the other: each has
the line's number. A file that begins as an array of objects, or with an object that goes on in the
next line, is cut where its objects end, whatever lines they stand in; then elements are counted in
place of lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from stream.logs.content import CHUNK_BYTES, DamagedError, peek
from stream.text import BYTE_ORDER_MARK

MAX_LINE_BYTES: Final = 1 << 20
"""A longer line is cut here: far above what an event may have, so that it stays too large."""

_ELEMENTS: Final = re.compile(rb"\s*(?:\[\s*(?:[{\]]|$)|\{[ \t]*[\r\n]\s*\")")
_FIRST_LEVEL: Final = re.compile(rb'"[^"\\\n]*"|["{}\[\],]')
_BELOW: Final = re.compile(rb'"[^"\\\n]*"|["{}\[\]]')
_IN_STRING: Final = re.compile(rb'[\\"\n]')  # no string holds a line's end: it was never closed
_BLANK: Final = b" \t\r\n" + BYTE_ORDER_MARK
_MARKS: Final = re.compile(rb"\A(?:[ \t\r]*\xef\xbb\xbf)+|(?:\xef\xbb\xbf[ \t\r]*)+\Z")
_MARK_START: Final = BYTE_ORDER_MARK[:1]  # a single byte is found fastest
_JOINT: Final = b"}" + BYTE_ORDER_MARK + b"{"
_TOGETHER: Final = re.compile(rb"\}\{")  # is found five times as fast as by "in"
_BRACKET: Final = ord("[")
_ARRAY: Final = re.compile(rb"(?:\xef\xbb\xbf)?\[\s*\{")  # an empty one is no event
# In no JSON does a value follow an object, or an object a value, without a comma or a colon.
_SINGLE_RETURN: Final = re.compile(rb"\r[^\n]")
_OLD_LINE_END: Final = re.compile(
    rb"\r(?:(?<=\}\r)[\r \t]{0,8}(?=[^\s,\]}])|(?<=[^\s,:\[]\r)(?=\{))"
)
_SEEN_AGAIN: Final = 16  # bytes, so that all of that is seen at once


class LogLine(msgspec.Struct, frozen=True, gc=False):
    """One line of a log.

    ``source`` is the file's name without its folder, ``number`` counts its lines (elements of an
    array, rows) from 1, ``raw`` is the line without its end. ``damaged`` is None, or says in one
    line why the file could not be read beyond this point; then ``raw`` is what there was of the
    last line, possibly nothing. Only in Parquet something may follow.
    """

    source: str
    number: int
    raw: bytes
    damaged: str | None = None


def lines_of(name: str, chunks: Iterator[bytes]) -> Iterator[LogLine]:
    """Cut a text into lines; called by :func:`stream.logs.files.merge`.

    Empty lines are counted and left out, a line beyond :data:`MAX_LINE_BYTES` is cut there. Where
    the text cannot be read on, a last line has ``damaged`` set.

    Args:
        name: the file's. chunks: of its text; they may raise DamagedError.

    """
    head, chunks = peek(chunks, CHUNK_BYTES)
    if _ELEMENTS.match(head):
        return _elements(name, chunks)
    if b"\r" in head and b"\n" not in head:
        chunks = (chunk.replace(b"\r", b"\n") for chunk in chunks)
    return _lines(name, chunks)


def _line_ends(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """End lines where single carriage returns stand between objects, in a file of mixed line ends.

    Each is looked at between its neighbours, for which some bytes are kept back.
    """
    last = b""
    try:
        for chunk in chunks:
            text = last + chunk
            if b"\r" in text and _SINGLE_RETURN.search(text):
                text = _OLD_LINE_END.sub(lambda end: b"\n" * end.group().count(b"\r"), text)
            last = text[-_SEEN_AGAIN:]
            yield text[:-_SEEN_AGAIN]
    except DamagedError:
        yield last
        raise
    yield last


def _lines(name: str, chunks: Iterator[bytes]) -> Iterator[LogLine]:
    number = 0
    rest = b""
    several: _Cutter | None = None  # of a line that holds several objects and has not ended yet
    damaged = None
    try:
        for chunk in _line_ends(chunks):
            ends = chunk.split(b"\n")
            if several is not None:
                yield from several.take(ends[0])
            elif len(rest) <= MAX_LINE_BYTES:
                rest += ends[0]
            if len(ends) == 1:
                if several is None and len(rest) > CHUNK_BYTES and _holds_several(rest):
                    several = _Cutter(name, number + 1)
                    yield from several.take(rest)
                    rest = b""
                continue
            if several is not None:
                rest, several = several.left(), None
            ends[0] = rest
            rest = ends.pop()
            text = b"\n".join(ends)
            odd = _MARK_START in text or _TOGETHER.search(text) is not None
            for raw in ends:
                number += 1
                if not raw or raw.isspace():
                    continue
                if not odd and raw[0] != _BRACKET:
                    yield LogLine(name, number, raw[:MAX_LINE_BYTES].rstrip(b"\r"))
                else:
                    yield from _objects(name, number, raw)
    except DamagedError as error:
        damaged = f"{name}: {error}"
    if several is None and _holds_several(rest):
        several = _Cutter(name, number + 1)
        yield from several.take(rest)
    if several is not None:
        rest = several.left()
    # The last line needs no line end; in a damaged file it counts only if it is whole.
    if rest and not rest.isspace() and (damaged is None or _is_whole(rest)):
        number += 1
        yield from _objects(name, number, rest)
        rest = b""
    if damaged is not None:
        yield LogLine(name, number + 1, _cut(rest), damaged)


def _objects(name: str, number: int, raw: bytes) -> Iterator[LogLine]:
    """Line → the objects in it, which all have its number, without byte order marks."""
    if _holds_several(raw):
        cutter = _Cutter(name, number)
        yield from cutter.take(raw)
        raw = cutter.left()
    cut = _MARKS.sub(b"", raw)[:MAX_LINE_BYTES].rstrip(b"\r")
    if cut and not cut.isspace():
        yield LogLine(name, number, cut)


def _holds_several(raw: bytes) -> bool:
    """Tell whether a line may hold several objects: an array, or files put one after the other."""
    return bool(_TOGETHER.search(raw) or _JOINT in raw or _ARRAY.match(raw))


def _is_whole(raw: bytes) -> bool:
    try:
        msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def _cut(raw: bytes) -> bytes:
    return raw.strip(_BLANK)[:MAX_LINE_BYTES]


def _elements(name: str, chunks: Iterator[bytes]) -> Iterator[LogLine]:
    cutter = _Cutter(name)
    damaged = None
    try:
        for chunk in chunks:
            yield from cutter.take(chunk)
    except DamagedError as error:
        damaged = f"{name}: {error}"
    yield from cutter.end(damaged)


class _Cutter:
    """Cuts a text into the elements of its arrays and the objects beside them.

    It only counts brackets outside of strings; whether an element is JSON is for its reader to say.
    """

    def __init__(self, name: str, line: int | None = None) -> None:
        """Give elements the number of a line, else count them."""
        self._name = name
        self._line = line
        self._number = 0
        self._piece = b""  # of the element that is being read
        self._depth = 0  # within it
        self._in_array = False
        self._in_string = False
        self._escaped = 0  # bytes of the next chunk that a backslash goes before

    def take(self, chunk: bytes) -> Iterator[LogLine]:
        """Take a chunk in; give the elements that end in it."""
        at, start = self._escaped, 0
        while True:
            pattern = _BELOW if self._depth else _FIRST_LEVEL
            found = (_IN_STRING if self._in_string else pattern).search(chunk, at)
            if found is None:
                break
            at = found.end()
            token = found.group()
            if self._in_string:
                self._in_string = token == b"\\"
                at += self._in_string
                if token == b"\n":  # damage, whose brackets do not count: the element ends here
                    self._keep(chunk[start:at])
                    yield from self._element()
                    self._depth, start = 0, at
            elif token == b'"':
                self._in_string = True
            elif token in b"{[":
                if not self._depth and token == b"[" and not self._in_array:
                    self._keep(chunk[start : at - 1])
                    yield from self._element()
                    self._in_array, start = True, at
                else:
                    self._depth += 1
            elif token in b"}]" and self._depth:
                self._depth -= 1
                if not self._depth and not self._in_array:
                    self._keep(chunk[start:at])
                    yield from self._element()
                    start = at
            elif token == b"," or (token == b"]" and self._in_array):
                self._keep(chunk[start : at - 1])
                yield from self._element()
                start = at
                self._in_array &= token == b","
        self._escaped = max(at - len(chunk), 0)
        self._keep(chunk[start:])

    def end(self, damaged: str | None) -> Iterator[LogLine]:
        """Give what is left; say it where the text ends before its last bracket."""
        if damaged is None and (self._in_array or self._depth):
            damaged = f"{self._name}: the file ends before its last bracket is closed"
        if damaged is not None:
            yield LogLine(self._name, self._number + 1, _cut(self._piece), damaged)
        else:
            yield from self._element()

    def left(self) -> bytes:
        """Return what is left of a line: nothing where its last bracket is closed."""
        return self._piece

    def _keep(self, part: bytes) -> None:
        if len(self._piece) <= MAX_LINE_BYTES:
            self._piece += part

    def _element(self) -> Iterator[LogLine]:
        raw, self._piece = self._piece.strip(_BLANK), b""
        if raw:
            self._number += 1
            yield LogLine(self._name, self._line or self._number, _cut(raw))
