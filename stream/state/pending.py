"""The pending applications of each job, by time: a key each.

Pending is of which nothing but, perhaps, its age is known: evidence may still settle it.

Evidence asks for a range of them, most often for the oldest. Of jobs that were asked for lately the
oldest are kept in memory beside the store, so that most answers cost no scan.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import islice

from stream.state import keys
from stream.state.census import Census
from stream.state.overlay import Overlay

PART = 256
"""Applications read at a time; twice as many of a job are kept in memory at most."""

Entry = tuple[int, str]
"""Application time (ms) and id."""

_BEGINNING: Entry = (0, "")
_NOTHING = b""
_MOST_KEPT = 1 << 16  # entries and jobs in memory, about 150 bytes each; then all are evicted


class _Oldest:
    """All of a job's pending applications before ``until`` (None: all there are), sorted."""

    __slots__ = ("entries", "until")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.until: Entry | None = _BEGINNING


class PendingApplications:
    """Pending applications of the jobs of one partition, through an overlay; counted."""

    def __init__(self, overlay: Overlay, census: Census) -> None:
        self._overlay = overlay
        self._census = census
        self._oldest: dict[str, _Oldest] = {}
        self._kept = 0  # entries and jobs in memory, about
        overlay.attach(self.throw_away, self.write_out)

    def add(self, job_id: str, time_ms: int, application_id: str) -> None:
        """Enter an application that is not there."""
        self._census.pending(1)
        entry = time_ms, application_id
        prefix = keys.prefix(keys.PENDING, job_id)
        self._overlay.change(prefix, keys.timed(prefix, *entry), _NOTHING)
        oldest = self._oldest.get(job_id)
        if oldest is None or (oldest.until is not None and entry >= oldest.until):
            return
        entries = oldest.entries
        insort(entries, entry)
        self._kept += 1
        if len(entries) > 2 * PART:
            oldest.until = entries[PART]
            del entries[PART:]

    def remove(self, job_id: str, time_ms: int, application_id: str) -> None:
        """Strike an application: it is settled, or its window is over."""
        self._census.pending(-1)
        entry = time_ms, application_id
        prefix = keys.prefix(keys.PENDING, job_id)
        self._overlay.change(prefix, keys.timed(prefix, *entry), None)
        oldest = self._oldest.get(job_id)
        if oldest is not None:
            entries = oldest.entries
            at = bisect_left(entries, entry)
            if at < len(entries) and entries[at] == entry:
                del entries[at]

    def between(self, job_id: str, first_ms: int, last_ms: int) -> Iterable[str]:
        """Ids of the applications submitted in the closed range, by (time, id).

        The caller may strike what it was given, and flush, before it asks for the next.
        """
        first, end = (max(first_ms, 0), ""), (last_ms + 1, "")
        oldest = self._oldest.get(job_id)
        if oldest is None:
            oldest = self._oldest[job_id] = _Oldest()
            self._kept += 1
        if oldest.until is not None and oldest.until < end and len(oldest.entries) < PART:
            self._read_on(job_id, oldest)
        entries, until = oldest.entries, oldest.until
        found = [
            application_id
            for _, application_id in entries[
                bisect_left(entries, first) : bisect_left(entries, end)
            ]
        ]
        if until is None or end <= until:
            return found
        return self._with_stored(found, job_id, max(first, until), end)

    def stored(self) -> Iterator[tuple[str, int, str]]:
        """Job, time (ms) and id of every one in the store, a part at a time; flushes may come."""
        first, end = keys.PENDING, keys.after(keys.PENDING)
        while True:
            found = [key for key, _ in islice(self._overlay.store.scan(first, end), PART)]
            for key in found:
                job, rest = keys.parts(key)
                yield job.decode(), *keys.time_and_id(rest, 0)
            if len(found) < PART:
                return
            first = found[-1] + b"\0"

    def write_out(self) -> None:
        """Nothing is held back; what is kept may shrink."""
        if self._kept > _MOST_KEPT:
            self.throw_away()

    def throw_away(self) -> None:
        """Forget what is in memory: the store is the truth."""
        self._oldest.clear()
        self._kept = 0

    def _read_on(self, job_id: str, oldest: _Oldest) -> None:
        """Let the job's oldest reach further."""
        prefix = keys.prefix(keys.PENDING, job_id)
        first = keys.timed(prefix, *(oldest.until or _BEGINNING))
        part = self._part(prefix, first, keys.after(prefix))
        oldest.entries += part
        oldest.until = _after(part[-1]) if len(part) == PART else None
        self._kept += len(part)

    def _with_stored(
        self, found: list[str], job_id: str, first: Entry, end: Entry
    ) -> Iterator[str]:
        """Give what was found, then a range from the store, each part from where it ended."""
        yield from found
        prefix = keys.prefix(keys.PENDING, job_id)
        last = keys.timed(prefix, *end)
        while first < end:
            part = self._part(prefix, keys.timed(prefix, *first), last)
            for _, application_id in part:
                yield application_id
            if len(part) < PART:
                return
            first = _after(part[-1])

    def _part(self, prefix: bytes, first: bytes, end: bytes) -> list[Entry]:
        at = len(prefix)
        return [
            keys.time_and_id(key, at)
            for key, _ in islice(self._overlay.scan(prefix, first, end), PART)
        ]


def _after(entry: Entry) -> Entry:
    """The least entry after this one."""
    return entry[0], entry[1] + "\0"
