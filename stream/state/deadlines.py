"""Deadlines in order of time: the next ones in memory, the rest in the store.

What is added between two flushes is stored as *runs*: sorted, up to :data:`RUN` in one value under
the time of the first, so that a deadline costs a fraction of a write. Runs are read back, one after
the other, when their time comes, and deleted when all of theirs was taken out; of those partly
taken the store knows the last deadline that was (order is total, and nothing is added before it).

So moving the watermark record by record costs a comparison. All that is in memory is rebuilt from
the store after a restart or when unflushed writes were thrown away.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush, heapreplace
from itertools import islice

from stream.state import codec, keys
from stream.state.facts import Deadline
from stream.state.overlay import Overlay
from stream.state.store import Store

RUN = 256
"""Deadlines in one value at most."""

_AHEAD = 4  # runs fetched from the store at a time; not decoded before their time comes
_DONE = keys.DEADLINES  # the last deadline taken out, while a run that held it is still there
_FIRST = keys.DEADLINES + b"\x00"
_END = keys.after(keys.DEADLINES)
_TIME_AT = len(keys.DEADLINES)
_HASH_BYTES = 8  # among runs that begin at one millisecond
_NEVER = keys.MAX_TIME


class DeadlineQueue:
    """Deadlines of one partition."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        overlay.attach(self.throw_away, self.write_out)
        self.throw_away()

    def throw_away(self) -> None:
        """Forget what is in memory: the store is the truth."""
        self._new: list[Deadline] = []  # a heap: not stored yet
        # A heap of loaded runs: what is next of each, its key, and what comes after that.
        self._runs: list[tuple[Deadline, bytes, Iterator[Deadline]]] = []
        self._horizon = _FIRST  # runs below this key are loaded
        self._ahead: deque[tuple[bytes, bytes]] = deque()  # the first runs that are not
        self._next_ms = 0  # when the first of them begins, or earlier
        value = self._overlay.store.get(_DONE)
        self._done = None if value is None else codec.DEADLINE.decode(value)
        self._stored_done = self._done

    def add(self, deadline: Deadline) -> None:
        """Enter a deadline, not before one taken out; entering it again changes nothing."""
        heappush(self._new, deadline)

    def due(self, watermark_ms: int) -> Iterable[Deadline]:
        """Take the deadlines strictly before the watermark out, in order, one by one."""
        if (
            self._next_ms >= watermark_ms
            and (not self._new or self._new[0].at_ms >= watermark_ms)
            and (not self._runs or self._runs[0][0].at_ms >= watermark_ms)
        ):
            return ()
        return self._take(watermark_ms)

    def write_out(self) -> None:
        """Store what is new, and how far partly taken runs were."""
        new = sorted(self._new)
        self._new = []
        for at in range(0, len(new), RUN):
            self._store(new[at : at + RUN])
        done = self._done
        if done is not None and not self._runs and self._next_ms > done.at_ms:
            done = None  # no run is partly taken, loaded or (after a restart) still to be loaded
        if done != self._stored_done:
            self._stored_done = done
            self._overlay.change(
                keys.DEADLINES,
                _DONE,
                None if done is None else codec.DEADLINE.encode(done),
            )

    def _take(self, watermark_ms: int) -> Iterator[Deadline]:
        while True:
            head = self._runs[0][0] if self._runs else None
            new = self._new[0] if self._new else None
            is_new = new is not None and (head is None or new <= head)
            if is_new:
                head = new
            if self._next_ms < watermark_ms and (head is None or self._next_ms <= head.at_ms):
                self._load()
                continue
            if head is None or head.at_ms >= watermark_ms:
                return
            if is_new:
                heappop(self._new)
            else:
                self._step()
            if head != self._done:  # entered twice
                self._done = head
                yield head

    def _step(self) -> None:
        """Take the next deadline out of the loaded runs."""
        _, key, rest = self._runs[0]
        following = next(rest, None)
        if following is not None:
            heapreplace(self._runs, (following, key, rest))
        else:
            heappop(self._runs)
            self._overlay.change(keys.DEADLINES, key, None)

    def _load(self) -> None:
        """Load the next run if it begins where it was expected; see when the one after it does."""
        key, value = self._next_run()
        if key is not None and keys.time_at(key, _TIME_AT) <= self._next_ms:
            self._ahead.popleft()
            self._horizon = key + b"\x00"
            self._enter(key, codec.DEADLINES.decode(value))
            key, _ = self._next_run()
        self._next_ms = _NEVER if key is None else keys.time_at(key, _TIME_AT)

    def _next_run(self) -> tuple[bytes, bytes] | tuple[None, bytes]:
        if not self._ahead:
            found = self._overlay.scan(keys.DEADLINES, self._horizon, _END)
            self._ahead.extend(islice(found, _AHEAD))
        return self._ahead[0] if self._ahead else (None, b"")

    def _enter(self, key: bytes, deadlines: list[Deadline]) -> None:
        done = self._stored_done
        if done is not None and deadlines[0] <= done:
            deadlines = [deadline for deadline in deadlines if deadline > done]
        rest = iter(deadlines)
        first = next(rest, None)
        if first is not None:
            heappush(self._runs, (first, key, rest))
        else:
            self._overlay.change(keys.DEADLINES, key, None)

    def _store(self, deadlines: list[Deadline]) -> None:
        key, value = stored_run(deadlines)
        self._overlay.change(keys.DEADLINES, key, value)
        if key < self._horizon:
            self._enter(key, deadlines)
            return
        if self._ahead and key < self._ahead[-1][0]:
            self._ahead.clear()
        self._next_ms = min(self._next_ms, deadlines[0].at_ms)


def stored_run(deadlines: list[Deadline]) -> tuple[bytes, bytes]:
    """Key and value of a run; at least one deadline, sorted."""
    value = codec.DEADLINES.encode(deadlines)
    digest = hashlib.blake2b(value, digest_size=_HASH_BYTES).digest()
    return keys.DEADLINES + keys.time_bytes(deadlines[0].at_ms) + digest, value


def pending_deadlines(store: Store) -> Iterator[Deadline]:
    """All deadlines of a store that were not taken out: its runs one after the other."""
    value = store.get(_DONE)
    done = None if value is None else codec.DEADLINE.decode(value)
    for _, run in store.scan(_FIRST, _END):
        for deadline in codec.DEADLINES.decode(run):
            if done is None or deadline > done:
                yield deadline
