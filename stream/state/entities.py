"""Entities of one effect: posteriors, by age, and markers of those that were forgotten.

By age the oldest are found without looking at all. Each entity has one entry, made when it came.
Its time is not moved when the entity learns, which would cost two writes per label, but looked at
when it comes up: an entity that has learned since is entered again at its newest application. So an
entry never lies later than its entity's T, and what has to go is always among the first.

Entries are kept only while ``entity_ttl`` is on. When it is turned on for a state that has none,
they are made from the entities that are there.

A marker says up to when a forgotten entity's applications count for nothing and when, by the wall
clock, that was asked for. Markers are few, so all are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from stream.state import codec, keys
from stream.state.overlay import Overlay
from stream.state.store import Store
from stream.updaters.kept import Posterior

_AT_ONCE = 64  # entries given at a time
_YES = b"\x01"


class StoredPosteriors:
    """Posteriors of one effect (:class:`stream.updaters.effect.PosteriorBook`), in an overlay."""

    def __init__(self, effect: str, overlay: Overlay) -> None:
        self._effect = effect
        self._overlay = overlay

    def load(self, entity_id: str) -> Posterior | None:
        """Return the posterior of an entity; None when it never learned."""
        value = self._overlay.get(keys.key(keys.POSTERIOR, self._effect, entity_id))
        return None if value is None else codec.decode_posterior(value)

    def save(self, entity_id: str, posterior: Posterior) -> None:
        """Replace the posterior of an entity."""
        self._overlay.put(
            keys.key(keys.POSTERIOR, self._effect, entity_id), codec.encode_posterior(posterior)
        )

    def remove(self, entity_id: str) -> None:
        """Remove the posterior of an entity."""
        self._overlay.put(keys.key(keys.POSTERIOR, self._effect, entity_id), None)


def all_posteriors(store: Store, effect: str) -> Iterator[tuple[str, Posterior]]:
    """Every flushed posterior of an effect, by entity id."""
    prefix = keys.prefix(keys.POSTERIOR, effect)
    for key, value in store.scan(prefix, keys.after(prefix)):
        yield keys.parts(key)[1].decode(), codec.decode_posterior(value)


class EntityAges:
    """Entries of one effect, read and written through an overlay.

    Args:
        effect: its name. overlay: where they are kept.
        kept: whether they are to be. Making it may put writes into the overlay.

    """

    def __init__(self, effect: str, overlay: Overlay, *, kept: bool) -> None:
        self._overlay = overlay
        self._group = keys.prefix(keys.AGE, effect)
        self._end = keys.after(self._group)
        self._kept = kept
        overlay.attach(self.throw_away)
        self.throw_away()
        complete = keys.own(f"ages {effect}")
        if kept and overlay.store.get(complete) is None:
            for entity_id, posterior in all_posteriors(overlay.store, effect):
                self.enter(entity_id, posterior.time_ms)
            overlay.put(complete, _YES)
        elif not kept and overlay.store.get(complete) is not None:
            overlay.put(complete, None)  # from now on entities come without

    def throw_away(self) -> None:
        """Forget what is in memory: the store is the truth."""
        self._first_ms = 0  # when the first entry is, or earlier

    def enter(self, entity_id: str, time_ms: int) -> None:
        """Enter an entity at its newest application."""
        if self._kept:
            self._overlay.change(self._group, keys.timed(self._group, time_ms, entity_id), b"")
            self._first_ms = min(self._first_ms, time_ms)

    def remove(self, entity_id: str, time_ms: int) -> None:
        """Strike an entry."""
        self._overlay.change(self._group, keys.timed(self._group, time_ms, entity_id), None)

    def before(self, time_ms: int) -> list[tuple[int, str]]:
        """Return the first entries before a time, (time, entity id), some of them."""
        if self._first_ms >= time_ms:
            return []
        first = self._group + keys.time_bytes(self._first_ms)
        end = self._group + keys.time_bytes(time_ms)
        entries = islice(self._overlay.scan(self._group, first, end), _AT_ONCE)
        found = [keys.time_and_id(key, len(self._group)) for key, _ in entries]
        if found:
            self._first_ms = found[0][0]
        else:
            following = next(self._overlay.scan(self._group, end, self._end), None)
            self._first_ms = (
                keys.MAX_TIME if following is None else keys.time_at(following[0], len(self._group))
            )
        return found


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
