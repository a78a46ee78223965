"""The posterior book of one effect in a store (:class:`stream.updaters.effect.PosteriorBook`)."""

from __future__ import annotations

from collections.abc import Iterator

from stream.state import codec, keys
from stream.state.census import Census
from stream.state.overlay import Overlay
from stream.state.store import Store
from stream.updaters.posterior import Posterior


class StoredPosteriors:
    """Posteriors of one effect, read and written through an overlay."""

    def __init__(self, effect: str, overlay: Overlay, census: Census | None = None) -> None:
        self._effect = effect
        self._overlay = overlay
        self._census = census or Census(overlay)
        self._unknown: set[str] = set()  # entities that were asked for and are not there
        overlay.attach(self)

    def load(self, entity_id: str) -> Posterior | None:
        """Return the posterior of an entity; None when it never learned."""
        value = self._overlay.get(keys.posterior(self._effect, entity_id))
        if value is None:
            self._unknown.add(entity_id)
            return None
        return codec.decode_posterior(value)

    def save(self, entity_id: str, posterior: Posterior) -> None:
        """Replace the posterior of an entity; one that is new was asked for before."""
        if entity_id in self._unknown:
            self._unknown.remove(entity_id)
            self._census.entities(1)
        self._overlay.put(
            keys.posterior(self._effect, entity_id), codec.encode_posterior(posterior)
        )

    def write_out(self) -> None:
        """Nothing is held back."""
        self._unknown.clear()

    def throw_away(self) -> None:
        """What was new is so again."""
        self._unknown.clear()


def all_posteriors(store: Store, effect: str) -> Iterator[tuple[str, Posterior]]:
    """Every flushed posterior of an effect, by entity id."""
    prefix = keys.posteriors(effect)
    for key, value in store.scan(prefix, keys.after(prefix)):
        yield keys.entity_of(key), codec.decode_posterior(value)
