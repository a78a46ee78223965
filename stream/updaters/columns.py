"""The kept examples of an entity, column by column, as the kernel takes them.

An entity that is learned often is refitted often, each time with all that it keeps; kept in step
with the list of examples, its columns cost nothing per example then.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter

from stream.labels.ladder import target
from stream.updaters.posterior import Example, Posterior

_TIME_MS = attrgetter("time_ms")


class Columns:
    """Examples in their order: n times, targets, weights and offsets, and n·d float32 features."""

    __slots__ = ("features", "offsets", "targets", "times_ms", "weights")

    def __init__(self, examples: Sequence[Example]) -> None:
        self.times_ms = array("q", [example.time_ms for example in examples])
        self.targets = array("d", [target(example.kind) for example in examples])
        self.weights = array("d", [example.weight for example in examples])
        self.offsets = array("d", [example.offset for example in examples])
        self.features = bytearray(b"".join([example.z for example in examples]))

    def __len__(self) -> int:
        return len(self.times_ms)

    def insert(self, at: int, example: Example) -> None:
        """Enter an example before the one at ``at``."""
        self.times_ms.insert(at, example.time_ms)
        self.targets.insert(at, target(example.kind))
        self.weights.insert(at, example.weight)
        self.offsets.insert(at, example.offset)
        first = at * len(example.z)
        self.features[first:first] = example.z

    def replace(self, at: int, example: Example) -> None:
        """Put an example in the place of the one at ``at``."""
        self.times_ms[at] = example.time_ms
        self.targets[at] = target(example.kind)
        self.weights[at] = example.weight
        self.offsets[at] = example.offset
        first = at * len(example.z)
        self.features[first : first + len(example.z)] = example.z


class Held:
    """A posterior in memory; from its first refit on with its kept examples as columns beside it.

    Many are read only to learn that a label became final, and never refitted.
    """

    __slots__ = ("_columns", "posterior")

    def __init__(self, posterior: Posterior) -> None:
        self.posterior = posterior
        self._columns: Columns | None = None

    def __len__(self) -> int:
        return len(self.posterior.kept)

    @property
    def columns(self) -> Columns:
        """The kept examples."""
        if self._columns is None:
            self._columns = Columns(self.posterior.kept)
        return self._columns

    def place(self, example: Example) -> tuple[int, bool]:
        """Return where an example with this time and id belongs, and whether one is kept there."""
        kept = self.posterior.kept
        time_ms, identity = example.time_ms, example.id
        at = bisect_left(kept, time_ms, key=_TIME_MS)
        while at < len(kept) and kept[at].time_ms == time_ms and kept[at].id < identity:
            at += 1
        return at, at < len(kept) and kept[at].time_ms == time_ms and kept[at].id == identity

    def insert(self, at: int, example: Example) -> None:
        """Keep a new example, where it belongs."""
        self.posterior.kept.insert(at, example)
        if self._columns is not None:
            self._columns.insert(at, example)

    def replace(self, at: int, example: Example) -> None:
        """Replace a kept example."""
        self.posterior.kept[at] = example
        if self._columns is not None:
            self._columns.replace(at, example)

    def drop(self, examples: list[Example]) -> None:
        """Keep these no longer: they were folded."""
        self.posterior.drop(examples)
        self._columns = None
