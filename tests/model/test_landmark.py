"""The landmark models: their fits, and how a model folder keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from stream.errors import ModelError
from stream.labels.delays import DelayCurve, default_curve
from stream.model.coefficients import Linear
from stream.model.folder import MANIFEST, load_model, new_model, save_model, with_landmark
from stream.model.landmark import Landmark, columns, log_odds_now, order_now
from stream.model.landmark_fit import FEWEST, fit_answered, fit_choice, fit_landmark
from stream.policy import DAY_MS

WINDOW_MS = 14 * DAY_MS
BAYES = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
CURVE = default_curve(WINDOW_MS)
LANDMARK = Landmark(
    intercept=0.1, answered=(0.9, 0.8, 0.1, -0.05, 0.2), next=(0.5,) * 5, moments=9, decisions=3
)
Floats = NDArray[np.float64]


def waiting(n: int, seed: int = 0) -> tuple[Floats, Floats, NDArray[np.int64], Floats]:
    """Return scores, ages and answers of those who still wait, and the true probabilities.

    Who is answered is so after an exponential delay that depends on nothing, cut at the window.
    """
    rng = np.random.default_rng(seed)
    scores = rng.normal(-0.5, 1.0, n)
    comes = rng.random(n) < 1 / (1 + np.exp(-scores))
    whole = -np.expm1(-WINDOW_MS / (2.5 * DAY_MS))
    delays = -np.log1p(-rng.random(n) * whole) * 2.5 * DAY_MS
    ages = rng.uniform(0, WINDOW_MS, n)
    left = 1 - -np.expm1(-ages / (2.5 * DAY_MS)) / whole
    odds = np.exp(scores) * left
    still = ~comes | (delays > ages)
    return scores[still], ages[still], comes[still].astype(np.int64), (odds / (1 + odds))[still]


def decisions(count: int, beta: Floats, seed: int = 1) -> tuple[Floats, NDArray[np.int64]]:
    """Draw choices from what a conditional logistic regression with these coefficients says."""
    rng = np.random.default_rng(seed)
    blocks, starts, at = [], [], 0
    for _ in range(count):
        size = int(rng.integers(2, 9))
        X = rng.normal(size=(size, 5)) + rng.normal(size=5)  # shared by all: tells nothing
        p = np.exp(X @ beta)
        first = rng.choice(size, p=p / p.sum())
        blocks.append(np.vstack([X[first], np.delete(X, first, axis=0)]))
        starts.append(at)
        at += size
    return np.vstack(blocks), np.array(starts)


def choice_loss(X: Floats, starts: NDArray[np.int64], beta: Floats) -> float:
    """Minus log-likelihood of the first of each decision, with the penalty on scaled columns."""
    total = 5.0 * float(((beta - BAYES) ** 2 * X.var(axis=0)).sum())
    for begin, end in zip(starts, [*starts[1:], len(X)], strict=True):
        scores = X[begin:end] @ beta
        total += float(np.log(np.exp(scores).sum()) - scores[0])
    return total


def test_the_choice_fit_is_where_no_coefficient_can_gain() -> None:
    """Finite differences of the conditional likelihood, by brute force, vanish at the fit."""
    X, starts = decisions(300, np.array([0.8, 0.0, -0.5, 0.3, 0.0]))
    found = fit_choice(X, starts)
    for at in range(5):
        step = np.eye(5)[at] * 1e-4
        slope = choice_loss(X, starts, found + step) - choice_loss(X, starts, found - step)
        assert abs(slope / 2e-4) < 1e-3


def test_the_choice_fit_finds_what_choices_were_drawn_from() -> None:
    """With thousands of decisions, and a column that never varies, which gets nothing."""
    beta = np.array([0.8, 0.0, -0.5, 0.3, 0.0])
    X, starts = decisions(6000, beta)
    X[:, 4] = 1.0
    assert fit_choice(X, starts) == pytest.approx(beta, abs=0.08)


def test_little_history_changes_little() -> None:
    """Of a few decisions that say the contrary, Bayes' rule stays: score and silence count."""
    X, starts = decisions(5, -BAYES)
    found = fit_choice(X, starts)
    assert found[:2] == pytest.approx([1.0, 1.0], abs=0.4)
    assert np.abs(found[2:]).max() < 0.4


def test_columns_at_extremes_leave_the_choice_fit_finite() -> None:
    """Where one column tells every choice, its coefficient stays bounded."""
    X, starts = decisions(100, np.zeros(5))
    X[:, 0] = 0.0
    X[starts, 0] = 1e3
    found = fit_choice(X, starts)
    assert np.isfinite(found).all()
    assert found[0] > 0


def test_the_probability_fit_is_where_no_coefficient_can_gain() -> None:
    """Finite differences of the penalised likelihood, by brute force, vanish at the fit."""
    scores, ages, y, _ = waiting(2000)
    later = np.random.default_rng(2).poisson(2.0, len(y)).astype(np.float64)
    X = columns(scores, ages, later, CURVE)
    intercept, found = fit_answered(X, y)

    def loss(shift: Floats) -> float:
        margins = intercept + shift[0] + X @ (found + shift[1:])
        p = 1 / (1 + np.exp(-margins))
        fit = -(y * np.log(p) + (1 - y) * np.log1p(-p)).sum()
        return float(fit + 5.0 * ((found + shift[1:] - BAYES) ** 2 * X.var(axis=0)).sum())

    for at in range(6):
        step = np.eye(6)[at] * 1e-4
        assert abs(loss(step) - loss(-step)) / 2e-4 < 1e-3


