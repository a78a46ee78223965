"""What a micro-batch has changed and not flushed yet, laid over the store.

Stages read and write here; the shell takes the writes out with :meth:`Overlay.drain` when the
outputs that belong to them are safe, or throws them away with :meth:`Overlay.discard`.
"""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedDict

from stream.state.keys import ORDERED_FAMILIES
from stream.state.store import Store, Writes


class Overlay:
    """A store as it will be once the pending writes are flushed.

    ``generation`` counts the times that writes were thrown away: who caches anything read through
    the overlay drops it when the number changes.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.generation = 0
        self._points: dict[bytes, bytes | None] = {}
        self._ordered: SortedDict[bytes, bytes | None] = SortedDict()

    def get(self, key: bytes) -> bytes | None:
        """Value of a key."""
        pending = self._ordered if key[0] in ORDERED_FAMILIES else self._points
        if key in pending:
            return pending[key]
        return self.store.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        self._write(key, value)

    def delete(self, key: bytes) -> None:
        """Delete a key, whether it is there or not."""
        self._write(key, None)

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries with first ≤ key < end of an ordered family, in key order.

        Writes made while iterating may or may not be seen.
        """
        stored = self.store.scan(first, end)
        pending = list(self._ordered.irange(first, end, inclusive=(True, False)))
        if not pending:
            yield from stored
            return
        changed = iter(pending)
        mine = next(changed, None)
        theirs = next(stored, None)
        while mine is not None or theirs is not None:
            if theirs is None or (mine is not None and mine <= theirs[0]):
                if theirs is not None and mine == theirs[0]:
                    theirs = next(stored, None)
                if mine is not None:
                    value = self._ordered.get(mine)
                    if value is not None:
                        yield mine, value
                mine = next(changed, None)
            else:
                yield theirs
                theirs = next(stored, None)

    def drain(self) -> Writes:
        """Return the pending writes; they stay visible until :meth:`settle`."""
        return {**self._points, **self._ordered}

    def settle(self) -> None:
        """Forget the pending writes: the store has them now."""
        self._points.clear()
        self._ordered.clear()

    def flush(self) -> None:
        """Write the pending writes to the store."""
        self.store.write(self.drain())
        self.settle()

    def discard(self) -> None:
        """Throw the pending writes away."""
        self.settle()
        self.generation += 1

    def _write(self, key: bytes, value: bytes | None) -> None:
        if key[0] in ORDERED_FAMILIES:
            self._ordered[key] = value
        else:
            self._points[key] = value
