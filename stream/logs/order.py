"""In which order the lines of several files are read: by event time, each file in its own order.

Only usable events order a file. A line that is none, and a forget, which may lie anywhere in time,
go with the line before. An event that is usable and years off must not hold up all that comes after
it in its file: it waits for its own time, if the lines after it say that the file is not there yet.
(Where it is they that are late, after a real gap, waiting does no harm: it comes at its time.)
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from itertools import islice
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


def read_head(raw: bytes) -> LineHead | None:
    """Read type, time and keys of a line; None where it is not a JSON object."""
    try:
        return _HEAD_DECODER.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


Place = tuple[int, int, int]
"""What the merge compares: time, kind of event, file. No two files' are equal."""


def ordered(lines: Iterator[LogLine], file: int) -> Iterator[tuple[Place, LogLine]]:
    """Give a file's lines with their places; called by :func:`stream.logs.files.merge`.

    Two lines never compare as such: of one file only one waits at a time in the merge, and of two
    files the numbers differ.
    """
    ahead = _Ahead(lines)
    queue = ahead.queue
    waiting: list[tuple[int, int, int, LogLine]] = []  # a heap, by time and number
    far_ms = -1  # beyond it a line is looked at more closely
    place_ms = 0
    while (line := queue.popleft() if queue else next(lines, None)) is not None:
        head = read_head(line.raw)
        time_ms = None
        rank = _LAST_RANK
        if head is not None and head.is_dated():
            time_ms = head.time_ms()
            rank = _RANKS[head.type]
            if time_ms is not None and time_ms > far_ms and len(waiting) < _MOST_WAITING:
                time_ms = ahead.usable_ms(line)
                if time_ms is not None and ahead.has_before(time_ms - FAR_MS):
                    heapq.heappush(waiting, (time_ms, line.number, rank, line))
                    continue
        if time_ms is None:
            yield (place_ms, _LAST_RANK, file), line
            continue
        while waiting and waiting[0][0] <= time_ms:
            at_ms, _, at_rank, waited = heapq.heappop(waiting)
            yield (at_ms, at_rank, file), waited
        place_ms = time_ms
        far_ms = max(far_ms, time_ms + FAR_MS)
        yield (time_ms, rank, file), line
    while waiting:
        at_ms, _, at_rank, waited = heapq.heappop(waiting)
        yield (at_ms, at_rank, file), waited


class _Ahead:
    """The lines of a file that were looked at before their turn, which is rare.

    Attributes:
        queue: these lines, which come before the others.

    """

    def __init__(self, lines: Iterator[LogLine]) -> None:
        self.queue: deque[LogLine] = deque()
        self._lines = lines
        self._known: dict[int, int | None] = {}  # times by line number, None: not usable

    def has_before(self, time_ms: int) -> bool:
        """Tell whether one of the next events is earlier than a time."""
        self.queue.extend(islice(self._lines, max(LOOK_AHEAD - len(self.queue), 0)))
        return any(
            (found := self.usable_ms(line)) is not None and found < time_ms
            for line in islice(self.queue, LOOK_AHEAD)
        )

    def usable_ms(self, line: LogLine) -> int | None:
        """Return a line's time, if all of it is a usable event that orders."""
        if not self.queue:
            self._known.clear()
        if line.number not in self._known:
            self._known[line.number] = _usable_ms(line)
        return self._known[line.number]


def _usable_ms(line: LogLine) -> int | None:
    try:
        event = decode_raw(line.raw)
    except EventError:
        return None
    return None if isinstance(event, Forget) else event.event_time_ms
