"""Deadlines in order of time: the head in memory, the rest in the store.

Every deadline is in the store; the earliest ones, up to a horizon, are held in a heap too, so that
moving the watermark record by record costs a comparison and not a scan. The heap is a cache: it is
rebuilt from the store after a restart or when unflushed writes were thrown away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from heapq import heappop, heappush, nsmallest
from itertools import islice

from stream.labels.facts import Deadline
from stream.state import codec, keys
from stream.state.overlay import Overlay

_FIRST = b"d"
_END = b"e"
_BLOCK = 1024  # deadlines read ahead at a time
_MOST = 16 * _BLOCK  # deadlines held in memory
_HASH_BYTES = 12  # among deadlines of one kind and millisecond


class DeadlineQueue:
    """Deadlines of one partition."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._generation = overlay.generation
        self._heap: list[tuple[bytes, Deadline]] = []
        self._horizon = _FIRST  # all stored deadlines with a key up to here are in the heap

    def add(self, deadline: Deadline) -> None:
        """Enter a deadline; entering an equal one again changes nothing."""
        key, value = _entry(deadline)
        self._overlay.put(key, value)
        if key <= self._horizon:
            heappush(self._heap, (key, deadline))
            if len(self._heap) > _MOST:
                self._heap = nsmallest(_BLOCK, self._heap)  # sorted, so a heap
                self._horizon = self._heap[-1][0]

    def due(self, watermark_ms: int) -> Iterator[Deadline]:
        """Take the deadlines strictly before the watermark out, in order, one by one."""
        if self._generation != self._overlay.generation:
            self._generation = self._overlay.generation
            self._heap.clear()
            self._horizon = _FIRST
        limit = _FIRST + keys.time_bytes(watermark_ms)
        previous = b""
        while True:
            if not self._heap or self._heap[0][0] >= limit:
                if self._horizon >= limit:
                    return
                self._read_ahead()
                continue
            key, deadline = heappop(self._heap)
            if key == previous:
                continue  # entered twice
            previous = key
            self._overlay.delete(key)
            yield deadline

    def _read_ahead(self) -> None:
        """Move the horizon on by one block; to the end when there is no more."""
        after = self._horizon + b"\x00" if self._horizon != _FIRST else _FIRST
        block = list(islice(self._overlay.scan(after, _END), _BLOCK))
        for key, value in block:
            heappush(self._heap, (key, codec.decode_deadline(value)))
        self._horizon = block[-1][0] if len(block) == _BLOCK else _END


def _entry(deadline: Deadline) -> tuple[bytes, bytes]:
    """Key in order of time and kind; a hash tells apart what ends at the same instant."""
    value = codec.encode_deadline(deadline)
    digest = hashlib.blake2b(value, digest_size=_HASH_BYTES).digest()
    key = _FIRST + keys.time_bytes(deadline.at_ms) + bytes([deadline.kind]) + digest
    return key, value
