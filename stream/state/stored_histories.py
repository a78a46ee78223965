"""Values that are read and changed often, decoded while they are: histories, above all.

What is written waits here until the overlay is drained, so that a value that changes several times
between two flushes is encoded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from stream.state import keys
from stream.state.codec import Codec
from stream.state.overlay import Overlay
from stream.state.stored_facts import shrunk

_T = TypeVar("_T")

_HELD = 1 << 14  # values kept at least, most of them some hundred bytes; twice as many at most


class StoredValues(Generic[_T]):
    """Values of one type by key, read and written through an overlay.

    Args:
        overlay: where they are kept. value: codec of the type.

    """

    def __init__(self, overlay: Overlay, value: Codec[_T]) -> None:
        self._overlay = overlay
        self._codec = value
        self._held: dict[bytes, _T | None] = {}
        self._changed: dict[bytes, None] = {}
        overlay.attach(self.throw_away, self.write_out)

    def get(self, key: bytes) -> _T | None:
        """Return a value, which the caller may change if it puts it back; None: there is none."""
        if key in self._held:
            return self._held[key]
        stored = self._overlay.get(key)
        value = self._held[key] = None if stored is None else self._codec.decode(stored)
        return value

    def put(self, key: bytes, value: _T | None) -> None:
        """Replace a value; None removes it."""
        self._held[key] = value
        self._changed[key] = None

    def under(self, prefix: bytes) -> Iterator[bytes]:
        """Keys that begin with a prefix and have a value."""
        stored = self._overlay.scan(prefix[:1], prefix, keys.after(prefix))
        found = {key for key, _ in stored} | {key for key in self._held if key.startswith(prefix)}
        return (key for key in sorted(found) if self.get(key) is not None)

    def write_out(self) -> None:
        """Encode what changed, and let the cache shrink."""
        for key in self._changed:
            value = self._held[key]
            encoded = None if value is None else self._codec.encode(value)
            self._overlay.change(key[:1], key, encoded)
        self._changed.clear()
        self._held = shrunk(self._held, _HELD)

    def throw_away(self) -> None:
        """Forget everything: the store is the truth."""
        self._held.clear()
        self._changed.clear()
