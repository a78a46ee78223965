"""What the global model goes by: how much worse it scores where a feature tells nothing.

Permutation importance (Breiman, 'Random forests', 2001): the values of one column are dealt out
among the applications at random, so that it has the same values and says nothing of anybody, and
the log loss of the global score is taken again. What it grows by is what the model would miss.
Columns that say the same stand in for each other, and each alone seems to matter little; so the
blocks that a model takes are dealt out as a whole, too.

Only judged applications count, 5,000 of them at most, and every column is dealt out the same way.

Shapes: n applications of the sample, d columns.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.backtest.judgement import Interval, divided, draws_of, interval
from stream.backtest.rehearsal import Rehearsal
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel

MOST: Final = 5000
"""Applications of the sample."""

_SEED: Final = 20_170_402  # any: the same log gives the same figures

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the global model, or a whole block.

    ``log_loss``: without what it tells, less that with it, in nats per application.
    """

    name: str
    block: str
    log_loss: Interval


class Importance(msgspec.Struct, frozen=True, kw_only=True):
    """What matters to the global model: whole blocks, and columns, the most important first."""

    applications: int
    blocks: list[Missed]
    columns: list[Missed]


def importance(
    rehearsal: Rehearsal, model: GlobalModel, judged: NDArray[np.bool_], blocks: _Ints, count: int
) -> Importance | None:
    """Deal out each column of a model in turn.

    Args:
        rehearsal: of the log, with the model.
        model: the global model.
        judged: which applications count (N,).
        blocks: block of time of each (N,), which carry the intervals. count: how many there are.

    Returns:
        None: all of them bring their global score.

    """
    own = np.array([app.global_score is None for app in rehearsal.applications])
    places = np.flatnonzero(judged & own)
    if not len(places):
        return None
    rng = np.random.default_rng(_SEED)
    if len(places) > MOST:
        places = np.sort(rng.choice(places, MOST, replace=False))
    X = np.array([np.frombuffer(rehearsal.rows[place], "<f4") for place in places])
    y, of = rehearsal.targets[places], blocks[places]
    dealt = X[rng.permutation(len(X))]
    scores = model.scorer.score_all(X)
    loss = _losses(scores, y)
    draws, each = draws_of(count), np.bincount(of, minlength=count)

    def missed(name: str, block: str, columns: list[int]) -> Missed:
        grown = _losses(_without(model, X, dealt, columns, scores), y) - loss
        sums = np.bincount(of, grown, minlength=count)
        drawn = divided(draws @ sums, draws @ each)
        return Missed(name=name, block=block, log_loss=interval(float(grown.mean()), drawn, count))

    names = model.manifest.features
    of_columns = [block for block in model.manifest.inputs for _ in names[block]]
    found = [
        missed(name, block, [at])
        for at, (name, block) in enumerate(zip(model.columns, of_columns, strict=True))
    ]
    return Importance(
        applications=len(X),
        blocks=[
            missed(block, block, [at for at, of_it in enumerate(of_columns) if of_it == block])
            for block in model.manifest.inputs
        ],
        columns=sorted(found, key=lambda one: -one.log_loss.value),
    )


def _without(
    model: GlobalModel,
    X: NDArray[np.float32],
    dealt: NDArray[np.float32],
    columns: list[int],
    scores: _Floats,
) -> _Floats:
    """Scores (n,) where columns have the values of others."""
    scorer = model.scorer
    if isinstance(scorer, Linear):  # a product for each column would cost d²·n
        change = dealt[:, columns].astype(np.float64) - X[:, columns]
        return scores + change @ scorer.coefficients[columns]
    other = X.copy()
    other[:, columns] = dealt[:, columns]
    return scorer.score_all(other)


def _losses(scores: _Floats, y: _Floats) -> _Floats:
    found: _Floats = np.logaddexp(0.0, scores) - y * scores
    return found
