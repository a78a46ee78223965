"""How strongly the global model is regularised, and what counts as a constant column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stream.model import logistic
from stream.model.logistic import GRID, TYPICAL, choose, fit_logistic, fit_path
from stream.model.rows import Rows

Data = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


def rows(
    jobs: int, of_each: int, strength: float, noise: int = 3, seed: int = 0, spread: float = 0.5
) -> Data:
    """Return X with a constant, one feature that counts and some that do not; y and jobs.

    Jobs differ: in their rate (``spread``) and in the noise features, which are the job's.
    """
    rng = np.random.default_rng(seed)
    job = np.repeat(np.arange(jobs), of_each)
    n = jobs * of_each
    X = np.column_stack(
        [np.ones(n), rng.normal(size=n), rng.normal(size=(jobs, noise))[job]]
    ).astype(np.float32)
    margin = strength * X[:, 1] - 1 + rng.normal(0, spread, jobs)[job]
    y = (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(np.int64)
    return X.astype(np.float64), y, job.astype(np.int64)


def test_losses_are_those_of_scikit_learns_cross_validation() -> None:
    """With five jobs each is a fold: losses of each C are those of leave-one-job-out."""
    X, y, jobs = rows(5, 60, 1.0)
    chosen = choose(X, y, jobs).choice
    assert chosen is not None
    assert (chosen.jobs, chosen.applications, chosen.fold_applications) == (5, 300, [60] * 5)
    pipeline: Any = make_pipeline
    classifier: Any = LogisticRegression
    scaler: Any = StandardScaler
    predict: Any = cross_val_predict
    for at in (0, 4, 10):
        model = pipeline(scaler(), classifier(C=GRID[at], tol=1e-8))
        cut = LeaveOneGroupOut()
        p = predict(model, X[:, 1:], y, groups=jobs, cv=cut, method="predict_proba")[:, 1]
        assert chosen.log_losses[at] == pytest.approx(log_loss(y, p), abs=1e-3)
    rates = [np.mean(y[jobs != job]) for job in jobs]
    assert chosen.constant_log_loss == pytest.approx(log_loss(y, rates), abs=2e-3)
    parts = np.array(chosen.fold_log_losses)
    assert parts.shape == (5, len(GRID))
    assert np.allclose(parts.mean(axis=0), chosen.log_losses)


@pytest.mark.parametrize("seed", range(4))
def test_few_rows_and_many_features_are_held_near_zero(seed: int) -> None:
    """Of 300 rows whose features are noise, the model is hardly worse than a constant."""
    X, y, jobs = rows(12, 25, 0.0, noise=30, seed=seed, spread=1.0)
    beta, chosen = fit_logistic(Rows(X, y, np.ones(len(y)), np.zeros_like(y), jobs, aged=False))
    assert chosen.C <= TYPICAL
    new, truth, _ = rows(200, 20, 0.0, noise=30, seed=100 + seed, spread=1.0)
    ours = log_loss(truth, 1 / (1 + np.exp(-new @ beta)))
    (loose,) = fit_path(X, y, (1.0,))
    before = log_loss(truth, 1 / (1 + np.exp(-new @ loose)))
    constant = log_loss(truth, np.full(len(truth), y.mean()))
    assert ours < constant + 0.05
    assert ours - constant < 0.5 * (before - constant)


def test_strong_features_are_let_free() -> None:
    """Where features tell much and rows are many, C is larger than usual."""
    X, y, jobs = rows(40, 50, 6.0, spread=0.0)
    chosen = choose(X, y, jobs)
    assert chosen.C > TYPICAL
    assert chosen.choice is not None
    at = GRID.index(chosen.C)
    losses, errors = chosen.choice.log_losses, chosen.choice.errors
    assert losses[at] <= min(losses) + 2 * errors[at]
    assert losses[at - 1] > min(losses) + 2 * errors[at - 1]


def test_the_choice_is_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the jobs are numbered, also where only some of them are looked at."""
    X, y, jobs = rows(30, 20, 1.0)
    assert choose(X, y, jobs) == choose(X, y, jobs)
    assert choose(X, y, 1000 + 7 * jobs) == choose(X, y, jobs)
    monkeypatch.setattr(logistic, "MOST", 250)
    some = choose(X, y, jobs)
    assert some == choose(X, y, jobs)
    assert some.choice is not None
    assert (some.choice.applications, some.choice.jobs) == (240, 12)


