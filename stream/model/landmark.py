"""What is left to come of an application that still waits: two small landmark models.

At any moment (a *landmark*) an open application has a score, an age, and a number of later
applicants to the same job who were answered since. Of these, as the columns

    score, ln(1 − F(age)), ln(age + 1 h), later, ln(1 + later)

with F the delay curve, two questions have two answers, for who is looked past by an active
recruiter is not who is forgotten by an idle one:

- *Will an answer still come?* A logistic regression, fitted on moments of all open applications.
- *Who of those waiting is answered next?* A conditional logistic regression, fitted on decisions:
  the odds within one job, at one moment. It has no intercept and is no probability.

Without a fit both are the score's log-odds + ln(1 − F(age)): what Bayes' rule gives where delays
depend on nothing. Sources: van Houwelingen, Dynamic prediction by landmarking in event history
analysis, Scand. J. Stat. 2007; McFadden, Conditional logit analysis of qualitative choice behavior,
1974.

Shapes: n applications.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import ModelError
from stream.labels.delays import DelayCurve
from stream.policy import DAY_MS

COLUMNS: Final = ("score", "silence", "age", "later", "log_later")
_LEAST_LEFT: Final = 1e-3  # of the answers, for the logarithm
_HOUR_DAYS: Final = 1 / 24

_Floats = NDArray[np.float64]


class Landmark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Coefficients in the order of :data:`COLUMNS`.

    ``intercept`` and ``answered``: log-odds of an answer still to come. ``next``: log-odds of being
    the next one of the job to be answered, up to what all who wait there share. ``moments`` and
    ``decisions`` are what each was fitted on. ``later``: the most later answers among these; more
    count as so many, for nothing is known beyond. None: not known, of a model of an earlier
    release.
    """

    intercept: float
    answered: tuple[float, ...]
    next: tuple[float, ...]
    moments: int
    decisions: int
    later: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no landmark."""
        numbers = (self.intercept, *self.answered, *self.next)
        sizes = {len(self.answered), len(self.next)}
        if sizes != {len(COLUMNS)} or not all(map(math.isfinite, numbers)):
            raise ModelError(f"a landmark has {len(COLUMNS)} finite coefficients for each question")
        if self.later is not None and self.later < 0:
            raise ModelError("the most later answers of a landmark are 0 or more")

    def within(self, X: _Floats) -> _Floats:
        """Columns (n, 5), those of later answers no larger than they were when it was fitted."""
        if self.later is None:
            return X
        return np.minimum(X, [np.inf, np.inf, np.inf, self.later, math.log1p(self.later)])


def columns(scores: _Floats, ages_ms: _Floats, later: _Floats, curve: DelayCurve) -> _Floats:
    """Features of open applications (n, 5).

    Args:
        scores: log-odds of now (n,). ages_ms: since they were submitted (n,), 0 or more.
        later: later applicants to the job who were answered since (n,).
        curve: how long answers take.

    """
    left = 1.0 - np.interp(ages_ms, (0, *curve.ages_ms), (0.0, *curve.shares))
    X = np.empty((len(scores), len(COLUMNS)))
    X[:, 0] = scores
    X[:, 1] = np.log(np.maximum(left, _LEAST_LEFT))
    X[:, 2] = np.log(ages_ms / DAY_MS + _HOUR_DAYS)
    X[:, 3] = later
    X[:, 4] = np.log1p(later)
    return X


def log_odds_now(landmark: Landmark | None, X: _Floats) -> _Floats:
    """Log-odds (n,) that an answer still comes; X from :func:`columns`."""
    if landmark is None:
        return np.asarray(X[:, 0] + X[:, 1])
    return np.asarray(landmark.intercept + landmark.within(X) @ np.array(landmark.answered))


def order_now(landmark: Landmark | None, X: _Floats) -> _Floats:
    """By what those who wait for one job are ranked (n,): the highest is likeliest to be next."""
    if landmark is None:
        return np.asarray(X[:, 0] + X[:, 1])
    return np.asarray(landmark.within(X) @ np.array(landmark.next))
