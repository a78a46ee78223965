"""Slots by id, for a quarter of the memory that a dictionary takes.

Ids are kept in UTF-8, one after the other, each with a zero byte at its end. Which slot is an id's
is in a hash table of buckets with 8 cells. A cell is 0, or has 31 bits of the id's hash in its
upper half, a set bit above them, and the slot in the lower one. The hash is Python's own, which is
keyed, so that nobody can choose ids that collide. Ids that find their bucket full, or another id
with the same bits in it, are in a dictionary. A slot is an id's only where all of the id is equal.

Not safe to share by itself, like :class:`~stream.serving.table.Table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_Slots = NDArray[np.int64]

_FIRST_BUCKETS = 128  # always a power of two
_CELLS = 8  # of a bucket: 64 bytes, a line of the processor's cache
_MOST_IN_BUCKET = 6  # on average; one id of 20 is in the dictionary then
_HASHED, _SET = (1 << 31) - 1, 1 << 31
_LENGTH_BITS: Final = 24
_LENGTH: Final = (1 << _LENGTH_BITS) - 1
_FEW = 6  # that are faster one by one
_AT_ONCE = 1024
_PART = 1 << 16


class Ids:
    """Slots above 0, by id of less than 16 MB.

    Args:
        rows: slots are below it, and below 2^31.

    """

    def __init__(self, rows: int) -> None:
        self._count = self._end = self._kept = 0
        self._cells = np.zeros((_FIRST_BUCKETS, _CELLS), np.uint64)
        self._crowded: dict[str, int] = {}
        self._where = np.zeros(rows, np.int64)
        """By slot, where its id begins, shifted, and its bytes with the zero; 0: it has none."""
        self._text = np.zeros(0, np.uint8)

    def __len__(self) -> int:
        """How many ids there are."""
        return self._count

    def find(self, ids: Sequence[str]) -> _Slots:
        """Slots of ids (n,); 0: it is not known."""
        if len(ids) <= _FEW:
            return np.array([self._find_one(each) for each in ids], np.int64)
        if len(ids) > _AT_ONCE:
            found = np.zeros(len(ids), np.int64)
            for at in range(0, len(ids), _AT_ONCE):
                found[at : at + _AT_ONCE] = self.find(ids[at : at + _AT_ONCE])
            return found
        keys = _keys(ids)
        cells = self._cells.take(self._buckets(keys), axis=0).T.copy()
        cells ^= keys << 32
        nearest = cells.min(axis=0)  # where the upper halves are equal, the slot
        nearest[nearest >= _SET] = 0
        slots: _Slots = nearest.astype(np.int64)
        missing = np.flatnonzero(slots == 0)
        if len(missing):
            slots[missing] = [self._crowded.get(ids[at], 0) for at in missing.tolist()]
        if not slots.any():
            return slots
        asked = ids if slots.all() else [ids[at] for at in np.flatnonzero(slots).tolist()]
        where = self._where[slots]
        read, wanted = self._read(where), _encoded(asked)
        # With as many zeros as ids none of them has one within, so each is equal, if all are.
        if read != wanted or wanted.count(0) != len(asked):
            start = 0
            for at, end in enumerate(np.cumsum(where & _LENGTH).tolist()):
                if read[start:end] != _encoded([ids[at]]):
                    slots[at] = self._crowded.get(ids[at], 0)
                start = end
        return slots

    def add(self, ids: Sequence[str], slots: _Slots) -> None:
        """Enter different ids that are not known, under slots that are free; there must be room."""
        lengths = np.array([len(each.encode()) + 1 for each in ids], np.int64)
        self._append(_encoded(ids), lengths, slots)
        self._enter(ids, slots)

    def remove(self, each: str) -> int:
        """Forget an id; return the slot that it had, 0: none."""
        slot = self._find_one(each)
        if slot:
            if self._crowded.pop(each, None) is None:
                key = _key(each)
                cells = self._cells[key & len(self._cells) - 1]
                cells[cells == key << 32 | slot] = 0
            self._kept -= self._where[slot].item() & _LENGTH
            self._where[slot] = 0
            self._count -= 1
        return slot

    def grown(self, rows: int, further: int, further_bytes: int) -> Ids:
        """Return a larger copy, if so many rows, further ids or their bytes do not fit.

        Nothing is changed: whoever reads may go on meanwhile. ``further_bytes``: in UTF-8, without
        zeros.
        """
        needed = further + further_bytes
        cells = self._cells
        while _MOST_IN_BUCKET * len(cells) < self._count + further:
            cells = _split(cells)
        fits = self._end + needed <= len(self._text) and cells is self._cells
        if fits and rows <= len(self._where):
            return self
        larger = Ids(rows)
        larger._cells = cells.copy() if cells is self._cells else cells
        larger._text = np.zeros(2 * (self._kept + needed), np.uint8)
        slots = self.slots
        for at in range(0, len(slots), _PART):
            part = slots[at : at + _PART]
            where = self._where[part]
            larger._append(self._read(where), where & _LENGTH, part)
        larger._enter(list(self._crowded), np.array(list(self._crowded.values()), np.int64))
        return larger

    @property
    def slots(self) -> _Slots:
        """Slots that have an id, in their order."""
        return np.flatnonzero(self._where)

    def lengths(self, slots: _Slots) -> _Slots:
        """Bytes of the ids of slots that have one, in UTF-8."""
        return (self._where[slots] & _LENGTH) - 1

    def text(self, slots: _Slots) -> bytes:
        """Return the ids of slots that have one, in UTF-8, one after the other."""
        return self._read(self._where[slots] - 1)  # one byte less, without the zero

    def _find_one(self, each: str) -> int:
        key = _key(each)
        for cell in self._cells[key & len(self._cells) - 1].tolist():
            if cell >> 32 == key:
                slot: int = cell & _SET - 1
                start, length = divmod(self._where[slot].item(), _LENGTH + 1)
                if self._text[start : start + length].tobytes() == _encoded([each]):
                    return slot
        return self._crowded.get(each, 0)

    def _buckets(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (keys & (len(self._cells) - 1)).astype(np.int64)

    def _read(self, where: NDArray[np.int64]) -> bytes:
        lengths = where & _LENGTH
        ends = np.cumsum(lengths)
        at = np.repeat((where >> _LENGTH_BITS) - (ends - lengths), lengths)
        at += np.arange(len(at))
        return self._text.take(at).tobytes()

    def _append(self, text: bytes, lengths: NDArray[np.int64], slots: _Slots) -> None:
        starts = self._end + np.cumsum(lengths) - lengths
        self._where[slots] = starts << _LENGTH_BITS | lengths
        self._text[self._end : self._end + len(text)] = np.frombuffer(text, np.uint8)
        self._end += len(text)
        self._kept += len(text)
        self._count += len(slots)

    def _enter(self, ids: Sequence[str], slots: _Slots) -> None:
        """Put ids into cells, one of each bucket at a time, or into the dictionary."""
        keys = _keys(ids)
        buckets = self._buckets(keys)
        left = np.arange(len(ids))
        while len(left):
            _, first = np.unique(buckets[left], return_index=True)
            now = left[first]
            left = np.delete(left, first)
            cells = self._cells[buckets[now]]
            free = cells == 0
            fits = free.any(axis=1) & (cells >> 32 != keys[now, None]).all(axis=1)
            entered = now[fits]
            cell = keys[entered] << 32 | slots[entered].astype(np.uint64)
            self._cells[buckets[entered], free.argmax(axis=1)[fits]] = cell
            for at in now[~fits].tolist():
                self._crowded[ids[at]] = slots[at].item()


def _key(each: str) -> int:
    return hash(each) & _HASHED | _SET


def _keys(ids: Sequence[str]) -> NDArray[np.uint64]:
    """As :func:`_key` gives them, of all."""
    keys = np.fromiter(map(hash, ids), np.int64, len(ids)).view(np.uint64)
    keys &= _HASHED
    keys |= _SET
    return keys


def _encoded(ids: Sequence[str]) -> bytes:
    """Ids in UTF-8, each with a zero at its end; what is no text is equal to nothing that is."""
    return "\0".join([*ids, ""]).encode(errors="surrogatepass")


def _split(cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Cells in twice as many buckets: what an id's is, one more bit of the hash says."""
    upper = cells & (len(cells) << 32) != 0
    return np.concatenate([np.where(upper, 0, cells), np.where(upper, cells, 0)], dtype=np.uint64)
