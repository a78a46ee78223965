"""The dual form of :mod:`stream.updaters.newton`, for n ≤ d: steps in n multipliers.

With A = LL' (L = A^½ for a diagonal), V = Z·L⁻ᵀ (n, d), η₀ = L⁻¹f and
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

Source: Rasmussen & Williams, Gaussian Processes for Machine Learning, §3.4 (the dual form, B).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.updaters.dense import (
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
from stream.updaters.objective import (
    ARMIJO,
    LAST_STEPS,
    NEAR_END,
    ROUNDING,
    SURE,
    gradient,
    loss,
    losses,
    prior,
    slopes,
)

_MAX_STEPS = 60  # then the primal form takes over
_FAR = 10.0  # change of margins after which the dual form may do better to start from α = 0
_LARGEST_B = 1e7  # of the trace of B: above it variances lose digits

_Vector = NDArray[np.float64]
_Matrix = NDArray[np.float64]
_Features = NDArray[np.float32]


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
    prior(precision, F, L)
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
def fit_dual(
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
    slopes(margins, y, w, rho, curvature)
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
        value = losses(trial, y, w) + 0.5 * (dot(alpha, trial) - dot(alpha, away))
        if not value <= losses(away, y, w):
            alpha[:] = 0.0
    taken = 1
    while moved > NEAR_END:
        taken += 1
        if taken > _MAX_STEPS:
            return 0
        times(K, alpha, away, margins)
        slopes(margins, y, w, rho, curvature)
        for i in range(n):
            r[i] = rho[i] + alpha[i]
        if not _dual_step(K, r, curvature, S, B, nothing, x, change_alpha):
            return 0
        times(K, change_alpha, nothing, change)
        moved = largest(change)
        if moved == np.inf:
            return 0
        t = 1.0
        if moved > SURE:
            decrement = -dot(r, change)
            start = losses(margins, y, w) + 0.5 * (dot(alpha, margins) - dot(alpha, away))
            allowed = ROUNDING * (1.0 + abs(start))
            while t > 1e-18:
                value = 0.0
                for i in range(n):
                    m = margins[i] + t * change[i]
                    a = alpha[i] + t * change_alpha[i]
                    value += w[i] * loss(m, y[i]) + 0.5 * a * (m - away[i])
                if value <= start - ARMIJO * t * decrement + allowed:
                    break
                t *= 0.5
        for i in range(n):
            alpha[i] += t * change_alpha[i]
    mode, g = V[n], np.empty(d)
    add_times_transposed(V, alpha, mode)
    _unwhiten(L, mode)
    for _ in range(LAST_STEPS):
        taken += 1
        times(Z, mode, o, margins)
        slopes(margins, y, w, rho, curvature)
        gradient(Z, rho, precision, F, f, mode, g)
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

    ``L``, ``V``, ``S``, ``B`` as ``fit_dual`` has them; ``nothing`` (n,) zeros; ``x`` (n,) scratch.
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
    return decrement + ROUNDING * whole


@compiled
def dual_variances(
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
