"""Boosted trees, fitted by scikit-learn and kept as a table of nodes.

Shapes: n applications, d features; X (n, d) float64, of numbers that float32 has; y (n,) 0/1,
weights (n,).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from stream.errors import ModelError
from stream.model.trees import NODE, Table, Trees, constant, joined, with_means

ROUNDS: Final = 60
DEPTH: Final = 3
LEARNING_RATE: Final = 0.05
L2: Final = 5.0

_EQUAL: Final = (
    1e-9  # nats by which our walk and the library's may differ: it sums in another order
)


def fit_boosted(
    X: NDArray[np.float64], y: NDArray[np.int64], weights: NDArray[np.float64]
) -> Trees:
    """Fit trees.

    Raises:
        ModelError: this release of scikit-learn keeps its trees in another way.

    """
    untyped: Any = HistGradientBoostingClassifier  # neither library has types
    threads: Any = threadpool_limits
    learner = untyped(
        max_depth=DEPTH,
        max_iter=ROUNDS,
        learning_rate=LEARNING_RATE,
        l2_regularization=L2,
        early_stopping=False,
        random_state=0,
    )
    # Threads that wait for each other on a busy machine took 20 times as long.
    with threads(1, user_api="openmp"):
        fitted = learner.fit(X, y, sample_weight=weights)
    parts = [constant(float(fitted._baseline_prediction.item()))]
    parts += [_tree(predictor.nodes) for (predictor,) in fitted._predictors]
    trees = Trees(joined(parts), X.shape[1])
    if not np.allclose(
        trees.score_all(X.astype(np.float32)), fitted.decision_function(X), rtol=0.0, atol=_EQUAL
    ):
        raise ModelError("the trees of this release of scikit-learn cannot be read: take another")
    return trees


def _tree(nodes: Any) -> Table:
    """Take over a tree of scikit-learn, whose nodes stand after the one above them."""
    leaf = nodes["is_leaf"].astype(bool)
    table = np.zeros(len(nodes), NODE)
    table["feature"] = np.where(leaf, -1, nodes["feature_idx"])
    table["threshold"] = np.where(leaf, 0.0, nodes["num_threshold"])
    table["left"] = np.where(leaf, -1, nodes["left"].astype(np.int64))
    table["right"] = np.where(leaf, -1, nodes["right"].astype(np.int64))
    table["missing"] = np.where(leaf, 0, nodes["missing_go_to_left"])
    table["value"] = nodes["value"]
    return with_means(table, nodes["count"])
