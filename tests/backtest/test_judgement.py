"""Figures equal scikit-learn's; intervals cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from stream.backtest.judgement import DRAWS, Blocks, Judge, Sums, draws_of, interval
from stream.policy import DAY_MS
from stream.quality.prequential import probability


@given(seed=st.integers(0, 10_000), n=st.integers(20, 200), blocks=st.integers(1, 8))
def test_every_draw_is_judged_as_if_its_applications_were_repeated(
    seed: int, n: int, blocks: int
) -> None:
    """AUC and log loss of a draw are scikit-learn's over the repeated applications, with ties."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n).astype(np.float64)
    scores = rng.normal(size=n).round(1)
    of = rng.integers(0, blocks, n)
    sums = Judge(y, of, blocks).sums(scores)
    draws = rng.integers(0, 4, (5, blocks)).astype(np.float64)
    auc, loss = sums.auc(draws), sums.log_loss(draws)
    over = sums.observed_over_expected(draws)
    for at, draw in enumerate(draws):
        again = np.repeat(np.arange(n), draw[of].astype(int))
        if not len(again):
            assert np.isnan(loss[at])
            continue
        p = probability(scores[again])
        assert loss[at] == pytest.approx(log_loss(y[again], p, labels=[0, 1]))
        assert over[at] == pytest.approx(y[again].sum() / p.sum())
        if 0 < y[again].sum() < len(again):
            assert auc[at] == pytest.approx(roc_auc_score(y[again], scores[again]))
        else:
            assert np.isnan(auc[at])


def test_intervals_cover_the_truth_where_blocks_differ() -> None:
    """With weeks that differ, the interval of a mean loss covers it about as often as it says."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        level = rng.normal(0.0, 0.3, 20)  # what the applications of a week have in common
        of = np.repeat(np.arange(20), 30)
        chance = 0.3 + 0.05 * level[of]
        y = (rng.random(600) < chance).astype(np.float64)
        sums = Judge(y, of, 20).sums(np.zeros(600))
        share = sums.observed_over_expected(draws_of(20))
        found = interval(0.0, share, 20)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.6 <= found.high
    assert 0.86 < covered / 200 < 0.99


def test_few_blocks_give_no_interval() -> None:
    """With four weeks a figure stands alone."""
    found = interval(0.7, np.linspace(0.6, 0.8, DRAWS), 4)
    assert (found.value, found.low, found.high) == (0.7, None, None)


def test_time_is_cut_into_weeks_or_days() -> None:
    """Eight weeks and more are cut into weeks, less into days."""
    long = Blocks.cut(np.arange(60) * DAY_MS, 0)
    assert (len(long.from_ms), long.length_ms, int(long.of[8])) == (9, 7 * DAY_MS, 1)
    short = Blocks.cut(DAY_MS // 2 + np.arange(20) * DAY_MS, 0)
    assert (len(short.from_ms), short.length_ms, int(short.of[8])) == (20, DAY_MS, 8)


def test_calibration_is_by_tenths() -> None:
    """Ten bins of equal size, from the least to the most likely; expected meets observed."""
    rng = np.random.default_rng(2)
    scores = rng.normal(size=50_000)
    y = (rng.random(50_000) < probability(scores)).astype(np.float64)
    bins = Judge(y, np.zeros(50_000, dtype=np.int64), 1).calibration(scores)
    assert [one.applications for one in bins] == [5000] * 10
    assert all(one.observed == pytest.approx(one.expected, abs=0.03) for one in bins)
    expected = [one.expected for one in bins]
    assert expected == sorted(expected)


def test_the_same_draws_for_every_setting() -> None:
    """Draws depend on the number of blocks alone, so that differences are paired."""
    assert np.array_equal(draws_of(9), draws_of(9))
    assert np.allclose(draws_of(9).sum(axis=1), 9)
    sums = Sums(*(np.ones((2, 2)), np.ones(2), np.ones(2), np.ones(2), np.ones(2)))
    assert sums.auc(np.ones((1, 2)))[0] == pytest.approx(1.0)
