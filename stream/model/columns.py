"""What a global model scores: which columns there are, and the bytes of a row.

A model's *inputs* are blocks, joined in the order of :data:`INPUTS`:

===============  ===================================================================================
``global``       the global features, as sent
``history``      what had happened to member, job and pair (:mod:`stream.histories.history`)
``preferences``  what the job's recruiters had preferred of the candidate's terms
                 (:mod:`stream.histories.preferences`): of each type of terms that the training log
                 had four sums of weights; before them, of trees, the counts
===============  ===================================================================================

Where nothing is known a column is 0, which says so: of an application without terms, of a type that
it has no terms of, where nothing was rated yet. Types that the model does not know are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from struct import Struct

from stream.errors import ModelError
from stream.histories.history import NAMES, NOTHING, PARTS
from stream.histories.preferences import COUNTS, MOST_TYPES, WEIGHTS, Preferred

INPUTS = ("global", "history", "preferences")
"""Blocks that a model's columns may come from."""

HISTORY_COLUMNS = [f"history.{name}" for name in NAMES]

_NO_HISTORY = NOTHING * len(PARTS)
_NO_COUNTS, _NO_WEIGHTS = (0.0,) * len(COUNTS), (0.0,) * len(WEIGHTS)
COUNT_COLUMNS = [f"preferences.{name}" for name in COUNTS]

_BEGINS, _ENDS = "preferences[", f"].{WEIGHTS[0]}"


def further(inputs: Iterable[str]) -> str:
    """Name the inputs beside the global features, in words; "" where there are none."""
    said = {"history": "histories", "preferences": "preferences"}
    return " and ".join(said[block] for block in inputs if block in said)


def preference_columns(types: Iterable[str], *, counts: bool = True) -> list[str]:
    """Name the columns of preferences: :data:`COUNTS`, then of each type :data:`WEIGHTS`.

    Without counts for a linear model: those of later days are larger than all that it has seen.
    """
    weights = [f"{_BEGINS}{kind}].{name}" for kind in types for name in WEIGHTS]
    return (COUNT_COLUMNS if counts else []) + weights


def frequent(types: Counter[str]) -> list[str]:
    """Names of the types of terms that most applications have: 16 at most, sorted."""
    return sorted(sorted(types, key=lambda kind: (-types[kind], kind))[:MOST_TYPES])


class Columns:
    """The columns of a model.

    Args:
        features: their names, by block.
        inputs: the blocks that they come from.

    Attributes:
        names: of all of them, in their order.
        further: whether there are others than global features.
        history: whether there are those of histories.

    Raises:
        ModelError: the blocks, or their names, are not those that this release fills.

    """

    def __init__(self, features: dict[str, list[str]], inputs: Sequence[str]) -> None:
        self.history = "history" in inputs
        self.further = len(inputs) > 1
        in_order = [block for block in INPUTS if block in inputs]
        if [*inputs] != in_order or inputs[0] != "global":
            raise ModelError(
                f"it takes {', '.join(inputs)}, this release {', '.join(INPUTS)}: train again"
            )
        if self.history and features["history"] != HISTORY_COLUMNS:
            raise ModelError("it takes other histories than this release keeps: train again")
        self._types: list[str] | None = None
        if "preferences" in inputs:
            names = features["preferences"]
            self._counts = names[: len(COUNT_COLUMNS)] == COUNT_COLUMNS
            firsts = names[len(COUNT_COLUMNS) if self._counts else 0 :: len(WEIGHTS)]
            self._types = [name[len(_BEGINS) : -len(_ENDS)] for name in firsts]
            if names != preference_columns(self._types, counts=self._counts):
                raise ModelError("it takes other preferences than this release keeps: train again")
            self._pack = Struct(f"<{len(names)}f").pack
        self.names = [name for block in inputs for name in features[block]]

    def row(
        self, packed: bytes, history: bytes | None = None, preferred: Preferred | None = None
    ) -> bytes:
        """Join the float32 bytes of a row.

        Args:
            packed: its global features.
            history: of shape (36,); None: nothing has happened.
            preferred: what is known of its terms; None: it has none.

        """
        if self.history:
            packed += history or _NO_HISTORY
        if self._types is not None:
            weights = {} if preferred is None else preferred.weights
            known = [x for kind in self._types for x in weights.get(kind, _NO_WEIGHTS)]
            if self._counts:
                known[:0] = _NO_COUNTS if preferred is None else preferred.counts
            packed += self._pack(*known)
        return packed
