"""Dense linear algebra of the compiled kernel, in plain loops: matrices here are small.

A matrix is (n, d) or (d, d) float64, rows contiguous. LAPACK would cost more per call than most of
these take.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Vector = NDArray[np.float64]
_Matrix = NDArray[np.float64]
_Rows = NDArray[np.floating[Any]]  # features as they are, float32, or copied to float64


_not_kept: list[Any] = []


def entry_point(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile with Numba on first call, kept on disk with all that it calls.

    Where nothing can be written (an installation of somebody else's, no home folder) it is not kept
    unless :func:`keep_in` names a folder.
    """
    made = _with_numba(function)
    if not _kept(made):
        _not_kept.append(made)
    return made


def keep_in(folder: Path | None) -> bool:
    """Keep in this folder what has no place yet; return whether all that is compiled is kept."""
    if _not_kept and folder is not None:
        numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
        _not_kept[:] = [made for made in _not_kept if not _kept(made)]
    return not _not_kept


def _kept(made: Any) -> bool:
    try:
        made.enable_caching()
    except RuntimeError:  # no folder of those that Numba tries can be written
        return False
    return True


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile with Numba on first call, for entry points."""
    return _with_numba(function)


def vectorised(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile with sums in the order that suits the processor: for inner products."""
    return _with_numba(function, fastmath={"reassoc", "contract"})


def _with_numba(function: Callable[_P, _R], **options: Any) -> Callable[_P, _R]:
    """Compile; types stay those of the Python function."""
    return cast(
        "Callable[_P, _R]",
        numba.njit(nogil=True, error_model="numpy", **options)(function),
    )


@vectorised
def dot(a: _Vector, b: _Vector) -> float:
    """Inner product."""
    total = 0.0
    for k in range(a.shape[0]):
        total += a[k] * b[k]
    return total


@compiled
def largest(x: _Vector) -> float:
    """Largest |x_i|; infinite where one is not a number."""
    result = 0.0
    for i in range(x.shape[0]):
        if np.isnan(x[i]):
            return np.inf
        result = max(result, abs(x[i]))
    return result


@vectorised
def times(A: _Rows, x: _Vector, start: _Vector, out: _Vector) -> None:
    """Overwrite out (n,) with start + A·x, for A (≥ n, ≥ d), x (d,)."""
    for i in range(out.shape[0]):
        s = start[i]
        for k in range(x.shape[0]):
            s += A[i, k] * x[k]
        out[i] = s


@vectorised
def add_times_transposed(A: _Rows, x: _Vector, out: _Vector) -> None:
    """Add A'·x to out (d,), for A (≥ n, d), x (n,)."""
    for i in range(x.shape[0]):
        for k in range(out.shape[0]):
            out[k] += A[i, k] * x[i]


@vectorised
def products(V: _Matrix, K: _Matrix) -> None:
    """Overwrite ``K`` with VV'."""
    n, d = V.shape
    for i in range(n):
        for k in range(i + 1):
            s = 0.0
            for j in range(d):
                s += V[i, j] * V[k, j]
            K[i, k] = s
            K[k, i] = s


@vectorised
def add_gram(H: _Matrix, X: _Matrix, c: _Vector) -> None:
    """Add X'·diag(c)·X to the lower triangle of ``H`` (d, d); what stands above it is destroyed.

    Two rows of H and four examples at a time, so that less is moved than multiplied.
    """
    n, d = X.shape
    whole = n - n % 4
    for i in range(0, whole, 4):
        for j in range(0, d - 1, 2):
            a0, a1 = c[i] * X[i, j], c[i + 1] * X[i + 1, j]
            a2, a3 = c[i + 2] * X[i + 2, j], c[i + 3] * X[i + 3, j]
            b0, b1 = c[i] * X[i, j + 1], c[i + 1] * X[i + 1, j + 1]
            b2, b3 = c[i + 2] * X[i + 2, j + 1], c[i + 3] * X[i + 3, j + 1]
            for k in range(j + 2):
                x0, x1, x2, x3 = X[i, k], X[i + 1, k], X[i + 2, k], X[i + 3, k]
                H[j, k] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                H[j + 1, k] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
        if d % 2:
            a0, a1 = c[i] * X[i, d - 1], c[i + 1] * X[i + 1, d - 1]
            a2, a3 = c[i + 2] * X[i + 2, d - 1], c[i + 3] * X[i + 3, d - 1]
            for k in range(d):
                H[d - 1, k] += a0 * X[i, k] + a1 * X[i + 1, k] + a2 * X[i + 2, k] + a3 * X[i + 3, k]
    for i in range(whole, n):
        for j in range(d):
            a0 = c[i] * X[i, j]
            for k in range(j + 1):
                H[j, k] += a0 * X[i, k]


@vectorised
def cholesky(H: _Matrix) -> bool:
    """Factor the first d rows of ``H`` (d + k, d), a positive definite matrix, in place.

    Only the lower triangle is read and written; on the diagonal stands that of L *inverted*, which
    is all that is asked of it. The other k rows x become L⁻¹x. Four rows at a time, for speed.
    False: it is not positive definite to working precision.
    """
    rows, d = H.shape
    for j in range(d):
        s = H[j, j]
        for k in range(j):
            s -= H[j, k] * H[j, k]
        if not s > 0.0:
            return False
        inverse = np.sqrt(s) * (1.0 / s)  # both at once: quicker than one after the other
        H[j, j] = inverse
        whole = rows - (rows - j - 1) % 4
        for i in range(j + 1, whole, 4):
            s0, s1, s2, s3 = H[i, j], H[i + 1, j], H[i + 2, j], H[i + 3, j]
            for k in range(j):
                x = H[j, k]
                s0 -= H[i, k] * x
                s1 -= H[i + 1, k] * x
                s2 -= H[i + 2, k] * x
                s3 -= H[i + 3, k] * x
            H[i, j], H[i + 1, j] = s0 * inverse, s1 * inverse
            H[i + 2, j], H[i + 3, j] = s2 * inverse, s3 * inverse
        for i in range(whole, rows):
            s = H[i, j]
            for k in range(j):
                s -= H[i, k] * H[j, k]
            H[i, j] = s * inverse
    return True


@vectorised
def forward(L: _Matrix, x: _Vector) -> None:
    """Overwrite x (d,) with L⁻¹x; of ``L`` the first d rows are read, as ``cholesky`` left them."""
    for i in range(x.shape[0]):
        s = x[i]
        for k in range(i):
            s -= L[i, k] * x[k]
        x[i] = s * L[i, i]


@vectorised
def backward(L: _Matrix, x: _Vector) -> None:
    """Overwrite x (d,) with L⁻ᵀx; of ``L`` the first d rows are read, as ``cholesky`` left them."""
    for i in range(x.shape[0] - 1, -1, -1):
        x[i] *= L[i, i]
        for k in range(i):
            x[k] -= L[i, k] * x[i]
