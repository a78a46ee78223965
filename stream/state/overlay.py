"""What a micro-batch has changed and not flushed yet, laid over the store.

Stages read and write here; the shell takes the writes out with :meth:`Overlay.drain` when the
outputs that belong to them are safe, or throws them away with :meth:`Overlay.discard`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from stream.state.store import Store, Writes

_PART = 1 << 12  # writes in one part of a flush


class Overlay:
    """A store as it will be once the pending writes are flushed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._pending: dict[bytes, bytes | None] = {}
        self._scanned: dict[bytes, set[bytes]] = {}  # pending keys of scanned families, by group
        self._write_outs: list[Callable[[], None]] = []
        self._throw_aways: list[Callable[[], None]] = []

    def attach(
        self, throw_away: Callable[[], None], write_out: Callable[[], None] | None = None
    ) -> None:
        """Tell who keeps values above the overlay about flushes and discards from now on.

        Args:
            throw_away: forgets what was read or changed: unflushed writes are thrown away.
            write_out: puts what is held back into the overlay, which is about to be drained.

        """
        self._throw_aways.append(throw_away)
        if write_out is not None:
            self._write_outs.append(write_out)

    def get(self, key: bytes) -> bytes | None:
        """Value of a key."""
        if key in self._pending:
            return self._pending[key]
        return self.store.get(key)

    @property
    def has_writes(self) -> bool:
        """Whether there are pending writes, besides what holders hold back."""
        return bool(self._pending)

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set a value; None deletes the key, whether it is there or not."""
        self._pending[key] = value

    def change(self, group: bytes, key: bytes, value: bytes | None) -> None:
        """Set a value of a scanned family, or delete it.

        Args:
            group: a prefix of the key, within which it will be scanned.
            key: the whole key. value: None deletes.

        """
        self._pending[key] = value
        entered = self._scanned.get(group)
        if entered is None:
            self._scanned[group] = {key}
        else:
            entered.add(key)

    def scan(self, group: bytes, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries of a group with first ≤ key < end, in order.

        Writes made while iterating may or may not be seen; there must be no flush meanwhile.
        """
        stored = self.store.scan(first, end)
        entered = self._scanned.get(group)
        changed = sorted(key for key in entered if first <= key < end) if entered else None
        if not changed:
            yield from stored
            return
        theirs = next(stored, None)
        for mine in changed:
            while theirs is not None and theirs[0] < mine:
                yield theirs
                theirs = next(stored, None)
            if theirs is not None and theirs[0] == mine:
                theirs = next(stored, None)
            value = self._pending[mine]
            if value is not None:
                yield mine, value
        while theirs is not None:
            yield theirs
            theirs = next(stored, None)

    def drain(self) -> Writes:
        """Return the pending writes; they stay visible until :meth:`settle`."""
        for write_out in self._write_outs:
            write_out()
        return self._pending

    def settle(self) -> None:
        """Forget the pending writes: the store has them now."""
        self._pending = {}
        self._scanned.clear()

    def flush(self) -> None:
        """Write the pending writes to the store."""
        self.store.write(self.drain())
        self.settle()

    def flush_in_parts(self) -> None:
        """Write the pending writes to the store, some at a time and without a log.

        For who begins anew after a crash: it takes less memory, and less time.
        """
        writes = iter(self.drain().items())
        while part := dict(islice(writes, _PART)):
            self.store.write(part, logged=False)
        self.settle()

    def discard(self) -> None:
        """Throw the pending writes away."""
        self.settle()
        for throw_away in self._throw_aways:
            throw_away()
