"""What global models would have scored that are trained on a recording: later ones, and others.

Where one is trained anew every so often (``retrain``), counted from the end of the given model's
training, a model of the same kind over the same columns is fitted on what was known then, as
``hearback train --until`` does it, and scores the applications from then on, as one that
``hearback model roll`` lets in: those before keep their scores, λ stays. Where another kind stands
in the place of the given one (``model``, ``inputs``), it is fitted on the same span, scoring all.
What was known when stands in the recording, so one pass through the log serves all of them.

Shapes: n applications of a rehearsal, d columns of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.backtest.comparison import Setting
from stream.backtest.rehearsal import Rehearsal
from stream.errors import ConfigError
from stream.events.ladder import Kind
from stream.model.columns import COUNT_COLUMNS, further
from stream.model.folder import GlobalModel
from stream.model.kind import ModelKind
from stream.model.training_set import Row, TrainingSet
from stream.policy import Policy


def check_retraining(
    settings: Sequence[Setting], rehearsal: Rehearsal, model: GlobalModel | None
) -> None:
    """Refuse to train models of a log that needs none, or over columns that are not there.

    Raises:
        ConfigError: all applications bring their global score, or the model lacks an input.

    """
    if not any(setting.trains for setting in settings):
        return
    if model is None or all(app.global_score is not None for app in rehearsal.applications):
        raise ConfigError(
            "retrain and model: applications bring their global score, so there is no model to"
            " train: leave them out"
        )
    for setting in settings:
        lacking = [one for one in setting.inputs if one not in model.manifest.inputs]
        if lacking:
            raise ConfigError(
                f"setting {setting.name!r}: model {model.version} takes no {further(lacking)}, so"
                " they were not recorded: leave them out of inputs"
            )


def could_train(rehearsal: Rehearsal, policy: Policy, model: GlobalModel) -> bool:
    """Whether another model could be fitted on the span of the given one."""
    own = np.array([app.global_score is None for app in rehearsal.applications])
    until_ms = model.manifest.trained_until_ms
    closed = rehearsal.times_ms + policy.labels.window_ms <= until_ms
    return {0.0, 1.0} <= set(rehearsal.targets[closed & own].tolist())


def retrained(rehearsal: Rehearsal, setting: Setting, model: GlobalModel) -> NDArray[np.float64]:
    """Global scores (n,) in log-odds of a setting's models.

    Where there are not both outcomes to fit a further one on, the one before stays.

    Args:
        rehearsal: of the whole log, with ``model``.
        setting: which models there are.
        model: the given one.

    Raises:
        ConfigError: there are not both outcomes to fit the first one on.

    """
    kind = model.manifest.kind if setting.model is None else setting.model
    at = _columns(setting, model)
    X, there = rehearsal.matrix()
    X = X[:, at]
    names = [model.columns[column] for column in at]
    known = _training_set(rehearsal, X, there, setting.policy, names, kind)
    scores, times_ms = rehearsal.global_scores.copy(), rehearsal.times_ms
    own = np.array([app.global_score is None for app in rehearsal.applications])
    until_ms = model.manifest.trained_until_ms
    if setting.model is not None:
        first = known.scorer_at(until_ms)
        if first is None:
            raise ConfigError(
                f"setting {setting.name!r}: not both outcomes are known by the end of the training"
            )
        scores[own] = first.score_all(X[own])
    if setting.retrain_ms is not None:
        every_ms, last_ms = setting.retrain_ms, int(times_ms.max())
        for at_ms in range(until_ms + every_ms, last_ms + 1, every_ms):
            scorer = known.scorer_at(at_ms)
            if scorer is not None:
                later = (times_ms >= at_ms) & own
                scores[later] = scorer.score_all(X[later])
    return scores


def _columns(setting: Setting, model: GlobalModel) -> list[int]:
    """Which of the model's columns a setting's models take."""
    inputs = model.manifest.inputs
    if setting.model is None:
        return [*range(len(model.columns))]
    takes = ("global", *setting.inputs)
    of_columns = [block for block in inputs for _ in model.manifest.features[block]]
    return [
        at
        for at, (block, name) in enumerate(zip(of_columns, model.columns, strict=True))
        if block in takes and not (setting.model == "linear" and _is_count(block, name))
    ]


def _is_count(block: str, name: str) -> bool:
    """Whether a column of preferences is a count, which a linear model does not take."""
    return block == "preferences" and name in COUNT_COLUMNS


def _training_set(
    rehearsal: Rehearsal,
    X: NDArray[np.float32],
    there: NDArray[np.bool_],
    policy: Policy,
    columns: list[str],
    kind: ModelKind,
) -> TrainingSet:
    """Gather the recording's applications, and when their labels became what they are.

    ``there``: who has columns (n,); others are left out.
    Columns, of whatever blocks, are all global features here.
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
    names = {"global": columns, "per_member": [], "per_job": []}
    known = TrainingSet(policy, names, kind)
    for number in np.argsort(rehearsal.times_ms, kind="stable").tolist():
        if not there[number]:
            continue
        app = rehearsal.applications[number]
        known.put(rows[number], app.job_id, app.event_time_ms)
    return known
