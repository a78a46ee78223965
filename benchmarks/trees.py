"""Scoring with boosted trees: microseconds of CPU a row, ours and scikit-learn's.

A model as `hearback train --kind boosted` fits it (60 trees of depth 3), on 20,000 rows of 35
features. Ours is asked row by row, as a worker asks it, and for all rows at once; scikit-learn's
`decision_function` for a row and for all. All in one process, by one thread, in turns; what is
printed is the median of the turns and its ratio to ours. The last line is one JSON object.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from stream.model.boosting import DEPTH, L2, LEARNING_RATE, ROUNDS, fit_boosted

ROWS, FEATURES = 20_000, 35
TURNS = 7
SINGLE = 20_000  # rows asked one by one of ours in a turn
SLOW = 30  # and of scikit-learn


def main() -> None:
    """Fit, measure, print."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    p = 1 / (1 + np.exp(-X[:, 0] * X[:, 1] - X[:, 2]))
    y = (rng.random(ROWS) < p).astype(np.int64)
    wide = X.astype(np.float64)
    untyped: Any = HistGradientBoostingClassifier
    limits: Any = threadpool_limits
    with limits(1):
        library = untyped(
            max_depth=DEPTH,
            max_iter=ROUNDS,
            learning_rate=LEARNING_RATE,
            l2_regularization=L2,
            early_stopping=False,
        ).fit(wide, y)
        ours = fit_boosted(wide, y, np.ones(ROWS))
        packed = [row.tobytes() for row in X[:SINGLE]]

        def single() -> int:
            for row in packed:
                ours.score(row)
            return len(packed)

        def batch() -> int:
            ours.score_all(X)
            return ROWS

        def library_single() -> int:
            for at in range(SLOW):
                library.decision_function(wide[at : at + 1])
            return SLOW

        def library_batch() -> int:
            library.decision_function(wide)
            return ROWS

        measured = {
            "ours, a row": single,
            "ours, all rows": batch,
            "scikit-learn, a row": library_single,
            "scikit-learn, all rows": library_batch,
        }
        found = median_us(measured)
        difference = float(np.abs(ours.score_all(X) - library.decision_function(wide)).max())
    print(f"{'':26}{'µs a row':>10}{'times ours':>12}")
    for name, us in found.items():
        kind = "a row" if name.endswith("a row") else "all rows"
        print(f"{name:26}{us:10.2f}{us / found[f'ours, {kind}']:12.1f}")
    print(f"largest difference of a score: {difference:.1e}")
    print(msgspec.json.encode({**found, "largest_difference": difference}).decode())


def median_us(measured: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Run each in turn; CPU microseconds a row, the median of the turns."""
    times: dict[str, list[float]] = {name: [] for name in measured}
    for run in measured.values():
        run()
    for _ in range(TURNS):
        for name, run in measured.items():
            began = time.process_time()
            rows = run()
            times[name].append((time.process_time() - began) / rows * 1e6)
    return {name: float(np.median(each)) for name, each in times.items()}


if __name__ == "__main__":
    main()
