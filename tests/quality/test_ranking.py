"""Rankings at the moment of decision, against scikit-learn and by enumeration."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from stream.quality.ranking import CUTS, MOST_CANDIDATES, ORDERS, Decisions, row, watched
from stream.state.waiting import Candidates, mark


def test_measures_are_those_of_scikit_learn() -> None:
    """Without ties AUC and NDCG are scikit-learn's, one decision as a query; with ties AUC is."""
    rng = np.random.default_rng(3)
    decisions = Decisions()
    aucs, gains, reciprocal = [], [], []
    untyped: Any = ndcg_score
    for number in range(40):
        values = rng.normal(size=(int(rng.integers(2, 30)), 5))
        values[:, 4] = np.round(values[:, 4])  # many ties
        decisions.add(row(number % 7, values.T, sampled=False))
        chosen = np.zeros(len(values))
        chosen[0] = 1
        aucs.append([roc_auc_score(chosen, values[:, at]) for at in range(5)])
        gains.append([untyped([chosen], [values[:, 3]], k=cut) for cut in CUTS])
        reciprocal.append(1 / (1 + (values[1:, 3] > values[0, 3]).sum()))
    found = decisions.quality(("global",))
    assert found is not None
    assert (found.decisions, found.owners, found.sampled) == (40, 7, 0)
    for at, order in enumerate(ORDERS[:5]):
        assert found.orders[order]["auc"].value == pytest.approx(np.mean(aucs, axis=0)[at])
    full = found.orders["full"]
    assert [full[f"ndcg_at_{cut}"].value for cut in CUTS] == pytest.approx(np.mean(gains, axis=0))
    assert full["reciprocal_rank"].value == pytest.approx(np.mean(reciprocal))
    best = max(found.orders[order]["auc"].value for order in ORDERS[:3])
    assert found.gain.value == pytest.approx(full["auc"].value - best)
    assert found.orders[found.best]["auc"].value == best
    assert found.gain.low is None  # seven jobs are too few for an interval


def test_random_is_what_random_orders_come_to() -> None:
    """Its measures are the means over all orders of the candidates."""
    decisions = Decisions()
    decisions.add(row(1, np.zeros((5, 4)), sampled=False))
    found = decisions.quality(("global",))
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


def test_where_nothing_was_decided_there_is_nothing_to_judge() -> None:
    """No decision, no figure."""
    assert Decisions().quality(("global",)) is None


def test_of_too_many_candidates_a_sample_is_ranked_and_counts_for_the_auc_alone() -> None:
    """The AUC of a sample estimates that of all; ranks of a sample would mean nothing."""
    decisions = Decisions()
    rng = np.random.default_rng(0)
    for number in range(300):
        scores = rng.normal(size=1000)
        scores[0] += 1.0
        waiting: Candidates[int] = Candidates(f"j{number}")
        for at in range(1000):
            waiting.add(f"a{at}", at, at)
        others, sampled = waiting.others("a0", 1000, 1000, MOST_CANDIDATES - 1)
        assert sampled
        assert len(set(others) - {0}) == MOST_CANDIDATES - 1
        values = np.repeat(scores[[0, *others]][None, :], 5, axis=0)
        decisions.add(row(number, values, sampled=sampled))
    found = decisions.quality(("global",))
    assert found is not None
    assert found.sampled == 300
    auc = found.orders["full"]["auc"]
    assert list(found.orders["full"]) == ["auc"]
    assert auc.low is not None
    assert auc.high is not None
    wanted = 0.5 * math.erfc(-1 / 2)  # P(N(1, 1) > N(0, 1))
    assert auc.low < wanted < auc.high


@pytest.mark.parametrize("whole", [3, 12])
def test_an_interval_is_of_the_decisions_that_a_measure_counts(whole: int) -> None:
    """Jobs without any of these say nothing of it: draws of them alone are not a measure of 0."""
    decisions = Decisions()
    for number in range(300):
        decisions.add(row(number, np.zeros((5, MOST_CANDIDATES)), sampled=True))
    for number in range(whole):
        decisions.add(row(number, np.zeros((5, 2)), sampled=False))
    found = decisions.quality(("global",))
    assert found is not None
    random = found.orders["random"]
    top = random["top_1"]
    assert (top.value, top.low, top.high) == (0.5, *((0.5, 0.5) if whole == 12 else (None, None)))
    assert random["auc"].low == 0.5


def test_a_sample_depends_on_nothing_but_who_waits() -> None:
    """Whenever it was first asked for, and whoever came and went, it is the same; all are equal."""
    rng = np.random.default_rng(1)
    grown: Candidates[int] = Candidates("j")
    there: set[int] = set()
    for step in range(600):
        at = int(rng.integers(0, 400))
        if at in there:
            there.remove(at)
            grown.remove(f"a{at}")
        else:
            there.add(at)
            grown.add(f"a{at}", at, at)
        grown.others(f"a{at}", 300, 250, 20)
        if step % 50 == 49:
            fresh: Candidates[int] = Candidates("j")
            for each in sorted(there):
                fresh.add(f"a{each}", each, each)
            for most in (20, 500):
                found, sampled = fresh.others("a0", 300, 250, most)
                other, too = grown.others("a0", 300, 250, most)
                able = {each for each in there if 50 <= each <= 300} - {0}
                assert (set(found), sampled) == (set(other), too)
                assert sampled == (len(able) > most)
                assert len(found) == min(len(able), most)
                assert set(found) <= able
    drawn = np.zeros(400)
    whole: Candidates[int] = Candidates("j")
    for at in range(400):
        whole.add(f"a{at}", 0, at)
    for at in range(400):
        drawn[whole.others(f"a{at}", 0, 0, 40)[0]] += 1
    assert (drawn == 40).all()  # each as often as any other


def test_owners_are_halved_with_all_of_their_decisions() -> None:
    """Half of the owners are left, each whole, however it is asked for; sums take the fewest."""
    rng = np.random.default_rng(2)
    owners = [mark(f"j{number % 200}") for number in range(1000)]
    rows = [row(each, rng.normal(size=(5, 4)), sampled=False) for each in owners]
    early, late = Decisions(), Decisions()
    early.halve(2)
    for each in rows:
        early.add(each)
        late.add(each)
    late.halve(1)
    late.halve(2)
    assert early == late
    assert len(early) == sum(owner < 2**62 for owner in owners)
    assert 20 < len({owner for owner in owners if watched(owner, 2)}) < 80
    one, other = Decisions(), Decisions()
    for at, each in enumerate(rows):
        one.add(each, 0) if at % 2 else other.add(each, 2)
    found = (one + other).quality(("global",))
    wanted = early.quality(("global",))
    assert found is not None
    assert wanted is not None
    assert found.share == wanted.share == 0.25
    assert found.decisions == wanted.decisions
    assert found.orders["full"]["auc"].value == pytest.approx(wanted.orders["full"]["auc"].value)
