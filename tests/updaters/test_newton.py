"""The Newton kernel against SciPy, scikit-learn, extended precision and finite differences.

What ``newton.py`` derives (the dual form, the step that needs no line search) is checked here too.
"""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from stream.updaters import dense, newton

Array = NDArray[np.float64]
Long = NDArray[np.longdouble]

SIZES = [(1, 1), (5, 1), (1, 8), (5, 8), (8, 8), (9, 8), (40, 8), (20, 32)]
"""n and d: the dual form for n ≤ d, the primal form for more examples than features."""

FOLDED = ["nothing", "diagonal", "full"]


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
    """Fit from zero with the kernel, nothing folded."""
    return fitted(Z, y, w, o, precision, np.zeros(Z.shape[1]), np.zeros(Z.shape[1]))


def fitted(
    Z: Any, y: Array, w: Array, o: Array, precision: float, F: Array, f: Array, start: float = 0.0
) -> Array:
    """Fit with the kernel, every coefficient starting at ``start``."""
    theta = np.full(Z.shape[1], start)
    assert newton.fit(Z, y, w, o, precision, F, f, theta, newton.TOLERANCE) > 0
    return theta


def folded(seed: int, d: int, kind: str) -> tuple[Array, Array]:
    """F of a kind, (d,) or (d, d), and f (d,)."""
    rng = np.random.default_rng(seed)
    if kind == "nothing":
        return np.zeros(d), np.zeros(d)
    if kind == "diagonal":
        return rng.uniform(0, 30, d), 10 * rng.normal(size=d)
    old = rng.normal(size=(2 * d, d)) + rng.normal(size=(2 * d, 1))
    return np.asarray(0.2 * old.T @ old), 10 * rng.normal(size=d)


def matrix(F: Array) -> Array:
    """F as a matrix (d, d)."""
    return F if F.ndim == 2 else np.diag(F)


@pytest.mark.parametrize(("n", "d"), SIZES)
@pytest.mark.parametrize("kind", FOLDED)
@pytest.mark.parametrize("precision", [0.1, 3.0, 50.0])
def test_mode_is_scipys(n: int, d: int, kind: str, precision: float) -> None:
    """The mode lies within 1e-4 posterior standard deviations of SciPy's minimum."""
    Z, y, w, o = problem(n * 100 + d, n, d)
    F, f = folded(n + d, d, kind)
    A = matrix(F)
    found = fitted(Z, y, w, o, precision, F, f)
    untyped: Any = minimize
    wanted = untyped(
        lambda t: objective(t, Z, y, w, o, precision) + 0.5 * t @ A @ t - f @ t,
        np.zeros(d),
        method="trust-exact",
        jac=lambda t: Z.astype(float).T @ (w * (expit(o + Z @ t) - y)) + A @ t + precision * t - f,
        hess=lambda t: hessian(t, Z, w, o, precision) + A,
        options={"gtol": 1e-10},
    ).x
    sd = np.sqrt(np.diag(np.linalg.inv(hessian(wanted, Z, w, o, precision) + A)))
    assert np.max(np.abs(found - wanted) / sd) < 1e-4


@pytest.mark.parametrize(("n", "d"), [(60, 6), (10, 16)])
def test_mode_is_scikit_learns(n: int, d: int) -> None:
    """Without offsets the mode is that of scikit-learn's logistic regression."""
    Z, y, w, _ = problem(7, n, d)
    model: Any = LogisticRegression
    fitted = model(C=1 / 3.0, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(
        Z.astype(np.float64), y, sample_weight=w
    )
    found = mode(Z, y, w, np.zeros(n), 3.0)
    assert np.allclose(found, fitted.coef_[0], atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(20, 5), (5, 12)])
@pytest.mark.parametrize("kind", FOLDED)
def test_gradient_vanishes_at_the_mode(n: int, d: int, kind: str) -> None:
    """Finite differences of the objective at the mode are zero in every direction."""
    Z, y, w, o = problem(3, n, d)
    F, f = folded(3, d, kind)
    theta = fitted(Z, y, w, o, 2.0, F, f)

    def total(t: Array) -> float:
        return objective(t, Z, y, w, o, 2.0) + float(0.5 * t @ matrix(F) @ t - f @ t)

    for j in range(d):
        step = np.zeros(d)
        step[j] = 1e-5
        assert abs(total(theta + step) - total(theta - step)) / 2e-5 < 1e-4


