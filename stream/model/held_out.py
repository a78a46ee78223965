"""Is a global model any good? Judged on applications that are newer than all it was fitted on.

The newest fifth of the applications whose windows have closed is held out. The model that is judged
was fitted on what was known when the first of them was submitted, as a model trained on that day
would have been. The model that goes into use is fitted on all, so it has seen a window and a fifth
more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import ModelError
from stream.model.folder import GlobalModel, HeldOut
from stream.model.rows import Rows
from stream.model.scorer import Floats32
from stream.quality.prequential import quality
from stream.quality.tally import Quality
from stream.units import format_time

SHARE = 0.2
"""Of the applications that are held out."""

_LEAST = 20  # applications that a judgement takes

Fit = Callable[[Rows], Callable[[Floats32], NDArray[np.float64]]]
"""Applications to fit on → what gives the log-odds (n,) of rows (n, d)."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the held-out part says of a new model, and of one before it.

    ``before`` and ``after``: of the old and the new one, on the ``compared`` applications whose
    windows ended after the old one was trained, for their labels were not final then; one that was
    fitted on aged rows has seen the early ones among their answers, which favours it. ``before`` is
    None where there is no old one. ``losses``: of the new
    one, on each application that is held out.
    """

    held_out: HeldOut
    losses: NDArray[np.float64]
    after: Quality
    before: Quality | None = None
    compared: int = 0


class Unjudged(NamedTuple):
    """Why a model cannot be judged."""

    reason: str


def hold_out(
    final: Rows,
    window_ms: int,
    names: Sequence[str],
    known: Callable[[int], Rows],
    fit: Fit,
    than: GlobalModel | None = None,
) -> Judgement | Unjudged:
    """Fit without the newest applications and judge on them.

    Args:
        final: the applications whose labels are final (n,), closed rows.
        window_ms: after an application's time its label is final.
        names: of the features (d,).
        known: gives what was known at a time (ms).
        fit: fits a model.
        than: a model to compare with.

    Raises:
        ModelError: ``than`` has a feature that is not in ``names``, or has seen all that is held
            out.

    """
    X, y, times_ms = final.X, final.y, final.times_ms
    if len(y) < _LEAST:
        return Unjudged(f"{len(y)} applications are too few, {_LEAST} are needed")
    from_ms = int(np.sort(times_ms)[-max(int(len(y) * SHARE), 1)])
    newest = times_ms >= from_ms
    older = known(from_ms)
    if not older.of_both_kinds:
        said = f"{len(older.y):,} applications, {older.y.sum():,} of them positive,"
        return Unjudged(
            f"when the newest fifth began ({format_time(from_ms)}), the"
            f" {'labels' if older.aged else 'windows'} of {said}"
            f" {'were known' if older.aged else 'had passed'}: both kinds are needed; take a longer"
            " log"
        )
    scores = fit(older)(X.astype(np.float32))
    truth = y.astype(np.float64)
    found = quality(truth[newest], scores[newest])
    if found is None:
        raise ModelError("there is nothing to judge by")  # the newest fifth is never empty
    held_out = HeldOut(
        from_ms=from_ms,
        applications=int(newest.sum()),
        positives=int(y[newest].sum()),
        auc=found.auc,
        log_loss=found.log_loss,
        constant_log_loss=float(log_losses(rate_of(older.y, older.weights), y[newest]).mean()),
    )
    losses = log_losses(scores[newest], y[newest])
    if than is None:
        return Judgement(held_out=held_out, losses=losses, after=found)
    unseen = newest & (times_ms + window_ms > than.manifest.trained_until_ms)
    before = quality(truth[unseen], _scores_of(than, X[unseen], names))
    after = quality(truth[unseen], scores[unseen])
    if before is None or after is None:
        raise ModelError(
            f"model {than.version} was trained on all applications that are held out: there is"
            " nothing to compare on; take a longer log"
        )
    return Judgement(
        held_out=held_out,
        losses=losses,
        after=after,
        before=before,
        compared=int(unseen.sum()),
    )


def compare(
    final: Rows, window_ms: int, names: Sequence[str], new: GlobalModel, old: GlobalModel
) -> Judgement | Unjudged:
    """Judge two models on the applications whose windows ended after both were trained.

    Args:
        final: the applications whose labels are final (n,), closed rows.
        window_ms: after an application's time its label is final.
        names: of the features (d,). new, old: the models.

    Raises:
        ModelError: one has a feature that is not in ``names``.

    """
    trained_ms = max(new.manifest.trained_until_ms, old.manifest.trained_until_ms)
    unseen = final.times_ms + window_ms > trained_ms
    X, y, count = final.X[unseen], final.y[unseen], int(unseen.sum())
    if count < _LEAST:
        return Unjudged(
            f"the windows of {count} applications ended after {format_time(trained_ms)}, when the"
            f" newer one was trained: {_LEAST} are needed; take a longer log"
        )
    scores = _scores_of(new, X, names)
    after = quality(y.astype(np.float64), scores)
    before = quality(y.astype(np.float64), _scores_of(old, X, names))
    if after is None or before is None:
        raise ModelError("there is nothing to judge by")  # there are some
    held_out = HeldOut(
        from_ms=int(final.times_ms[unseen].min()),
        applications=count,
        positives=int(y.sum()),
        auc=after.auc,
        log_loss=after.log_loss,
    )
    losses = log_losses(scores, y)
    return Judgement(held_out=held_out, losses=losses, after=after, before=before, compared=count)


def check_not_worse(judged: Judgement | Unjudged, than: Path | str, margin: float) -> None:
    """Refuse a new model that is worse than the one before it.

    Args:
        judged: what the held-out part says. than: what the model before is called.
        margin: by which the AUC may be lower, and the log loss higher.

    Raises:
        ModelError: it is worse, or nobody can tell.

    """
    if isinstance(judged, Unjudged):
        raise ModelError(
            f"whether the new model is worse than {than} cannot be told: {judged.reason}"
        )
    if judged.before is None:
        raise ModelError(f"the new model was not compared with {than}")
    new, old = judged.after, judged.before
    lower = new.auc is not None and old.auc is not None and new.auc < old.auc - margin
    if lower or new.log_loss > old.log_loss + margin:
        raise ModelError(
            f"the new model is worse than {than}, by more than {margin:g}, on {judged.compared:,}"
            " applications whose windows ended after that one was trained:"
            f" {in_words(new.auc, new.log_loss)}, before {in_words(old.auc, old.log_loss)};"
            " nothing was written"
        )


def rate_of(y: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Return the log-odds of a constant fitted on these targets; finite, also for one kind only."""
    positives = float(weights[y == 1].sum()) + 0.5
    return float(np.log(positives / (float(weights.sum()) + 1.0 - positives)))


def log_losses(scores: NDArray[np.float64] | float, y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log loss of each application (n,), from log-odds."""
    return np.asarray(np.logaddexp(0.0, scores) - y * scores)


def in_words(auc: float | None, log_loss: float) -> str:
    """Tell AUC and log loss."""
    return f"AUC {'unknown' if auc is None else format(auc, '.4f')}, log loss {log_loss:.4f}"


def _scores_of(
    model: GlobalModel, X: NDArray[np.float64], names: Sequence[str]
) -> NDArray[np.float64]:
    """Log-odds (n,) of another model, which may know fewer features."""
    at = {name: column for column, name in enumerate(names)}
    missing = [name for name in model.columns if name not in at]
    if missing:
        raise ModelError(
            f"model {model.version} has global features that the log has not, such as"
            f" {missing[0]}: models are compared by feature names (--feature-names names those of"
            " logs with lists)"
        )
    return model.score_all(X[:, [at[name] for name in model.columns]])
