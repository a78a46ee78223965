"""A boosted global model: the log-odds are the sum of one leaf of each tree.

Its file, ``trees.npy``, is a table of nodes (:data:`NODE`), as NumPy writes it:

=============  =====================================================================================
``tree``       number of the tree, from 0; a tree's nodes stand together, its root first
``feature``    column that is asked, from 0; -1 in a leaf
``threshold``  a row goes left where its number is at most this; 0 in a leaf
``left``       row of this table where it goes then, after this one and in the same tree; -1 in a
               leaf
``right``      where it goes else
``missing``    1: what is not a number goes left; 2: zero is missing too, and goes right; 3: left
``value``      of a leaf, what it adds to the log-odds; of any other node, what its leaves add on
               average, which only explains scores
=============  =====================================================================================

A constant is a tree of one leaf.

**Explanations.** What a column contributes to a score is the sum, over the nodes on the row's way
that ask it, of how much the value changes from the node to the one that follows: the path
attribution of Saabas (2014; the package *treeinterpreter*). The values of the roots are the
constant. It sums to the score, and costs one walk; unlike Shapley values (Lundberg et al., *From
local explanations to global understanding with explainable AI for trees*, 2020) it depends on the
order in which a tree asks.
"""

from __future__ import annotations

import io
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from stream.errors import ModelError
from stream.model.kind import ModelKind
from stream.model.scorer import Floats32
from stream.model.walk import LEAF, MISSING_LEFT, ZERO_IS_MISSING, walk, walk_adding, walk_all

NODE = np.dtype(
    [
        ("tree", "<i4"),
        ("feature", "<i4"),
        ("threshold", "<f8"),
        ("left", "<i4"),
        ("right", "<i4"),
        ("missing", "u1"),
        ("value", "<f8"),
    ]
)

MOST_DEPTH = 512
"""Nodes that a row may ask in one tree."""

Table = NDArray[Any]
"""Nodes (N,) of the type :data:`NODE`."""


class Trees:
    """Scores with trees (:class:`~stream.model.scorer.Scorer`).

    Args:
        table: the nodes.
        columns: d, how many there are.

    Raises:
        ModelError: the table breaks a rule of the format.

    """

    kind: Final[ModelKind] = "boosted"

    def __init__(self, table: Table, columns: int) -> None:
        self.table = table
        self.columns = columns
        roots = np.flatnonzero(np.diff(table["tree"], prepend=-1)) if table.size else table["tree"]
        self._roots = roots.astype(np.int32)
        fault = _fault(table, columns, self._roots)
        if fault:
            raise ModelError(f"its trees are damaged: {fault}")
        leaf = table["left"] < 0
        flags = np.where(leaf, LEAF, table["missing"])
        rows = [table["feature"], table["left"], table["right"], flags]
        self._nodes = np.ascontiguousarray(np.stack(rows, axis=1), np.int32)
        self._numbers = np.where(leaf, table["value"], table["threshold"])
        self._values = np.ascontiguousarray(table["value"])

    @classmethod
    def decoded(cls, data: bytes, columns: int) -> Self:
        """Read and check a file.

        Raises:
            ModelError: it is damaged, or asks columns that are not there.

        """
        try:
            table = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ModelError(f"its trees are damaged: {error}") from None
        if table.dtype != NODE or table.ndim != 1:
            raise ModelError("its trees are damaged: this is no table of nodes")
        return cls(table, columns)

    def encoded(self) -> bytes:
        """Return the file's bytes."""
        buffer = io.BytesIO()
        np.save(buffer, self.table, allow_pickle=False)
        return buffer.getvalue()

    @property
    def trees(self) -> int:
        """How many there are."""
        return len(self._roots)

    def score(self, packed: bytes) -> float:
        """Log-odds, of the float32 bytes of one row (d,)."""
        x = np.frombuffer(packed, dtype="<f4")
        if len(x) != self.columns:  # the compiled walk would read what is not there
            raise ModelError(f"{len(x)} numbers to score, the model has {self.columns} columns")
        return walk(x, self._nodes, self._numbers, self._roots)

    def score_all(self, X: Floats32) -> NDArray[np.float64]:
        """Log-odds (n,) of rows (n, d)."""
        if X.shape[1] != self.columns:
            raise ModelError(f"{X.shape[1]} numbers a row, the model has {self.columns} columns")
        out = np.empty(len(X))
        walk_all(np.ascontiguousarray(X), self._nodes, self._numbers, self._roots, out)
        return out

    def contributions(self, x: Floats32) -> NDArray[np.float64]:
        """What each column adds on a row's ways (d + 1,); the last is the constant."""
        return np.asarray(self.contributions_all(x[None])[0])

    def contributions_all(self, X: Floats32) -> NDArray[np.float64]:
        """:meth:`contributions` of rows (n, d): (n, d + 1)."""
        if X.shape[1] != self.columns:
            raise ModelError(f"{X.shape[1]} numbers a row, the model has {self.columns} columns")
        found = np.zeros((len(X), self.columns + 1))
        found[:, -1] = self._values[self._roots].sum()
        rows = np.array(X, np.float32, order="C")  # a copy, for what can be written is compiled
        walk_adding(rows, self._nodes, self._numbers, self._values, self._roots, found)
        return found


