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

The same is asked within a member: his own applications that wait, whichever job they are for; then
read *member* for *job*.

A decision is kept as a row of :data:`ROW_BYTES`, so that many can be: its owner (the
:func:`~stream.state.waiting.mark` of the job), and the rank in each order. Where there are too
many, the owners are halved, by their marks: what is left is a sample of jobs, each with all of its
decisions.

Shapes: D decisions, J jobs.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.state.waiting import MARK_BITS

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
_AT_ONCE: Final = 50  # draws: of many jobs all would be a lot of memory
_FEWEST_JOBS: Final = 10
_SEED: Final = 20_110_209  # any: the same decisions give the same intervals
_RANDOM: Final = ORDERS.index("random")
_FULL: Final = ORDERS.index("full")

# Twice the rank, so that mean ranks of ties are whole numbers: at most 200.
_ROW: Final = np.dtype(
    [("owner", "<u8"), ("candidates", "u1"), ("sampled", "?"), ("ranks", "u1", (_RANDOM,))]
)
ROW_BYTES: Final = _ROW.itemsize

_Floats = NDArray[np.float64]
_Rows = NDArray[np.void]

Owner = Literal["job", "member"]


class Ranked(msgspec.Struct, frozen=True):
    """A mean over decisions with its 95 % interval, None where too few jobs have any."""

    value: float
    low: float | None = None
    high: float | None = None

    def text(self, form: str) -> str:
        """Write the mean and, where there is one, its interval."""
        if self.low is None or self.high is None:
            return form.format(self.value)
        return f"{form.format(self.value)} ({form.format(self.low)} to {form.format(self.high)})"


class RankingQuality(msgspec.Struct, frozen=True, kw_only=True):
    """What the orders were worth: by order, then by measure.

    ``within`` says whose candidates were ranked, ``owners`` how many of these there were, and
    ``share`` of which share of all jobs or members they are. Of the scores in ``first_sight`` that
    of the application's first sight was taken, of others that of the decision. ``sampled``
    decisions had more candidates than :data:`MOST_CANDIDATES`.

    ``gain`` is the AUC of the whole score less that of the ``best`` of its parts, with its
    interval: only where all of it lies below 0 do the effects harm rankings.
    """

    within: Owner
    first_sight: tuple[str, ...]
    decisions: int
    owners: int
    share: float
    sampled: int
    orders: dict[str, dict[str, Ranked]]
    best: str
    gain: Ranked

    def in_words(self) -> str:
        """Say what was ranked, and by which scores."""
        of = "" if self.share == 1.0 else f", {self.share:.1%} of all {self.within}s"
        sampled = f", {self.sampled:,} with a sample of the others" if self.sampled else ""
        sight = " and ".join(f"the {name}" for name in self.first_sight)
        return (
            f"{self.decisions:,} decisions of {self.owners:,} {self.within}s{of}{sampled}; of"
            f" {sight} score that of first sight"
        )

    @property
    def harms(self) -> bool:
        """Whether the whole score ranks worse than the best of its parts, beyond chance."""
        return self.gain.high is not None and self.gain.high < 0.0


def watched(owner: int, halvings: int) -> bool:
    """Whether an owner is among those that are left after so many halvings."""
    return owner >> (MARK_BITS - halvings) == 0


