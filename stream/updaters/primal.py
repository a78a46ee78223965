"""The primal form of :mod:`stream.updaters.newton`, for n > d: steps in θ.

H is formed and factored, O(n·d² + d³) a step. After a step that moved no
margin by more than 0.03, H is known to 3 % and its factor serves again, O(n·d + d²): close to the
mode such steps are about as good.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.updaters.dense import (
    add_gram,
    backward,
    cholesky,
    compiled,
    dot,
    forward,
    largest,
    times,
)
from stream.updaters.objective import (
    ARMIJO,
    LAST_STEPS,
    MAX_STEPS,
    NEAR_END,
    ROUNDING,
    SURE,
    gradient,
    objective,
    prior,
    slopes,
)

_RIDGES = 8

_Vector = NDArray[np.float64]
_Matrix = NDArray[np.float64]


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


@compiled
def fit_primal(
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
    for taken in range(1, MAX_STEPS + 1):
        times(X, theta, o, margins)
        slopes(margins, y, w, rho, curvature)
        gradient(X, rho, precision, F, f, theta, g)
        if served == 0 and not factor(X, curvature, precision, F, H):
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
        served = (served + 1) % LAST_STEPS if moved <= NEAR_END else 0
        t = 1.0
        if moved > SURE:
            start = objective(margins, y, w, theta, precision, F, f)
            allowed = ROUNDING * (1.0 + abs(start))
            while t > 1e-18:
                for j in range(d):
                    trial[j] = theta[j] - t * step[j]
                for i in range(n):
                    trial_margins[i] = margins[i] - t * change[i]
                value = objective(trial_margins, y, w, trial, precision, F, f)
                if value <= start - ARMIJO * t * decrement + allowed:
                    break
                t *= 0.5
        for j in range(d):
            theta[j] -= t * step[j]
    return -MAX_STEPS
