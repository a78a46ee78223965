"""The compiled kernel: the mode of one entity by damped Newton, and its marginal variances.

Minimises over θ, for kept examples i with weights already aged,

    J(θ) = Σ w_i·[log(1 + exp(m_i)) − y_i·m_i] + ½·θ'Aθ − f'θ,    m_i = o_i + z_i'θ,  A = λI + F,

where F and f hold what was folded (:mod:`stream.updaters.folding`). F is a full matrix (d, d) or
the diagonal (d,) of one; where nothing was folded it is a diagonal of zeros, so that A is cheap. J
is strictly convex for λ > 0: gradient g = Z'ρ + Aθ − f with ρ_i = w_i·(p_i − y_i), p_i = σ(m_i);
Hessian H = Z'WZ + A with W = diag(w_i·p_i·(1 − p_i)).

**Stopping.** Each step solves H·s = g. The squared Newton decrement g'H⁻¹g = g's is the squared
length of the step in posterior standard deviations. Once it is at most the tolerance, that full
step is taken and that is all: with 1e-10 the result is within 1e-5 standard deviations of the mode.

**Line search.** A step is halved until it satisfies Armijo's condition on the *objective* (a
cheaper test on the derivative alone diverged on separable data with a weak prior). For a step that
moves no margin by more than δ, φ(t) = J(θ − t·s) has |φ'''| ≤ δ·φ'', because the logistic loss has
|ℓ'''| ≤ ℓ'' and the rest is quadratic. With D = g's = −φ'(0) = φ''(0) that gives

    φ(1) ≤ φ(0) − D + D·(e^δ − δ − 1)/δ²,

which is Armijo's condition for δ ≤ 1.5, where the last factor is 0.88: the full step is taken
without evaluating J.

**Primal form**, n > d: H is formed and factored, O(n·d² + d³) a step.

**Dual form**, n ≤ d. With A = LL' (L = A^½ for a diagonal), V = Z·L⁻ᵀ (n, d), η₀ = L⁻¹f and
K = VV' (n, n), a θ = A⁻¹(f + Z'α) has margins o + Vη₀ + Kα, and J is, up to a constant,
Σ w_i·[log(1 + exp(m_i)) − y_i·m_i] + ½·α'Kα. g = 0 says Z'ρ + Aθ − f = 0, so the mode is of this
form, with α = −ρ. With r = ρ + α the gradient is Z'r, and the Newton step in α is −(I + WK)⁻¹r; by
Woodbury's formula, with S = W^½ and B = I + SKS,

    Δα = −(r − S·B⁻¹·S·K·r),    Δm = K·Δα,    g'H⁻¹g = −r'Δm.

So a step costs O(n³), after O(n²·d) for K and, where A is full, O(d³ + n·d²) for L and V. The first
step starts from the margins m of any θ, which need not have an α: the minimum of the quadratic
model at m is α = b − S·B⁻¹·S·K·b with b = W(m − o − Vη₀) − ρ. Where K is large (a weak prior, large
features) margins lose digits in Kα; so the last step is taken in θ, with the gradient of the
primal form and s = L⁻ᵀ(I − V'SB⁻¹SV)L⁻¹g, again until its decrement passes, and when it does not,
the primal form takes over.

All that is compiled stands in this file, because Numba's cache on disk looks at the file of a
function, not at those of the functions that it calls.

Sources: Boyd & Vandenberghe, Convex Optimization, §9.5 (damped Newton, the decrement); Bach,
Self-concordant analysis for logistic regression, EJS 2010, §2 (the bound); Rasmussen & Williams,
Gaussian Processes for Machine Learning, §3.4 (the dual form, B).
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
_SURE = 1.5  # change of margins up to which a full step needs no line search
_MAX_STEPS = 500
_LAST_STEPS = 4  # in θ, after the dual form
_NEAR_END = 3e-3  # change of margins below which the last factor serves again
_LARGEST_B = 1e7  # of the trace of B: above it variances by the dual form lose digits
_RIDGES = 8
_ROUNDING = 1e-14  # of the objective: below it an increase is noise

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Vector = NDArray[np.float64]
_Matrix = NDArray[np.float64]
_Features = NDArray[np.float32]


def _compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile with Numba on first call, kept on disk; types stay those of the Python function."""
    return cast(
        "Callable[_P, _R]", numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    )