@pytest.mark.parametrize(("n", "d"), SIZES)
@pytest.mark.parametrize("kind", FOLDED)
def test_precision_is_the_hessian_by_finite_differences(n: int, d: int, kind: str) -> None:
    """The posterior precision is the slope of the gradient, weights other than 1 included."""
    Z, y, w, o = problem(4, n, d)
    F, f = folded(4, d, kind)
    theta = fitted(Z, y, w, o, 2.0, F, f)

    def gradient(t: Array) -> Array:
        slopes = Z.astype(float).T @ (w * (expit(o + Z.astype(float) @ t) - y))
        return np.asarray(slopes + matrix(F) @ t + 2.0 * t - f)

    wanted = np.array(
        [(gradient(theta + 1e-5 * e) - gradient(theta - 1e-5 * e)) / 2e-5 for e in np.eye(d)]
    )
    found = newton.posterior_precision(Z, w, o, 2.0, F, theta)
    assert np.allclose(found, wanted if F.ndim == 2 else np.diag(wanted), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("n", "d"), SIZES)
@pytest.mark.parametrize("kind", FOLDED)
def test_variances_are_the_diagonal_of_the_inverse_hessian(n: int, d: int, kind: str) -> None:
    """Marginal variances come from the inverse, not from one over the diagonal."""
    Z, y, w, o = problem(5, n, d)
    F, f = folded(5, d, kind)
    theta = fitted(Z, y, w, o, 1.0, F, f)
    inverse = np.linalg.inv(hessian(theta, Z, w, o, 1.0) + matrix(F))
    assert np.allclose(newton.variances(Z, w, o, 1.0, F, theta), np.diag(inverse), rtol=1e-9)


def in_extended_precision(
    Z: Any, y: Array, w: Array, o: Array, A: Array, f: Array, near: Array
) -> tuple[Long, Long]:
    """Mode and variances by Newton in 80-bit floats from a point near the mode.

    Where the point is not near the mode, full steps go astray: then the distance is large as well.
    """
    long = np.longdouble
    theta, X = near.astype(long), Z.astype(long)
    for _ in range(12):
        m = o + X @ theta
        e = np.exp(-np.abs(m))
        p = np.where(m >= 0, 1, e) / (1 + e)
        g = X.T @ (w * (p - y)) + A @ theta - f
        H = (X * (w * e / (1 + e) ** 2)[:, None]).T @ X + A
        inverse = inverse_in_extended_precision(H)
        theta = theta - inverse @ g
    return theta, np.diag(inverse)


def inverse_in_extended_precision(H: Long) -> Long:
    """H⁻¹ (d, d) by Cholesky: NumPy's own stops at 64 bits."""
    d = len(H)
    L, K = np.zeros_like(H), np.zeros_like(H)
    for j in range(d):
        L[j, j] = np.sqrt(H[j, j] - L[j, :j] @ L[j, :j])
        L[j + 1 :, j] = (H[j + 1 :, j] - L[j + 1 :, :j] @ L[j, :j]) / L[j, j]
        K[j] = -(L[j, :j] @ K[:j]) / L[j, j]
        K[j, j] = 1 / L[j, j]
    return np.asarray(K.T @ K)


@pytest.mark.skipif(
    bool(np.finfo(np.longdouble).eps > 1e-18),
    reason="this machine has no floats of 80 bits or more",
)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (5, 1), (1, 8), (12, 20), (5, 5), (12, 8), (40, 8)])
@pytest.mark.parametrize("precision", [1e-6, 1e-3, 3.0, 1e6])
@pytest.mark.parametrize("offset", [-1000.0, 0.0, 1000.0, None])
@pytest.mark.parametrize("kind", FOLDED)
def test_the_hard_cases_end_at_the_mode(
    n: int, d: int, precision: float, offset: float | None, kind: str
) -> None:
    """Within 1e-5 sd: separable, collinear, repeated, heavy examples, ‖z‖ = 100, |o| = 1000.

    ``offset`` None: each example has one of ±1000. The oracle has the float32 features.
    """
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
            found = fitted(Z, y, w, o, precision, F, f, start=rng.choice([0.0, 1.0, -30.0]))
            wanted, variances = in_extended_precision(Z, y, w, o, A, f, found)
            assert np.max(np.abs(found - wanted) / np.sqrt(variances)) < 1e-5
            ours = newton.variances(Z, w, o, precision, F, wanted.astype(np.float64))
            # H is conditioned like w·‖z‖²/λ, 1e12 at worst: more digits are not to be had.
            assert np.max(np.abs(ours / variances - 1)) < (1e-6 if precision >= 1e-3 else 1e-3)


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