def test_without_a_penalty_the_probability_fit_is_scikit_learns() -> None:
    """Coefficients and intercept are those of its logistic regression with next to no penalty."""
    scores, ages, y, _ = waiting(4000)
    later = np.random.default_rng(2).poisson(2.0, len(y)).astype(np.float64)
    X = columns(scores, ages, later, CURVE)
    intercept, found = fit_answered(X, y, ridge=1e-6)
    standard = (X - X.mean(axis=0)) / X.std(axis=0)
    untyped: Any = LogisticRegression
    oracle = untyped(C=1e6, tol=1e-10, max_iter=1000).fit(standard, y)
    assert intercept + X @ found == pytest.approx(oracle.decision_function(standard), abs=1e-3)


def test_where_delays_depend_on_nothing_the_fit_is_bayes_rule() -> None:
    """It tells the true probabilities at every age, as the score and the delays alone do."""
    scores, ages, y, _ = waiting(60_000)
    none = np.zeros(len(y))
    found = fit_landmark(columns(scores, ages, none, CURVE), y, *decisions(FEWEST, np.zeros(5)))
    new_scores, new_ages, answered, truth = waiting(60_000, seed=9)
    X = columns(new_scores, new_ages, np.zeros(len(truth)), CURVE)
    for landmark in (None, found):
        p = 1 / (1 + np.exp(-log_odds_now(landmark, X)))
        assert np.abs(p - truth).mean() < 0.01
        for low, high in ((0, 0.25), (0.25, 1), (1, 3), (3, 7), (7, 14)):
            there = (new_ages >= low * DAY_MS) & (new_ages < high * DAY_MS)
            assert 0.9 < answered[there].sum() / p[there].sum() < 1.1, (low, high)


def test_too_little_is_not_fitted() -> None:
    """With one answer, or one decision, fewer than needed there is no landmark."""
    X, y = np.random.default_rng(3).normal(size=(200, 5)), np.repeat([0, 1], 100)
    chosen, starts = decisions(FEWEST, np.zeros(5))
    assert fit_landmark(X, y, chosen, starts) is not None
    assert fit_landmark(X, y, chosen, starts[: FEWEST - 1]) is None
    assert fit_landmark(X[: 100 + FEWEST - 1], y[: 100 + FEWEST - 1], chosen, starts) is None


def test_more_later_answers_than_it_was_fitted_on_count_as_so_many() -> None:
    """A fit knows the most that it saw; beyond it a hot job's probabilities and order stay put."""
    scores, ages, y, _ = waiting(4000)
    later = np.random.default_rng(2).poisson(2.0, len(y)).astype(np.float64)
    chosen, starts = decisions(FEWEST, np.zeros(5))
    chosen[:, 3] = 1.0
    found = fit_landmark(columns(scores, ages, later, CURVE), y, chosen, starts)
    assert found is not None
    most = later.max()
    rows = [
        columns(np.full(1, 0.5), np.full(1, DAY_MS), np.full(1, count), CURVE)
        for count in (most - 1, most, most + 1, 50 * most)
    ]
    for ask in (log_odds_now, order_now):
        below, at, *beyond = (float(ask(found, row)[0]) for row in rows)
        assert below != at
        assert beyond == [at, at]


def test_columns_are_what_they_say() -> None:
    """Score, ln(1 − F), ln(age + 1 h) in days, later answers and their logarithm; bounded at W."""
    curve = DelayCurve((DAY_MS, 2 * DAY_MS), (0.75, 1.0))
    X = columns(np.array([1.5, 0.0]), np.array([1.0, 5.0]) * DAY_MS, np.array([3.0, 0.0]), curve)
    assert X[0] == pytest.approx([1.5, np.log(0.25), np.log(1 + 1 / 24), 3.0, np.log(4.0)])
    assert X[1] == pytest.approx([0.0, np.log(1e-3), np.log(5 + 1 / 24), 0.0, 0.0])
    assert log_odds_now(None, X) == pytest.approx(X[:, 0] + X[:, 1])
    assert log_odds_now(LANDMARK, X) == pytest.approx(0.1 + X @ [0.9, 0.8, 0.1, -0.05, 0.2])
    assert order_now(LANDMARK, X) == pytest.approx(X.sum(axis=1) / 2)


def test_a_model_folder_keeps_its_landmark(tmp_path: Path) -> None:
    """It is part of the version; changed by hand, or no landmark at all, it is refused on load."""
    names = {"global": ["one", "x"], "per_member": ["m"], "per_job": ["j"]}
    plain = new_model(
        Linear(np.array([0.5, -2.0])),
        names,
        trained_from_ms=1,
        trained_until_ms=2,
        applications=3,
        positives=1,
        regularisation=1.0,
        delays=CURVE,
    )
    model = with_landmark(plain, LANDMARK)
    assert model.version != plain.version
    save_model(tmp_path, model)
    assert load_model(tmp_path).manifest == model.manifest
    written = msgspec.json.decode((tmp_path / MANIFEST).read_bytes())
    for change, said in (
        ({"answered": [0.9, 0.8, 0.1, -0.05, 0.3]}, "not of its model_version"),
        ({"answered": [1.0]}, "5 finite coefficients"),
        ({"next": "much"}, "damaged"),
    ):
        changed = written | {"landmark": written["landmark"] | change}
        (tmp_path / MANIFEST).write_bytes(msgspec.json.encode(changed))
        with pytest.raises(ModelError, match=said):
            load_model(tmp_path)
    save_model(tmp_path, plain)
    assert load_model(tmp_path).manifest.landmark is None
