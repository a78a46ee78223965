"""The compiled walk through trees.

Shapes: N nodes of all trees, one tree after the other; T trees. A node has a row of ``nodes``
(N, 4) int32, with the columns :data:`FEATURE`, :data:`LEFT`, :data:`RIGHT` and :data:`FLAGS`, and
a number in ``numbers`` (N,) float64: its threshold or, of a leaf, its value. ``roots`` (T,) int32.
Rows to score are float32 and compared as float64: any float32 is one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.updaters.dense import compiled, entry_point

FEATURE, LEFT, RIGHT, FLAGS = range(4)

MISSING_LEFT = 1
"""Flag: a missing value goes left."""

ZERO_IS_MISSING = 2
"""Flag: zero is a missing value too."""

LEAF = 4
"""Flag: the walk ends here."""

ZERO = 1e-35
"""Up to here a number is zero, where zero is missing (LightGBM's ``kZeroThreshold``)."""

Nodes = NDArray[np.int32]
Numbers = NDArray[np.float64]


@compiled
def _next(x: NDArray[np.float32], nodes: Nodes, numbers: Numbers, at: int, flags: int) -> int:
    """Node where a row (d,) goes from one that is no leaf, given its flags."""
    value = np.float64(x[nodes[at, FEATURE]])
    left = value <= numbers[at]
    if np.isnan(value) or (flags & ZERO_IS_MISSING and abs(value) <= ZERO):
        left = flags & MISSING_LEFT != 0
    below: int = nodes[at, LEFT] if left else nodes[at, RIGHT]
    return below


@entry_point
def walk(x: NDArray[np.float32], nodes: Nodes, numbers: Numbers, roots: Nodes) -> float:
    """Sum of the leaves that a row (d,) comes to, in the order of the trees."""
    total = 0.0
    for tree in range(roots.shape[0]):
        at = roots[tree]
        flags = nodes[at, FLAGS]
        while not flags & LEAF:
            at = _next(x, nodes, numbers, at, flags)
            flags = nodes[at, FLAGS]
        total += numbers[at]
    return total


@entry_point
def walk_all(
    X: NDArray[np.float32], nodes: Nodes, numbers: Numbers, roots: Nodes, out: Numbers
) -> None:
    """Overwrite out (n,) with the sums of rows (n, d), each as :func:`walk` gives it."""
    for row in range(X.shape[0]):
        out[row] = walk(X[row], nodes, numbers, roots)


@entry_point
def walk_adding(
    X: NDArray[np.float32],
    nodes: Nodes,
    numbers: Numbers,
    values: Numbers,
    roots: Nodes,
    out: NDArray[np.float64],
) -> None:
    """Add to out (n, d) what the values (N,) of nodes change by on rows' (n, d) ways, by column."""
    for row in range(X.shape[0]):
        for tree in range(roots.shape[0]):
            at = roots[tree]
            flags = nodes[at, FLAGS]
            while not flags & LEAF:
                below = _next(X[row], nodes, numbers, at, flags)
                out[row, nodes[at, FEATURE]] += values[below] - values[at]
                at, flags = below, nodes[below, FLAGS]
