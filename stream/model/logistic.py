"""Logistic regression with an L2 penalty on standardised features, and how strong the penalty is.

C is the inverse strength: the variance of the prior of a standardised feature's coefficient.

**Choice of C** by cross-validation over jobs: applications to one job are alike (one recruiter, one
posting), so all of a job's are fitted on or all judged. With a few hundred applications the
smallest loss lies anywhere by chance, and so does what the rule of one standard error takes. So C
is the value closest to :data:`TYPICAL` whose loss exceeds the smallest by at most :data:`ERRORS`
standard errors, those of the difference, over jobs. Log loss of what followed, less the least that
any C of the grid reached, on 24 simulated markets (112 to 7,037 applications, 8 to 35 features) and
on the first quarter of the contest log cut at three days (64 to 770 applications, 35 features):

=====================================  =========  =======
rule                                        mean  largest
=====================================  =========  =======
this one                                  0.0038    0.022
C = 0.01 always                           0.0040    0.022
smallest loss                             0.0124    0.080
one standard error (of the mean)          0.0158    0.081
C = 1 always                              0.0749    0.727
=====================================  =========  =======

Shapes: n applications, d features; X (n, d) float64, y (n,) 0/1, jobs (n,) numbers that tell jobs
apart, weights (n,): one of 2 is the row twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from stream.model.folder import Choice
from stream.model.held_out import log_losses, rate_of
from stream.model.rows import Rows

GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Values of C that are tried."""

TYPICAL = 1e-2
"""C unless the cross-validation says otherwise."""

ERRORS = 2.0

MOST = 50_000
"""Applications that the choice looks at, of whole jobs: what is best hardly depends on how many
there are."""

_FOLDS = 5
_FEWEST_OF_EACH = 10  # positives and negatives to choose by
_MAX_ITERATIONS = 1000
_FEW_FEATURES = 200  # up to here the Hessian is quicker to factor than to do without

_Matrix = NDArray[np.float64]
_Vector = NDArray[np.float64]
_Numbers = NDArray[np.int64]


class Chosen(NamedTuple):
    """C, and how it was chosen; ``unchosen`` says why it was not, and is :data:`TYPICAL`."""

    C: float
    choice: Choice | None
    unchosen: str = ""

    @property
    def log_loss(self) -> float:
        """Cross-validated, of what was chosen."""
        if self.choice is None:
            return math.nan
        return self.choice.log_losses[self.choice.grid.index(self.C)]


def fit_logistic(
    rows: Rows, progress: Callable[[str], None] = lambda _: None
) -> tuple[_Vector, Chosen]:
    """Choose C, then fit on all; coefficients (d,) for the features as sent, and what was chosen.

    ``progress`` is told what is being done.
    """
    chosen = choose(rows.X, rows.y, rows.jobs, rows.weights, progress=progress)
    return fit_path(rows.X, rows.y, (chosen.C,), rows.weights)[0], chosen


def choose(
    X: _Matrix,
    y: _Numbers,
    jobs: _Numbers,
    weights: _Vector | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Chosen:
    """Choose C by cross-validation over jobs; without weights each row counts 1."""
    w = np.ones(len(y)) if weights is None else weights
    some = _some_jobs(jobs)
    X, y, jobs, w = X[some], y[some], jobs[some], w[some]
    names, job = np.unique(jobs, return_inverse=True)
    of_each = min(int(y.sum()), len(y) - int(y.sum()))
    if len(names) < _FOLDS:
        return Chosen(TYPICAL, None, f"the applications are of {len(names)} jobs, {_FOLDS} needed")
    if of_each < _FEWEST_OF_EACH:
        unchosen = f"one outcome is there {of_each} times, {_FEWEST_OF_EACH} needed"
        return Chosen(TYPICAL, None, unchosen)
    fold = _folds(job)
    losses, constant = np.empty((len(GRID), len(y))), np.empty(len(y))
    for number in range(_FOLDS):
        progress(f"choosing the regularisation, fold {number + 1} of {_FOLDS}")
        fitted, judged = fold != number, fold == number
        if not 0 < y[fitted].sum() < fitted.sum():
            return Chosen(TYPICAL, None, "one outcome is of a few jobs alone")
        path = fit_path(X[fitted], y[fitted], GRID, w[fitted])
        for row, beta in zip(losses, path, strict=True):
            row[judged] = log_losses(X[judged] @ beta, y[judged])
        constant[judged] = log_losses(rate_of(y[fitted], w[fitted]), y[judged])
    means = np.average(losses, axis=1, weights=w)
    errors = [_error(each - losses[np.argmin(means)], w, job) for each in losses]
    near = [at for at in range(len(GRID)) if means[at] <= means.min() + ERRORS * errors[at]]
    usual = GRID.index(TYPICAL)
    at = min(near, key=lambda at: (abs(at - usual), at))
    choice = Choice(
        jobs=len(names),
        applications=len(y),
        grid=list(GRID),
        log_losses=means.tolist(),
        errors=errors,
        constant_log_loss=float(np.average(constant, weights=w)),
        fold_applications=np.bincount(fold).tolist(),
        fold_log_losses=[
            np.average(losses[:, fold == number], axis=1, weights=w[fold == number]).tolist()
            for number in range(_FOLDS)
        ],
    )
    return Chosen(GRID[at], choice)


def _some_jobs(jobs: _Numbers) -> NDArray[np.bool_] | slice:
    """Tell whose applications are looked at: those of some jobs, the same ones every time."""
    if len(jobs) <= MOST:
        return slice(None)
    names, job, counts = np.unique(jobs, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(names))
    taken = np.zeros(len(names), bool)
    taken[order[: max(int((counts[order].cumsum() <= MOST).sum()), _FOLDS)]] = True
    return taken[job]


def _folds(job: _Numbers) -> _Numbers:
    """Deal jobs out, the largest first, each to the fold that has least; of each application."""
    counts = np.bincount(job)
    of_job, size = np.empty(len(counts), np.int64), [0] * _FOLDS
    for number in np.argsort(-counts, kind="stable"):
        of_job[number] = size.index(min(size))
        size[of_job[number]] += int(counts[number])
    return of_job[job]


def _error(differences: _Vector, weights: _Vector, job: _Numbers) -> float:
    """Return the standard error of their mean, jobs being what is independent."""
    from_mean = differences - np.average(differences, weights=weights)
    sums = np.bincount(job, weights=weights * from_mean)
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / weights.sum())


