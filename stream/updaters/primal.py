"""The primal form of :mod:`stream.updaters.newton`, for n > d: steps in θ.

H is formed and factored, O(n·d² + d³) a step. After a step that moved no margin by more than 0.03,
H is known to 3 % and its factor serves again, O(n·d + d²): close to the mode such steps are about
as good. A full step that does not descend, or the ninth that needs a factor of its own, leaves the
rest to :mod:`stream.updaters.continuation`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.updaters.continuation import fit_smoothed
from stream.updaters.dense import backward, compiled, dot, forward, largest, times
from stream.updaters.objective import (
    ARMIJO,
    LAST_STEPS,
    NEAR_END,
    ROUNDING,
    SURE,
    factor,
    gradient,
    objective,
    slopes,
)

_FACTORS = 8  # by full steps
_WORK = 16e6  # multiplications: 3 ms of an ordinary processor
_FULL_STEPS = 20  # that a fit may take at least, whatever they cost

_Vector = NDArray[np.float64]
_Matrix = NDArray[np.float64]


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
    factors = taken = 0
    while True:
        times(X, theta, o, margins)
        slopes(margins, y, w, rho, curvature)
        gradient(X, rho, precision, F, f, theta, g)
        if served == 0:
            factors += 1
            if factors > _FACTORS or not factor(X, curvature, precision, F, H):
                break
        taken += 1
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
        if moved > SURE:
            start = objective(margins, y, w, theta, precision, F, f)
            allowed = ROUNDING * (1.0 + abs(start))
            for j in range(d):
                trial[j] = theta[j] - step[j]
            for i in range(n):
                trial_margins[i] = margins[i] - change[i]
            value = objective(trial_margins, y, w, trial, precision, F, f)
            if not value <= start - ARMIJO * decrement + allowed:
                break
        for j in range(d):
            theta[j] -= step[j]
    work = max(_WORK, _FULL_STEPS * n * d * d / 2) - factors * n * d * d / 2
    more = fit_smoothed(X, y, w, o, precision, F, f, theta, tolerance, work)
    return taken + more if more > 0 else more - taken