def _vectorised(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile with sums in the order that suits the processor: for inner products."""
    return cast(
        "Callable[_P, _R]",
        numba.njit(
            cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"}
        )(function),
    )


@_compiled
def _loss(m: float, y: float) -> float:
    """log(1 + exp(m)) − y·m without overflow."""
    return float(max(m, 0.0) + np.log(1.0 + np.exp(-abs(m))) - y * m)


@_vectorised
def _dot(a: _Vector, b: _Vector) -> float:
    total = 0.0
    for k in range(a.shape[0]):
        total += a[k] * b[k]
    return total


@_vectorised
def _cholesky(H: _Matrix) -> bool:
    """Factor the first d rows of ``H`` (d + k, d), a positive definite matrix, in place.

    Only the lower triangle is read and written. The other k rows x become L⁻¹x. Four rows at a
    time, for speed. False: it is not positive definite to working precision.
    """
    rows, d = H.shape
    for j in range(d):
        s = H[j, j]
        for k in range(j):
            s -= H[j, k] * H[j, k]
        if not s > 0.0:
            return False
        root = np.sqrt(s)
        inverse = 1.0 / root
        H[j, j] = root
        whole = rows - (rows - j - 1) % 4
        for i in range(j + 1, whole, 4):
            s0, s1, s2, s3 = H[i, j], H[i + 1, j], H[i + 2, j], H[i + 3, j]
            for k in range(j):
                x = H[j, k]
                s0 -= H[i, k] * x
                s1 -= H[i + 1, k] * x
                s2 -= H[i + 2, k] * x
                s3 -= H[i + 3, k] * x
            H[i, j], H[i + 1, j] = s0 * inverse, s1 * inverse
            H[i + 2, j], H[i + 3, j] = s2 * inverse, s3 * inverse
        for i in range(whole, rows):
            s = H[i, j]
            for k in range(j):
                s -= H[i, k] * H[j, k]
            H[i, j] = s * inverse
    return True


@_vectorised
def _forward(L: _Matrix, x: _Vector) -> None:
    """x (d,) becomes L⁻¹x; of ``L`` the first d rows are read."""
    for i in range(x.shape[0]):
        s = x[i]
        for k in range(i):
            s -= L[i, k] * x[k]
        x[i] = s / L[i, i]


@_vectorised
def _backward(L: _Matrix, x: _Vector) -> None:
    """x (d,) becomes L⁻ᵀx; of ``L`` the first d rows are read."""
    for i in range(x.shape[0] - 1, -1, -1):
        x[i] /= L[i, i]
        for k in range(i):
            x[k] -= L[i, k] * x[i]


@_vectorised
def _add_gram(H: _Matrix, X: _Matrix, c: _Vector) -> None:
    """Add X'·diag(c)·X to the lower triangle of ``H`` (d, d), four examples at a time."""
    n, d = X.shape
    whole = n - n % 4
    for i in range(0, whole, 4):
        for j in range(d):
            c0, c1 = c[i] * X[i, j], c[i + 1] * X[i + 1, j]
            c2, c3 = c[i + 2] * X[i + 2, j], c[i + 3] * X[i + 3, j]
            for k in range(j + 1):
                H[j, k] += c0 * X[i, k] + c1 * X[i + 1, k] + c2 * X[i + 2, k] + c3 * X[i + 3, k]
    for i in range(whole, n):
        for j in range(d):
            c0 = c[i] * X[i, j]
            for k in range(j + 1):
                H[j, k] += c0 * X[i, k]


@_vectorised
def _times(A: _Matrix, x: _Vector, start: _Vector, out: _Vector) -> None:
    """Out (n,) = start + A·x for A (≥ n, ≥ d), x (d,)."""
    for i in range(out.shape[0]):
        s = start[i]
        for k in range(x.shape[0]):
            s += A[i, k] * x[k]
        out[i] = s


@_vectorised
def _add_times_transposed(A: _Matrix, x: _Vector, out: _Vector) -> None:
    """Add A'·x to out (d,), for A (≥ n, d), x (n,)."""
    for i in range(x.shape[0]):
        for k in range(out.shape[0]):
            out[k] += A[i, k] * x[i]


@_compiled
def _slopes(
    margins: _Vector, y: _Vector, w: _Vector, rho: _Vector, curvature: _Vector
) -> None:
    """ρ_i = w_i·(p_i − y_i) and w_i·p_i·(1 − p_i) at these margins, all (n,)."""
    for i in range(margins.shape[0]):
        e = np.exp(-abs(margins[i]))
        q = 1.0 / (1.0 + e)
        p = q if margins[i] >= 0.0 else e * q
        rho[i] = w[i] * (p - y[i])
        curvature[i] = w[i] * e * q * q


@_vectorised
def _gradient(
    X: _Matrix, rho: _Vector, precision: float, F: _Vector, f: _Vector, theta: _Vector, g: _Vector
) -> None:
    """g (d,) = X'ρ + (λI + F)θ − f."""
    d = theta.shape[0]
    for j in range(d):
        g[j] = precision * theta[j] - f[j]
        if F.ndim == 1:
            g[j] += F[j] * theta[j]
        else:
            g[j] += _dot(F[j], theta)
    _add_times_transposed(X, rho, g)


@_vectorised
def _prior(precision: float, F: _Vector, L: _Matrix) -> None:
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


@_compiled
def _factor(
    X: _Matrix, curvature: _Vector, precision: float, F: _Vector, H: _Matrix
) -> bool:
    """Overwrite ``H`` (d, d) with the Cholesky factor of the Hessian.

    Where rounding makes it indefinite (features of 1e9 against a weak prior), a ridge is added
    until it is not: the step is then damped, never wrong in direction. False: not even so.
    """
    ridge = 0.0
    for _ in range(_RIDGES):
        _prior(precision + ridge, F, H)
        _add_gram(H, X, curvature)
        largest = precision
        for j in range(H.shape[0]):
            largest = max(largest, H[j, j])
        if _cholesky(H):
            return True
        ridge = max(ridge * 100.0, 1e-15 * largest)
    return False


@_compiled
def _primal(
    X: _Matrix,
    y: _Vector,
    w: _Vector,
    o: _Vector,
    precision: float,
    F: _Vector,
    f: _Vector,
    theta: _Vector,
    tolerance: float,
) -> int:
    """Move ``theta`` to the mode by steps in θ; what it returns is that of ``fit``."""
    n, d = X.shape
    margins, change, rho, curvature = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    trial_margins, trial = np.empty(n), np.empty(d)
    g, step, nothing = np.empty(d), np.empty(d), np.zeros(n)
    H = np.empty((d, d))
    for taken in range(1, _MAX_STEPS + 1):
        _times(X, theta, o, margins)
        _slopes(margins, y, w, rho, curvature)
        _gradient(X, rho, precision, F, f, theta, g)
        if not _factor(X, curvature, precision, F, H):
            return -taken
        step[:] = g
        _forward(H, step)
        decrement = _dot(step, step)
        _backward(H, step)
        if decrement <= tolerance:
            for j in range(d):
                theta[j] -= step[j]
            return taken
        _times(X, step, nothing, change)
        t = 1.0
        if not _largest(change) <= _SURE:
            start = _objective(margins, y, w, theta, precision, F, f)
            allowed = _ROUNDING * (1.0 + abs(start))
            while t > 1e-18:
                for j in range(d):
                    trial[j] = theta[j] - t * step[j]
                for i in range(n):
                    trial_margins[i] = margins[i] - t * change[i]
                value = _objective(trial_margins, y, w, trial, precision, F, f)
                if value <= start - _ARMIJO * t * decrement + allowed:
                    break
                t *= 0.5
        for j in range(d):
            theta[j] -= t * step[j]
    return -_MAX_STEPS


@_compiled
def _largest(x: _Vector) -> float:
    """Largest |x_i|; NaN does not pass for small."""
    result = 0.0
    for i in range(x.shape[0]):
        if not abs(x[i]) <= result:
            result = abs(x[i])
    return result


@_compiled
def _losses(margins: _Vector, y: _Vector, w: _Vector) -> float:
    total = 0.0
    for i in range(margins.shape[0]):
        total += w[i] * _loss(margins[i], y[i])
    return total


@_compiled
def _objective(
    margins: _Vector,
    y: _Vector,
    w: _Vector,
    theta: _Vector,
    precision: float,
    F: _Vector,
    f: _Vector,
) -> float:
    """J at ``theta``, whose margins are known."""
    total = _losses(margins, y, w)
    for j in range(theta.shape[0]):
        if F.ndim == 1:
            pull = (precision + F[j]) * theta[j]
        else:
            pull = precision * theta[j] + _dot(F[j], theta)
        total += theta[j] * (0.5 * pull - f[j])
    return total


@_compiled
def _whiten(X: _Matrix, precision: float, F: _Vector, f: _Vector, L: _Vector, V: _Matrix) -> bool:
    """Overwrite ``V`` (n + 1, d) with X·L⁻ᵀ and, below it, η₀ = L⁻¹f; ``L`` with a root of A.

    ``L`` has the shape of F, but where it is a matrix, (d + n + 1, d): V stands in its last rows.
    """
    n, d = X.shape
    if F.ndim == 1:
        for j in range(d):
            L[j] = np.sqrt(precision + F[j])
        for i in range(n):
            for j in range(d):
                V[i, j] = X[i, j] / L[j]
        for j in range(d):
            V[n, j] = f[j] / L[j]
        return True
    _prior(precision, F, L)
    V[:n] = X
    V[n] = f
    return _cholesky(L)


@_compiled
def _unwhiten(L: _Matrix, x: _Vector) -> None:
    """x (d,) becomes L⁻ᵀx, L a lower triangle or a diagonal (d,)."""
    if L.ndim == 1:
        for j in range(x.shape[0]):
            x[j] /= L[j]
    else:
        _backward(L, x)


@_vectorised
def _products(V: _Matrix, K: _Matrix) -> None:
    """Overwrite ``K`` with VV'."""
    n, d = V.shape
    for i in range(n):
        for k in range(i + 1):
            s = 0.0
            for j in range(d):
                s += V[i, j] * V[k, j]
            K[i, k] = s
            K[k, i] = s


@_vectorised
def _dual_step(
    K: _Matrix,
    r: _Vector,
    curvature: _Vector,
    S: _Vector,
    B: _Matrix,
    x: _Vector,
    change: _Vector,
) -> bool:
    """Overwrite ``change`` (n,) with Δα = −(r − S·B⁻¹·S·K·r).

    ``S`` (n,) becomes W^½, ``B`` (n + 1, n) the Cholesky factor of I + SKS, ``x`` (n,) is scratch.
    """
    n = r.shape[0]
    for i in range(n):
        S[i] = np.sqrt(curvature[i])
    for i in range(n):
        s = 0.0
        for k in range(n):
            s += K[i, k] * r[k]
        B[n, i] = S[i] * s
        for k in range(i):
            B[i, k] = S[i] * K[i, k] * S[k]
        B[i, i] = 1.0 + curvature[i] * K[i, i]
    if not _cholesky(B):
        return False
    for i in range(n):
        x[i] = B[n, i]
    _backward(B, x)
    for i in range(n):
        change[i] = S[i] * x[i] - r[i]
    return True


@_compiled
def _dual(
    X: _Matrix,
    y: _Vector,
    w: _Vector,
    o: _Vector,
    precision: float,
    F: _Vector,
    f: _Vector,
    theta: _Vector,
    tolerance: float,
) -> int:
    """Move ``theta`` to the mode by steps in α; 0, and ``theta`` as it was, when that fails."""
    n, d = X.shape
    if F.ndim == 1:
        L, V = np.empty(d), np.empty((n + 1, d))
    else:
        L = np.empty((d + n + 1, d))
        V = L[d:]
    if not _whiten(X, precision, F, f, L, V):
        return 0
    K, B = np.empty((n + 1, n + 1)), np.empty((n + 1, n))
    _products(V, K)
    work = np.empty((11, n))
    margins, change, rho, curvature, r, S = work[0], work[1], work[2], work[3], work[4], work[5]
    alpha, change_alpha, away, trial, x = work[6], work[7], work[8], work[9], work[10]
    for i in range(n):
        away[i] = o[i] + K[n, i]
    # The first step leads from the margins of θ to an α; where that may be worse, α = 0 is better.
    _times(X, theta, o, margins)
    _slopes(margins, y, w, rho, curvature)
    for i in range(n):
        r[i] = rho[i] - curvature[i] * (margins[i] - away[i])
    if not _dual_step(K, r, curvature, S, B, x, alpha):
        return 0
    _times(K, alpha, away, trial)
    for i in range(n):
        change[i] = trial[i] - margins[i]
    moved = _largest(change)
    if not moved <= _SURE:
        value = _losses(trial, y, w) + 0.5 * (_dot(alpha, trial) - _dot(alpha, away))
        if not value <= _losses(away, y, w):
            alpha[:] = 0.0
    taken = 1
    while not moved <= _NEAR_END:
        taken += 1
        if taken > _MAX_STEPS:
            return 0
        _times(K, alpha, away, margins)
        _slopes(margins, y, w, rho, curvature)
        for i in range(n):
            r[i] = rho[i] + alpha[i]
        if not _dual_step(K, r, curvature, S, B, x, change_alpha):
            return 0
        for i in range(n):
            x[i] = 0.0
        _times(K, change_alpha, x, change)
        moved = _largest(change)
        t = 1.0
        if not moved <= _SURE:
            decrement = -_dot(r, change)
            start = _losses(margins, y, w) + 0.5 * (_dot(alpha, margins) - _dot(alpha, away))
            allowed = _ROUNDING * (1.0 + abs(start))
            while t > 1e-18:
                value = 0.0
                for i in range(n):
                    m = margins[i] + t * change[i]
                    a = alpha[i] + t * change_alpha[i]
                    value += w[i] * _loss(m, y[i]) + 0.5 * a * (m - away[i])
                if value <= start - _ARMIJO * t * decrement + allowed:
                    break
                t *= 0.5
        for i in range(n):
            alpha[i] += t * change_alpha[i]
    eta = V[n].copy()
    _add_times_transposed(V, alpha, eta)
    _unwhiten(L, eta)
    g = np.empty(d)
    for _ in range(_LAST_STEPS):
        taken += 1
        _times(X, eta, o, margins)
        _slopes(margins, y, w, rho, curvature)
        _gradient(X, rho, precision, F, f, eta, g)
        if F.ndim == 1:
            for j in range(d):
                g[j] /= L[j]
        else:
            _forward(L, g)
        for i in range(n):
            r[i] = 0.0
        _times(V, g, r, x)
        for i in range(n):
            x[i] *= S[i]
        _forward(B, x)
        whole = _dot(g, g)
        decrement = whole - _dot(x, x)
        _backward(B, x)
        for i in range(n):
            x[i] *= -S[i]
        _add_times_transposed(V, x, g)
        _unwhiten(L, g)
        for j in range(d):
            eta[j] -= g[j]
        if decrement + _ROUNDING * whole <= tolerance:
            theta[:] = eta
            return taken
    return 0


@_compiled
def fit(
    Z: _Features,
    y: _Vector,
    w: _Vector,
    o: _Vector,
    precision: float,
    F: _Vector,
    f: _Vector,
    theta: _Vector,
    tolerance: float,
) -> int:
    """Move ``theta`` (d,) to the mode, in place.

    Args:
        Z: features (n, d). y: targets (n,). w: aged weights (n,). o: offsets (n,).
        precision: λ. F: folded precision, (d, d) or its diagonal (d,). f: folded linear part (d,).
        theta: where to start; overwritten.
        tolerance: squared Newton decrement to stop at.

    Returns:
        Newton steps taken; negative when it did not converge in 500, or the features are not
        finite enough to factor the Hessian: ``theta`` is then the best point reached.

    """
    n, d = Z.shape
    X = Z.astype(np.float64)
    if n <= d:
        taken = _dual(X, y, w, o, precision, F, f, theta, tolerance)
        if taken > 0:
            return taken
    return _primal(X, y, w, o, precision, F, f, theta, tolerance)


@_compiled
def fit_all(
    starts: NDArray[np.int64],
    Z: _Features,
    y: _Vector,
    w: _Vector,
    o: _Vector,
    precision: float,
    F: _Matrix,
    f: _Matrix,
    theta: _Matrix,
    tolerance: float,
) -> NDArray[np.int64]:
    """Fit m entities; the arguments are those of ``fit``, one entity after the other.

    Args:
        starts: entity e has the rows starts[e] to starts[e + 1]; (m + 1,).
        Z: features of all (N, d). y, w, o: (N,).
        F: (m, d, d) or (m, d). f, theta: (m, d); theta is overwritten.

    Returns:
        What ``fit`` returns, for each (m,).

    """
    entities = starts.shape[0] - 1
    taken = np.empty(entities, np.int64)
    for e in range(entities):
        a, b = starts[e], starts[e + 1]
        taken[e] = fit(
            Z[a:b], y[a:b], w[a:b], o[a:b], precision, F[e], f[e], theta[e], tolerance
        )
    return taken


@_compiled
def posterior_precision(
    Z: _Features, w: _Vector, o: _Vector, precision: float, F: _Vector, theta: _Vector
) -> _Vector:
    """λI + F + Z'WZ at ``theta``, or where F is a diagonal (d,) that of it: of the shape of F."""
    X = Z.astype(np.float64)
    curvature = _curvature(X, w, o, theta)
    d = X.shape[1]
    P = np.empty(F.shape)
    if F.ndim == 1:
        for j in range(d):
            P[j] = precision + F[j]
        _add_squares(X, curvature, P)
    else:
        _prior(precision, F, P)
        _add_gram(P, X, curvature)
        for j in range(d):
            for k in range(j):
                P[k, j] = P[j, k]
    return P


@_compiled
def posterior_precision_all(
    starts: NDArray[np.int64],
    Z: _Features,
    w: _Vector,
    o: _Vector,
    precision: float,
    F: _Matrix,
    theta: _Matrix,
) -> _Matrix:
    """``posterior_precision`` of m entities, arguments as in ``fit_all``; of the shape of F."""
    P = np.empty(F.shape)
    for e in range(starts.shape[0] - 1):
        a, b = starts[e], starts[e + 1]
        P[e] = posterior_precision(Z[a:b], w[a:b], o[a:b], precision, F[e], theta[e])
    return P


@_compiled
def variances(
    Z: _Features, w: _Vector, o: _Vector, precision: float, F: _Vector, theta: _Vector
) -> _Vector:
    """Diagonal (d,) of the inverse Hessian at ``theta``: the Laplace marginal variances.

    With n ≤ d and a diagonal A it is that of A⁻¹ − A^-½·V'S·B⁻¹·SV·A^-½, O(n²·d), unless rounding
    in the difference counts; else O(n·d² + d³).
    """
    X = Z.astype(np.float64)
    n, d = X.shape
    curvature = _curvature(X, w, o, theta)
    result = np.zeros(d)
    if F.ndim == 1 and n <= d and _dual_variances(X, curvature, precision, F, result):
        return result
    L = np.empty((d, d))
    _factor(X, curvature, precision, F, L)
    # (H⁻¹)_jj = Σ_i (L⁻¹)_ij², column j of L⁻¹ by forward substitution.
    column = np.empty(d)
    for j in range(d):
        result[j] = 0.0
        for i in range(j, d):
            s = 1.0 if i == j else 0.0
            s -= _dot(L[i, j:i], column[j:i])
            column[i] = s / L[i, i]
            result[j] += column[i] * column[i]
    return result


@_compiled
def _dual_variances(
    X: _Matrix, curvature: _Vector, precision: float, F: _Vector, result: _Vector
) -> bool:
    """Variances (d,) by Woodbury's formula; False where they would lose digits."""
    n, d = X.shape
    V = np.empty((n, d))
    for i in range(n):
        for j in range(d):
            V[i, j] = X[i, j] * np.sqrt(curvature[i] / (precision + F[j]))
    B = np.empty((n + d, n))
    _products(V, B)
    trace = 0.0
    for i in range(n):
        B[i, i] += 1.0
        trace += B[i, i]
        for j in range(d):
            B[n + j, i] = V[i, j]
    if not trace <= _LARGEST_B or not _cholesky(B):
        return False
    for j in range(d):
        result[j] = (1.0 - _dot(B[n + j], B[n + j])) / (precision + F[j])
    return True


@_compiled
def _curvature(X: _Matrix, w: _Vector, o: _Vector, theta: _Vector) -> _Vector:
    """W (n,) at ``theta``."""
    n = X.shape[0]
    margins, rho, curvature = np.empty(n), np.empty(n), np.empty(n)
    _times(X, theta, o, margins)
    _slopes(margins, w, w, rho, curvature)
    return curvature


@_vectorised
def _add_squares(X: _Matrix, c: _Vector, out: _Vector) -> None:
    """Add Σ c_i·x_ij² to ``out`` (d,)."""
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            out[j] += c[i] * X[i, j] * X[i, j]


def warm_up() -> None:
    """Compile (or load from the cache) before the first event needs it.

    The kernel is compiled for each combination of array types: features and mode are read-only
    views of bytes where :mod:`stream.updaters.effect` calls it, and so they are here.
    """
    Z = np.frombuffer(bytes(4), dtype=np.float32).reshape(1, 1)
    one = np.ones(1)
    for F in (np.zeros(1), np.zeros((1, 1))):
        fit(Z, one, one, one, 1.0, F, one, np.zeros(1), TOLERANCE)
        variances(Z, one, one, 1.0, F, np.frombuffer(bytes(8)))
