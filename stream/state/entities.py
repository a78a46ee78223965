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
from heapq import heapify, heappop, heappush
from itertools import islice

from stream.state import codec, keys
from stream.state.overlay import Overlay
from stream.state.store import Store
from stream.updaters.kept import Posterior

_AT_ONCE = 64  # entries given at a time
_YES = b"\x01"

_Marker = tuple[int, int]  # up to when applications count for nothing, when that was asked for (ms)


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
    """Markers of one effect, read and written through an overlay.

    What costs time for each marker is done once: at the start, when it comes, when it goes.
    """

    def __init__(self, effect: str, overlay: Overlay) -> None:
        self._effect = effect
        self._overlay = overlay
        prefix = keys.prefix(keys.FORGOTTEN, effect)
        self._markers = {
            keys.parts(key)[1].decode(): codec.FORGOTTEN.decode(value)
            for key, value in overlay.store.scan(prefix, keys.after(prefix))
        }
        self._flushed: dict[str, _Marker | None] = {}  # as the store has those that changed since
        # Each marker is in one of these heaps, which keep markers that were replaced or struck
        # until it is their turn: by their first time, or, once that has passed, by their second.
        self._by_until = [(until_ms, each) for each, (until_ms, _) in self._markers.items()]
        heapify(self._by_until)
        self._by_asked: list[tuple[int, str]] = []
        overlay.attach(self.throw_away, self._flushed.clear)

    def throw_away(self) -> None:
        """Undo what was not flushed: the store is the truth."""
        for entity_id, marker in self._flushed.items():
            if marker is None:
                self._markers.pop(entity_id, None)
            else:
                self._markers[entity_id] = marker
                heappush(self._by_until, (marker[0], entity_id))
        self._flushed.clear()

    def counts(self, entity_id: str, application_time_ms: int) -> bool:
        """Whether an application counts: its entity was not forgotten since."""
        if not self._markers:
            return True
        marker = self._markers.get(entity_id)
        return marker is None or application_time_ms > marker[0]

    def enter(self, entity_id: str, until_ms: int, asked_ms: int) -> None:
        """Mark an entity; a marker that reaches further stays."""
        if until_ms > self._markers.get(entity_id, (-1, 0))[0]:
            self._put(entity_id, (until_ms, asked_ms))
            heappush(self._by_until, (until_ms, entity_id))

    def strike_before(self, time_ms: int, asked_ms: int) -> None:
        """Strike the markers up to before a time that were asked for before another."""
        by_until, by_asked = self._by_until, self._by_asked
        while by_until and by_until[0][0] < time_ms:
            _, entity_id = heappop(by_until)
            if entity_id in self._markers:
                heappush(by_asked, (self._markers[entity_id][1], entity_id))
        while by_asked and by_asked[0][0] < asked_ms:
            _, entity_id = heappop(by_asked)
            marker = self._markers.get(entity_id)
            if marker is None:
                continue
            if marker[0] >= time_ms:  # entered anew, or time was set back with a unit of work
                heappush(by_until, (marker[0], entity_id))
            elif marker[1] >= asked_ms:
                heappush(by_asked, (marker[1], entity_id))
            else:
                self._put(entity_id, None)

    def _put(self, entity_id: str, marker: _Marker | None) -> None:
        """Replace a marker; None strikes it."""
        self._flushed.setdefault(entity_id, self._markers.get(entity_id))
        value = None if marker is None else codec.FORGOTTEN.encode(marker)
        self._overlay.put(keys.key(keys.FORGOTTEN, self._effect, entity_id), value)
        if marker is None:
            del self._markers[entity_id]
        else:
            self._markers[entity_id] = marker
