"""What is of the compiled kernel alone: its derivations, its algebra, its machine code.

What any kernel has to meet is in ``test_kernel_contract.py``.
"""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from stream.updaters import dense, newton
from tests.updaters.kernels import folded, gradient, hessian, objective, problem


def test_absurd_features_do_not_break_the_factor() -> None:
    """Two equal features of 1e9 against a weak prior still give a finite mode and variances."""
    Z = np.full((4, 2), 1e9, dtype=np.float32)
    y, one = np.array([1.0, 0, 1, 1]), np.ones(4)
    theta = np.zeros((1, 2))
    F = np.zeros((1, 2, 2))
    starts, nothing = np.array([0, 4]), np.zeros((1, 2))
    newton.fit_all(starts, Z, y, one, np.zeros(4), 1.0, F, nothing, theta, newton.TOLERANCE)
    assert np.isfinite(theta).all()
    assert theta[0, 0] > 0
    assert np.isfinite(newton.variances_all(starts, Z, one, np.zeros(4), 1.0, F, theta)).all()


@given(st.integers(0, 10_000), st.floats(0.1, 30), st.floats(0.01, 10))
def test_a_step_that_moves_no_margin_far_needs_no_line_search(
    seed: int, spread: float, precision: float
) -> None:
    """The bound of ``newton.py``, φ(1) ≤ φ(0) − D + D·(e^δ − δ − 1)/δ², holds from anywhere."""
    Z, y, w, o = problem(seed, 6, 3, spread)
    X = Z.astype(np.float64)
    theta = np.random.default_rng(seed).normal(size=3)
    g = gradient(theta, Z, y, w, o, precision)
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


def test_a_change_of_what_is_called_is_one_of_the_kernel() -> None:
    """Numba keeps machine code until newton.py changes: so it names the CRC of the others."""
    folder = Path(newton.__file__).parent
    called = [
        folder / f"{name}.py" for name in ("dense", "objective", "continuation", "primal", "dual")
    ]
    found = zlib.crc32(b"".join(path.read_bytes() for path in called))
    assert found == newton._CALLED, f"in newton.py: _CALLED = 0x{found:08X}"


def test_nothing_is_compiled_after_the_warm_up() -> None:
    """Every combination of types that an effect calls the kernel with is compiled beforehand."""
    program = """
from stream.updaters import newton
newton.warm_up()
kernel = (newton.fit_all, newton.variances_all)
before = [set(function.signatures) for function in kernel]
from tests.updaters.test_effect import DictBook, effect, label
for full_up_to in (3, 2):
    book = DictBook()
    subject = effect(book, capacity=1, open_limit=1, full_up_to=full_up_to)
    for count in range(39):
        subject.learn(label(count, "positive"))
        subject.flush()
        subject.coefficients("m")
    assert subject.fitter.folded == 32
assert before == [set(function.signatures) for function in kernel]
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("writable", [True, False])
def test_machine_code_is_kept_where_a_worker_may_write(writable: bool, tmp_path: Path) -> None:
    """Where Numba finds no place: in the given folder; else nowhere, without an error."""
    folder = tmp_path / "kernel"
    if not writable:
        folder.touch()  # a file: nobody makes a folder of it, root neither
    program = f"""
from pathlib import Path
from numba.core import caching
caching.CacheImpl._locator_classes = [caching.UserProvidedCacheLocator]
from stream.updaters import newton
print(newton.keep_in(None), newton.keep_in(Path({str(folder)!r})))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True, cwd=Path(__file__).parents[2], capture_output=True, text=True,
        env={"PATH": "/bin", "NUMBA_CACHE_DIR": "/dev/null/nowhere"},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"False {writable}\n", "")
    if writable:
        assert len(list(folder.iterdir())) == 1
