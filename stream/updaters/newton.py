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

**Primal form**, n > d: H is formed and factored, O(n·d² + d³) a step. After a step that moved no
margin by more than 0.03, H is known to 3 % and its factor serves again, O(n·d + d²): close to the
mode such steps are about as good.

**Dual form**, n ≤ d. With A = LL' (L = A^½ for a diagonal), V = Z·L⁻ᵀ (n, d), η₀ = L⁻¹f and
K = VV' (n, n), a θ = A⁻¹(f + Z'α) has margins o + Vη₀ + Kα, and J is, up to a constant,
Σ w_i·[log(1 + exp(m_i)) − y_i·m_i] + ½·α'Kα. g = 0 says Z'ρ + Aθ − f = 0, so the mode is of this
form, with α = −ρ. With r = ρ + α the gradient is Z'r, and the Newton step in α is −(I + WK)⁻¹r; by
Woodbury's formula, with S = W^½ and B = I + SKS,

    Δα = −(r − S·B⁻¹·S·K·r),    Δm = K·Δα,    g'H⁻¹g = −r'Δm.

So a step costs O(n³), after O(n²·d) for K and, where A is full, O(d³ + n·d²) for L and V. The first
step starts from the margins m of any θ, which need not have an α: the minimum of the quadratic
model at m is α = b − S·B⁻¹·S·K·b with b = W(m − o − Vη₀) − ρ, cut to the box w(y − 1) ≤ α ≤ wy, in
which the mode has it. Where K is large (a weak prior, large features) margins lose digits in Kα; so
the last steps are taken in θ, with the gradient of the primal form and

    s = L⁻ᵀ(I − V'S·B⁻¹·SV)L⁻¹g,

S and B as they were at the last step in α, which moved margins by 0.03 at most. They are repeated
until the decrement passes; when it does not, the primal form takes over.

Sources: Boyd & Vandenberghe, Convex Optimization, §9.5 (damped Newton, the decrement); Bach,
Self-concordant analysis for logistic regression, EJS 2010, §2 (the bound); Rasmussen & Williams,
Gaussian Processes for Machine Learning, §3.4 (the dual form, B).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.updaters.dense import (
    add_gram,
    add_times_transposed,
    backward,
    cholesky,
    compiled,
    dot,
    forward,
    largest,
    products,
    times,
    vectorised,
)

TOLERANCE = 1e-10
"""Squared Newton decrement at which the last full step is taken."""

_ARMIJO = 1e-4
_SURE = 1.5  # change of margins up to which a full step needs no line search
_FAR = 10.0  # change of margins after which the dual form may do better to start from α = 0
_MAX_STEPS = 500
_LAST_STEPS = 8  # with a factor that serves again
_NEAR_END = 0.03  # change of margins up to which the last factor serves again: H to 3 %
_LARGEST_B = 1e7  # of the trace of B: above it variances by the dual form lose digits
_RIDGES = 8
_ROUNDING = 1e-14  # of the objective: below it an increase is noise

_DENSE = 0xB5B9E63E
"""CRC-32 of dense.py. Numba's cache on disk asks only whether the file of a function has changed,
not those of the functions it calls: so a change there must be one here (a test says so)."""

_Vector = NDArray[np.float64]
_Matrix = NDArray[np.float64]
_Features = NDArray[np.float32]
_Rows = NDArray[np.floating[Any]]  # features as they are, or copied to float64


@compiled
def _loss(m: float, y: float) -> float:
    """log(1 + exp(m)) − y·m without overflow."""
    return float(max(m, 0.0) + np.log(1.0 + np.exp(-abs(m))) - y * m)


@compiled
def _slopes(margins: _Vector, y: _Vector, w: _Vector, rho: _Vector, curvature: _Vector) -> None:
    """ρ_i = w_i·(p_i − y_i) and w_i·p_i·(1 − p_i) at these margins, all (n,)."""
    for i in range(margins.shape[0]):
        e = np.exp(-abs(margins[i]))
        q = 1.0 / (1.0 + e)
        p = q if margins[i] >= 0.0 else e * q
        rho[i] = w[i] * (p - y[i])
        curvature[i] = w[i] * e * q * q


@vectorised
def _gradient(
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


@compiled
def _factor(X: _Matrix, curvature: _Vector, precision: float, F: _Vector, H: _Matrix) -> bool:
    """Overwrite ``H`` (d, d) with the Cholesky factor of the Hessian.

    Where rounding makes it indefinite (features of 1e9 against a weak prior), a ridge is added
    until it is not: the step is then damped, never wrong in direction. False: not even so.
    """
    ridge = 0.0
    for _ in range(_RIDGES):
        _prior(precision + ridge, F, H)
        add_gram(H, X, curvature)
        highest = precision
        for j in range(H.shape[0]):
            highest = max(highest, H[j, j])
        if cholesky(H):
            return True
        ridge = max(ridge * 100.0, 1e-15 * highest)
    return False


@compiled
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
    served = 0  # steps that the factor in H has served besides its own
    for taken in range(1, _MAX_STEPS + 1):
        times(X, theta, o, margins)
        _slopes(margins, y, w, rho, curvature)
        _gradient(X, rho, precision, F, f, theta, g)
        if served == 0 and not _factor(X, curvature, precision, F, H):
            return -taken
        step[:] = g
        forward(H, step)
        decrement = dot(step, step)
        backward(H, step)
        if decrement <= tolerance:
            for j in range(d):
                theta[j] -= step[j]
            return taken
        times(X, step, nothing, change)
        moved = largest(change)
        served = (served + 1) % _LAST_STEPS if moved <= _NEAR_END else 0
        t = 1.0
        if moved > _SURE:
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


@compiled
def _losses(margins: _Vector, y: _Vector, w: _Vector) -> float:
    total = 0.0
    for i in range(margins.shape[0]):
        total += w[i] * _loss(margins[i], y[i])
    return total


@compiled
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
            pull = precision * theta[j] + dot(F[j], theta)
        total += theta[j] * (0.5 * pull - f[j])
    return total


@compiled
def _whiten(Z: _Features, precision: float, F: _Vector, f: _Vector, L: _Vector, V: _Matrix) -> bool:
    """Overwrite ``V`` (n + 1, d) with Z·L⁻ᵀ and, below it, η₀ = L⁻¹f; ``L`` with a root of A.

    ``L`` has the shape of F, but where it is a matrix, (d + n + 1, d): V stands in its last rows.
    """
    n, d = Z.shape
    if F.ndim == 1:
        for j in range(d):
            L[j] = 1.0 / np.sqrt(precision + F[j])
        for i in range(n):
            for j in range(d):
                V[i, j] = Z[i, j] * L[j]
        for j in range(d):
            V[n, j] = f[j] * L[j]
        return True
    _prior(precision, F, L)
    V[:n] = Z
    V[n] = f
    return cholesky(L)


@compiled
def _unwhiten(L: _Matrix, x: _Vector) -> None:
    """Overwrite x (d,) with L⁻ᵀx, L a lower triangle or a diagonal (d,)."""
    if L.ndim == 1:
        for j in range(x.shape[0]):
            x[j] *= L[j]
    else:
        backward(L, x)


@vectorised
def _dual_step(
    K: _Matrix,
    r: _Vector,
    curvature: _Vector,
    S: _Vector,
    B: _Matrix,
    nothing: _Vector,
    x: _Vector,
    change: _Vector,
) -> bool:
    """Overwrite ``change`` (n,) with Δα = −(r − S·B⁻¹·S·K·r).

    ``S`` (n,) becomes W^½, ``B`` (n + 1, n) the Cholesky factor of I + SKS; ``nothing`` is zeros
    and ``x`` scratch, (n,).
    """
    n = r.shape[0]
    for i in range(n):
        S[i] = np.sqrt(curvature[i])
    times(K, r, nothing, x)
    for i in range(n):
        B[n, i] = S[i] * x[i]
        for k in range(i):
            B[i, k] = S[i] * K[i, k] * S[k]
        B[i, i] = 1.0 + curvature[i] * K[i, i]
    if not cholesky(B):
        return False
    for i in range(n):
        x[i] = B[n, i]
    backward(B, x)
    for i in range(n):
        change[i] = S[i] * x[i] - r[i]
    return True


@compiled
def _dual(
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
    """Move ``theta`` to the mode by steps in α; 0, and ``theta`` as it was, when that fails."""
    n, d = Z.shape
    if F.ndim == 1:
        L, V = np.empty(d), np.empty((n + 1, d))
    else:
        L = np.empty((d + n + 1, d))
        V = L[d:]
    if not _whiten(Z, precision, F, f, L, V):
        return 0
    K, B = np.empty((n + 1, n + 1)), np.empty((n + 1, n))
    products(V, K)
    work = np.empty((12, n))
    margins, change, rho, curvature, r, S = work[0], work[1], work[2], work[3], work[4], work[5]
    alpha, change_alpha, away, trial, x = work[6], work[7], work[8], work[9], work[10]
    nothing = work[11]
    for i in range(n):
        nothing[i] = 0.0
        away[i] = o[i] + K[n, i]
    # The first step leads from the margins of θ to an α, cut to the box in which the mode has it.
    times(Z, theta, o, margins)
    _slopes(margins, y, w, rho, curvature)
    for i in range(n):
        r[i] = rho[i] - curvature[i] * (margins[i] - away[i])
    if not _dual_step(K, r, curvature, S, B, nothing, x, alpha):
        return 0
    for i in range(n):
        alpha[i] = min(max(alpha[i], w[i] * (y[i] - 1.0)), w[i] * y[i])
    times(K, alpha, away, trial)
    for i in range(n):
        change[i] = trial[i] - margins[i]
    moved = largest(change)
    if moved > _FAR:
        value = _losses(trial, y, w) + 0.5 * (dot(alpha, trial) - dot(alpha, away))
        if not value <= _losses(away, y, w):
            alpha[:] = 0.0
    taken = 1
    while moved > _NEAR_END:
        taken += 1
        if taken > _MAX_STEPS:
            return 0
        times(K, alpha, away, margins)
        _slopes(margins, y, w, rho, curvature)
        for i in range(n):
            r[i] = rho[i] + alpha[i]
        if not _dual_step(K, r, curvature, S, B, nothing, x, change_alpha):
            return 0
        times(K, change_alpha, nothing, change)
        moved = largest(change)
        if moved == np.inf:
            return 0
        t = 1.0
        if moved > _SURE:
            decrement = -dot(r, change)
            start = _losses(margins, y, w) + 0.5 * (dot(alpha, margins) - dot(alpha, away))
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
    mode, g = V[n], np.empty(d)
    add_times_transposed(V, alpha, mode)
    _unwhiten(L, mode)
    for _ in range(_LAST_STEPS):
        taken += 1
        times(Z, mode, o, margins)
        _slopes(margins, y, w, rho, curvature)
        _gradient(Z, rho, precision, F, f, mode, g)
        if _last_step(L, V, S, B, nothing, x, g) <= tolerance:
            for j in range(d):
                theta[j] = mode[j] - g[j]
            return taken
        for j in range(d):
            mode[j] -= g[j]
    return 0


@compiled
def _last_step(
    L: _Matrix, V: _Matrix, S: _Vector, B: _Matrix, nothing: _Vector, x: _Vector, g: _Vector
) -> float:
    """Overwrite the gradient ``g`` (d,) with H⁻¹g; return at least g'H⁻¹g.

    ``L``, ``V``, ``S``, ``B`` as ``_dual`` has them; ``nothing`` (n,) zeros; ``x`` (n,) scratch.
    """
    if L.ndim == 1:
        for j in range(g.shape[0]):
            g[j] *= L[j]
    else:
        forward(L, g)
    times(V, g, nothing, x)
    for i in range(x.shape[0]):
        x[i] *= S[i]
    forward(B, x)
    whole = dot(g, g)
    decrement = whole - dot(x, x)
    backward(B, x)
    for i in range(x.shape[0]):
        x[i] *= -S[i]
    add_times_transposed(V, x, g)
    _unwhiten(L, g)
    return decrement + _ROUNDING * whole


@compiled
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
    if n <= d:
        taken = _dual(Z, y, w, o, precision, F, f, theta, tolerance)
        if taken > 0:
            return taken
    return _primal(Z.astype(np.float64), y, w, o, precision, F, f, theta, tolerance)


@compiled
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
        taken[e] = fit(Z[a:b], y[a:b], w[a:b], o[a:b], precision, F[e], f[e], theta[e], tolerance)
    return taken


@compiled
def posterior_precision(
    Z: _Features, w: _Vector, o: _Vector, precision: float, F: _Vector, theta: _Vector
) -> _Vector:
    """λI + F + Z'WZ at ``theta``, or where F is a diagonal (d,) that of it: of the shape of F."""
    n, d = Z.shape
    P = np.empty(F.shape)
    if F.ndim == 1:
        for j in range(d):
            P[j] = precision + F[j]
        for i in range(n):
            h = _curvature(Z[i], w[i], o[i], theta)
            for j in range(d):
                P[j] += h * Z[i, j] * Z[i, j]
    else:
        _prior(precision, F, P)
        add_gram(P, Z.astype(np.float64), _curvatures(Z, w, o, theta))
        for j in range(d):
            for k in range(j):
                P[k, j] = P[j, k]
    return P


@compiled
def variances(
    Z: _Features, w: _Vector, o: _Vector, precision: float, F: _Vector, theta: _Vector
) -> _Vector:
    """Diagonal (d,) of the inverse Hessian at ``theta``: the Laplace marginal variances.

    With n ≤ d and a diagonal A it is that of A⁻¹ − A^-½·V'S·B⁻¹·SV·A^-½, O(n²·d), unless rounding
    in the difference counts; else O(n·d² + d³).
    """
    X = Z.astype(np.float64)
    n, d = X.shape
    curvature = _curvatures(Z, w, o, theta)
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
            s -= dot(L[i, j:i], column[j:i])
            column[i] = s * L[i, i]
            result[j] += column[i] * column[i]
    return result


@compiled
def variances_all(
    starts: NDArray[np.int64],
    Z: _Features,
    w: _Vector,
    o: _Vector,
    precision: float,
    F: _Matrix,
    theta: _Matrix,
) -> _Matrix:
    """Variances of m entities (m, d); the arguments are those of ``fit_all``."""
    found = np.empty(theta.shape)
    for e in range(theta.shape[0]):
        a, b = starts[e], starts[e + 1]
        found[e] = variances(Z[a:b], w[a:b], o[a:b], precision, F[e], theta[e])
    return found


@compiled
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
    products(V, B)
    trace = 0.0
    for i in range(n):
        B[i, i] += 1.0
        trace += B[i, i]
        for j in range(d):
            B[n + j, i] = V[i, j]
    if not trace <= _LARGEST_B or not cholesky(B):
        return False
    for j in range(d):
        result[j] = (1.0 - dot(B[n + j], B[n + j])) / (precision + F[j])
    return True


@vectorised
def _curvature(z: _Features, w: float, o: float, theta: _Vector) -> float:
    """w·p·(1 − p) at ``theta`` for one example z (d,)."""
    m = o
    for j in range(theta.shape[0]):
        m += z[j] * theta[j]
    e = np.exp(-abs(m))
    return float(w * e / ((1.0 + e) * (1.0 + e)))


@compiled
def _curvatures(Z: _Features, w: _Vector, o: _Vector, theta: _Vector) -> _Vector:
    """W (n,) at ``theta``."""
    result = np.empty(Z.shape[0])
    for i in range(Z.shape[0]):
        result[i] = _curvature(Z[i], w[i], o[i], theta)
    return result


def warm_up() -> None:
    """Compile (or load from the cache) before the first event needs it.

    The kernel is compiled for each combination of array types: features and mode are read-only
    views of bytes where :mod:`stream.updaters.effect` calls it, and so they are here.
    """
    Z = np.frombuffer(bytes(4), dtype=np.float32).reshape(1, 1)
    one, starts = np.ones(1), np.array([0, 1])
    for F in (np.frombuffer(bytes(8)).reshape(1, 1), np.frombuffer(bytes(8)).reshape(1, 1, 1)):
        f = np.frombuffer(bytes(8)).reshape(1, 1)
        fit_all(starts, Z, one, one, one, 1.0, F, f, np.zeros((1, 1)), TOLERANCE)
        variances_all(starts, Z, one, one, 1.0, F, f)
