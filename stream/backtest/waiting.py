"""Watches a rehearsal for those who wait: is what is left to come of them right, at any age?

Open applications are looked at now and then (:mod:`stream.backtest.moments`), and when one of a job
is answered all that wait there are ranked by the landmark's order too, beside the scores
(:mod:`stream.backtest.decisions`). Without a landmark both go by the score and the delays.

Shapes: m moments, K blocks of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.backtest.decisions import FIRST_SIGHT, ScoreOf, Watch
from stream.backtest.judgement import Interval, divided, draws_of, interval
from stream.backtest.moments import Moments, Seen, features
from stream.backtest.rehearsal import Rehearsal
from stream.events.structs import Label
from stream.labels.delays import DelayCurve
from stream.model.landmark import Landmark, log_odds_now, order_now
from stream.policy import DAY_MS, HOUR_MS
from stream.quality.prequential import probability
from stream.quality.ranking import ORDERS, Decisions, Owner, RankingQuality

DELAYS: Final = "delays"
LANDMARK: Final = "landmark"

_AGES_MS: Final = (0, 6 * HOUR_MS, DAY_MS, 3 * DAY_MS, 7 * DAY_MS, 14 * DAY_MS)
_FULL: Final = ORDERS.index("full")

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


class AgeBracket(msgspec.Struct, frozen=True, kw_only=True):
    """Moments at which applications waited at an age from ``from_ms`` to under ``to_ms``.

    ``observed_over_expected``: answers that still came over the sum of their probabilities of then,
    by what gave these: :data:`DELAYS` alone, and :data:`LANDMARK` where the model has one.
    """

    from_ms: int
    to_ms: int
    moments: int
    observed_over_expected: dict[str, Interval]


def by_age(
    targets: _Floats,
    ages_ms: _Ints,
    log_odds: Mapping[str, _Floats],
    window_ms: int,
    blocks: _Ints,
    count: int,
) -> list[AgeBracket]:
    """Judge probabilities of an answer still to come in brackets of age; empty ones are left out.

    Args:
        targets: whether it came, 0/1 (m,). ages_ms: below the window (m,).
        log_odds: by what gave them (m,).
        window_ms: W.
        blocks: block of time that each is in, from 0 (m,). count: K.

    """
    draws = draws_of(count)
    found = []
    for low, high in pairwise([*(age_ms for age_ms in _AGES_MS if age_ms < window_ms), window_ms]):
        there = (ages_ms >= low) & (ages_ms < high)
        if not there.any():
            continue
        came = np.bincount(blocks[there], targets[there], minlength=count)
        ratios = {}
        for name, margins in log_odds.items():
            expected = np.bincount(blocks[there], probability(margins[there]), minlength=count)
            drawn = divided(draws @ came, draws @ expected)
            ratios[name] = interval(float(came.sum() / expected.sum()), drawn, count)
        found.append(
            AgeBracket(
                from_ms=low,
                to_ms=high,
                moments=int(there.sum()),
                observed_over_expected=ratios,
            )
        )
    return found


class WaitingWatch(Watch):
    """Ranks decisions by the landmark's order too, and looks at who waits in between.

    Labels must come as they are known, all of them: whoever waits must be known to.

    Args:
        rehearsal, window_ms, from_ms: as of :class:`~stream.backtest.decisions.Watch`.
        judged: whose probabilities of now are judged (n,).
        curve: how long answers take.
        landmark: of the model; None: the delays alone tell.

    """

    def __init__(
        self,
        rehearsal: Rehearsal,
        window_ms: int,
        from_ms: int,
        judged: NDArray[np.bool_],
        curve: DelayCurve,
        landmark: Landmark | None,
    ) -> None:
        super().__init__(rehearsal, window_ms, from_ms)
        self._moments = Moments(rehearsal, window_ms, chosen=judged, decisions=False)
        self._ordered = Decisions()
        self._curve = curve
        self._landmark = landmark

    def scored(self, number: int) -> None:
        """An application was read: it waits from now on."""
        super().scored(number)
        self._moments.scored(number)

    def label(self, number: int, label: Label, scores: Mapping[str, ScoreOf]) -> None:
        """See who waits still, and among whom one is answered, before the label is learned."""
        super().label(number, label, scores)  # before this answer counts among those since
        self._moments.label(number, label, scores)

    def decided(
        self, within: Owner, numbers: list[int], at_ms: int, values: _Floats, *, sampled: bool
    ) -> None:
        """Keep a decision twice: the second time the order stands for the whole score."""
        super().decided(within, numbers, at_ms, values, sampled=sampled)
        if within == "job":
            times_ms = self._rehearsal.times_ms
            seen = [
                Seen(
                    number,
                    score,
                    at_ms - int(times_ms[number]),
                    self._moments.later(number),
                )
                for number, score in zip(numbers, values[_FULL].tolist(), strict=True)
            ]
            ordered = values.copy()
            ordered[_FULL] = order_now(self._landmark, features(seen, self._curve))
            self._ordered.add(self.row(within, numbers, ordered, sampled=sampled))

    def rankings(self, within: Owner = "job") -> RankingQuality | None:
        """Judge the decisions so far, within jobs by the order too."""
        found = super().rankings(within)
        ordered = self._ordered.quality(FIRST_SIGHT) if within == "job" else None
        if found is None or ordered is None:
            return found
        orders = {}
        for name, measures in found.orders.items():
            orders[name] = measures
            if name == "full":
                orders[DELAYS if self._landmark is None else LANDMARK] = ordered.orders["full"]
        return msgspec.structs.replace(found, orders=orders)

    def by_age(self, blocks: _Ints, count: int) -> list[AgeBracket]:
        """Judge the probability of now.

        Args:
            blocks: of time, that each application is in (n,).
            count: K.

        """
        seen = self._moments.moments
        numbers = np.array([one.number for one in seen], dtype=np.int64)
        X = features(seen, self._curve)
        log_odds = {DELAYS: log_odds_now(None, X)}
        if self._landmark is not None:
            log_odds[LANDMARK] = log_odds_now(self._landmark, X)
        return by_age(
            self._rehearsal.targets[numbers],
            np.array([one.age_ms for one in seen], dtype=np.int64),
            log_odds,
            self._window_ms,
            blocks[numbers],
            count,
        )
