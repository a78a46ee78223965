"""Learns landmark models from moments at which applications wait (:mod:`stream.backtest.moments`).

Global scores are cross-fitted (:mod:`stream.backtest.tuning`), and the effects' are those of the
moment, learned from what came before: as scores of new applications are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from stream.backtest.moments import Moments, features
from stream.backtest.rehearsal import Rehearsal, record_labels, rehearse
from stream.backtest.tuning import before, cross_fit
from stream.errors import ConfigError
from stream.labels.delays import DelayCurve, curve_of
from stream.logs.files import LogLine
from stream.model.folder import GlobalModel
from stream.model.landmark import Landmark
from stream.model.landmark_fit import fit_landmark
from stream.policy import Policy
from stream.replay.reader import first_look

MOST: Final = 5_000
"""Applications with closed windows that ``train`` looks at, the newest, and all after them: more
make it slower, not better."""


def fitted(
    rehearsal: Rehearsal, policy: Policy, curve: DelayCurve, until_ms: int
) -> Landmark | None:
    """Fit landmark models on a rehearsal whose scores are those of new applications.

    Only applications whose windows had passed by ``until_ms`` tell whether an answer came.
    """
    window_ms = policy.labels.window_ms
    watch = Moments(rehearsal, window_ms)
    rehearse(rehearsal, policy, watch=watch)
    known = (rehearsal.times_ms + window_ms <= until_ms) & ~np.isnan(rehearsal.targets)
    moments = [seen for seen in watch.moments if known[seen.number]]
    decisions = [seen for at_ms, _, seen in watch.decisions if at_ms <= until_ms]
    if not moments or not decisions:
        return None
    y = rehearsal.targets[[seen.number for seen in moments]].astype(np.int64)
    sizes = [len(candidates) for candidates in decisions]
    starts = np.cumsum([0, *sizes[:-1]]).astype(np.int64)
    chosen = [seen for candidates in decisions for seen in candidates]
    return fit_landmark(features(moments, curve), y, features(chosen, curve), starts)


def learn_landmark(
    lines: Iterable[LogLine],
    policy: Policy,
    model: GlobalModel,
    from_ms: int,
    max_jump_ms: int | None = None,
) -> Landmark | None:
    """Fit landmark models on the span that a global model was trained on; None: too little there.

    Args:
        lines: the log. policy: labels and effects.
        model: just fitted; its regularisation is that of the cross-fitted ones, too.
        from_ms: earlier applications are left out.
        max_jump_ms: as in training.

    """
    until_ms = model.manifest.trained_until_ms
    read_from_ms = None if model.takes_further else from_ms  # histories begin with the log
    known, space = first_look(before(lines, until_ms, read_from_ms), model)
    rehearsal = record_labels(known, policy, model, space, max_jump_ms, from_ms)
    return landmark_of(rehearsal, policy, model)


def landmark_of(rehearsal: Rehearsal, policy: Policy, model: GlobalModel) -> Landmark | None:
    """Fit landmark models on what was recorded; as :func:`learn_landmark` on a log."""
    until_ms = model.manifest.trained_until_ms
    curve = curve_of(policy.labels, model.manifest.delays)
    if curve != model.manifest.delays:
        return None  # it would not be known with which curve it goes
    brought = np.array([app.global_score is not None for app in rehearsal.applications], bool)
    theirs = rehearsal.global_scores.copy()
    if not brought.all():
        try:
            known_as = model.manifest
            cross_fit(rehearsal, policy, until_ms, known_as.kind, known_as.regularisation)
        except ConfigError:
            return None  # too few jobs or outcomes
        rehearsal.global_scores[brought] = theirs[brought]
    return fitted(rehearsal, policy, curve, until_ms)
