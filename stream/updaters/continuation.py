"""Fits for which full Newton steps do not do: continuation in the width of the logistic loss.

Where margins are far from zero (features of 1e6, offsets of 1000) the loss is close to a hinge:
its curvature says nothing of where it bends next, Newton's steps lead far past it, and hundreds of
short ones are needed. So J is smoothed first, by a width τ_i ≥ 1 for each example,

    J_τ(θ) = Σ w_i·[τ_i·log(1 + exp(m_i/τ_i)) − y_i·m_i] + ½·θ'Aθ − f'θ,    τ_i = max(1, r·‖z_i‖),

which is J as soon as r·‖z_i‖ ≤ 1 for all i. The radius r is a length in the space of θ: within it
no example's curvature changes much, whatever the sizes of the features. It begins with what a step
on J itself gets to, grows until steps are no longer short (at most to where all margins are within
their widths), and then shrinks whenever a step has moved no margin by more than a few widths.

**Line search.** φ(t) = J_τ(θ − t·s) is convex. A step with φ'(t) ≤ 0 descends; one is taken that is
not much shorter than the best.

**Curvature.** An example with w_i·p_i(1 − p_i)·‖z_i‖² ≤ 1e-4·λ/n is left out of the Hessian: all
of them together change it by a factor of 1e-4 at most, and leaving them out makes the decrement
larger, never smaller. Far from their bends that is most examples.

**Bounds.** What a fit costs is counted, in multiplications and alike, and bounded. Most of it may
go into the continuation, the rest into steps on J itself, from where J is smaller: the end of the
continuation or the beginning. So a fit that does not come to the mode is never worse than where it
began, and the next one goes on from there.

Sources: Allgower & Georg, Introduction to Numerical Continuation Methods, §1; Lee & Mangasarian,
SSVM: A smooth support vector machine, 2001 (a smoothed hinge, Newton); Marteau-Ferey, Bach & Rudi,
Globally convergent Newton methods for ill-conditioned generalized self-concordant losses, 2019.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.updaters.dense import backward, compiled, dot, forward, times
from stream.updaters.objective import factor, gradient, loss, objective

_SHRINK = 6.0  # of the radius
_GROW = 40.0  # of the radius, while steps are short
_SHORT = 0.3  # of a full step: one that is shorter asks for a larger radius
_MOVED = 3.0  # widths that a step may move a margin for the radius to shrink
_SMOOTHED = 0.6  # of the work may go into the continuation
_ENOUGH = 0.5  # of the slope at the start of a step: a step that leaves less is long enough
_FULL = 0.5  # widths up to which a full step is taken unseen
_FLAT = 50.0  # widths from zero at which the loss is a line to the precision of a search
_LEFT_OUT = 1e-4  # of the Hessian
_LOSS = 16  # multiplications that an evaluation of a loss costs as much time as

_Vector = NDArray[np.float64]
_Matrix = NDArray[np.float64]


@compiled
def fit_smoothed(
    X: _Matrix,
    y: _Vector,
    w: _Vector,
    o: _Vector,
    precision: float,
    F: _Vector,
    f: _Vector,
    theta: _Vector,
    tolerance: float,
    work: float,
) -> int:
    """Move ``theta`` to the mode for at most so much work; what it returns is that of ``fit``."""
    n, d = X.shape
    margins, change, rho, curvature = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    g, step, nothing, H = np.empty(d), np.empty(d), np.zeros(n), np.empty((d, d))
    bent, bends = np.empty((n, d)), np.empty(n)
    norms, width = np.empty(n), np.empty(n)
    begin = theta.copy()
    times(X, theta, o, margins)
    before = objective(margins, y, w, theta, precision, F, f)
    most = _radius(X, margins, y, w, precision, norms)
    radius, growing = 0.0, True
    widest = _widen(norms, radius, width)
    spent, taken = 0.0, 0
    while spent < work:
        taken += 1
        if widest > 1.0 and spent > _SMOOTHED * work:
            widest = _widen(norms, 0.0, width)
            times(X, theta, o, margins)
            if not objective(margins, y, w, theta, precision, F, f) <= before:
                theta[:] = begin
        times(X, theta, o, margins)
        _slopes(margins, y, w, width, rho, curvature)
        gradient(X, rho, precision, F, f, theta, g)
        k = _bent(X, norms, curvature, precision, bent, bends)
        if not factor(bent[:k], bends[:k], precision, F, H):
            break
        step[:] = g
        forward(H, step)
        decrement = dot(step, step)
        backward(H, step)
        if widest == 1.0 and decrement <= tolerance:
            for j in range(d):
                theta[j] -= step[j]
            return taken
        times(X, step, nothing, change)
        moved = 0.0
        for i in range(n):
            moved = max(moved, abs(change[i]) / width[i])
        t, looks = 1.0, 0
        if not moved <= _FULL:
            linear, square = _along(theta, step, precision, F, f)
            t, looks = _search(margins, change, y, w, width, linear, square, decrement)
        for j in range(d):
            theta[j] -= t * step[j]
        spent += k * d * d / 2 + d * d * d / 4 + 4 * n * d + (looks + 2) * n * _LOSS
        if growing and t < _SHORT and radius < most and spent < _SMOOTHED * work:
            if radius == 0.0:
                for i in range(n):
                    if norms[i] > 0.0:
                        radius = max(radius, t * abs(change[i]) / norms[i])
            radius = min(max(_GROW * radius, 1e-6 * most), most)
            widest = _widen(norms, radius, width)
            continue
        growing = False
        if widest > 1.0 and (moved * t <= _MOVED or decrement <= tolerance):
            radius /= _SHRINK
            widest = _widen(norms, radius, width)
        elif t == 0.0:
            break  # rounding: there is nothing more to gain
    times(X, theta, o, margins)
    if not objective(margins, y, w, theta, precision, F, f) <= before:
        theta[:] = begin
    return -taken


@compiled
def _radius(
    X: _Matrix, margins: _Vector, y: _Vector, w: _Vector, precision: float, norms: _Vector
) -> float:
    """Return how far in θ margins may have to move; ``norms`` (n,) become those of the rows.

    No farther than ½·λ‖θ‖² could pay for.
    """
    radius, total = 0.0, 0.0
    for i in range(X.shape[0]):
        norms[i] = np.sqrt(dot(X[i], X[i]))
        total += w[i] * loss(margins[i], y[i])
        if norms[i] > 0.0:
            radius = max(radius, abs(margins[i]) / norms[i])
    return float(min(radius, np.sqrt(2.0 * total / precision)))


@compiled
def _widen(norms: _Vector, radius: float, width: _Vector) -> float:
    """Overwrite ``width`` (n,) with max(1, r·‖z‖) and return the largest."""
    widest = 1.0
    for i in range(norms.shape[0]):
        width[i] = max(1.0, radius * norms[i])
        widest = max(widest, width[i])
    return widest


@compiled
def _slopes(
    margins: _Vector, y: _Vector, w: _Vector, width: _Vector, rho: _Vector, curvature: _Vector
) -> None:
    """As :func:`stream.updaters.objective.slopes`, of the smoothed losses."""
    for i in range(margins.shape[0]):
        e = np.exp(-abs(margins[i]) / width[i])
        q = 1.0 / (1.0 + e)
        p = q if margins[i] >= 0.0 else e * q
        rho[i] = w[i] * (p - y[i])
        curvature[i] = w[i] * e * q * q / width[i]


@compiled
def _bent(
    X: _Matrix,
    norms: _Vector,
    curvature: _Vector,
    precision: float,
    bent: _Matrix,
    bends: _Vector,
) -> int:
    """Copy the examples that count in the Hessian, and their curvatures; return how many."""
    n, d = X.shape
    least = _LEFT_OUT * precision / n
    k = 0
    for i in range(n):
        if curvature[i] * norms[i] * norms[i] > least:
            for j in range(d):
                bent[k, j] = X[i, j]
            bends[k] = curvature[i]
            k += 1
    return k


@compiled
def _along(
    theta: _Vector, step: _Vector, precision: float, F: _Vector, f: _Vector
) -> tuple[float, float]:
    """Return a and b of a + b·t, the slope of the quadratic part of J along θ − t·s."""
    linear, square = 0.0, 0.0
    for j in range(theta.shape[0]):
        at, by = precision * theta[j], precision * step[j]
        if F.ndim == 1:
            at += F[j] * theta[j]
            by += F[j] * step[j]
        else:
            at += dot(F[j], theta)
            by += dot(F[j], step)
        linear -= step[j] * (at - f[j])
        square += step[j] * by
    return linear, square


@compiled
def _slope(
    t: float,
    margins: _Vector,
    change: _Vector,
    y: _Vector,
    w: _Vector,
    width: _Vector,
    start: float,
) -> float:
    """φ'(t) less ``start``, the slope of the quadratic part."""
    total = start
    for i in range(margins.shape[0]):
        m = (margins[i] - t * change[i]) / width[i]
        if m > _FLAT:
            p = 1.0
        elif m < -_FLAT:
            p = 0.0
        else:
            p = 1.0 / (1.0 + np.exp(-m))
        total -= w[i] * (p - y[i]) * change[i]
    return total


@compiled
def _search(
    margins: _Vector,
    change: _Vector,
    y: _Vector,
    w: _Vector,
    width: _Vector,
    linear: float,
    square: float,
    decrement: float,
) -> tuple[float, int]:
    """Return t with φ'(t) ≤ 0, not much short of the minimum, and how often φ' was looked at."""
    low, high, at_low, at_high = 0.0, 0.0, -decrement, 0.0
    t, looks = 1.0, 0
    while looks < 60:
        looks += 1
        slope = _slope(t, margins, change, y, w, width, linear + square * t)
        if slope <= 0.0:
            low, at_low = t, slope
        else:
            high, at_high = t, slope
        if low > 0.0 and (at_low >= -_ENOUGH * decrement or 0.0 < high <= 2.0 * low):
            break
        if high == 0.0:
            t = 4.0 * low
            continue
        share = min(max(at_low / (at_low - at_high), 0.01), 0.9)
        t = np.sqrt(low * high) if high > 4.0 * low > 0.0 else low + share * (high - low)
    return low, looks
