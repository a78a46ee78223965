"""Trees that scikit-learn has grown, as ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from stream.model.boosting import DEPTH, L2, LEARNING_RATE, ROUNDS, fit_boosted


def test_our_trees_are_those_of_scikit_learn() -> None:
    """Scores equal its decision_function, also on thresholds and for what is missing."""
    rng = np.random.default_rng(1)
    X = np.round(rng.normal(size=(600, 4)), 1).astype(np.float32).astype(np.float64)
    X[rng.random(X.shape) < 0.05] = np.nan
    p = 1 / (1 + np.exp(-np.nan_to_num(X[:, 0] * X[:, 1])))
    y = (rng.random(600) < p).astype(np.int64)
    weights = rng.uniform(0.1, 1.0, 600)
    untyped: Any = HistGradientBoostingClassifier
    oracle = untyped(
        max_depth=DEPTH,
        max_iter=ROUNDS,
        learning_rate=LEARNING_RATE,
        l2_regularization=L2,
        early_stopping=False,
    )
    limited: Any = threadpool_limits
    with limited(1, user_api="openmp"):
        oracle.fit(X, y, sample_weight=weights)
    found = fit_boosted(X, y, weights)
    assert found.trees == 1 + ROUNDS
    fresh = np.round(rng.normal(size=(1000, 4)) * 2, 1).astype(np.float32)
    fresh[rng.random(fresh.shape) < 0.2] = np.nan
    for rows in (X.astype(np.float32), fresh):
        assert found.score_all(rows) == pytest.approx(oracle.decision_function(rows), abs=1e-9)
