"""Problems for kernels, and a slow second kernel that shares no code with the compiled one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from stream.updaters.fitter import Kernel

Array = NDArray[np.float64]
Long = NDArray[np.longdouble]

TOLERANCE = 1e-10
"""Squared distance to the mode, in standard deviations, that kernels are asked for."""

FOLDED = ["nothing", "diagonal", "full"]
"""What F may be."""


class ReferenceKernel:
    """Newton's method in NumPy, one entity after the other: H formed and factored at each step.

    The step is damped by a line search on the objective. Where float64 is not enough, 80 bits are
    used throughout.
    """

    def fit_all(
        self,
        starts: NDArray[np.int64],
        Z: NDArray[np.float32],
        y: Array,
        w: Array,
        o: Array,
        precision: float,
        F: Array,
        f: Array,
        theta: Array,
        tolerance: float,
    ) -> NDArray[np.int64]:
        """Move ``theta`` to the modes."""
        taken = np.empty(len(theta), np.int64)
        for e in range(len(theta)):
            own = slice(starts[e], starts[e + 1])
            A = matrix(F[e]) + precision * np.eye(theta.shape[1])
            part = Z[own].astype(np.longdouble), y[own], w[own], o[own], A, f[e]
            theta[e], taken[e] = _mode(theta[e].astype(np.longdouble), *part, tolerance)
        return taken

    def variances_all(
        self,
        starts: NDArray[np.int64],
        Z: NDArray[np.float32],
        w: Array,
        o: Array,
        precision: float,
        F: Array,
        theta: Array,
    ) -> Array:
        """Diagonals of the inverse Hessians."""
        found = np.empty(theta.shape)
        for e in range(len(theta)):
            own = slice(starts[e], starts[e + 1])
            A = matrix(F[e]) + precision * np.eye(theta.shape[1])
            X = Z[own].astype(np.longdouble)
            H = _hessian(theta[e].astype(np.longdouble), X, w[own], o[own], A)
            found[e] = np.diag(inverse(H))
        return found


def problem(seed: int, n: int, d: int, spread: float = 1.0) -> tuple[Any, Array, Array, Array]:
    """Z (n, d) float32, y, w, o (n,), weights other than one."""
    rng = np.random.default_rng(seed)
    Z = (spread * rng.normal(size=(n, d))).astype(np.float32)
    y = (rng.random(n) < 0.4).astype(np.float64)
    return Z, y, rng.uniform(0.2, 2.0, n), rng.normal(size=n)


def folded(seed: int, d: int, kind: str) -> tuple[Array, Array]:
    """F of a kind, (d,) or (d, d), and f (d,)."""
    rng = np.random.default_rng(seed)
    if kind == "nothing":
        return np.zeros(d), np.zeros(d)
    if kind == "diagonal":
        return rng.uniform(0, 30, d), 10 * rng.normal(size=d)
    old = rng.normal(size=(2 * d, d)) + rng.normal(size=(2 * d, 1))
    return np.asarray(0.2 * old.T @ old), 10 * rng.normal(size=d)


def matrix(F: Array) -> Array:
    """F as a matrix (d, d)."""
    return F if F.ndim == 2 else np.diag(F)


def objective(theta: Array, Z: Any, y: Array, w: Array, o: Array, precision: float) -> float:
    """The stated objective, nothing folded, written down independently."""
    m = o + Z.astype(np.float64) @ theta
    losses = np.logaddexp(0.0, m) - y * m
    return float(w @ losses + 0.5 * precision * theta @ theta)


def gradient(theta: Array, Z: Any, y: Array, w: Array, o: Array, precision: float) -> Array:
    """Its gradient (d,)."""
    X = Z.astype(np.float64)
    return np.asarray(X.T @ (w * (expit(o + X @ theta) - y)) + precision * theta)


def hessian(theta: Array, Z: Any, w: Array, o: Array, precision: float) -> Array:
    """Its Hessian (d, d)."""
    p = expit(o + Z.astype(np.float64) @ theta)
    weighted = Z.astype(np.float64) * (w * p * (1 - p))[:, None]
    return np.asarray(weighted.T @ Z.astype(np.float64) + precision * np.eye(Z.shape[1]))


def fitted(
    kernel: Kernel,
    examples: tuple[Any, Array, Array, Array],
    precision: float,
    natural: tuple[Array, Array] | None = None,
    start: float = 0.0,
) -> Array:
    """Fit one entity, every coefficient starting at ``start``; it must come to the mode.

    ``examples`` are Z, y, w, o; ``natural`` F and f, None: nothing is folded.
    """
    Z, y, w, o = examples
    d = Z.shape[1]
    F, f = (np.zeros(d), np.zeros(d)) if natural is None else natural
    theta = np.full((1, d), start)
    starts = np.array([0, len(y)])
    (taken,) = kernel.fit_all(starts, Z, y, w, o, precision, F[None], f[None], theta, TOLERANCE)
    assert taken > 0
    return np.asarray(theta[0])


def variances(
    kernel: Kernel, examples: tuple[Any, Array, Array], precision: float, F: Array, theta: Array
) -> Array:
    """Marginal variances (d,) of one entity; ``examples`` are Z, w, o."""
    Z, w, o = examples
    starts = np.array([0, len(w)])
    found = kernel.variances_all(starts, Z, w, o, precision, F[None], theta[None])
    return np.asarray(found[0])


def in_extended_precision(
    Z: Any, y: Array, w: Array, o: Array, A: Array, f: Array, near: Array
) -> tuple[Long, Long]:
    """Mode and variances by full steps in 80-bit floats from a point near the mode.

    Where the point is not near the mode, full steps go astray: then the distance is large as well.
    """
    theta, X = near.astype(np.longdouble), Z.astype(np.longdouble)
    for _ in range(12):
        H = _hessian(theta, X, w, o, A)
        theta = theta - inverse(H) @ _gradient(theta, X, y, w, o, A, f)
    return theta, np.diag(inverse(H))


def inverse(H: Long) -> Long:
    """H⁻¹ (d, d) by Cholesky, in the precision of H: NumPy's own stops at 64 bits."""
    d = len(H)
    L, K = np.zeros_like(H), np.zeros_like(H)
    for j in range(d):
        L[j, j] = np.sqrt(H[j, j] - L[j, :j] @ L[j, :j])
        L[j + 1 :, j] = (H[j + 1 :, j] - L[j + 1 :, :j] @ L[j, :j]) / L[j, j]
        K[j] = -(L[j, :j] @ K[:j]) / L[j, j]
        K[j, j] = 1 / L[j, j]
    return np.asarray(K.T @ K)


