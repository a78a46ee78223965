"""The newest decisions of a partition, in its state: what its rankings are worth.

They are kept in chunks, so that a decision costs the writing of a few others.
"""

from __future__ import annotations

from stream.quality.ranking import ROW_BYTES, Decisions
from stream.state import keys
from stream.state.codec import Codec
from stream.state.overlay import Overlay

CHUNK = 64
"""Decisions in one stored value."""

CHUNKS = 16
"""Chunks kept, the one that is being filled among them: the newest 961 to 1,024 decisions."""

_FULL = CHUNK * ROW_BYTES
_CODEC = Codec[bytes](bytes, sound=lambda rows: len(rows) % ROW_BYTES == 0 and len(rows) <= _FULL)


class NewestDecisions:
    """Keeps the newest decisions of one partition, through an overlay."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._chunks: dict[int, bytes] = {}
        self._changed: dict[int, None] = {}
        self._all: Decisions | None = None
        overlay.attach(self.throw_away, self.write_out)
        self.throw_away()

    @property
    def decisions(self) -> Decisions:
        """All that are kept; the same object until another comes."""
        if self._all is None:
            self._all = Decisions(rows=bytearray().join(self._chunks.values()))
        return self._all

    def add(self, one: bytes) -> None:
        """Take a decision in (:func:`stream.quality.ranking.row`)."""
        last = max(self._chunks, default=0)
        if len(self._chunks.get(last, b"")) == _FULL:
            last += 1
        self._chunks[last] = self._chunks.get(last, b"") + one
        self._changed[last] = None
        if len(self._chunks) > CHUNKS:
            self._remove(min(self._chunks))
        self._all = None

    def clear(self) -> None:
        """Forget all of them."""
        for number in list(self._chunks):
            self._remove(number)
        self._all = None

    def write_out(self) -> None:
        """Put what changed into the overlay."""
        for number in self._changed:
            rows = self._chunks.get(number)
            value = None if rows is None else _CODEC.encode(rows)
            self._overlay.change(keys.DECISIONS, keys.DECISIONS + keys.time_bytes(number), value)
        self._changed.clear()

    def throw_away(self) -> None:
        """Go back to what the store says."""
        first = keys.DECISIONS
        self._chunks = {
            keys.time_at(key, len(first)): _CODEC.decode(value)
            for key, value in self._overlay.store.scan(first, keys.after(first))
        }
        self._changed = {}
        self._all = None

    def _remove(self, number: int) -> None:
        del self._chunks[number]
        self._changed[number] = None