def constant(value: float) -> Table:
    """Return a tree of one leaf."""
    table = np.zeros(1, NODE)
    table["feature"] = table["left"] = table["right"] = -1
    table["value"] = value
    return table


def joined(parts: list[Table]) -> Table:
    """Put trees, each numbered by itself, into one table."""
    starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
    table = np.concatenate(parts)
    first = np.repeat(starts, [len(part) for part in parts])
    table["tree"] = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    for side in ("left", "right"):
        table[side] = np.where(table[side] < 0, -1, table[side] + first)
    return table


def with_means(table: Table, weights: NDArray[np.float64]) -> Table:
    """Give the splits of one tree the mean value of their leaves.

    ``weights`` (N,): of the leaves; where all below a split are 0, its two sides count alike.
    """
    weights = weights.astype(np.float64)
    for at in np.flatnonzero(table["left"] >= 0)[::-1].tolist():  # from the bottom up
        sides = [int(table["left"][at]), int(table["right"][at])]
        weights[at] = weights[sides].sum()
        shares = weights[sides] if weights[at] > 0.0 else np.ones(2)
        table["value"][at] = np.average(table["value"][sides], weights=shares)
    return table


def _fault(table: Table, columns: int, roots: NDArray[np.int32]) -> str:
    """Name the first rule that a table breaks; none: all hold."""
    if not table.size:
        return "it has no nodes"
    tree, left, right = table["tree"], table["left"], table["right"]
    if tree[0] != 0 or not np.isin(np.diff(tree), (0, 1)).all():
        return "trees are not numbered from 0, one after the other"
    with np.errstate(over="ignore"):
        largest = np.abs(table["value"]).sum()  # of a score, at most
    if not (np.isfinite(table["threshold"]).all() and np.isfinite(largest)):
        return "a threshold or a value is not finite"
    leaf = left < 0
    if (leaf != (right < 0)).any() or (leaf != (table["feature"] < 0)).any():
        return "a node is half a leaf"
    asked = table["feature"][~leaf]
    if (asked >= columns).any():
        return f"it asks column {asked.max()}, the model has {columns}"
    if (table["missing"] > (MISSING_LEFT | ZERO_IS_MISSING)).any():
        return "a node sends missing values to no side"
    above = np.flatnonzero(~leaf)
    for below in (left[above], right[above]):
        if (below <= above).any() or (below >= len(table)).any():
            return "a node does not stand after the one above it"
        if (tree[below] != tree[above]).any():
            return "a node goes on in another tree"
    parents = np.bincount(np.concatenate([left[above], right[above], roots]), minlength=len(table))
    if (parents != 1).any():
        return "a node is below none, or below several"
    level = roots
    for _ in range(MOST_DEPTH + 1):
        level = level[~leaf[level]]
        if not level.size:
            return ""
        level = np.concatenate([left[level], right[level]])
    return f"a tree is deeper than {MOST_DEPTH}"
