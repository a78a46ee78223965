"""An entity's posterior and its kept examples, packed by column as they are stored and fitted.

Most entities are read, changed by one label and written back, with all that they keep; a column is
one value then, however many examples there are.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field

import msgspec

from stream.events.ladder import Kind, rung

_FINAL = [kind << 1 | 1 for kind in Kind]  # as a label that is final is kept


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


class Kept:
    """Examples in their order, n of them.

    Attributes:
        ids: of the examples. times_ms: int64. labels: a byte each, 2·kind + final.
        weights, offsets: float64. features: n·d float32, one example after the other.

    """

    __slots__ = ("features", "ids", "labels", "offsets", "times_ms", "weights")

    def __init__(
        self,
        *,
        ids: list[str],
        times_ms: bytes,
        labels: bytes,
        weights: bytes,
        offsets: bytes,
        features: bytes,
    ) -> None:
        self.ids = ids
        self.times_ms = array("q", times_ms)
        self.labels = bytearray(labels)
        self.weights = array("d", weights)
        self.offsets = array("d", offsets)
        self.features = bytearray(features)

    @classmethod
    def of(cls, examples: Iterable[Example]) -> Kept:
        """Keep these, which are in order."""
        kept = cls(ids=[], times_ms=b"", labels=b"", weights=b"", offsets=b"", features=b"")
        for example in examples:
            kept.insert(len(kept), example)
        return kept

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: int) -> Example:
        at = range(len(self.ids))[at]
        width = len(self.features) // len(self.ids)
        return Example(
            self.times_ms[at],
            self.ids[at],
            self.labels[at] >> 1,
            bool(self.labels[at] & 1),
            self.weights[at],
            self.offsets[at],
            bytes(self.features[at * width : (at + 1) * width]),
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[at] for at in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Kept.of({list(self)})"

    def place(self, example: Example) -> tuple[int, bool]:
        """Return where an example with this time and id belongs, and whether one is kept there."""
        time_ms, identity = example.time_ms, example.id
        times_ms, ids = self.times_ms, self.ids
        at, n = bisect_left(times_ms, time_ms), len(ids)
        while at < n and times_ms[at] == time_ms and ids[at] < identity:
            at += 1
        return at, at < n and times_ms[at] == time_ms and ids[at] == identity

    def insert(self, at: int, example: Example) -> None:
        """Enter an example before the one at ``at``."""
        self.ids.insert(at, example.id)
        self.times_ms.insert(at, example.time_ms)
        self.labels.insert(at, example.kind << 1 | example.final)
        self.weights.insert(at, example.weight)
        self.offsets.insert(at, example.offset)
        first = at * len(example.z)
        self.features[first:first] = example.z

    def replace(self, at: int, example: Example) -> None:
        """Put an example of the same time and id in the place of the one at ``at``."""
        self.labels[at] = example.kind << 1 | example.final
        self.weights[at] = example.weight
        self.offsets[at] = example.offset
        first = at * len(example.z)
        self.features[first : first + len(example.z)] = example.z

    def kind(self, at: int) -> int:
        """Kind of the label at ``at``."""
        return self.labels[at] >> 1

    def rung(self, at: int) -> int:
        """Height on the ladder of the label at ``at``."""
        label = self.labels[at]
        return rung(label >> 1, bool(label & 1))

    def places(self, *, final: bool) -> list[int]:
        """Where the examples are whose labels are final, or those whose labels are not."""
        return [at for at, label in enumerate(self.labels) if label & 1 == final]

    def count(self, *, final: bool) -> int:
        """Count the examples whose labels are final, or those whose labels are not."""
        finals = sum(map(self.labels.count, _FINAL))
        return finals if final else len(self.ids) - finals

    def take(self, places: Sequence[int]) -> Kept:
        """Copy the examples at some places, which are in order."""
        return Kept.of([self[at] for at in places])


@dataclass(slots=True)
class Posterior:
    """All that is known of an entity.

    ``mode`` is the float64 bytes of θ, shape (d,), of the last refit. ``time_ms`` is T, the largest
    application time learned. ``folded`` counts the examples that are in ``precision`` (F, float64
    bytes of shape (d, d), or (d,) for its diagonal) and ``linear`` (f, (d,)) instead of ``kept``;
    both are empty while nothing was folded. ``cost``: about how many multiplications the last refit
    took; not stored.
    """

    mode: bytes
    time_ms: int
    kept: Kept
    _: KW_ONLY
    folded: int = 0
    precision: bytes = b""
    linear: bytes = b""
    cost: int = field(default=0, compare=False)

    @property
    def examples(self) -> int:
        """Applications learned so far."""
        return len(self.kept) + self.folded

    def drop(self, places: list[int]) -> None:
        """Keep the examples there no longer: they were folded."""
        gone = set(places)
        self.kept = self.kept.take([at for at in range(len(self.kept)) if at not in gone])
        self.folded += len(places)
