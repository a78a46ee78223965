"""What the scores of some applications were worth: sums that can be merged and taken back.

Four scores are compared: the global one, it with either effect, and the whole. For each effect
there is also the paired difference d = log loss of the whole score − log loss without the effect:
above 0 the effect makes it worse. AUC is taken from counts in bins of log-odds, :data:`BIN` wide,
ties counting half; the error against the exact AUC is below 0.002 (tested).

A label of weight w counts as w applications, in thousandths: whatever is a mean or a share is
weighted. Labels that age have a weight below 1, and are negative; final ones weigh 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.effects import JOB, MEMBER

ScoreName = Literal["global", "with_member", "with_job", "full"]
SCORES: tuple[ScoreName, ...] = ("global", "with_member", "with_job", "full")
"""In the order of a tally's ``scores``."""

_WITHOUT: dict[str, ScoreName] = {MEMBER.name: "with_job", JOB.name: "with_member"}
"""What is left of the whole score without an effect; in the order of a tally's ``paired``."""

BIN = 0.2
"""Log-odds."""

_LAST_BIN = 50  # log-odds of 10: beyond it a score is as good as certain
_SURE = 500.0
_SHIFT = 30.0  # log-odds; further than any level lies from another


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How good one score was. ``auc`` is None where only one class was seen.

    ``observed_over_expected`` compares the number of positives with the sum of the probabilities:
    1 is calibrated, above 1 the score is too low.
    """

    auc: float | None
    log_loss: float
    observed_over_expected: float


class JudgedScore(NamedTuple):
    """An application as it is taken in: its label and the three parts of its score (log-odds).

    ``sign`` −1 takes back what was taken in with this label and ``weight``.
    """

    sign: int
    label: int
    global_: float
    member: float
    job: float
    weight: float = 1.0


class Score(msgspec.Struct, array_like=True):
    """Sums of one score. Counts are by bin of log-odds.

    ``missing``: by how many thousandths the weights of a bin's negatives fall short of 1.
    """

    expected: float = 0.0
    log_loss: float = 0.0
    positives: dict[int, int] = {}
    negatives: dict[int, int] = {}
    missing: dict[int, int] = {}

    def weighed(self, at: int) -> float:
        """Weight of a bin's negatives."""
        count = self.negatives.get(at, 0)
        return count - self.missing.get(at, 0) / 1000 if self.missing else count


class Paired(msgspec.Struct, array_like=True):
    """Sums of one effect's paired differences and of their squares."""

    total: float = 0.0
    squares: float = 0.0


class Tally(msgspec.Struct, array_like=True):
    """Sums over some applications, of which ``positives`` are answered."""

    applications: int = 0
    positives: int = 0
    scores: list[Score] = msgspec.field(default_factory=lambda: [Score() for _ in SCORES])
    paired: list[Paired] = msgspec.field(default_factory=lambda: [Paired() for _ in _WITHOUT])

    @property
    def weight(self) -> float:
        """Weights of the applications, summed."""
        return self.applications - sum(self.scores[0].missing.values()) / 1000

    def is_sound(self) -> bool:
        """Whether all scores are there, and sums are finite.

        Counts may be below zero: what a label takes back may have come before a bootstrap, or in a
        record that was lost.
        """
        sums = [number for pair in self.paired for number in (pair.total, pair.squares)]
        for score in self.scores:
            sums += [score.expected, score.log_loss]
        return (
            len(self.scores) == len(SCORES)
            and len(self.paired) == len(_WITHOUT)
            and all(map(math.isfinite, sums))
        )

    def merge(self, other: Tally) -> None:
        """Take in all that another tally has."""
        self.applications += other.applications
        self.positives += other.positives
        for mine, theirs in zip(self.scores, other.scores, strict=True):
            mine.expected += theirs.expected
            mine.log_loss += theirs.log_loss
            for counts, more in (
                (mine.positives, theirs.positives),
                (mine.negatives, theirs.negatives),
                (mine.missing, theirs.missing),
            ):
                for at, count in more.items():
                    counts[at] = counts.get(at, 0) + count
        for pair, theirs_too in zip(self.paired, other.paired, strict=True):
            pair.total += theirs_too.total
            pair.squares += theirs_too.squares

    def quality(self, name: ScoreName) -> Quality | None:
        """Judge one score; None where there is nothing to judge."""
        weight = self.weight
        if weight <= 0.0:
            return None
        score = self.scores[SCORES.index(name)]
        return Quality(
            auc=_auc(score),
            log_loss=score.log_loss / weight,
            observed_over_expected=self.positives / max(score.expected, 1e-300),
        )

    def worse(self, effect: str) -> tuple[float, float]:
        """Mean of an effect's d and its standard error, in nats; (0, 0) without applications."""
        count = self.weight
        if count <= 0.0:
            return 0.0, 0.0
        pair = self.paired[list(_WITHOUT).index(effect)]
        mean = pair.total / count
        return mean, math.sqrt(max(pair.squares / count - mean * mean, 0.0) / count)

    def worse_but_for_level(self, effect: str) -> tuple[float, float]:
        """Return the same after either score was shifted to expect what was observed.

        Labels that are known early are not a fair sample: of some kinds of answer more are known
        than of others, and a score that tells applications apart better can lose by it. A common
        level is therefore taken out, from the bins. The standard error is that without shifts.
        """
        mean, error = self.worse(effect)
        if self.weight <= 0.0:
            return mean, error
        whole = _levelled_loss(self.scores[SCORES.index("full")])
        less = _levelled_loss(self.scores[SCORES.index(_WITHOUT[effect])])
        if whole is None or less is None:
            return mean, error
        return (whole - less) / self.weight, error


