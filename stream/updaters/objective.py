"""The objective of :mod:`stream.updaters.newton` and its slopes, for both forms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.updaters.dense import (
    add_gram,
    add_times_transposed,
    cholesky,
    compiled,
    dot,
    vectorised,
)

ARMIJO = 1e-4
SURE = 1.5  # change of margins up to which a full step needs no line search
LAST_STEPS = 8  # with a factor that serves again
NEAR_END = 0.03  # change of margins up to which the last factor serves again: H to 3 %
ROUNDING = 1e-14  # of the objective: below it an increase is noise

_RIDGES = 8

_Vector = NDArray[np.float64]
_Matrix = NDArray[np.float64]
_Features = NDArray[np.float32]
_Rows = NDArray[np.floating[Any]]  # features as they are, or copied to float64


@compiled
def loss(m: float, y: float) -> float:
    """log(1 + exp(m)) − y·m without overflow."""
    return float(max(m, 0.0) + np.log(1.0 + np.exp(-abs(m))) - y * m)


@compiled
def losses(margins: _Vector, y: _Vector, w: _Vector) -> float:
    """Σ w_i·[log(1 + exp(m_i)) − y_i·m_i] at these margins (n,)."""
    total = 0.0
    for i in range(margins.shape[0]):
        total += w[i] * loss(margins[i], y[i])
    return total


@compiled
def objective(
    margins: _Vector,
    y: _Vector,
    w: _Vector,
    theta: _Vector,
    precision: float,
    F: _Vector,
    f: _Vector,
) -> float:
    """J at ``theta``, whose margins are known."""
    total = losses(margins, y, w)
    for j in range(theta.shape[0]):
        if F.ndim == 1:
            pull = (precision + F[j]) * theta[j]
        else:
            pull = precision * theta[j] + dot(F[j], theta)
        total += theta[j] * (0.5 * pull - f[j])
    return total


@compiled
def slopes(margins: _Vector, y: _Vector, w: _Vector, rho: _Vector, curvature: _Vector) -> None:
    """ρ_i = w_i·(p_i − y_i) and w_i·p_i·(1 − p_i) at these margins, all (n,)."""
    for i in range(margins.shape[0]):
        e = np.exp(-abs(margins[i]))
        q = 1.0 / (1.0 + e)
        p = q if margins[i] >= 0.0 else e * q
        rho[i] = w[i] * (p - y[i])
        curvature[i] = w[i] * e * q * q


@vectorised
def gradient(
    Z: _Rows, rho: _Vector, precision: float, F: _Vector, f: _Vector, theta: _Vector, g: _Vector
) -> None:
    """Overwrite g (d,) with Z'ρ + (λI + F)θ − f."""
    d = theta.shape[0]
    for j in range(d):
        g[j] = precision * theta[j] - f[j]
        if F.ndim == 1:
            g[j] += F[j] * theta[j]
        else:
            g[j] += dot(F[j], theta)
    add_times_transposed(Z, rho, g)


@vectorised
def prior(precision: float, F: _Vector, L: _Matrix) -> None:
    """Overwrite the lower triangle of ``L`` (≥ d, d) with A = λI + F."""
    d = F.shape[0]
    for j in range(d):
        for k in range(j + 1):
            if F.ndim == 2:
                L[j, k] = F[j, k]
            else:
                L[j, k] = 0.0
        if F.ndim == 1:
            L[j, j] = F[j]
        L[j, j] += precision


@compiled
def factor(X: _Matrix, curvature: _Vector, precision: float, F: _Vector, H: _Matrix) -> bool:
    """Overwrite ``H`` (d, d) with the Cholesky factor of the Hessian.

    Where rounding makes it indefinite (features of 1e9 against a weak prior), a ridge is added
    until it is not: the step is then damped, never wrong in direction. False: not even so.
    """
    ridge = 0.0
    for _ in range(_RIDGES):
        prior(precision + ridge, F, H)
        add_gram(H, X, curvature)
        highest = precision
        for j in range(H.shape[0]):
            highest = max(highest, H[j, j])
        if cholesky(H):
            return True
        ridge = max(ridge * 100.0, 1e-15 * highest)
    return False


@vectorised
def _curvature(z: _Features, w: float, o: float, theta: _Vector) -> float:
    """w·p·(1 − p) at ``theta`` for one example z (d,)."""
    m = o
    for j in range(theta.shape[0]):
        m += z[j] * theta[j]
    e = np.exp(-abs(m))
    return float(w * e / ((1.0 + e) * (1.0 + e)))


@compiled
def curvatures(Z: _Features, w: _Vector, o: _Vector, theta: _Vector) -> _Vector:
    """W (n,) at ``theta``."""
    result = np.empty(Z.shape[0])
    for i in range(Z.shape[0]):
        result[i] = _curvature(Z[i], w[i], o[i], theta)
    return result
