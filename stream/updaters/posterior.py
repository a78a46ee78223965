"""The state of one entity: its mode, the examples it follows from, and what was folded."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from stream.policy import FOLD
from stream.updaters.kept import Kept


@dataclass(slots=True)
class Posterior:
    """All that is known of an entity.

    ``mode`` is the float64 bytes of θ, shape (d,), of the last refit. ``time_ms`` is T, the largest
    application time learned. ``folded`` counts the examples that are in ``precision`` (F, float64
    bytes of shape (d, d), or (d,) for its diagonal) and ``linear`` (f, (d,)) instead of ``kept``;
    both are empty while nothing was folded.
    """

    mode: bytes
    time_ms: int
    kept: Kept
    _: KW_ONLY
    folded: int = 0
    precision: bytes = b""
    linear: bytes = b""

    @property
    def examples(self) -> int:
        """Applications learned so far."""
        return len(self.kept) + self.folded

    def oldest(self, most: int, *, final: bool) -> list[int]:
        """Where the ``FOLD`` oldest of a sort stand, when ``most`` + ``FOLD`` of it are kept."""
        if len(self.kept) < most + FOLD:
            return []
        same = self.kept.places(final=final)
        return same[:FOLD] if len(same) >= most + FOLD else []

    def drop(self, places: list[int]) -> None:
        """Keep the examples there no longer: they were folded."""
        gone = set(places)
        self.kept = self.kept.take([at for at in range(len(self.kept)) if at not in gone])
        self.folded += len(places)
