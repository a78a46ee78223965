"""How good are rankings at the moment of a decision?

A recruiter sees the applicants of one job. When one of them is answered for the first time, the
others who wait for an answer were there to be chosen too. So each decision ranks one against those
others, by scores of that moment (Li et al., *Unbiased offline evaluation of contextual-bandit-based
news article recommendation algorithms*, WSDM 2011, call a replay over logged decisions so). Scores
given at application cannot be compared within a job: its intercept has moved between them.

Beside the scores stand two orders that know nothing: *newest first* and *random* (in expectation).

Ranks count from 1; ties share their mean rank. With rank r among n candidates: AUC is the share of
the other n − 1 that rank lower, the reciprocal rank 1/r, NDCG@k is 1/log2(1 + r) for r ≤ k. Where
candidates were sampled only the AUC counts. Intervals are by jobs, which are what is independent.

Shapes: D decisions, J jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

MOST_CANDIDATES: Final = 100
"""Candidates of one decision at the most; of more, a sample."""

ORDERS: Final = ("global", "with_member", "with_job", "full", "newest_first", "random")
CUTS: Final = (1, 5, 10)
MEASURES: Final = (
    "auc",
    "reciprocal_rank",
    *(f"ndcg_at_{cut}" for cut in CUTS),
    *(f"top_{cut}" for cut in CUTS),
)

_DRAWS: Final = 1000
_FEWEST_JOBS: Final = 10
_SEED: Final = 20_110_209  # any: the same log gives the same sample and intervals
_RANDOM: Final = ORDERS.index("random")

_Floats = NDArray[np.float64]


class Ranked(msgspec.Struct, frozen=True):
    """A mean over decisions with its 95 % interval, None where there are too few jobs."""

    value: float
    low: float | None = None
    high: float | None = None


class RankingQuality(msgspec.Struct, frozen=True, kw_only=True):
    """What the orders were worth: by order, then by measure.

    ``gain`` is the AUC of the whole score less that of the best of its parts, with its interval:
    only where all of it lies below 0 do the effects harm rankings.
    """

    decisions: int
    jobs: int
    sampled: int
    orders: dict[str, dict[str, Ranked]]
    gain: Ranked


class Decisions:
    """Collects decisions.

    Attributes:
        rng: draws candidates where there are too many.

    """

    def __init__(self) -> None:
        self.rng = np.random.default_rng(_SEED)
        self._jobs: list[str] = []
        self._candidates: list[int] = []
        self._sampled: list[bool] = []
        self._ranks: list[_Floats] = []

    def sample(self, others: Sequence[int]) -> tuple[list[int], bool]:
        """Return who is compared with the one who was answered, and whether that is a sample."""
        if len(others) < MOST_CANDIDATES:
            return list(others), False
        drawn = self.rng.choice(len(others), MOST_CANDIDATES - 1, replace=False)
        return [others[at] for at in sorted(drawn.tolist())], True

    def add(self, job_id: str, values: _Floats, *, sampled: bool) -> None:
        """Take a decision in.

        Args:
            job_id: whose. values: by which candidates are ranked, the highest first (n, 5), in the
                order of :data:`ORDERS` without ``random``; the first row is of the one answered.
            sampled: whether there were more candidates.

        """
        if len(values) < 2:
            return
        above = (values[1:] > values[0]).sum(axis=0)
        level = (values[1:] == values[0]).sum(axis=0)
        self._jobs.append(job_id)
        self._candidates.append(len(values))
        self._sampled.append(sampled)
        self._ranks.append(1.0 + above + level / 2)

    def quality(self) -> RankingQuality | None:
        """Judge; None where there was nothing to choose from."""
        if not self._jobs:
            return None
        _, of_job = np.unique(self._jobs, return_inverse=True)
        jobs = int(of_job.max()) + 1
        n = np.array(self._candidates, dtype=np.float64)
        measured = self._measured(n)
        counts = np.empty((jobs, len(MEASURES)))
        sums = np.empty((jobs, len(ORDERS), len(MEASURES)))
        whole = ~np.array(self._sampled)
        for at in range(len(MEASURES)):
            weight = np.ones(len(n)) if at == 0 else whole.astype(np.float64)
            counts[:, at] = np.bincount(of_job, weight, minlength=jobs)
            for order in range(len(ORDERS)):
                sums[:, order, at] = np.bincount(
                    of_job, weight * measured[:, order, at], minlength=jobs
                )
        rng = np.random.default_rng(_SEED)
        draws = rng.multinomial(jobs, np.full(jobs, 1.0 / jobs), _DRAWS).astype(np.float64)
        drawn = np.einsum("bj,jom->bom", draws, sums) / np.maximum(draws @ counts, 1e-9)[:, None]
        means = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1e-9)
        auc = drawn[:, :, 0]
        best = int(np.argmax(means[:3, 0]))  # of global, with_member, with_job
        full = ORDERS.index("full")
        return RankingQuality(
            decisions=len(n),
            jobs=jobs,
            sampled=int((~whole).sum()),
            orders={
                name: {
                    measure: _ranked(means[order, at], drawn[:, order, at], jobs)
                    for at, measure in enumerate(MEASURES)
                    if at == 0 or whole.any()
                }
                for order, name in enumerate(ORDERS)
            },
            gain=_ranked(means[full, 0] - means[best, 0], auc[:, full] - auc[:, best], jobs),
        )

    def _measured(self, n: _Floats) -> _Floats:
        """Every measure of every order in every decision (D, orders, measures)."""
        ranks = np.array(self._ranks)
        found = np.empty((len(n), len(ORDERS), len(MEASURES)))
        known = found[:, :_RANDOM]
        known[:, :, 0] = (n[:, None] - ranks) / (n[:, None] - 1)
        known[:, :, 1] = 1.0 / ranks
        places = np.arange(1, MOST_CANDIDATES + 1)
        there = places <= n[:, None]
        found[:, _RANDOM, 0] = 0.5
        found[:, _RANDOM, 1] = (there / places).sum(axis=1) / n
        for at, cut in enumerate(CUTS):
            inside = ranks <= cut
            known[:, :, 2 + at] = inside / np.log2(1.0 + ranks)
            known[:, :, 2 + len(CUTS) + at] = inside
            first = there & (places <= cut)
            found[:, _RANDOM, 2 + at] = (first / np.log2(1.0 + places)).sum(axis=1) / n
            found[:, _RANDOM, 2 + len(CUTS) + at] = first.sum(axis=1) / n
        return found


def _ranked(value: float, drawn: _Floats, jobs: int) -> Ranked:
    if jobs < _FEWEST_JOBS:
        return Ranked(float(value))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Ranked(float(value), float(low), float(high))
