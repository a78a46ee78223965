"""What every kernel has to meet (``stream.updaters.fitter.Kernel``).

Another optimiser goes into ``KERNELS``. The oracles are SciPy, scikit-learn, finite differences and
80-bit floats.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from stream.updaters import newton
from stream.updaters.fitter import Kernel
from tests.updaters.kernels import (
    FOLDED,
    TOLERANCE,
    Array,
    ReferenceKernel,
    fitted,
    folded,
    gradient,
    hessian,
    in_extended_precision,
    matrix,
    objective,
    problem,
    variances,
)

KERNELS: dict[str, Kernel] = {"newton": newton, "reference": ReferenceKernel()}

SIZES = [(1, 1), (5, 1), (1, 8), (5, 8), (8, 8), (9, 8), (40, 8), (20, 32)]
"""n and d: fewer examples than features, as many, and more."""

HARD = [
    case
    for case in itertools.product(
        KERNELS,
        [(1, 1), (5, 1), (1, 8), (12, 20), (5, 5), (12, 8), (40, 8)],
        [1e-6, 1e-3, 3.0, 1e6],
        [-1000.0, 0.0, 1000.0, None],
        FOLDED,
    )
    # The slow kernel has a few of them.
    if case[0] != "reference" or (case[1] in {(1, 1), (5, 5)} and case[2] in {1e-6, 3.0})
]
"""Kernel, n and d, precision, offset, what is folded."""


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Each kernel in turn."""
    return KERNELS[request.param]


@pytest.mark.parametrize(("n", "d"), SIZES)
@pytest.mark.parametrize("kind", FOLDED)
@pytest.mark.parametrize("precision", [0.1, 3.0, 50.0])
def test_mode_is_scipys(kernel: Kernel, n: int, d: int, kind: str, precision: float) -> None:
    """The mode lies within 1e-4 posterior standard deviations of SciPy's minimum."""
    Z, y, w, o = problem(n * 100 + d, n, d)
    F, f = folded(n + d, d, kind)
    A = matrix(F)
    found = fitted(kernel, (Z, y, w, o), precision, (F, f))
    untyped: Any = minimize
    wanted = untyped(
        lambda t: objective(t, Z, y, w, o, precision) + 0.5 * t @ A @ t - f @ t,
        np.zeros(d),
        method="trust-exact",
        jac=lambda t: gradient(t, Z, y, w, o, precision) + A @ t - f,
        hess=lambda t: hessian(t, Z, w, o, precision) + A,
        options={"gtol": 1e-10},
    ).x
    sd = np.sqrt(np.diag(np.linalg.inv(hessian(wanted, Z, w, o, precision) + A)))
    assert np.max(np.abs(found - wanted) / sd) < 1e-4


@pytest.mark.parametrize(("n", "d"), [(60, 6), (10, 16)])
def test_mode_is_scikit_learns(kernel: Kernel, n: int, d: int) -> None:
    """Without offsets the mode is that of scikit-learn's logistic regression."""
    Z, y, w, _ = problem(7, n, d)
    model: Any = LogisticRegression
    wanted = model(C=1 / 3.0, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(
        Z.astype(np.float64), y, sample_weight=w
    )
    found = fitted(kernel, (Z, y, w, np.zeros(n)), 3.0)
    assert np.allclose(found, wanted.coef_[0], atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(20, 5), (5, 12), (1, 3)])
@pytest.mark.parametrize("kind", FOLDED)
def test_gradient_vanishes_at_the_mode(kernel: Kernel, n: int, d: int, kind: str) -> None:
    """Finite differences of the objective at the mode are zero in every direction."""
    Z, y, w, o = problem(3, n, d)
    F, f = folded(3, d, kind)
    theta = fitted(kernel, (Z, y, w, o), 2.0, (F, f))

    def total(t: Array) -> float:
        return objective(t, Z, y, w, o, 2.0) + float(0.5 * t @ matrix(F) @ t - f @ t)

    for step in 1e-5 * np.eye(d):
        assert abs(total(theta + step) - total(theta - step)) / 2e-5 < 1e-4


@pytest.mark.parametrize(("n", "d"), SIZES)
@pytest.mark.parametrize("kind", FOLDED)
def test_variances_are_of_the_inverse_hessian_by_finite_differences(
    kernel: Kernel, n: int, d: int, kind: str
) -> None:
    """They come from the slope of the gradient, weights other than 1 included."""
    Z, y, w, o = problem(4, n, d)
    F, f = folded(4, d, kind)
    theta = fitted(kernel, (Z, y, w, o), 2.0, (F, f))
    differences = [
        gradient(theta + step, Z, y, w, o, 2.0) - gradient(theta - step, Z, y, w, o, 2.0)
        for step in 1e-5 * np.eye(d)
    ]
    wanted = np.diag(np.linalg.inv(np.array(differences) / 2e-5 + matrix(F)))
    assert np.allclose(variances(kernel, (Z, w, o), 2.0, F, theta), wanted, rtol=1e-6)


