"""In which order the lines of several files are read: by event time, each file in its own order.

Only usable events order a file. A line that is none, and a forget, which may lie anywhere in time,
go with the line before. (Of a line within a day of its file only type and time are looked at.) An
event that is usable and years off must not hold up all that comes after it in its file: it waits
for its own time, if the lines after it say that the file is not there yet. (Where it is they that
are late, after a real gap, waiting does no harm: it comes at its time.)
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from itertools import count, islice
from typing import Any, Final

import msgspec

from stream.errors import EventError
from stream.events.lenient import as_time_ms
from stream.events.structs import Forget
from stream.events.wire import decode_raw
from stream.logs.lines import LogLine
from stream.policy import DAY_MS
from stream.units import MAX_TIME_MS

FAR_MS: Final = DAY_MS
"""A line so much later than all before it in its file is looked at more closely."""

LOOK_AHEAD: Final = 100
"""How many lines after it are asked: if an event among them is a day earlier, it waits."""

_MOST_WAITING: Final = 10_000  # of a file; more is no accident, and must not fill memory

_RANKS: Final = {"application": 0, "engagement": 1, "job": 2, "clock": 2}
_LAST_RANK: Final = 2


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

    def is_dated(self) -> bool:
        """Tell whether it is of a type that says where in time a log is."""
        return type(self.type) is str and self.type in _RANKS


_HEAD_DECODER: Final = msgspec.json.Decoder(LineHead)
_NO_OBJECT: Final = (msgspec.MsgspecError, ValueError, RecursionError)


def read_head(raw: bytes) -> LineHead | None:
    """Read type, time and keys of a line; None where it is not a JSON object."""
    try:
        return _HEAD_DECODER.decode(raw)
    except _NO_OBJECT:
        return None


Place = tuple[int, int, int]
"""What the merge compares: time, kind of event, file. No two files' are equal."""


def ordered(lines: Iterator[LogLine], file: int) -> Iterator[tuple[Place, LogLine]]:
    """Give a file's lines with their places; called by :func:`stream.logs.files.merge`.

    Two lines never compare as such: of one file only one waits at a time in the merge, and those
    that wait here are counted. Their numbers may be equal, where a line holds several objects.
    """
    ahead = _Ahead(lines)
    waiting: list[tuple[int, int, int, LogLine]] = []  # a heap, by time and turn
    turns = count()
    largest_ms = -FAR_MS - 1
    place_ms = 0
    for line in ahead:
        try:
            head = _HEAD_DECODER.decode(line.raw)
            rank = _RANKS[head.type]
            time_ms = head.event_time_ms
            if type(time_ms) is not int or time_ms < 0:
                time_ms = head.time_ms()
        except (*_NO_OBJECT, KeyError, TypeError):  # TypeError: its type may be a list
            time_ms = None
        if time_ms is None:
            yield (place_ms, _LAST_RANK, file), line
            continue
        if time_ms > largest_ms:
            if time_ms > largest_ms + FAR_MS and len(waiting) < _MOST_WAITING:
                if ahead.usable_ms(line) is None:
                    yield (place_ms, _LAST_RANK, file), line
                    continue
                if ahead.has_before(time_ms - FAR_MS):
                    heapq.heappush(waiting, (time_ms, next(turns), rank, line))
                    continue
            largest_ms = time_ms
            while waiting and waiting[0][0] <= time_ms:
                at_ms, _, at_rank, waited = heapq.heappop(waiting)
                yield (at_ms, at_rank, file), waited
        place_ms = time_ms
        yield (time_ms, rank, file), line
    while waiting:
        at_ms, _, at_rank, waited = heapq.heappop(waiting)
        yield (at_ms, at_rank, file), waited


class _Ahead:
    """The lines of a file, of which some are looked at before their turn, which is rare."""

    def __init__(self, lines: Iterator[LogLine]) -> None:
        self._lines = lines
        self._queue: deque[LogLine] = deque()  # those, which come before the others
        self._known: dict[LogLine, int | None] = {}  # their times, None: not usable

    def __iter__(self) -> Iterator[LogLine]:
        queue, lines = self._queue, self._lines
        while True:
            for line in lines:
                yield line
                if queue:
                    break
            if not queue:
                return
            while queue:
                yield queue.popleft()

    def has_before(self, time_ms: int) -> bool:
        """Tell whether one of the next events is earlier than a time."""
        self._queue.extend(islice(self._lines, max(LOOK_AHEAD - len(self._queue), 0)))
        return any(
            (found := self.usable_ms(line)) is not None and found < time_ms
            for line in islice(self._queue, LOOK_AHEAD)
        )

    def usable_ms(self, line: LogLine) -> int | None:
        """Return a line's time, if all of it is a usable event that orders."""
        if not self._queue:
            self._known.clear()
        if line not in self._known:
            self._known[line] = _usable_ms(line)
        return self._known[line]


def _usable_ms(line: LogLine) -> int | None:
    try:
        event = decode_raw(line.raw)
    except EventError:
        return None
    return None if isinstance(event, Forget) else event.event_time_ms
