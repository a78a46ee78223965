"""Fits the landmark models (:mod:`stream.model.landmark`).

Both are held near what is true where delays depend on nothing: coefficients of 1 for the score and
ln(1 − F), 0 for the rest. So little history changes little.

Shapes: n moments, m candidates of D decisions; X (n, 5) or (m, 5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.model.landmark import COLUMNS, Landmark

FEWEST: Final = 50
"""Moments of either outcome, and decisions, to fit by."""

_LATER: Final = COLUMNS.index("later")
_BAYES: Final = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
_RIDGE: Final = 10.0  # on standardised columns; an application's moments say much the same
_STEPS: Final = 50
_TOLERANCE: Final = 1e-10
_SHORTEST: Final = 1e-6  # part of a step

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


def fit_landmark(X: _Floats, y: _Ints, chosen: _Floats, starts: _Ints) -> Landmark | None:
    """Fit both; None where there is too little to fit by.

    Args:
        X: of the moments. y: whether an answer came after each (n,), 0/1.
        chosen: columns of the candidates (m, 5), decision after decision, the answered one first.
        starts: where each decision begins (D,).

    """
    if min(int(y.sum()), len(y) - int(y.sum()), len(starts)) < FEWEST:
        return None
    intercept, answered = fit_answered(X, y)
    return Landmark(
        intercept=intercept,
        answered=tuple(answered.tolist()),
        next=tuple(fit_choice(chosen, starts).tolist()),
        moments=len(y),
        decisions=len(starts),
        later=int(max(X[:, _LATER].max(), chosen[:, _LATER].max())),
    )


def fit_answered(X: _Floats, y: _Ints, ridge: float = _RIDGE) -> tuple[float, _Floats]:
    """Logistic regression by Newton's method; intercept and coefficients (5,).

    Args:
        X: of the moments (n, 5). y: whether an answer came after each (n,), 0/1.
        ridge: penalty on how far the coefficients of standardised columns are from Bayes' rule.

    """
    centre, scale = X.mean(axis=0), _scale(X)
    Z = np.column_stack([np.ones(len(X)), (X - centre) / scale])
    prior = np.append(0.0, _BAYES * scale)
    penalty = np.append(0.0, np.full(X.shape[1], ridge))

    def loss(beta: _Floats) -> float:
        scores = Z @ beta
        losses = np.logaddexp(0.0, scores) - y * scores
        return float(losses.sum() + 0.5 * (penalty * (beta - prior) ** 2).sum())

    def slopes(beta: _Floats) -> tuple[_Floats, _Floats]:
        p = 0.5 + 0.5 * np.tanh(Z @ beta / 2.0)
        hessian = (Z * (p * (1.0 - p))[:, None]).T @ Z + np.diag(penalty)
        return Z.T @ (p - y) + penalty * (beta - prior), hessian

    beta = _minimum(loss, slopes, prior)
    coefficients = beta[1:] / scale
    return float(beta[0] - centre @ coefficients), coefficients


def fit_choice(X: _Floats, starts: _Ints, ridge: float = _RIDGE) -> _Floats:
    """Conditional logistic regression by Newton's method; coefficients (5,).

    Args:
        X: candidates (m, 5), the chosen one of each decision first.
        starts: where each decision begins (D,).
        ridge: as of :func:`fit_answered`.

    """
    scale = _scale(X)
    Z = (X - X.mean(axis=0)) / scale
    prior = _BAYES * scale
    sizes = np.diff(np.append(starts, len(Z)))

    def loss(beta: _Floats) -> float:
        scores = Z @ beta
        largest = np.maximum.reduceat(scores, starts)
        total = np.add.reduceat(np.exp(scores - np.repeat(largest, sizes)), starts)
        losses = largest + np.log(total) - scores[starts]
        return float(losses.sum() + 0.5 * ridge * ((beta - prior) ** 2).sum())

    def slopes(beta: _Floats) -> tuple[_Floats, _Floats]:
        scores = Z @ beta
        p = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), sizes))
        p /= np.repeat(np.add.reduceat(p, starts), sizes)
        means = np.add.reduceat(p[:, None] * Z, starts)
        gradient = (means - Z[starts]).sum(axis=0) + ridge * (beta - prior)
        return gradient, (p[:, None] * Z).T @ Z - means.T @ means + ridge * np.eye(len(beta))

    return np.asarray(_minimum(loss, slopes, prior) / scale)


def _scale(X: _Floats) -> _Floats:
    """Return the spread of each column, 1 where it does not vary."""
    spread = X.std(axis=0)
    return np.asarray(np.where(spread > 0.0, spread, 1.0))


def _minimum(
    loss: Callable[[_Floats], float],
    slopes: Callable[[_Floats], tuple[_Floats, _Floats]],
    start: _Floats,
) -> _Floats:
    """Newton's method, with steps halved until the loss falls; gradient and Hessian by slopes."""
    beta = start
    for _ in range(_STEPS):
        gradient, hessian = slopes(beta)
        step = np.linalg.solve(hessian, gradient)
        if float(gradient @ step) < _TOLERANCE:
            break
        least, length = loss(beta), 1.0
        while loss(beta - length * step) > least and length > _SHORTEST:
            length /= 2.0
        beta = beta - length * step
    return beta
