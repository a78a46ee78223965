"""The compiled kernel: the mode of one entity by damped Newton, and its marginal variances.

Minimises over θ, for kept examples i with weights already aged,

    Σ w_i·[log(1 + exp(m_i)) − y_i·m_i] + ½·θ'Fθ − f'θ + ½·λ·‖θ‖²,    m_i = o_i + z_i'θ,

where F and f hold what was folded (:mod:`stream.updaters.folding`). It is strictly convex for
λ > 0: gradient Σ w_i·(σ(m_i) − y_i)·z_i + Fθ − f + λθ, Hessian
Σ w_i·σ(m_i)·(1 − σ(m_i))·z_i·z_i' + F + λI. Each step solves H·s = g by Cholesky and is halved
until it satisfies Armijo's condition on the *objective* (a cheaper test on the derivative alone
diverged on separable data with a weak prior). It stops after the full step from a point where the
squared Newton decrement g'H⁻¹g is at most the tolerance: with 1e-10 the result is within 1e-5
posterior standard deviations of the mode.

Source: Boyd & Vandenberghe, Convex Optimization, §9.5 (damped Newton, stopping by the decrement).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-10
"""Squared Newton decrement at which the last full step is taken."""

_ARMIJO = 1e-4
_MAX_STEPS = 500
_RIDGES = 8
_ROUNDING = 1e-14  # of the objective: below it an increase is noise

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Vector = NDArray[np.float64]
_Matrix = NDArray[np.float64]


def _compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile with Numba on first call, kept on disk; types stay those of the Python function."""
    return cast(
        "Callable[_P, _R]", numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    )


@_compiled
def _log1p_exp(x: float) -> float:
    """log(1 + exp(x)) without overflow."""
    if x > 0.0:
        return float(x + np.log1p(np.exp(-x)))
    return float(np.log1p(np.exp(x)))


@_compiled
def _sigmoid(x: float) -> float:
    if x >= 0.0:
        return float(1.0 / (1.0 + np.exp(-x)))
    e = np.exp(x)
    return float(e / (1.0 + e))


@_compiled
def _cholesky(H: _Matrix) -> bool:
    """Replace the lower triangle of a positive definite matrix (d, d) by its factor, in place."""
    d = H.shape[0]
    for j in range(d):
        s = H[j, j]
        for k in range(j):
            s -= H[j, k] * H[j, k]
        if not s > 0.0:
            return False
        root = np.sqrt(s)
        H[j, j] = root
        for i in range(j + 1, d):
            s = H[i, j]
            for k in range(j):
                s -= H[i, k] * H[j, k]
            H[i, j] = s / root
    return True


@_compiled
def _solve(L: _Matrix, g: _Vector, x: _Vector) -> None:
    """Solve L·L'·x = g, all of size d; ``x`` is overwritten."""
    d = L.shape[0]
    for i in range(d):
        s = g[i]
        for k in range(i):
            s -= L[i, k] * x[k]
        x[i] = s / L[i, i]
    for i in range(d - 1, -1, -1):
        s = x[i]
        for k in range(i + 1, d):
            s -= L[k, i] * x[k]
        x[i] = s / L[i, i]


@_compiled
def _objective(
    margins: _Vector,
    y: _Vector,
    w: _Vector,
    theta: _Vector,
    precision: float,
    F: _Matrix,
    f: _Vector,
) -> float:
    total = 0.0
    for i in range(margins.shape[0]):
        total += w[i] * (_log1p_exp(margins[i]) - y[i] * margins[i])
    for j in range(theta.shape[0]):
        pull = precision * theta[j]
        for k in range(theta.shape[0]):
            pull += F[j, k] * theta[k]
        total += theta[j] * (0.5 * pull - f[j])
    return float(total)


@_compiled
def _factor(
    Z: NDArray[np.float32],
    margins: _Vector,
    w: _Vector,
    precision: float,
    F: _Matrix,
    H: _Matrix,
) -> bool:
    """Overwrite ``H`` (d, d) with the Cholesky factor of the Hessian at these margins.

    Where rounding makes it indefinite (features of 1e9 against a weak prior), a ridge is added
    until it is not: the step is then damped, never wrong in direction. False: not even so.
    """
    n, d = Z.shape
    ridge = 0.0
    for _ in range(_RIDGES):
        largest = precision
        for j in range(d):
            for k in range(j + 1):
                H[j, k] = F[j, k]
            H[j, j] += precision + ridge
        for i in range(n):
            p = _sigmoid(margins[i])
            h = w[i] * p * (1.0 - p)
            for j in range(d):
                hz = h * Z[i, j]
                for k in range(j + 1):
                    H[j, k] += hz * Z[i, k]
        for j in range(d):
            largest = max(largest, H[j, j])
        if _cholesky(H):
            return True
        ridge = max(ridge * 100.0, 1e-15 * largest)
    return False


