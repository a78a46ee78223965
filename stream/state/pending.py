"""The pending applications of each job, in order of time, stored in blocks.

A job's pending applications are a sorted list cut into blocks of up to :data:`BLOCK`, each one
value under its *bound*: it holds what is at or after its bound and before the next one's. The
first block is bounded by the beginning of time. So an application costs a fraction of a write on
its way in and out, and a job with 100,000 of them rewrites no more than the blocks that change.

Of jobs used lately the bounds are in memory, and of blocks used lately the entries; what changed is
encoded when the overlay is drained.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from stream.state import codec, keys
from stream.state.overlay import Overlay

BLOCK = 128
"""Applications in one value at most."""

Entry = tuple[int, str]
"""Application time (ms) and id."""

_BEGINNING: Entry = (0, "")
_MOST_HELD = 1 << 18  # entries and bounds in memory, about 150 bytes each


class _Job:
    """The blocks of one job: bounds, sorted, and the entries of each (None: not read yet)."""

    __slots__ = ("blocks", "bounds", "changed", "prefix")

    def __init__(self, prefix: bytes, bounds: list[Entry], blocks: list[list[Entry] | None]):
        self.prefix = prefix
        self.bounds = bounds
        self.blocks = blocks
        self.changed: set[Entry] = set()  # bounds of blocks to be written, or struck

    def key(self, bound: Entry) -> bytes:
        return self.prefix + keys.time_bytes(bound[0]) + bound[1].encode()


class PendingApplications:
    """Pending applications of the jobs of one partition."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._jobs: dict[str, _Job] = {}
        self._changed: dict[str, _Job] = {}
        self._held = 0  # entries and bounds in memory
        overlay.attach(self)

    def add(self, job_id: str, time_ms: int, application_id: str) -> None:
        """Enter an application; entering it again changes nothing."""
        entry = time_ms, application_id
        job = self._jobs.get(job_id) or self._load(job_id)
        bounds = job.bounds
        at = bisect_right(bounds, entry) - 1
        if at < 0:
            at, bound, block = 0, _BEGINNING, [entry]
            bounds.insert(0, bound)
            job.blocks.insert(0, block)
        else:
            bound = bounds[at]
            block = job.blocks[at] or self._read(job, at)
            if not block or block[-1] < entry:
                block.append(entry)
            elif block[bisect_left(block, entry)] == entry:
                return
            else:
                insort(block, entry)
        self._held += 1
        job.changed.add(bound)
        self._changed[job_id] = job
        if len(block) > BLOCK:
            # What grows at its end, as time does, leaves full blocks behind.
            self._split(job, at, BLOCK if block[-1] == entry else BLOCK // 2)

    def remove(self, job_id: str, time_ms: int, application_id: str) -> None:
        """Strike an application; one that is not there changes nothing."""
        entry = time_ms, application_id
        job = self._jobs.get(job_id) or self._load(job_id)
        at = bisect_right(job.bounds, entry) - 1
        if at < 0:
            return
        block = job.blocks[at] or self._read(job, at)
        place = bisect_left(block, entry)
        if place == len(block) or block[place] != entry:
            return
        del block[place]
        self._held -= 1
        job.changed.add(job.bounds[at])
        self._changed[job_id] = job
        if not block:
            del job.bounds[at], job.blocks[at]

    def between(self, job_id: str, first_ms: int, last_ms: int) -> Iterator[str]:
        """Ids of the applications submitted in the closed range, by (time, id).

        The caller may strike what it was given, and flush, before it asks for the next.
        """
        following: Entry | None = (max(first_ms, 0), "")
        end = last_ms + 1, ""
        while following is not None and following < end:
            job = self._jobs.get(job_id) or self._load(job_id)
            at = max(bisect_right(job.bounds, following) - 1, 0)
            if at == len(job.bounds):
                return
            block = job.blocks[at] or self._read(job, at)
            found = block[bisect_left(block, following) : bisect_left(block, end)]
            following = job.bounds[at + 1] if at + 1 < len(job.bounds) else None
            for _, application_id in found:
                yield application_id

    def write_out(self) -> None:
        """Encode the blocks that changed; let what is held shrink."""
        for job in self._changed.values():
            for bound in job.changed:
                at = bisect_left(job.bounds, bound)
                here = at < len(job.bounds) and job.bounds[at] == bound
                block = job.blocks[at] if here else None
                value = codec.encode_pending(block) if block else None
                self._overlay.change(job.prefix, job.key(bound), value)
            job.changed.clear()
        self._changed.clear()
        if self._held > _MOST_HELD:
            self._forget()

    def throw_away(self) -> None:
        """Forget what is in memory: the store is the truth."""
        self._changed.clear()
        self._forget()

    def _forget(self) -> None:
        self._jobs.clear()
        self._held = 0

    def _load(self, job_id: str) -> _Job:
        prefix = keys.pending(job_id)
        skip = len(prefix)
        bounds: list[Entry] = []
        blocks: list[list[Entry] | None] = []
        for key, value in self._overlay.scan(prefix, prefix, keys.after(prefix)):
            bounds.append((keys.time_at(key, skip), key[skip + 8 :].decode()))
            blocks.append(None)
            last = value
        if blocks:
            blocks[-1] = block = codec.decode_pending(last)  # most goes on at the end
            self._held += len(block)
        self._held += 1 + len(bounds)
        job = self._jobs[job_id] = _Job(prefix, bounds, blocks)
        return job

    def _read(self, job: _Job, at: int) -> list[Entry]:
        """Return the entries of a block that is not in memory."""
        value = self._overlay.get(job.key(job.bounds[at]))
        block = job.blocks[at] = [] if value is None else codec.decode_pending(value)
        self._held += len(block)
        return block

    def _split(self, job: _Job, at: int, keep: int) -> None:
        block = job.blocks[at]
        if block is None:
            return
        rest = block[keep:]
        del block[keep:]
        job.bounds.insert(at + 1, rest[0])
        job.blocks.insert(at + 1, rest)
        job.changed.add(rest[0])
        self._held += 1