def test_order_of_examples_is_irrelevant() -> None:
    """Shuffled examples have the same mode and variances, in either form."""
    for n, d in ((8, 3), (5, 9)):
        Z, y, w, o = problem(19, n, d)
        turned = np.random.default_rng(0).permutation(n)
        one = mode(Z, y, w, o, 1.0)
        other = mode(Z[turned], y[turned], w[turned], o[turned], 1.0)
        assert np.allclose(one, other, atol=1e-9)


def test_both_forms_agree_where_one_gives_way_to_the_other() -> None:
    """Examples, n ≤ d (dual), have the mode of the same ones in halves, n > d (primal)."""
    for kind in FOLDED:
        Z, y, w, o = problem(23, 7, 9)
        F, f = folded(23, 9, kind)
        halves = np.repeat(np.arange(7), 2)
        dual = fitted(Z, y, w, o, 2.0, F, f)
        primal = fitted(Z[halves], y[halves], w[halves] / 2, o[halves], 2.0, F, f)
        assert np.allclose(dual, primal, atol=1e-9)


def test_a_diagonal_is_the_matrix_with_that_diagonal() -> None:
    """F as (d,) and as the matrix (d, d) with zeros beside it have the same mode and variances."""
    for n in (4, 30):
        Z, y, w, o = problem(29, n, 6)
        F, f = folded(29, 6, "diagonal")
        one, other = (fitted(Z, y, w, o, 0.5, part, f) for part in (F, np.diag(F).copy()))
        assert np.allclose(one, other, atol=1e-9)
        assert np.allclose(
            newton.variances(Z, w, o, 0.5, F, one),
            newton.variances(Z, w, o, 0.5, np.diag(F).copy(), one),
            rtol=1e-9,
        )


def test_nothing_kept_has_the_mode_of_the_folded_part() -> None:
    """With no example kept the mode is (λI + F)⁻¹f."""
    for kind in FOLDED:
        F, f = folded(31, 4, kind)
        none = np.zeros(0)
        found = fitted(np.zeros((0, 4), np.float32), none, none, none, 2.0, F, f, start=5.0)
        assert np.allclose(found, np.linalg.solve(matrix(F) + 2.0 * np.eye(4), f), atol=1e-12)


def test_many_at_once_are_each_as_alone() -> None:
    """``fit_all`` gives every entity the mode that ``fit`` gives it, whatever their counts."""
    counts = [3, 0, 1, 20, 7]
    starts = np.cumsum([0, *counts])
    Z, y, w, o = problem(37, int(starts[-1]), 5)
    for kind in FOLDED:
        parts = [folded(e, 5, kind) for e in range(len(counts))]
        F, f = (np.stack([part[k] for part in parts]) for k in (0, 1))
        theta = np.zeros((len(counts), 5))
        taken = newton.fit_all(starts, Z, y, w, o, 1.0, F, f, theta, newton.TOLERANCE)
        assert (taken > 0).all()
        for e in range(len(counts)):
            own = slice(starts[e], starts[e + 1])
            alone = fitted(Z[own], y[own], w[own], o[own], 1.0, F[e], f[e])
            assert np.array_equal(theta[e], alone)


@given(st.integers(0, 10_000), st.floats(0.1, 30), st.floats(0.01, 10))
def test_a_step_that_moves_no_margin_far_needs_no_line_search(
    seed: int, spread: float, precision: float
) -> None:
    """The bound of ``newton.py``, φ(1) ≤ φ(0) − D + D·(e^δ − δ − 1)/δ², holds from anywhere."""
    Z, y, w, o = problem(seed, 6, 3, spread)
    X = Z.astype(np.float64)
    theta = np.random.default_rng(seed).normal(size=3)
    g = X.T @ (w * (expit(o + X @ theta) - y)) + precision * theta
    step = np.linalg.solve(hessian(theta, Z, w, o, precision), g)
    step *= min(1.0, 1.5 / np.max(np.abs(X @ step)))  # a shorter step, a direction all the same
    moved = np.max(np.abs(X @ step))
    slope, curvature = g @ step, step @ hessian(theta, Z, w, o, precision) @ step
    before = objective(theta, Z, y, w, o, precision)
    after = objective(theta - step, Z, y, w, o, precision)
    growth = (np.exp(moved) - moved - 1) / moved**2
    assert after <= before - slope + curvature * growth + 1e-9 * (1 + abs(before))