def row(owner: int, values: _Floats, *, sampled: bool) -> bytes:
    """Rank a decision.

    Args:
        owner: mark of the job, or of the member.
        values: by which candidates are ranked, the highest first (5, n), n from 2 to
            :data:`MOST_CANDIDATES`, in the order of :data:`ORDERS` without ``random``; the first
            column is of the one answered.
        sampled: whether there were more candidates.

    """
    answered, others = values[:, :1], values[:, 1:]
    ranks = 2 + 2 * (others > answered).sum(axis=1) + (others == answered).sum(axis=1)
    head = owner.to_bytes(MARK_BITS // 8, "little")
    return head + bytes((values.shape[1], sampled, *ranks.tolist()))


class Decisions(msgspec.Struct):
    """Decisions, as :func:`row` made them, of the owners that are left after ``halvings``."""

    halvings: int = 0
    rows: bytearray = msgspec.field(default_factory=bytearray)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows) // ROW_BYTES

    def add(self, one: bytes, halvings: int = 0) -> None:
        """Take a decision in, made when the owners had been halved so often."""
        self.halve(halvings)
        owner = int.from_bytes(one[: MARK_BITS // 8], "little")
        if watched(owner, self.halvings):
            self.rows += one

    def halve(self, halvings: int) -> None:
        """Leave the decisions of fewer owners."""
        if halvings <= self.halvings:
            return
        self.halvings = halvings
        rows = np.frombuffer(self.rows, _ROW)
        self.rows = bytearray(rows[rows["owner"] >> (MARK_BITS - halvings) == 0].tobytes())

    def __add__(self, other: Decisions) -> Decisions:
        """Return the decisions of both: of the owners that both have left."""
        both = Decisions(min(self.halvings, other.halvings), self.rows + other.rows)
        both.halve(max(self.halvings, other.halvings))
        return both

    def sums(self) -> tuple[_Floats, _Floats]:
        """How many decisions each measure counts (measures,), and its sums (orders, measures)."""
        rows = np.frombuffer(bytes(self.rows), _ROW)
        weights = np.ones((len(rows), len(MEASURES)))
        weights[:, 1:] = ~rows["sampled"][:, None]
        return weights.sum(axis=0), (_measured(rows) * weights[:, None]).sum(axis=0)

    def quality(self, first_sight: tuple[str, ...], within: Owner = "job") -> RankingQuality | None:
        """Judge; None where there was nothing to choose from."""
        rows = np.frombuffer(bytes(self.rows), _ROW)
        if not len(rows):
            return None
        owners, of_owner = np.unique(rows["owner"], return_inverse=True)
        count = len(owners)
        measured = _measured(rows)
        whole = ~rows["sampled"]
        counts = np.empty((count, len(MEASURES)))
        sums = np.empty((count, len(ORDERS), len(MEASURES)))
        for at in range(len(MEASURES)):
            weight = np.ones(len(rows)) if at == 0 else whole.astype(np.float64)
            counts[:, at] = np.bincount(of_owner, weight, minlength=count)
            for order in range(len(ORDERS)):
                sums[:, order, at] = np.bincount(
                    of_owner, weight * measured[:, order, at], minlength=count
                )
        means = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1e-9)
        drawn = _drawn(sums, counts)
        counted = np.count_nonzero(counts, axis=0).tolist()  # owners that each measure counts
        best = int(np.argmax(means[:_FULL, 0]))  # of global, with_member, with_job
        return RankingQuality(
            within=within,
            first_sight=first_sight,
            decisions=len(rows),
            owners=count,
            share=0.5**self.halvings,
            sampled=int(np.count_nonzero(~whole)),
            orders={
                name: {
                    measure: _ranked(means[order, at], drawn[:, order, at], counted[at])
                    for at, measure in enumerate(MEASURES)
                    if at == 0 or whole.any()
                }
                for order, name in enumerate(ORDERS)
            },
            best=ORDERS[best],
            gain=_ranked(
                means[_FULL, 0] - means[best, 0], drawn[:, _FULL, 0] - drawn[:, best, 0], count
            ),
        )


def _drawn(sums: _Floats, counts: _Floats) -> _Floats:
    """Means of jobs drawn with replacement (draws, orders, measures); NaN of nothing."""
    rng = np.random.default_rng(_SEED)
    jobs, orders, measures = sums.shape
    flat = sums.reshape(jobs, orders * measures)
    found = []
    for _ in range(0, _DRAWS, _AT_ONCE):
        draws = rng.multinomial(jobs, np.full(jobs, 1.0 / jobs), _AT_ONCE).astype(np.float64)
        totals = (draws @ flat).reshape(-1, orders, measures)
        drawn = draws @ counts
        found.append(totals / np.where(drawn > 0.0, drawn, np.nan)[:, None])
    return np.concatenate(found)


def _measured(rows: _Rows) -> _Floats:
    """Every measure of every order in every decision (D, orders, measures)."""
    n = rows["candidates"].astype(np.float64)
    ranks = rows["ranks"] / 2.0
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
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Ranked(float(value), float(low), float(high))
