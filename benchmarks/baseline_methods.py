"""lambda-learner and river on an exercise of ``quality.py``; runs in the baselines' environment.

``python baseline_methods.py EXERCISE.npz`` reads methods from stdin, one JSON object a line, and
answers each with one line: the scores (n,) as JSON. Imports nothing of hearback.

An exercise has n applications: ``member``, ``job`` (n,) ints; ``z_member``, ``z_job`` float64
(n, d); ``offset`` (n,), the global score; and twice the m steps in order (m, 4), ``aged`` and
``hard``: application, target (−1: score it now), whether the label is final, weight. Each entity
has a model of its own.

Neither library can take a label back. So ``"labels": "hard"`` or ``"aged"`` teaches a label where
its target is not the one taught last (a false negative stays and the positive is taught besides),
and what its weight has grown by where it is; ``"labels": "final"`` waits until the label is final.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Learner(Protocol):
    """The model of one entity."""

    def score(self, z: Any) -> float:
        """z'θ, log-odds."""

    def learn(self, z: Any, target: int, offset: float, weight: float) -> None:
        """Take one label in."""


class LambdaLearner:
    """The library's incremental Bayesian trainer: one label is one batch, full Hessian.

    ``precision`` λ of the prior; ``delta`` what the past keeps at every update (1: all).
    """

    def __init__(self, d: int, *, precision: float, delta: float) -> None:
        prediction = "linkedin.learner.prediction"
        self._sparse = import_module("scipy.sparse")
        self._dataset = import_module("linkedin.learner.ds.indexed_dataset").IndexedDataset
        self._trainer = import_module(
            f"{prediction}.trainer_sequential_bayesian_logistic_loss_with_l2"
        ).TrainerSequentialBayesianLogisticLossWithL2
        self._full = import_module(f"{prediction}.hessian_type").HessianType.FULL
        model = import_module("linkedin.learner.ds.indexed_model").IndexedModel
        self._model = model(np.zeros(d), self._sparse.csc_matrix(precision * np.eye(d)))
        self._precision, self._delta = precision, delta

    def score(self, z: Any) -> float:
        """z'θ, log-odds."""
        return float(z @ self._model.theta)

    def learn(self, z: Any, target: int, offset: float, weight: float) -> None:
        """Take one label in."""
        data = self._dataset(
            self._sparse.csc_matrix(z[None, :]),
            np.array([2.0 * target - 1.0]),
            np.array([weight]),
            np.array([offset]),
        )
        self._model, _, _ = self._trainer(
            training_data=data,
            initial_model=self._model,
            hessian_type=self._full,
            penalty=self._precision,
            delta=self._delta,
        ).train()


class River:
    """river's logistic regression by SGD; its intercept, not learned, is set to the offset."""

    def __init__(self, d: int, *, rate: float, l2: float) -> None:
        optim = import_module("river.optim")
        self._model = import_module("river.linear_model").LogisticRegression(
            optimizer=optim.SGD(rate), l2=l2, intercept_lr=0.0
        )
        self._names = [str(j) for j in range(d)]

    def score(self, z: Any) -> float:
        """z'θ, log-odds."""
        weights = self._model.weights
        named = zip(self._names, z.tolist(), strict=True)
        return float(sum(weights.get(name, 0.0) * value for name, value in named))

    def learn(self, z: Any, target: int, offset: float, weight: float) -> None:
        """Take one label in."""
        self._model.intercept = offset
        x = dict(zip(self._names, z.tolist(), strict=True))
        self._model.learn_one(x, bool(target), w=weight)


METHODS: dict[str, Callable[..., Learner]] = {"lambda-learner": LambdaLearner, "river": River}


def run(exercise: dict[str, Any], method: dict[str, Any]) -> Any:
    """Score and learn an exercise; return the scores (n,)."""
    options = dict(method)
    make, effect = METHODS[options.pop("method")], options.pop("effect")
    labels = options.pop("labels")
    z, offset = exercise[f"z_{effect}"], exercise["offset"]
    entity = exercise[effect].tolist()
    models: defaultdict[int, Learner] = defaultdict(lambda: make(z.shape[1], **options))
    taught: dict[int, tuple[float, float]] = {}
    scores = offset.copy()
    for at, target, final, weight in exercise["hard" if labels == "hard" else "aged"].tolist():
        number = int(at)
        if target < 0:
            if entity[number] in models:
                scores[number] += models[entity[number]].score(z[number])
        elif final or labels != "final":
            before, by = taught.get(number, (None, 0.0))
            grown = weight - by if before == target else weight
            if grown > 0.0:
                taught[number] = (target, weight)
                models[entity[number]].learn(z[number], int(target), float(offset[number]), grown)
    return scores


def main() -> None:
    """Answer methods until stdin ends."""
    with np.load(Path(sys.argv[1]), allow_pickle=False) as arrays:
        exercise = dict(arrays)
    for line in sys.stdin:
        print(json.dumps(run(exercise, json.loads(line)).tolist()), flush=True)


if __name__ == "__main__":
    main()