@_compiled
def fit(
    Z: NDArray[np.float32],
    y: _Vector,
    w: _Vector,
    o: _Vector,
    precision: float,
    F: _Matrix,
    f: _Vector,
    theta: _Vector,
    tolerance: float,
) -> int:
    """Move ``theta`` (d,) to the mode, in place.

    Args:
        Z: features (n, d). y: targets (n,). w: aged weights (n,). o: offsets (n,).
        precision: λ. F: folded precision (d, d). f: folded linear part (d,).
        theta: where to start; overwritten.
        tolerance: squared Newton decrement to stop at.

    Returns:
        Newton steps taken; negative when it did not converge in 500, or the features are not
        finite enough to factor the Hessian: ``theta`` is then the best point reached.

    """
    n, d = Z.shape
    margins = np.empty(n)
    slopes = np.empty(n)
    H = np.empty((d, d))
    g = np.empty(d)
    step = np.empty(d)
    trial = np.empty(d)
    trial_margins = np.empty(n)
    for taken in range(1, _MAX_STEPS + 1):
        for i in range(n):
            m = o[i]
            for j in range(d):
                m += Z[i, j] * theta[j]
            margins[i] = m
        for j in range(d):
            g[j] = precision * theta[j] - f[j]
            for k in range(d):
                g[j] += F[j, k] * theta[k]
        for i in range(n):
            r = w[i] * (_sigmoid(margins[i]) - y[i])
            for j in range(d):
                g[j] += r * Z[i, j]
        if not _factor(Z, margins, w, precision, F, H):
            return -taken
        _solve(H, g, step)
        decrement = 0.0
        for j in range(d):
            decrement += g[j] * step[j]
        if decrement <= tolerance:
            for j in range(d):
                theta[j] -= step[j]
            return taken
        for i in range(n):
            s = 0.0
            for j in range(d):
                s += Z[i, j] * step[j]
            slopes[i] = s
        start = _objective(margins, y, w, theta, precision, F, f)
        allowed = _ROUNDING * (1.0 + abs(start))
        t = 1.0
        while t > 1e-18:
            for j in range(d):
                trial[j] = theta[j] - t * step[j]
            for i in range(n):
                trial_margins[i] = margins[i] - t * slopes[i]
            value = _objective(trial_margins, y, w, trial, precision, F, f)
            if value <= start - _ARMIJO * t * decrement + allowed:
                break
            t *= 0.5
        for j in range(d):
            theta[j] = trial[j]
    return -_MAX_STEPS


@_compiled
def variances(
    Z: NDArray[np.float32],
    w: _Vector,
    o: _Vector,
    precision: float,
    F: _Matrix,
    theta: _Vector,
) -> _Vector:
    """Diagonal (d,) of the inverse Hessian at ``theta``: the Laplace marginal variances."""
    n, d = Z.shape
    margins = np.empty(n)
    for i in range(n):
        m = o[i]
        for j in range(d):
            m += Z[i, j] * theta[j]
        margins[i] = m
    L = np.empty((d, d))
    _factor(Z, margins, w, precision, F, L)
    result = np.zeros(d)
    column = np.empty(d)
    # (H⁻¹)_jj = Σ_i (L⁻¹)_ij², column j of L⁻¹ by forward substitution.
    for j in range(d):
        for i in range(j, d):
            s = 1.0 if i == j else 0.0
            for k in range(j, i):
                s -= L[i, k] * column[k]
            column[i] = s / L[i, i]
            result[j] += column[i] * column[i]
    return result


def warm_up() -> None:
    """Compile (or load from the cache) before the first event needs it.

    The kernel is compiled for each combination of array types: features and mode are read-only
    views of bytes where :mod:`stream.updaters.effect` calls it, and so they are here.
    """
    Z = np.frombuffer(bytes(4), dtype=np.float32).reshape(1, 1)
    one = np.ones(1)
    F = np.zeros((1, 1))
    fit(Z, one, one, one, 1.0, F, one, np.zeros(1), TOLERANCE)
    variances(Z, one, one, 1.0, F, np.frombuffer(bytes(8)))
