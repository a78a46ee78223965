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

**Full steps.** A full step is taken if it satisfies Armijo's condition on the *objective* (a
cheaper test on the derivative alone diverged on separable data with a weak prior). For one that
moves no margin by more than δ, φ(t) = J(θ − t·s) has |φ'''| ≤ δ·φ'', because the logistic loss has
|ℓ'''| ≤ ℓ'' and the rest is quadratic. With D = g's = −φ'(0) = φ''(0) that gives

    φ(1) ≤ φ(0) − D + D·(e^δ − δ − 1)/δ²,

which is Armijo's condition for δ ≤ 1.5, where the last factor is 0.88: then J is not evaluated.
Where full steps do not do, :mod:`stream.updaters.continuation` goes on: with large features or
offsets damped steps came to hundreds. What a fit may cost is bounded.

**Two forms**: :mod:`stream.updaters.primal` for more examples than features,
:mod:`stream.updaters.dual` for at most as many.

Sources: Boyd & Vandenberghe, Convex Optimization, §9.5 (damped Newton, the decrement); Bach,
Self-concordant analysis for logistic regression, EJS 2010, §2 (the bound).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.updaters.dense import dot, entry_point, keep_in
from stream.updaters.dual import dual_variances, fit_dual
from stream.updaters.objective import curvatures, factor
from stream.updaters.primal import fit_primal

TOLERANCE = 1e-10
"""Squared Newton decrement at which the last full step is taken."""

_CALLED = 0xB8BA7052
"""CRC-32 of what is compiled into the entry points: dense.py, objective.py, continuation.py,
primal.py, dual.py. Numba's cache on disk asks only whether this file has changed: so a change there
must be one here (a test says so)."""

NOT_KEPT = (
    "the compiled kernel cannot be kept, so each start compiles it: let NUMBA_CACHE_DIR name a"
    " folder that can be written"
)
"""What :func:`warm_up`'s caller says when it returns False."""

_Vector = NDArray[np.float64]
_Matrix = NDArray[np.float64]
_Features = NDArray[np.float32]


@entry_point
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
    """Move ``theta`` to the modes of m entities, as :class:`~stream.updaters.fitter.Kernel` says.

    The steps of an entity are negative when the work that a fit is allowed was not enough: its mode
    is then the best point found, and no worse than where it began.
    """
    entities, d = theta.shape
    taken = np.zeros(entities, np.int64)
    for e in range(entities):
        a, b = starts[e], starts[e + 1]
        own_y, own_w, own_o, natural, mode = y[a:b], w[a:b], o[a:b], f[e], theta[e]
        if b - a <= d:
            taken[e] = fit_dual(
                Z[a:b], own_y, own_w, own_o, precision, F[e], natural, mode, tolerance
            )
        if taken[e] <= 0:
            X = Z[a:b].astype(np.float64)
            taken[e] = fit_primal(X, own_y, own_w, own_o, precision, F[e], natural, mode, tolerance)
    return taken


@entry_point
def variances_all(
    starts: NDArray[np.int64],
    Z: _Features,
    w: _Vector,
    o: _Vector,
    precision: float,
    F: _Matrix,
    theta: _Matrix,
) -> _Matrix:
    """Diagonals of the inverse Hessians at ``theta`` (m, d): the Laplace marginal variances.

    With n ≤ d and a diagonal A it is that of A⁻¹ − A^-½·V'S·B⁻¹·SV·A^-½, O(n²·d), unless rounding
    in the difference counts; else O(n·d² + d³).
    """
    entities, d = theta.shape
    found = np.zeros((entities, d))
    L, column = np.empty((d, d)), np.empty(d)
    for e in range(entities):
        a, b = starts[e], starts[e + 1]
        X = Z[a:b].astype(np.float64)
        curvature = curvatures(Z[a:b], w[a:b], o[a:b], theta[e])
        if F.ndim == 2 and b - a <= d and dual_variances(X, curvature, precision, F[e], found[e]):
            continue
        factor(X, curvature, precision, F[e], L)
        # (H⁻¹)_jj = Σ_i (L⁻¹)_ij², column j of L⁻¹ by forward substitution.
        for j in range(d):
            found[e, j] = 0.0
            for i in range(j, d):
                s = 1.0 if i == j else 0.0
                s -= dot(L[i, j:i], column[j:i])
                column[i] = s * L[i, i]
                found[e, j] += column[i] * column[i]
    return found


def warm_up(folder: Path | None = None) -> bool:
    """Compile (or load from the cache) before the first event needs it; called by the shells.

    Args:
        folder: where machine code is kept if Numba's own places cannot be written.

    Returns:
        Whether it is kept; else each start compiles.

    The kernel is compiled for each combination of array types: features and mode are read-only
    views of bytes where :mod:`stream.updaters.effect` calls it, and so they are here.

    """
    kept = keep_in(folder)
    Z = np.frombuffer(bytes(4), dtype=np.float32).reshape(1, 1)
    one, starts = np.ones(1), np.array([0, 1])
    for F in (np.frombuffer(bytes(8)).reshape(1, 1), np.frombuffer(bytes(8)).reshape(1, 1, 1)):
        f = np.frombuffer(bytes(8)).reshape(1, 1)
        fit_all(starts, Z, one, one, one, 1.0, F, f, np.zeros((1, 1)), TOLERANCE)
        variances_all(starts, Z, one, one, 1.0, F, f)
    return kept
