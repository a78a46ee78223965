"""Markers of forgotten entities of one effect: up to when their applications count for nothing.

Each also says when, by the wall clock, that was asked for. Few, so all are in memory.
"""

from __future__ import annotations

from stream.state import codec, keys
from stream.state.overlay import Overlay


class Forgotten:
    """Markers of one effect, read and written through an overlay."""

    def __init__(self, effect: str, overlay: Overlay) -> None:
        self._effect = effect
        self._overlay = overlay
        overlay.attach(self.throw_away)
        self.throw_away()

    def throw_away(self) -> None:
        """Read all again: the store is the truth."""
        prefix = keys.prefix(keys.FORGOTTEN, self._effect)
        self._markers = {
            keys.parts(key)[1].decode(): codec.FORGOTTEN.decode(value)
            for key, value in self._overlay.store.scan(prefix, keys.after(prefix))
        }

    def counts(self, entity_id: str, application_time_ms: int) -> bool:
        """Whether an application counts: its entity was not forgotten since."""
        if not self._markers:
            return True
        marker = self._markers.get(entity_id)
        return marker is None or application_time_ms > marker[0]

    def enter(self, entity_id: str, until_ms: int, asked_ms: int) -> None:
        """Mark an entity; a marker that reaches further stays."""
        if until_ms > self._markers.get(entity_id, (-1, 0))[0]:
            marker = self._markers[entity_id] = until_ms, asked_ms
            key = keys.key(keys.FORGOTTEN, self._effect, entity_id)
            self._overlay.put(key, codec.FORGOTTEN.encode(marker))

    def strike_before(self, time_ms: int, asked_ms: int) -> None:
        """Strike the markers up to before a time that were asked for before another."""
        if not self._markers:
            return
        over = [
            entity_id
            for entity_id, (until_ms, then_ms) in self._markers.items()
            if until_ms < time_ms and then_ms < asked_ms
        ]
        for entity_id in over:
            del self._markers[entity_id]
            self._overlay.put(keys.key(keys.FORGOTTEN, self._effect, entity_id), None)