class Columns(NamedTuple):
    """How features are scaled: constant columns are told apart, the others have a mean and scale.

    ``intercept``: the first constant column that is not zero, with its value; None: there is none,
    and features are scaled but not centred.
    """

    varying: NDArray[np.bool_]
    centre: _Vector
    scale: _Vector
    intercept: tuple[int, float] | None

    @classmethod
    def of(cls, X: _Matrix, weights: _Vector) -> Columns:
        """Look at the features of what is fitted.

        Constant is a column whose numbers differ by no more than float32 can tell.
        """
        low, high = X.min(axis=0), X.max(axis=0)
        size = np.maximum(np.abs(low), np.abs(high)).astype(np.float32)
        constant = high - low <= np.spacing(size)
        ones = np.flatnonzero(constant & (size > 0.0))
        intercept = (int(ones[0]), float(X[0, ones[0]])) if len(ones) else None
        mean = np.average(X, axis=0, weights=weights)
        scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
        centre = mean if intercept else np.zeros(X.shape[1])
        return cls(~constant, np.where(constant, 0.0, centre), scale, intercept)

    def standard(self, X: _Matrix) -> _Matrix:
        """Standardise the columns that vary."""
        on = self.varying
        return np.asarray((X[:, on] - self.centre[on]) / self.scale[on])

    def raw(self, coefficients: _Vector, bias: float) -> _Vector:
        """Fold the scaling back: coefficients (d,) for the features as sent."""
        beta = np.zeros(len(self.varying))
        beta[self.varying] = coefficients / self.scale[self.varying]
        if self.intercept is not None:
            at, value = self.intercept
            beta[at] = (bias - float(beta @ self.centre)) / value
        return beta


def fit_path(
    X: _Matrix, y: _Numbers, path: Sequence[float], weights: _Vector | None = None
) -> list[_Vector]:
    """Fit with each C of a path, from one to the next.

    Constant columns are the intercept (not penalised): the first one that is not zero takes it.
    One thread multiplies matrices: so the same rows give the same bits on any number of cores, and
    where other work fills the cores no thread spins in wait of another (16 times the CPU time, on
    two).

    Returns:
        Coefficients (d,) for the features as sent, of each.

    """
    w = np.ones(len(y)) if weights is None else weights
    columns = Columns.of(X, w)
    if not columns.varying.any():
        odds = w[y == 1].sum() / w[y == 0].sum()
        return [columns.raw(np.empty(0), float(np.log(odds)))] * len(path)
    standard = columns.standard(X)
    untyped: Any = LogisticRegression  # scikit-learn has no types
    model = untyped(
        solver="newton-cholesky" if standard.shape[1] <= _FEW_FEATURES else "lbfgs",
        fit_intercept=columns.intercept is not None,
        max_iter=_MAX_ITERATIONS,
        warm_start=True,
    )
    found = []
    threads: Any = threadpool_limits  # nor has threadpoolctl
    with threads(1, "blas"):
        for C in path:
            model.set_params(C=C).fit(standard, y, w)
            found.append(columns.raw(model.coef_[0], float(model.intercept_[0])))
    return found
