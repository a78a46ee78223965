"""What is folded: the derivation, and the two sums that old examples become.

**Natural parameters.** Near the mode an example's loss ℓ(m) = log(1+exp(m)) − y·m, m = o + z'θ, is
replaced by a quadratic in θ with curvature c and the right slope at the mode θ̂. Up to a constant
it is ½·θ'(c·z·z')θ − θ'z·[y − p + c·z'θ̂], p = σ(o + z'θ̂). So all folded examples together are two
sums, F = Σ w·c·z·z' and f = Σ w·[y − p + c·z'θ̂]·z: the natural parameters of a Gaussian, which
simply add. Forgetting multiplies both by the same factor.

**A fold keeps the mode.** The gradient of ½θ'Fθ − f'θ at θ̂ is Σ w·(p − y)·z, that of the loss
itself. The gradient of the whole objective at θ̂ was zero and stays so.

**A flip of a label is linear.** y stands in the loss as −y·m only, so replacing y by y' changes
the objective by −w·(y' − y)·(o + z'θ): f += w·(y' − y)·z is exact, whatever the curvature was. A
change of weight, from w to w', adds the example once more with the weight w' − w at the mode as of
now.

**Curvature.** Final labels are folded with h = p·(1 − p), Laplace's. Provisional ones (overflow)
may still flip, far from the mode at which they were folded; there h, which vanishes for p near 0,
would leave the entity unable to come back. The secant curvature (σ(m) − σ(o))/(m − o), where it is
larger, is that of the logistic loss on average between the offset and m.

**Diagonal.** Above ``full_up_to`` features only diag(F) is kept: c·z_j² for finals; for provisional
ones c·|z_j|·‖z‖₁, which is the row sum of |c·z·z'|, so that the diagonal is never less certain than
the full matrix along any direction (it dominates it). The linear part is chosen so that the mode
stays here too.

Sources: Zhang et al., GLMix, KDD 2016; Bishop, Pattern Recognition and Machine Learning, §4.4–4.5;
Gershgorin's theorem for the dominating diagonal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Vector = NDArray[np.float64]
_NEAR = 1e-6  # |m − o| below which the secant is the tangent


def fold(
    F: _Vector,
    f: _Vector,
    Z: _Vector,
    y: _Vector,
    w: _Vector,
    o: _Vector,
    theta: _Vector,
    *,
    final: bool,
) -> None:
    """Add examples to F and f, in place, at the mode ``theta``.

    Args:
        F: folded precision, (d, d) or its diagonal (d,). f: linear part (d,).
        Z: features (k, d), y: targets, w: aged weights, o: offsets (k,).
        theta: the mode (d,).
        final: whether the labels can no longer change.

    """
    slope = Z @ theta
    p = sigmoid(o + slope)
    c = p * (1.0 - p)
    if not final:
        c = np.maximum(c, _secant(o, slope, p))
    residual = w * (y - p)
    if F.ndim == 2:
        F += (Z * (w * c)[:, None]).T @ Z
        f += Z.T @ (residual + w * c * slope)
        return
    squares = Z**2 if final else np.abs(Z) * np.abs(Z).sum(axis=1, keepdims=True)
    added = (w * c) @ squares
    F += added
    f += Z.T @ residual + added * theta


def correct(
    F: _Vector,
    f: _Vector,
    z: _Vector,
    *,
    targets: tuple[float, float],
    weights: tuple[float, float],
    offset: float,
    theta: _Vector,
) -> None:
    """Give an example that overflowed another target or weight, in place.

    Args:
        F, f, theta: as of :func:`fold`; ``theta`` counts where the weights differ only.
        z: features (d,).
        targets: y before and now. weights: w before and now, aged.
        offset: o.

    """
    (y, y_now), (w, w_now) = targets, weights
    added = w_now - w
    if added:
        slope = float(z @ theta)
        o, m = np.array([offset]), np.array([slope])
        p = sigmoid(o + m)
        c = float(max(p[0] * (1.0 - p[0]), _secant(o, m, p)[0]))
        if F.ndim == 2:
            F += added * c * np.outer(z, z)
            f += added * (y - float(p[0]) + c * slope) * z
        else:
            more = added * c * np.abs(z) * np.abs(z).sum()
            F += more
            f += added * (y - float(p[0])) * z + more * theta
    f += w_now * (y_now - y) * z


def _secant(o: _Vector, slope: _Vector, p: _Vector) -> _Vector:
    """(σ(o + slope) − σ(o)) / slope, 0 where the slope is next to nothing."""
    secant = np.zeros_like(p)
    away = np.abs(slope) >= _NEAR
    secant[away] = (p[away] - sigmoid(o[away])) / slope[away]
    return secant


def sigmoid(x: _Vector) -> _Vector:
    """1 / (1 + exp(−x)) without overflow."""
    e = np.exp(-np.abs(x))
    result: _Vector = np.where(x >= 0, 1.0, e) / (1.0 + e)
    return result