def _mode(
    theta: Long, X: Long, y: Array, w: Array, o: Array, A: Array, f: Array, tolerance: float
) -> tuple[Long, int]:
    for taken in range(1, 1000):
        g = _gradient(theta, X, y, w, o, A, f)
        step = inverse(_hessian(theta, X, w, o, A)) @ g
        if g @ step <= tolerance:
            return theta - step, taken
        now, t = _objective(theta, X, y, w, o, A, f), 1.0
        while t > 1e-12:
            if _objective(theta - t * step, X, y, w, o, A, f) <= now - 1e-4 * t * (g @ step):
                break
            t /= 2
        theta = theta - t * step
    return theta, -1000


def _objective(
    theta: Long, X: Long, y: Array, w: Array, o: Array, A: Array, f: Array
) -> np.longdouble:
    m = o + X @ theta
    losses = np.maximum(m, 0) + np.log1p(np.exp(-np.abs(m))) - y * m
    return np.longdouble(w @ losses + theta @ (A @ theta) / 2 - f @ theta)


def _gradient(theta: Long, X: Long, y: Array, w: Array, o: Array, A: Array, f: Array) -> Long:
    m = o + X @ theta
    e = np.exp(-np.abs(m))
    p = np.where(m >= 0, 1, e) / (1 + e)
    return np.asarray(X.T @ (w * (p - y)) + A @ theta - f)


def _hessian(theta: Long, X: Long, w: Array, o: Array, A: Array) -> Long:
    e = np.exp(-np.abs(o + X @ theta))
    return np.asarray((X * (w * e / (1 + e) ** 2)[:, None]).T @ X + A)
