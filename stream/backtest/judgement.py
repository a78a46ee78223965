"""AUC, log loss and calibration with intervals, by resampling blocks of time.

Applications of one week have jobs, recruiters and news in common, so that intervals which take them
for independent are too narrow. Here whole blocks of time are drawn with replacement (a block
bootstrap; Künsch 1989), the same draws for every setting, so that differences are compared within
the same weeks.

AUC of a draw needs no ranking: with W[a, b] the number of pairs of a positive of block a and a
negative of block b in which the positive scores higher (half a pair for a tie), and block k drawn
m_k times, it is m'Wm / (m'p · m'q) with the counts p and q of positives and negatives. So thousands
of draws cost one pass over the scores.

Shapes: n applications, K blocks, B draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.policy import DAY_MS
from stream.quality.prequential import probability

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]

Figure = Callable[[_Floats], _Floats]
"""Takes draws (B, K), gives a figure of each (B,)."""

DRAWS: Final = 1000
FEWEST_BLOCKS: Final = 5
"""With fewer, no interval is given."""

_SEED: Final = 20_170_401  # any: the same log gives the same intervals
_CALIBRATION_BINS: Final = 10
_WEEKLY_FROM_MS: Final = 56 * DAY_MS  # shorter spans are cut into days


class Interval(msgspec.Struct, frozen=True):
    """A figure and its 95 % interval; without one where there are too few blocks."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; the figure itself where there is none."""
        low = self.value if self.low is None else self.low
        return low, self.value if self.high is None else self.high

    def text(self, form: str) -> str:
        """Write the figure and, where there is one, its interval."""
        if self.low is None or self.high is None:
            return form.format(self.value)
        return f"{form.format(self.value)} ({form.format(self.low)} to {form.format(self.high)})"


class CalibrationBin(msgspec.Struct, frozen=True, kw_only=True):
    """A tenth of the applications, by score: what was expected and what came."""

    expected: float
    observed: float
    applications: int


class Blocks(NamedTuple):
    """Time cut into blocks: which one each application is in (n,), and where they begin (K,)."""

    of: _Ints
    from_ms: list[int]
    length_ms: int

    @classmethod
    def cut(cls, times_ms: _Ints, from_ms: int) -> Blocks:
        """Cut the time since ``from_ms`` into weeks, or into days where it is less than eight."""
        until_ms = int(times_ms.max(initial=from_ms))
        length_ms = 7 * DAY_MS if until_ms - from_ms >= _WEEKLY_FROM_MS else DAY_MS
        of = (times_ms - from_ms) // length_ms
        count = int(of.max(initial=-1)) + 1
        return cls(of, [from_ms + number * length_ms for number in range(count)], length_ms)


class Sums(NamedTuple):
    """Everything that is judged by, per block: see the head of this file."""

    wins: _Floats  # (K, K)
    positives: _Floats  # (K,)
    negatives: _Floats
    loss: _Floats
    expected: _Floats

    def auc(self, draws: _Floats) -> _Floats:
        """AUC of each draw (B, K) → (B,); NaN where it has one outcome only."""
        pairs = (draws @ self.positives) * (draws @ self.negatives)
        return divided(((draws @ self.wins) * draws).sum(axis=1), pairs)

    def log_loss(self, draws: _Floats) -> _Floats:
        """Mean log loss of each draw (B, K) → (B,); NaN where it is empty."""
        return divided(draws @ self.loss, draws @ (self.positives + self.negatives))

    def observed_over_expected(self, draws: _Floats) -> _Floats:
        """Positives over the sum of probabilities of each draw (B, K) → (B,)."""
        return divided(draws @ self.positives, draws @ self.expected)


class Judge:
    """Judges scores of the same applications.

    Args:
        targets: 0/1 (n,).
        blocks: block of each (n,), from 0.
        count: K.

    """

    def __init__(self, targets: _Floats, blocks: _Ints, count: int) -> None:
        self.targets = targets
        self._blocks = blocks
        self._count = count
        self.draws = draws_of(count)
        self.whole = np.ones((1, count))
        """Every block once: what is reported as the value."""

    def sums(self, scores: _Floats) -> Sums:
        """Sum up log-odds (n,) by block."""
        y, blocks, count = self.targets, self._blocks, self._count
        positive = y == 1
        of_positives, of_negatives = blocks[positive], blocks[~positive]
        scored, against = scores[positive], scores[~positive]
        wins = np.zeros((count, count))
        for block in range(count):
            sorted_ = np.sort(against[of_negatives == block])
            below = np.searchsorted(sorted_, scored, "left")
            beaten = (below + np.searchsorted(sorted_, scored, "right")) / 2
            wins[:, block] = np.bincount(of_positives, beaten, minlength=count)
        loss = np.logaddexp(0.0, scores) - y * scores
        return Sums(
            wins,
            np.bincount(of_positives, minlength=count).astype(np.float64),
            np.bincount(of_negatives, minlength=count).astype(np.float64),
            np.bincount(blocks, loss, minlength=count).astype(np.float64),
            np.bincount(blocks, probability(scores), minlength=count).astype(np.float64),
        )

    def figure(self, of: Figure, less: Figure = lambda _: np.zeros(1)) -> Interval:
        """Give a figure, or what it is more than another one, with its interval."""
        value = float((of(self.whole) - less(self.whole))[0])
        return interval(value, of(self.draws) - less(self.draws), self._count)

    def calibration(self, scores: _Floats) -> list[CalibrationBin]:
        """Cut applications into tenths by score (n,): expected and observed shares."""
        order = np.argsort(scores, kind="stable")
        return [
            CalibrationBin(
                expected=float(probability(scores[part]).mean()),
                observed=float(self.targets[part].mean()),
                applications=len(part),
            )
            for part in np.array_split(order, _CALIBRATION_BINS)
            if len(part)
        ]


def draws_of(blocks: int) -> _Floats:
    """Draw blocks with replacement: how often each is in each draw, (B, K)."""
    if blocks < 1:
        return np.zeros((0, 0))
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), DRAWS).astype(np.float64)


def interval(value: float, drawn: _Floats, blocks: int) -> Interval:
    """Put a 95 % interval around a value, by percentiles of the draws (B,)."""
    drawn = drawn[~np.isnan(drawn)]
    if blocks < FEWEST_BLOCKS or len(drawn) < DRAWS / 2:
        return Interval(value)
    drawn = np.sort(drawn)  # may hold infinity: no interpolation
    cut = len(drawn) // 40
    return Interval(value, float(drawn[cut]), float(drawn[-1 - cut]))


def divided(over: _Floats, under: _Floats, least: float = 0.0) -> _Floats:
    """Divide, NaN where the divisor is not above ``least``."""
    enough = under > least
    found: _Floats = np.where(enough, over / np.where(enough, under, 1.0), np.nan)
    return found
