"""Rankings at the moment of decision, against scikit-learn and by enumeration."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from stream.quality.ranking import CUTS, MOST_CANDIDATES, ORDERS, Decisions


def test_measures_are_those_of_scikit_learn() -> None:
    """Without ties AUC and NDCG are scikit-learn's, one decision as a query; with ties AUC is."""
    rng = np.random.default_rng(3)
    decisions = Decisions()
    aucs, gains, reciprocal = [], [], []
    untyped: Any = ndcg_score
    for number in range(40):
        values = rng.normal(size=(int(rng.integers(2, 30)), 5))
        values[:, 4] = np.round(values[:, 4])  # many ties
        decisions.add(f"j{number % 7}", values, sampled=False)
        chosen = np.zeros(len(values))
        chosen[0] = 1
        aucs.append([roc_auc_score(chosen, values[:, at]) for at in range(5)])
        gains.append([untyped([chosen], [values[:, 3]], k=cut) for cut in CUTS])
        reciprocal.append(1 / (1 + (values[1:, 3] > values[0, 3]).sum()))
    found = decisions.quality()
    assert found is not None
    assert (found.decisions, found.jobs, found.sampled) == (40, 7, 0)
    for at, order in enumerate(ORDERS[:5]):
        assert found.orders[order]["auc"].value == pytest.approx(np.mean(aucs, axis=0)[at])
    full = found.orders["full"]
    assert [full[f"ndcg_at_{cut}"].value for cut in CUTS] == pytest.approx(np.mean(gains, axis=0))
    assert full["reciprocal_rank"].value == pytest.approx(np.mean(reciprocal))
    best = max(found.orders[order]["auc"].value for order in ORDERS[:3])
    assert found.gain.value == pytest.approx(full["auc"].value - best)
    assert found.gain.low is None  # seven jobs are too few for an interval


def test_random_is_what_random_orders_come_to() -> None:
    """Its measures are the means over all orders of the candidates."""
    decisions = Decisions()
    decisions.add("j", np.zeros((4, 5)), sampled=False)
    found = decisions.quality()
    assert found is not None
    ranks = [order.index(0) + 1 for order in permutations(range(4))]
    random = found.orders["random"]
    assert random["auc"].value == pytest.approx(np.mean([(4 - rank) / 3 for rank in ranks]))
    assert random["reciprocal_rank"].value == pytest.approx(np.mean([1 / rank for rank in ranks]))
    for cut in CUTS:
        wanted = np.mean([(rank <= cut) / math.log2(1 + rank) for rank in ranks])
        assert random[f"ndcg_at_{cut}"].value == pytest.approx(wanted)
        top = np.mean([rank <= cut for rank in ranks])
        assert random[f"top_{cut}"].value == pytest.approx(top)


def test_where_nobody_else_waits_there_is_no_decision() -> None:
    """One candidate alone is no choice."""
    decisions = Decisions()
    decisions.add("j", np.zeros((1, 5)), sampled=False)
    assert decisions.quality() is None


def test_of_too_many_candidates_a_sample_is_ranked_and_counts_for_the_auc_alone() -> None:
    """The AUC of a sample estimates that of all; ranks of a sample would mean nothing."""
    decisions = Decisions()
    rng = np.random.default_rng(0)
    for number in range(300):
        scores = rng.normal(size=1000)
        scores[0] += 1.0
        others, sampled = decisions.sample(range(1, 1000))
        assert sampled
        assert len(set(others)) == MOST_CANDIDATES - 1
        values = np.repeat(scores[[0, *others]][:, None], 5, axis=1)
        decisions.add(f"j{number}", values, sampled=sampled)
    found = decisions.quality()
    assert found is not None
    assert found.sampled == 300
    auc = found.orders["full"]["auc"]
    assert list(found.orders["full"]) == ["auc"]
    assert auc.low is not None
    assert auc.high is not None
    wanted = 0.5 * math.erfc(-1 / 2)  # P(N(1, 1) > N(0, 1))
    assert auc.low < wanted < auc.high