@pytest.mark.parametrize(
    ("jobs", "positives", "says"),
    [(4, 30, "of 4 jobs, 5 needed"), (8, 3, "there 3 times, 10 needed")],
)
def test_too_little_to_choose_by_is_said(jobs: int, positives: int, says: str) -> None:
    """Then C is the usual one, and the reason is one line."""
    X, _, job = rows(jobs, 20, 1.0)
    y = (np.arange(len(X)) % (len(X) // positives) == 0).astype(np.int64)
    y[np.flatnonzero(y)[positives:]] = 0
    chosen = choose(X, y, job)
    assert (chosen.C, chosen.choice) == (TYPICAL, None)
    assert says in chosen.unchosen


def test_one_outcome_in_one_job_is_said() -> None:
    """A fold without that job would have one outcome only."""
    X, _, job = rows(6, 20, 1.0)
    chosen = choose(X, (job == 0).astype(np.int64), job)
    assert (chosen.C, chosen.choice) == (TYPICAL, None)
    assert "one outcome is of a few jobs alone" in chosen.unchosen


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-13, 1.0, 1e6])
@pytest.mark.parametrize("constant", [1e-20, 1.0, 1e6])
def test_small_features_are_no_constants(scale: float, constant: float) -> None:
    """Whatever a feature's unit is, scores are the same; a constant is one at any size."""
    rng = np.random.default_rng(3)
    feature = rng.uniform(-1, 1, 400)
    y = (rng.random(400) < 1 / (1 + np.exp(1 - 3 * feature))).astype(np.int64)
    plain, scaled = (
        np.column_stack([one * np.ones(400), unit * feature]).astype(np.float32).astype(np.float64)
        for one, unit in ((1.0, 1.0), (constant, scale))
    )
    (wanted,), (found,) = (fit_path(X, y, (1.0,)) for X in (plain, scaled))
    assert np.allclose(scaled @ found, plain @ wanted, atol=1e-2)
    assert np.std(plain @ wanted) > 1


def test_what_differs_by_rounding_alone_is_constant() -> None:
    """A column whose numbers are neighbours in float32 is the intercept."""
    X = np.full((100, 2), 0.1, np.float32)
    X[::3, 0] = np.nextafter(np.float32(0.1), np.float32(1))
    X[:, 1] = np.linspace(-1, 1, 100)
    y = (np.arange(100) % 4 == 0).astype(np.int64)
    (beta,) = fit_path(X.astype(np.float64), y, (1.0,))
    assert abs(X.astype(np.float64)[:, 0] * beta[0] - np.log(25 / 75)).max() < 0.2


def test_a_weight_of_two_is_the_row_twice() -> None:
    """A fit with weights is that of repeated rows, scaling included."""
    X, y, _ = rows(12, 40, 1.0)
    weights = np.random.default_rng(5).integers(1, 3, len(y)).astype(np.float64)
    twice = np.repeat(np.arange(len(y)), weights.astype(int))
    for C, weighed, repeated in zip(
        GRID, fit_path(X, y, GRID, weights), fit_path(X[twice], y[twice], GRID), strict=True
    ):
        assert weighed == pytest.approx(repeated, abs=1e-5), C


def test_losses_are_weighed_means() -> None:
    """With a job to a fold, whose parts do not depend on weights, they are those of rows twice."""
    X, y, jobs = rows(5, 60, 1.0)
    weights = np.tile([1.0, 2.0, 2.0], 100)  # each job is as large as the others
    twice = np.repeat(np.arange(len(y)), weights.astype(int))
    one = choose(X, y, jobs, weights).choice
    other = choose(X[twice], y[twice], jobs[twice]).choice
    assert one is not None
    assert other is not None
    assert one.log_losses == pytest.approx(other.log_losses, abs=1e-6)
    assert one.errors == pytest.approx(other.errors, abs=1e-6)
    assert one.constant_log_loss == pytest.approx(other.constant_log_loss, abs=1e-12)
    assert np.allclose(one.fold_log_losses, other.fold_log_losses, atol=1e-6)
