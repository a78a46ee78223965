"""What a global model would have scored that is trained anew every so often (``retrain``).

Every so often, counted from the end of its training, a model of the same kind over the same columns
is fitted on what was known then, as ``hearback train --until`` does it, and scores the applications
from then on, as one that ``hearback model roll`` lets in: those before keep their scores, λ stays.
What was known when stands in the recording, so one pass through the log serves all of them.

Shapes: n applications of a rehearsal, d columns of the model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.backtest.rehearsal import Rehearsal
from stream.errors import ConfigError
from stream.events.ladder import Kind
from stream.model.folder import GlobalModel
from stream.model.training_set import Row, TrainingSet
from stream.policy import Policy


def check_retraining(rehearsal: Rehearsal, model: GlobalModel | None) -> None:
    """Refuse to train models anew of a log that needs none.

    Raises:
        ConfigError: all applications bring their global score.

    """
    if model is None or all(app.global_score is not None for app in rehearsal.applications):
        raise ConfigError(
            "retrain: applications bring their global score, so there is no model to train anew:"
            " leave it out"
        )


def retrained(
    rehearsal: Rehearsal, policy: Policy, model: GlobalModel, every_ms: int
) -> NDArray[np.float64]:
    """Global scores (n,) in log-odds of a succession of models.

    Where there are not both outcomes to fit on, the model before stays.

    Args:
        rehearsal: of the whole log, with ``model``.
        policy: its label policy.
        model: the first of them.
        every_ms: how often there is another.

    """
    X = np.array([np.frombuffer(row, "<f4") for row in rehearsal.rows])
    known, times_ms = _training_set(rehearsal, X, policy, model), rehearsal.times_ms
    scores = rehearsal.global_scores.copy()
    brought = np.array([app.global_score is not None for app in rehearsal.applications])
    last_ms = int(times_ms.max())
    for at_ms in range(model.manifest.trained_until_ms + every_ms, last_ms + 1, every_ms):
        scorer = known.scorer_at(at_ms)
        if scorer is not None:
            later = (times_ms >= at_ms) & ~brought
            scores[later] = scorer.score_all(X[later])
    return scores


def _training_set(
    rehearsal: Rehearsal, X: NDArray[np.float32], policy: Policy, model: GlobalModel
) -> TrainingSet:
    """Gather the recording's applications, and when their labels became what they are.

    The model's columns, of whatever blocks, are all global features here.
    """
    rows = [Row(None, x) for x in X]
    for number, label in rehearsal.steps:
        if label is None or label.evidence_time_ms is None:
            continue
        row = rows[number]
        if label.kind == Kind.POSITIVE.wire:
            row.answered_ms = min(row.answered_ms, label.evidence_time_ms)
        else:
            row.settled_ms = min(row.settled_ms, label.evidence_time_ms)
    names = {"global": model.columns, "per_member": [], "per_job": []}
    known = TrainingSet(policy, names, model.manifest.kind)
    for number in np.argsort(rehearsal.times_ms, kind="stable").tolist():
        app = rehearsal.applications[number]
        known.put(rows[number], app.job_id, app.event_time_ms)
    return known
