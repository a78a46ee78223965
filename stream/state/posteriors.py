"""The posterior book of one effect in a store (:class:`stream.updaters.effect.PosteriorBook`)."""

from __future__ import annotations

from collections.abc import Iterator

from stream.state import codec, keys
from stream.state.overlay import Overlay
from stream.state.store import Store
from stream.updaters.kept import Posterior


class StoredPosteriors:
    """Posteriors of one effect, read and written through an overlay."""

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
