"""The Newton kernel against SciPy, scikit-learn and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from stream.updaters import newton

Array = NDArray[np.float64]


def problem(seed: int, n: int, d: int, spread: float = 1.0) -> tuple[Any, Array, Array, Array]:
    """Z (n, d) float32, y, w, o (n,), weights other than one."""
    rng = np.random.default_rng(seed)
    Z = (spread * rng.normal(size=(n, d))).astype(np.float32)
    y = (rng.random(n) < 0.4).astype(np.float64)
    return Z, y, rng.uniform(0.2, 2.0, n), rng.normal(size=n)


def objective(theta: Array, Z: Any, y: Array, w: Array, o: Array, precision: float) -> float:
    """The stated objective, written down independently."""
    m = o + Z.astype(np.float64) @ theta
    losses = np.logaddexp(0.0, m) - y * m
    return float(w @ losses + 0.5 * precision * theta @ theta)


def hessian(theta: Array, Z: Any, w: Array, o: Array, precision: float) -> Array:
    """Its Hessian."""
    p = expit(o + Z.astype(np.float64) @ theta)
    weighted = Z.astype(np.float64) * (w * p * (1 - p))[:, None]
    return np.asarray(weighted.T @ Z.astype(np.float64) + precision * np.eye(Z.shape[1]))


def mode(Z: Any, y: Array, w: Array, o: Array, precision: float) -> Array:
    """Fit from zero with the kernel."""
    d = Z.shape[1]
    theta = np.zeros(d)
    nothing = np.zeros((d, d)), np.zeros(d)
    assert newton.fit(Z, y, w, o, precision, *nothing, theta, newton.TOLERANCE) > 0
    return theta


@pytest.mark.parametrize(("n", "d"), [(1, 1), (5, 1), (1, 8), (5, 8), (40, 8), (30, 32)])
@pytest.mark.parametrize("precision", [0.1, 3.0, 50.0])
def test_mode_is_scipys(n: int, d: int, precision: float) -> None:
    """The mode lies within 1e-4 posterior standard deviations of SciPy's minimum."""
    Z, y, w, o = problem(n * 100 + d, n, d)
    found = mode(Z, y, w, o, precision)
    untyped: Any = minimize
    wanted = untyped(
        objective,
        np.zeros(d),
        args=(Z, y, w, o, precision),
        method="trust-exact",
        jac=lambda t, *a: (
            a[0].astype(np.float64).T @ (a[2] * (expit(a[3] + a[0] @ t) - a[1])) + a[4] * t
        ),
        hess=lambda t, *a: hessian(t, a[0], a[2], a[3], a[4]),
        options={"gtol": 1e-10},
    ).x
    sd = np.sqrt(np.diag(np.linalg.inv(hessian(wanted, Z, w, o, precision))))
    assert np.max(np.abs(found - wanted) / sd) < 1e-4


def test_mode_is_scikit_learns() -> None:
    """Without offsets the mode is that of scikit-learn's logistic regression."""
    Z, y, w, _ = problem(7, 60, 6)
    model: Any = LogisticRegression
    fitted = model(C=1 / 3.0, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(
        Z.astype(np.float64), y, sample_weight=w
    )
    found = mode(Z, y, w, np.zeros(60), 3.0)
    assert np.allclose(found, fitted.coef_[0], atol=1e-5)


def test_gradient_vanishes_at_the_mode() -> None:
    """Finite differences of the objective at the mode are zero in every direction."""
    Z, y, w, o = problem(3, 20, 5)
    theta = mode(Z, y, w, o, 2.0)
    for j in range(5):
        step = np.zeros(5)
        step[j] = 1e-5
        slope = (
            objective(theta + step, Z, y, w, o, 2.0) - objective(theta - step, Z, y, w, o, 2.0)
        ) / 2e-5
        assert abs(slope) < 1e-4


def test_variances_are_the_diagonal_of_the_inverse_hessian() -> None:
    """Marginal variances come from the inverse, not from one over the diagonal."""
    Z, y, w, o = problem(5, 25, 6)
    theta = mode(Z, y, w, o, 1.0)
    inverse = np.linalg.inv(hessian(theta, Z, w, o, 1.0))
    assert np.allclose(
        newton.variances(Z, w, o, 1.0, np.zeros((6, 6)), theta), np.diag(inverse), rtol=1e-9
    )


@pytest.mark.parametrize("precision", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [-1000.0, 0.0, 1000.0])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_extreme_problems_converge(precision: float, offset: float, spread: float) -> None:
    """Separable data, huge offsets, weights and features end at a point without slope."""
    Z, _, w, _ = problem(11, 12, 3, spread)
    Z[6:] = Z[:6]  # duplicate rows
    y = (Z[:, 0] > 0).astype(np.float64)  # separable
    o = np.full(12, offset)
    theta = mode(Z, y, 100.0 * w, o, precision)
    assert np.isfinite(theta).all()
    p = expit(o + Z.astype(np.float64) @ theta)
    gradient = Z.astype(np.float64).T @ (100.0 * w * (p - y)) + precision * theta
    decrement = gradient @ np.linalg.solve(hessian(theta, Z, 100.0 * w, o, precision), gradient)
    assert decrement < 1e-9


def test_absurd_features_do_not_break_the_factor() -> None:
    """Two equal features of 1e9 against a weak prior still give a finite mode and variances."""
    Z = np.full((4, 2), 1e9, dtype=np.float32)
    y, one = np.array([1.0, 0, 1, 1]), np.ones(4)
    theta = np.zeros(2)
    F = np.zeros((2, 2))
    newton.fit(Z, y, one, np.zeros(4), 1.0, F, np.zeros(2), theta, newton.TOLERANCE)
    assert np.isfinite(theta).all()
    assert theta[0] > 0
    assert np.isfinite(newton.variances(Z, one, np.zeros(4), 1.0, F, theta)).all()


def test_weight_two_is_the_row_twice() -> None:
    """An example of weight 2 counts as the same example twice."""
    Z, y, w, o = problem(13, 8, 3)
    doubled = w.copy()
    doubled[2] *= 2
    twice = [0, 1, 2, 2, 3, 4, 5, 6, 7]
    assert np.allclose(
        mode(Z, y, doubled, o, 1.0), mode(Z[twice], y[twice], w[twice], o[twice], 1.0), atol=1e-9
    )


def test_inputs_are_not_changed() -> None:
    """Fitting writes to theta alone."""
    Z, y, w, o = problem(17, 8, 3)
    before = [a.copy() for a in (Z, y, w, o)]
    mode(Z, y, w, o, 1.0)
    for array, copy in zip((Z, y, w, o), before, strict=True):
        assert np.array_equal(array, copy)
