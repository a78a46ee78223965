"""Timeliness: shares of first labels and positives by age, and flips by rule."""

from __future__ import annotations

import tracemalloc
from array import array

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from stream.labels.timeliness import Timeliness, shares
from stream.policy import DAY_MS, HOUR_MS, LabelPolicy
from stream.quality.prequential import quality
from tests.kit import application, closing, engagement
from tests.labels.bench import Bench


def test_shares_and_flips_follow_from_the_labels() -> None:
    """First labels after an hour, two days and at the end; one inferred label turns positive."""
    bench = Bench(LabelPolicy(aging=()))
    seen = Timeliness()
    changes = []
    for event in (
        application("a", 0),
        application("b", 1),
        application("c", 2, job="k"),
        engagement("e", "b", 1 + HOUR_MS),
        engagement("f", "a", 5 * DAY_MS),
        closing("x", 2 * DAY_MS, job="k"),
    ):
        changes += bench.apply(event)
    changes += bench.move(15 * DAY_MS)
    for change in changes:
        seen.observe(change)
    assert shares(seen.first_within) == pytest.approx(
        {"1h": 1 / 3, "1d": 2 / 3, "3d": 1.0, "7d": 1.0, "14d": 1.0}
    )
    assert shares(seen.positives_known_within) == {
        "1h": 0.5,
        "1d": 0.5,
        "3d": 0.5,
        "7d": 1.0,
        "14d": 1.0,
    }
    assert seen.flips == {"later_response": 1}
    assert seen.labels == {"positive": 2, "negative_inferred": 2, "negative_conclusive": 1}
    assert seen.closed == 3


@pytest.mark.parametrize("n", [50, 600_000])
def test_quality_is_that_of_scikit_learn(n: int) -> None:
    """With many ties, and in parts or in one."""
    rng = np.random.default_rng(n)
    scores = np.round(rng.normal(size=n) * 2.0, 1)
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-scores))).astype(np.int8)
    found = quality(array("b", y.tobytes()), scores)
    assert found is not None
    p = 1.0 / (1.0 + np.exp(-scores))
    assert found.auc == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert found.log_loss == pytest.approx(log_loss(y, p), abs=1e-12)
    assert found.observed_over_expected == pytest.approx(y.sum() / p.sum())


def test_the_log_loss_of_certain_scores_is_finite() -> None:
    """Scores that are certain, and wrong, are clipped as scikit-learn clips them: to the bit."""
    scores = np.array([-800.0, -40.0, -36.0, -0.1, 0.0, 0.1, 36.0, 40.0, 800.0] * 2)
    y = np.repeat(np.array([0, 1], np.int8), len(scores) // 2)
    found = quality(array("b", y.tobytes()), scores)
    assert found is not None
    p = 1.0 / (1.0 + np.exp(-np.clip(scores, -500.0, 500.0)))
    assert found.log_loss == log_loss(y, p, normalize=False) / len(y)


def test_quality_of_many_takes_little_memory() -> None:
    """Some multiples of the scores themselves: a replay of years ends with millions of them."""
    n = 1_000_000
    rng = np.random.default_rng(0)
    targets, scores = array("b", rng.integers(0, 2, n).tolist()), array("d", rng.normal(size=n))
    tracemalloc.start()
    quality(targets, scores)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 8 * n


def test_nothing_to_judge_is_no_quality() -> None:
    """Without applications there is no quality; with one class there is no AUC."""
    assert quality(array("b"), array("d")) is None
    one = quality(array("b", [1, 1]), array("d", [0.0, 800.0]))
    assert one is not None
    assert one.auc is None
    assert one.log_loss == pytest.approx(0.5 * 0.6931, abs=1e-3)
    assert shares(Timeliness().first_within)["1d"] is None