@pytest.mark.parametrize(("n", "d"), SIZES)
@pytest.mark.parametrize("kind", FOLDED)
def test_variances_are_the_diagonal_of_the_inverse_hessian(
    kernel: Kernel, n: int, d: int, kind: str
) -> None:
    """Marginal variances come from the inverse, not from one over the diagonal."""
    Z, y, w, o = problem(5, n, d)
    F, f = folded(5, d, kind)
    theta = fitted(kernel, (Z, y, w, o), 1.0, (F, f))
    inverse = np.linalg.inv(hessian(theta, Z, w, o, 1.0) + matrix(F))
    assert np.allclose(variances(kernel, (Z, w, o), 1.0, F, theta), np.diag(inverse), rtol=1e-9)


@pytest.mark.skipif(
    bool(np.finfo(np.longdouble).eps > 1e-18),
    reason="this machine has no floats of 80 bits or more",
)
@pytest.mark.parametrize(("name", "size", "precision", "offset", "kind"), HARD)
def test_the_hard_cases_end_at_the_mode(
    name: str, size: tuple[int, int], precision: float, offset: float | None, kind: str
) -> None:
    """Within 1e-5 sd: separable, collinear, repeated, heavy examples, ‖z‖ = 100, |o| = 1000.

    ``offset`` None: each example has one of ±1000. The oracle has the float32 features.
    """
    kernel, (n, d) = KERNELS[name], size
    rng = np.random.default_rng([n, d, int(precision * 1e6)])
    F, f = folded(n, d, kind)
    A = matrix(F) + precision * np.eye(d)
    for shape in ("plain", "repeated", "collinear", "separable"):
        for norm, weight in ((1.0, 1.0), (100.0, 1.0), (100.0, 100.0), (100.0, 1e-3)):
            raw = rng.normal(size=(n, d))
            if shape == "repeated":
                raw[n // 2 :] = raw[: n - n // 2]
            if shape == "collinear" and d > 1:
                raw[:, 1] = 2 * raw[:, 0]
            Z = (norm * raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
            y = (raw[:, 0] > 0 if shape == "separable" else rng.random(n) < 0.4).astype(float)
            w = weight * rng.uniform(0.2, 1.0, n)
            o = rng.normal(size=n) + (offset if offset is not None else 0.0)
            if offset is None:
                o = np.where(rng.random(n) < 0.5, 1000.0, -1000.0)
            start = rng.choice([0.0, 1.0, -30.0])
            found = fitted(kernel, (Z, y, w, o), precision, (F, f), start)
            wanted, exact = in_extended_precision(Z, y, w, o, A, f, found)
            assert np.max(np.abs(found - wanted) / np.sqrt(exact)) < 1e-5
            ours = variances(kernel, (Z, w, o), precision, F, wanted.astype(np.float64))
            # H is conditioned like w·‖z‖²/λ, 1e12 at worst: more digits are not to be had.
            assert np.max(np.abs(ours / exact - 1)) < (1e-6 if precision >= 1e-3 else 1e-3)


@pytest.mark.parametrize("precision", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [-1000.0, 0.0, 1000.0])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_extreme_problems_converge(
    kernel: Kernel, precision: float, offset: float, spread: float
) -> None:
    """Separable data, huge offsets, weights and features end at a point without slope."""
    Z, _, w, _ = problem(11, 12, 3, spread)
    Z[6:] = Z[:6]  # duplicate rows
    y = (Z[:, 0] > 0).astype(np.float64)  # separable
    o = np.full(12, offset)
    theta = fitted(kernel, (Z, y, 100.0 * w, o), precision)
    assert np.isfinite(theta).all()
    slope = gradient(theta, Z, y, 100.0 * w, o, precision)
    assert slope @ np.linalg.solve(hessian(theta, Z, 100.0 * w, o, precision), slope) < 1e-9


def test_weight_two_is_the_row_twice(kernel: Kernel) -> None:
    """An example of weight 2 counts as the same example twice."""
    Z, y, w, o = problem(13, 8, 3)
    doubled = w.copy()
    doubled[2] *= 2
    twice = [0, 1, 2, 2, 3, 4, 5, 6, 7]
    one = fitted(kernel, (Z, y, doubled, o), 1.0)
    other = fitted(kernel, (Z[twice], y[twice], w[twice], o[twice]), 1.0)
    assert np.allclose(one, other, atol=1e-9)


def test_inputs_are_not_changed(kernel: Kernel) -> None:
    """Fitting writes to theta alone, variances to nothing; either may be given read-only views."""
    for kind in FOLDED:
        Z, y, w, o = problem(17, 8, 3)
        F, f = folded(17, 3, kind)
        arrays = [Z, y, w, o, F, f]
        before = [array.copy() for array in arrays]
        theta = fitted(kernel, (Z, y, w, o), 1.0, (F, f))
        mode = theta.copy()
        variances(kernel, (Z, w, o), 1.0, F, theta)
        for array, copy in zip([*arrays, theta], [*before, mode], strict=True):
            assert np.array_equal(array, copy)


@given(st.permutations(range(8)))
def test_order_of_examples_is_irrelevant(order: list[int]) -> None:
    """Shuffled examples have the same mode and variances, whatever there are more of."""
    for kernel, d in itertools.product(KERNELS.values(), (3, 9)):
        Z, y, w, o = problem(19, 8, d)
        one = fitted(kernel, (Z, y, w, o), 1.0)
        other = fitted(kernel, (Z[order], y[order], w[order], o[order]), 1.0)
        assert np.allclose(one, other, atol=1e-9)
        F = np.zeros(d)
        assert np.allclose(
            variances(kernel, (Z, w, o), 1.0, F, one),
            variances(kernel, (Z[order], w[order], o[order]), 1.0, F, one),
            rtol=1e-9,
        )


def test_fewer_examples_than_features_or_more_is_the_same(kernel: Kernel) -> None:
    """Examples have the mode of the same ones in halves, of which there are twice as many."""
    for kind in FOLDED:
        Z, y, w, o = problem(23, 7, 9)
        natural = folded(23, 9, kind)
        halves = np.repeat(np.arange(7), 2)
        one = fitted(kernel, (Z, y, w, o), 2.0, natural)
        other = fitted(kernel, (Z[halves], y[halves], w[halves] / 2, o[halves]), 2.0, natural)
        assert np.allclose(one, other, atol=1e-9)


def test_a_diagonal_is_the_matrix_with_that_diagonal(kernel: Kernel) -> None:
    """F as (d,) and as the matrix (d, d) with zeros beside it have the same mode and variances."""
    for n in (4, 30):
        Z, y, w, o = problem(29, n, 6)
        F, f = folded(29, 6, "diagonal")
        full = np.diag(F).copy()
        one, other = (fitted(kernel, (Z, y, w, o), 0.5, (part, f)) for part in (F, full))
        assert np.allclose(one, other, atol=1e-9)
        assert np.allclose(
            variances(kernel, (Z, w, o), 0.5, F, one),
            variances(kernel, (Z, w, o), 0.5, full, one),
            rtol=1e-9,
        )


def test_nothing_kept_has_the_mode_of_the_folded_part(kernel: Kernel) -> None:
    """With no example kept the mode is (λI + F)⁻¹f."""
    for kind in FOLDED:
        F, f = folded(31, 4, kind)
        none = np.zeros(0)
        examples = np.zeros((0, 4), np.float32), none, none, none
        found = fitted(kernel, examples, 2.0, (F, f), start=5.0)
        assert np.allclose(found, np.linalg.solve(matrix(F) + 2.0 * np.eye(4), f), atol=1e-12)


def test_many_at_once_are_each_as_alone(kernel: Kernel) -> None:
    """Every entity has the mode and the variances that it has alone, whatever their counts."""
    counts = [3, 0, 1, 20, 7]
    starts = np.cumsum([0, *counts])
    Z, y, w, o = problem(37, int(starts[-1]), 5)
    for kind in FOLDED:
        parts = [folded(e, 5, kind) for e in range(len(counts))]
        F, f = (np.stack([part[k] for part in parts]) for k in (0, 1))
        theta = np.zeros((len(counts), 5))
        taken = kernel.fit_all(starts, Z, y, w, o, 1.0, F, f, theta, TOLERANCE)
        assert (taken > 0).all()
        together = kernel.variances_all(starts, Z, w, o, 1.0, F, theta)
        for e in range(len(counts)):
            own = slice(starts[e], starts[e + 1])
            alone = fitted(kernel, (Z[own], y[own], w[own], o[own]), 1.0, (F[e], f[e]))
            assert np.array_equal(theta[e], alone)
            assert np.array_equal(
                together[e], variances(kernel, (Z[own], w[own], o[own]), 1.0, F[e], alone)
            )