def test_the_dual_step_is_the_newton_step() -> None:
    """Δα of ``newton.py`` moves θ by −H⁻¹g, and −r'Δm is its squared decrement."""
    Z, y, w, o = problem(41, 4, 7)
    F, f = folded(41, 7, "full")
    X, A = Z.astype(np.float64), F + 2.0 * np.eye(7)
    alpha = np.random.default_rng(41).normal(size=4)
    theta = np.linalg.solve(A, f + X.T @ alpha)
    p = expit(o + X @ theta)
    K, W = X @ np.linalg.solve(A, X.T), w * p * (1 - p)
    S = np.diag(np.sqrt(W))
    r = w * (p - y) + alpha
    B = np.eye(4) + S @ K @ S
    change = -(r - S @ np.linalg.solve(B, S @ K @ r))
    g = X.T @ (w * (p - y)) + A @ theta - f
    wanted = -np.linalg.solve(A + X.T @ np.diag(W) @ X, g)
    assert np.allclose(np.linalg.solve(A, X.T @ change), wanted)
    assert np.isclose(-r @ K @ change, -g @ wanted)
    whitened = np.linalg.solve(np.linalg.cholesky(A), X.T).T
    L = np.linalg.cholesky(A)
    last = np.eye(7) - whitened.T @ S @ np.linalg.solve(B, S @ whitened)
    assert np.allclose(-np.linalg.solve(L.T, last @ np.linalg.solve(L, g)), wanted)


@pytest.mark.parametrize("d", [1, 2, 5, 8])
@pytest.mark.parametrize("n", [0, 1, 4, 7])
def test_dense_algebra_is_numpys(n: int, d: int) -> None:
    """Gram matrix, Cholesky factor and triangular solves are those of NumPy."""
    rng = np.random.default_rng(d)
    X, c, x = rng.normal(size=(n, d)), rng.random(n), rng.normal(size=d)
    H = np.zeros((d + 1, d))
    H[:d] = np.eye(d)
    H[d] = x
    dense.add_gram(H[:d], X, c)
    whole = np.eye(d) + (X * c[:, None]).T @ X
    assert np.allclose(np.tril(H[:d]), np.tril(whole))
    assert dense.cholesky(H)
    L = np.linalg.cholesky(whole)
    assert np.allclose(np.tril(H[:d], -1), np.tril(L, -1))
    assert np.allclose(1 / np.diag(H), np.diag(L))
    assert np.allclose(H[d], np.linalg.solve(L, x))
    down, up = x.copy(), x.copy()
    dense.forward(H, down)
    dense.backward(H, up)
    assert np.allclose(down, np.linalg.solve(L, x))
    assert np.allclose(up, np.linalg.solve(L.T, x))
    assert not dense.cholesky(-np.eye(d))
    assert dense.largest(np.array([-2.0, np.nan, 1.0])) == np.inf


def test_a_change_of_the_dense_algebra_is_one_of_the_kernel() -> None:
    """Numba keeps the kernel's machine code until newton.py changes: so it names dense.py's CRC."""
    code = Path(dense.__file__).read_bytes()
    assert zlib.crc32(code) == newton._DENSE, f"in newton.py: _DENSE = 0x{zlib.crc32(code):08X}"


def test_nothing_is_compiled_after_the_warm_up() -> None:
    """Every combination of types that an effect calls the kernel with is compiled beforehand."""
    program = """
from stream.updaters import newton
newton.warm_up()
kernel = (newton.fit_all, newton.variances)
before = [set(function.signatures) for function in kernel]
from tests.updaters.test_effect import DictBook, effect, label
for full_up_to in (3, 2):
    book = DictBook()
    subject = effect(book, capacity=1, open_limit=1, full_up_to=full_up_to)
    for count in range(39):
        subject.learn(label(count, "positive"))
        subject.flush()
        subject.coefficients("m")
    assert subject.folded == 32
assert before == [set(function.signatures) for function in kernel]
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
