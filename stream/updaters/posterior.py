"""The state of one entity: its mode, the examples it follows from, and what was folded."""

from __future__ import annotations

import msgspec

from stream.labels.ladder import rung
from stream.policy import FOLD


class Example(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One labelled application, as one entity sees it.

    Ordered by (application time, id): the order in which examples are kept, summed and dropped.
    ``z`` is the float32 bytes of the features, shape (d,); ``offset`` the log-odds of everything
    else, fixed for life.
    """

    time_ms: int
    id: str
    kind: int
    final: bool
    weight: float
    offset: float
    z: bytes

    @property
    def rung(self) -> int:
        """Height of the label on the ladder."""
        return rung(self.kind, self.final)


class Posterior(msgspec.Struct, array_like=True):
    """All that is known of an entity.

    ``mode`` is the float64 bytes of θ, shape (d,), of the last refit. ``time_ms`` is T, the largest
    application time learned. ``folded`` counts the examples that are in ``precision`` (F, float64
    bytes of shape (d, d), or (d,) for its diagonal) and ``linear`` (f, (d,)) instead of ``kept``;
    both are empty while nothing was folded.
    """

    mode: bytes
    time_ms: int
    kept: list[Example]
    folded: int = 0
    precision: bytes = b""
    linear: bytes = b""

    @property
    def examples(self) -> int:
        """Applications learned so far."""
        return len(self.kept) + self.folded

    def oldest(self, most: int, *, final: bool) -> list[Example]:
        """Return the ``FOLD`` oldest of a sort by (time, id), when ``most`` + ``FOLD`` are kept."""
        if len(self.kept) < most + FOLD:
            return []
        same = [example for example in self.kept if example.final is final]
        return same[:FOLD] if len(same) >= most + FOLD else []

    def drop(self, examples: list[Example]) -> None:
        """Keep these no longer: they were folded."""
        gone = {_order(example) for example in examples}
        self.kept = [example for example in self.kept if _order(example) not in gone]
        self.folded += len(examples)


def _order(example: Example) -> tuple[int, str]:
    return example.time_ms, example.id
