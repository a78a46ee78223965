"""The newest coefficients of one effect's entities: ids, and arrays with a row for each.

Row 0 is the prior, for whoever is not known, so that a look-up needs no second case. A row that is
removed is free for the next entity. Numbers are kept as they are served: modes in float64, because
a served score equals the worker's; variances in float32.

Not safe to share by itself: :mod:`stream.serving.embedded` lets one writer and readers take turns.
Arrays double when they are full. New pages cost nothing before they are written, so at no time is
more held than the rows and their copy.

Shapes: d features; n rows that are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.events.structs import Coefficients
from stream.histories.history import Summary
from stream.serving.ids import Ids

_Any = NDArray[Any]

_FIRST_ROWS = 1024
_NEVER = -1

SUMMARY = np.dtype(
    [
        ("applications", "<i4"),
        ("answers", "<i4"),
        ("positives", "<i4"),
        ("newest_ms", "<i8"),
        ("recent_applications", "<f8"),
        ("recent_answers", "<f8"),
        ("recent_positives", "<f8"),
        ("answered_ms", "<i8"),
        ("positive_ms", "<i8"),
    ]
)
"""A :class:`~stream.histories.history.Summary` in 60 bytes; -1: never; of
``applications``: none was published."""

_NONE = (_NEVER,) * len(SUMMARY.names or ())

ABOUT = np.dtype([("event_time_ms", "<i8"), ("examples", "<i4"), ("version", "<u2")])
"""What is kept of every row besides its numbers; ``version`` is a number."""


class Rows(NamedTuple):
    """Rows of entities.

    ``slots`` (n,) int64: 0 for who is not known. ``mean`` (n, d) float64. ``variance`` (n, d)
    float32: of who is not known, the prior's.
    """

    slots: NDArray[np.int64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float32]


class Places:
    """Where the rows of the same entities are, for who asks for them again and again.

    Args:
        ids: the entities.

    """

    __slots__ = ("found_in", "ids", "known", "removed", "slots")

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        self.slots = np.zeros(len(ids), np.int64)
        self.found_in: Table | None = None
        self.removed = self.known = 0


class Table:
    """Rows by entity.

    Args:
        size: d. prior_variance: of each coefficient, (d,).

    """

    def __init__(self, size: int, prior_variance: Sequence[float] | NDArray[np.float64]) -> None:
        self.size = size
        self.ids = Ids(_FIRST_ROWS)
        self.free: list[int] = []
        self.removed = 0
        """How many rows were ever freed."""
        self.hidden: NDArray[np.bool_] | None = None
        """By number of a model's version, whether its rows are passed over; None: none are."""
        self.used = 1
        """Rows that are taken or free; those from here on were never used."""
        self.mean = np.zeros((_FIRST_ROWS, size))
        self.variance = np.zeros((_FIRST_ROWS, size), np.float32)
        self.about = np.zeros(_FIRST_ROWS, ABOUT)
        self.summary = np.full(0, _NEVER, SUMMARY)
        """Of no rows until a history comes."""
        self.set_prior(prior_variance)

    def __len__(self) -> int:
        """How many entities there are."""
        return len(self.ids)

    @property
    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float32], _Any, _Any]:
        """The rows that are used, of each array."""
        used = self.used
        return self.mean[:used], self.variance[:used], self.about[:used], self.summary[:used]

    def set_prior(self, variance: Sequence[float] | NDArray[np.float64]) -> None:
        """Set what is believed of who is not known: modes of 0, and these variances (d,)."""
        self.variance[0] = variance

    def grown(self, further: int, id_bytes: int) -> tuple[Ids, tuple[_Any, ...]] | None:
        """Return larger arrays, if so many further rows do not fit, or their ids; None: they do.

        Nothing is changed: whoever reads may go on meanwhile.
        """
        needed = self.used + max(further - len(self.free), 0)
        rows = len(self.mean)
        while rows < needed:
            rows *= 2
        ids = self.ids.grown(rows, further, id_bytes)
        if ids is self.ids:
            return None
        arrays: tuple[_Any, ...] = self.mean, self.variance, self.about, self.summary
        if rows > len(self.mean):
            arrays = tuple(_larger(array, rows if len(array) else 0) for array in arrays)
        return ids, arrays

    def take(self, grown: tuple[Ids, tuple[_Any, ...]]) -> None:
        """Go on with what :meth:`grown` has returned."""
        self.ids, (self.mean, self.variance, self.about, self.summary) = grown

    def put(self, found: Sequence[Coefficients], versions: Mapping[str, int]) -> None:
        """Enter coefficients of different entities, each of d numbers; there must be room.

        ``versions``: numbers of the models' versions.
        """
        ids = [each.entity_id for each in found]
        slots = self.ids.find(ids)
        new = np.flatnonzero(slots == 0)
        if len(new):
            slots[new] = [self._free_row() for _ in new]
            self.ids.add([ids[at] for at in new.tolist()], slots[new])
        self.mean[slots] = [each.mean for each in found]
        self.variance[slots] = [each.variance for each in found]
        self.about[slots] = [
            (each.event_time_ms, each.examples, versions[each.model_version]) for each in found
        ]
        if not len(self.summary) and any(each.history for each in found):
            self.keep_summaries()
        if len(self.summary):
            self.summary[slots] = [_packed(each.history) for each in found]

    def keep_summaries(self) -> None:
        """Keep histories from now on."""
        self.summary = np.full(len(self.mean), _NEVER, SUMMARY)

    def remove(self, entity_id: str) -> bool:
        """Free an entity's row; tell whether it had one."""
        slot = self.ids.remove(entity_id)
        if not slot:
            return False
        self.free.append(slot)
        self.removed += 1
        self.mean[slot] = 0.0
        self.variance[slot] = 0.0
        return True

    def rows(self, ids: Sequence[str], left_out: Sequence[bool] | None = None) -> Rows:
        """Copy the rows of entities; who is left out counts as not known."""
        slots = self.ids.find(ids)
        if left_out is not None:
            slots[np.array(left_out, np.bool_)] = 0
        return self._copied(slots)

    def rows_at(self, places: Places) -> Rows:
        """Copy the rows of the same entities as before.

        An entity keeps its row until one is removed, so only those that had none are looked up.
        """
        if places.found_in is not self or places.removed != self.removed:
            places.slots = self.ids.find(places.ids)
        elif places.known != len(self):
            missing = np.flatnonzero(places.slots == 0)
            places.slots = places.slots.copy()
            places.slots[missing] = self.ids.find([places.ids[at] for at in missing.tolist()])
        places.found_in, places.removed, places.known = self, self.removed, len(self)
        return self._copied(places.slots)

    def _copied(self, slots: NDArray[np.int64]) -> Rows:
        if self.hidden is not None:
            slots = np.where(self.hidden[self.about["version"][slots]], 0, slots)
        return Rows(slots, self.mean.take(slots, axis=0), self.variance.take(slots, axis=0))

    def summaries(self, slots: NDArray[np.int64]) -> list[Summary | None]:
        """Histories of rows; None: nothing is known, or none is kept."""
        if not len(self.summary):
            return [None] * len(slots)
        return [_unpacked(row) for row in self.summary[slots].tolist()]

    def told(self, slot: int) -> tuple[int, int, int]:
        """Newest event time (ms), examples and number of the model's version of a row."""
        event_time_ms, examples, version = self.about[slot].item()
        return event_time_ms, examples, version

    def _free_row(self) -> int:
        if self.free:
            return self.free.pop()
        self.used += 1
        return self.used - 1


def _larger(array: _Any, rows: int) -> _Any:
    larger = np.zeros((rows, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _packed(summary: object) -> tuple[float, ...]:
    if not isinstance(summary, Summary):
        return _NONE
    *counts, answered_ms, positive_ms = msgspec.structs.astuple(summary)
    times = (_NEVER if at is None else at for at in (answered_ms, positive_ms))
    return *counts, *times


def _unpacked(row: tuple[Any, ...]) -> Summary | None:
    if row[0] == _NEVER:
        return None
    *counts, answered_ms, positive_ms = row
    times = (None if at == _NEVER else at for at in (answered_ms, positive_ms))
    return Summary(*counts, *times)
