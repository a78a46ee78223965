"""Trains lambda-learner and river on the problems of ``updaters.py``, when told to.

Runs in an environment of its own (``updaters-rivals.txt``), without hearback. Reads commands from
stdin, one a line, and answers each with a line of JSON: the seconds that training alone took for
each entity, and for lambda-learner the modes and the posterior precisions. What is built before
training (data sets, models, trainers) is not timed.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def lambda_learner(problem: dict[str, Any]) -> dict[str, Any]:
    """Train each entity once: prior mode and precision in, mode and precision out."""
    sparse = import_module("scipy.sparse")
    dataset = import_module("linkedin.learner.ds.indexed_dataset").IndexedDataset
    model = import_module("linkedin.learner.ds.indexed_model").IndexedModel
    kind = import_module("linkedin.learner.prediction.hessian_type").HessianType
    trainer = import_module(
        "linkedin.learner.prediction.trainer_sequential_bayesian_logistic_loss_with_l2"
    ).TrainerSequentialBayesianLogisticLossWithL2
    full = problem["hessian"].ndim == 3
    trainers = [
        trainer(
            training_data=dataset(sparse.csc_matrix(Z), 2.0 * y - 1.0, np.ones(len(y)), o),
            initial_model=model(
                theta.copy(), sparse.csc_matrix(hessian if full else np.diag(hessian))
            ),
            hessian_type=kind.FULL if full else kind.DIAGONAL,
            delta=1.0,  # the past in full: nothing is forgotten here
        )
        for Z, y, o, theta, hessian in zip(
            problem["Z"].astype(np.float64),
            problem["y"],
            problem["o"],
            problem["theta"],
            problem["hessian"],
            strict=True,
        )
    ]
    trained, seconds = [], []
    for each in trainers:
        start = time.perf_counter()
        trained.append(each.train())
        seconds.append(time.perf_counter() - start)
    hessians = [result[0].hessian.toarray() for result in trained]
    return {
        "seconds": seconds,
        "modes": [result[0].theta.tolist() for result in trained],
        "precisions": [(H if full else np.diag(H)).tolist() for H in hessians],
    }


def river(problem: dict[str, Any]) -> dict[str, Any]:
    """Digest the events of each entity with ``learn_one``, one by one."""
    model = import_module("river.linear_model").LogisticRegression
    entities = [
        (
            model(),
            [{str(j): float(value) for j, value in enumerate(row)} for row in Z],
            [bool(value) for value in y],
        )
        for Z, y in zip(problem["Z"], problem["y"], strict=True)
    ]
    seconds = []
    for learner, rows, labels in entities:
        start = time.perf_counter()
        for row, label in zip(rows, labels, strict=True):
            learner.learn_one(row, label)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds}


def main() -> None:
    """Answer commands ``METHOD FILE`` until stdin ends; problems are read once."""
    methods = {"lambda_learner": lambda_learner, "river": river}
    problems: dict[str, dict[str, Any]] = {}
    for line in sys.stdin:
        method, file = line.split()
        if file not in problems:
            with np.load(Path(file)) as loaded:
                problems[file] = dict(loaded)
        print(json.dumps(methods[method](problems[file])), flush=True)


if __name__ == "__main__":
    main()
