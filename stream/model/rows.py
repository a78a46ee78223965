"""What was known of a log's applications at some time: the rows that a global model is fitted on.

*Closed* rows are the applications whose whole window had passed, positives too: taking every label
known by then at full weight would favour positives, which are known early. *Aged* rows are all
applications before that time. Whoever was neither answered, declined nor settled by what happened
to others is a negative that weighs F(age), the share of the answers to come that have come by that
age (:mod:`stream.labels.delays`); so early positives are favoured no more.

Nothing that happened later is in either.

Shapes: n applications, in the order in which their windows closed; d features.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.labels.delays import LEAST_ANSWERS, DelayCurve, fitted

NEVER: Final = np.iinfo(np.int64).max
"""The time of what did not happen."""

POSITIVES_PER_FEATURE: Final = 10
"""Closed windows with fewer are too few to fit a linear model on (Peduzzi et al., A simulation
study of the number of events per variable in logistic regression analysis, J. Clin. Epidemiol.
1996)."""

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


class Rows(NamedTuple):
    """Applications to fit a model on.

    ``X``: what a model is fitted on (n, d); ``y``: targets 0/1 (n,); ``weights`` (n,), above 0 and
    at most 1; ``times_ms``: of the applications (n,); ``jobs``: numbers (n,) that tell jobs apart;
    ``aged``: whether the rows are aged ones, else closed.
    """

    X: _Floats
    y: _Ints
    weights: _Floats
    times_ms: _Ints
    jobs: _Ints
    aged: bool

    def only(self, columns: list[int]) -> Rows:
        """Leave out all other columns."""
        return self if len(columns) == self.X.shape[1] else self._replace(X=self.X[:, columns])

    @property
    def of_both_kinds(self) -> bool:
        """Whether there is a positive and a negative."""
        return bool(0 < self.y.sum() < len(self.y))


class Outcomes(NamedTuple):
    """What became of applications, and when.

    ``times_ms``: of the applications (n,). ``answered_ms`` (n,): of the first positive answer in
    the window. ``settled_ms`` (n,): when the application became a negative of full weight (it was
    declined, or inferred from what happened to others). Both :data:`NEVER` where it did not happen.
    """

    times_ms: _Ints
    answered_ms: _Ints
    settled_ms: _Ints
    window_ms: int

    def closed(self, at_ms: int) -> NDArray[np.bool_]:
        """Whose windows had passed by a time (n,)."""
        return self.times_ms + self.window_ms <= at_ms

    def known(self, at_ms: int, curve: DelayCurve) -> tuple[_Ints, _Floats]:
        """Return the labels known at a time, with their weights; 0: nothing is known.

        Args:
            at_ms: the time. curve: what silence is worth.

        """
        answered = self.answered_ms <= at_ms
        ages_ms = at_ms - self.times_ms
        silence = np.interp(ages_ms, (0, *curve.ages_ms), (0.0, *curve.shares))
        weights = np.where(answered | (self.settled_ms <= at_ms), 1.0, silence)
        return answered.astype(np.int64), np.where(ages_ms > 0, weights, 0.0)

    def delays(self, at_ms: int) -> DelayCurve | None:
        """Return how long answers take, as known at a time; None where too few are there."""
        there = self.times_ms <= at_ms
        answered = self.answered_ms <= at_ms
        if answered.sum() < LEAST_ANSWERS or not self.closed(at_ms).any():
            return None
        silent = there & ~answered
        return fitted(
            (self.answered_ms - self.times_ms)[answered].tolist(),
            np.minimum(at_ms - self.times_ms[silent], self.window_ms).tolist(),
            self.window_ms,
        )