def add_all(taken: Sequence[tuple[Tally, Sequence[JudgedScore]]]) -> None:
    """Take applications into tallies, all in one go: many cost little more than one.

    Args:
        taken: tallies, each once, and what goes into each, none of them nothing.

    """
    columns = np.array([score for _, judged in taken for score in judged], dtype=np.float64)
    sizes = [len(judged) for _, judged in taken]
    starts = [0, *accumulate(sizes[:-1])]
    signs, y, global_, member, job, weights = columns.T
    thousandths = np.rint(1000.0 * weights)
    signed = signs * thousandths / 1000.0
    S = np.stack([global_, global_ + member, global_ + job, global_ + member + job])  # (4, n)
    np.clip(S, -_SURE, _SURE, out=S)
    softplus = np.logaddexp(0.0, S)
    losses = softplus - y * S
    _, with_member, with_job, whole = losses
    worse = np.stack([whole - with_job, whole - with_member])  # in the order of paired
    rows = np.concatenate(
        [[signs, signs * y], signed * losses, signed * np.exp(S - softplus), signed * worse,
         signed * worse * worse]
    )  # fmt: skip
    sums = np.add.reduceat(rows, starts, axis=1).T.tolist()
    for (tally, _), (count, positives, *rest) in zip(taken, sums, strict=True):
        tally.applications += int(count)
        tally.positives += int(positives)
        for score, loss, expected in zip(tally.scores, rest[:4], rest[4:8], strict=True):
            score.log_loss += loss
            score.expected += expected
        for pair, total, squares in zip(tally.paired, rest[8:10], rest[10:], strict=True):
            pair.total += total
            pair.squares += squares
    _count(taken, sizes, S, y, signs, signs * (1000.0 - thousandths))


def _count(
    taken: Sequence[tuple[Tally, Sequence[JudgedScore]]],
    sizes: Sequence[int],
    S: NDArray[np.float64],
    y: NDArray[np.float64],
    signs: NDArray[np.float64],
    missing: NDArray[np.float64],
) -> None:
    """Change the counts by bin, each once, whatever fell into it."""
    bins = np.clip(np.floor(S / BIN), -_LAST_BIN, _LAST_BIN).astype(np.int64) + _LAST_BIN
    which = np.repeat(np.arange(len(sizes)), sizes)
    places = (which * len(SCORES) + np.arange(len(SCORES))[:, None]) * 2 + y.astype(np.int64)
    width = 2 * _LAST_BIN + 1
    cells = (places * width + bins).ravel()
    counts = np.bincount(cells, np.tile(signs, len(SCORES)))
    for score, label, bin_, change in _places(taken, counts):
        counted = score.positives if label else score.negatives
        count = counted.get(bin_, 0) + change
        if count > 0:
            counted[bin_] = count
        else:
            counted.pop(bin_, None)
    if not missing.any():
        return
    lacking = np.bincount(cells, np.tile(missing, len(SCORES)))
    for score, _, bin_, change in _places(taken, lacking):
        score.missing[bin_] = score.missing.get(bin_, 0) + change
        if not score.missing[bin_]:
            del score.missing[bin_]


def _places(
    taken: Sequence[tuple[Tally, Sequence[JudgedScore]]], cells: NDArray[Any]
) -> Iterator[tuple[Score, int, int, int]]:
    """Give score, label and bin of every cell in which something changes, and by how much."""
    at = np.flatnonzero(cells)
    places, bins = np.divmod(at, 2 * _LAST_BIN + 1)
    places, labels = np.divmod(places, 2)
    scores = [score for tally, _ in taken for score in tally.scores]
    columns = np.stack([places, labels, bins - _LAST_BIN, cells[at].astype(np.int64)], axis=1)
    for place, label, bin_, change in columns.tolist():
        yield scores[place], label, bin_, change


def _auc(score: Score) -> float | None:
    """Chance that a positive's score is above a negative's, within a bin one half."""
    positives, negatives = sum(score.positives.values()), sum(map(score.weighed, score.negatives))
    if not positives or negatives <= 0.0:
        return None
    won, below = 0.0, 0.0
    for at in sorted(score.positives.keys() | score.negatives.keys()):
        here = score.weighed(at)
        won += score.positives.get(at, 0) * (below + here / 2)
        below += here
    return won / (positives * negatives)


def _levelled_loss(score: Score) -> float | None:
    """Log loss, summed, at the shift that makes expected equal observed; None with one class."""
    bins = np.array(sorted(score.positives.keys() | score.negatives.keys()), dtype=np.int64)
    positives = np.array([score.positives.get(at, 0) for at in bins.tolist()], dtype=np.float64)
    counts = positives + [score.weighed(at) for at in bins.tolist()]
    observed = float(positives.sum())
    if not 0.0 < observed < counts.sum():
        return None
    middles = (bins + 0.5) * BIN
    low, high = -_SHIFT, _SHIFT
    for _ in range(40):  # halving: monotone, and nothing can go wrong
        shift = (low + high) / 2
        if float(counts @ (1.0 / (1.0 + np.exp(-(middles + shift))))) < observed:
            low = shift
        else:
            high = shift
    odds = middles + shift
    return float(counts @ np.logaddexp(0.0, odds) - positives @ odds)


def merged(tallies: Iterable[Tally], applications: float = math.inf) -> Tally:
    """Sum up the first of the tallies, as many as it takes to come to so many applications."""
    whole = Tally()
    for tally in tallies:
        if whole.applications >= applications:
            break
        whole.merge(tally)
    return whole
