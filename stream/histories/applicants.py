"""How an applicant's score compares with those before: what makes a match.

An application is a match if

- its probability of an answer, σ of the score, is at least ``p_min``;
- its score is in the top share of the job's applicants so far, or, while there are fewer than
  :data:`FEWEST`, of the market's of late (of equal scores half count as higher);
- the job has had fewer matches on that day of event time (UTC) than it may.

Of a job the best scores are kept, so that the rank of whoever is among them is exact. Of the market
there is a histogram of log-odds that fades with application time. Neither depends on what comes
later.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import Final, Literal, NamedTuple

import msgspec

from stream.policy import DAY_MS, MatchSettings

FEWEST: Final = 5
"""Applicants of a job, the newest one too, among whom there is a top share."""

MOST_BEST: Final = 256
"""Scores kept of a job."""

MOST_DAYS: Final = 3
"""Days of a job whose matches are counted; more is told of none before them."""

BUCKETS: Final = 160
FEWEST_IN_MARKET: Final = 20
"""Applications that the market is known by, as they weigh."""

HALF_LIFE_MS: Final = 7 * DAY_MS

_LOWEST, _WIDTH = -8.0, 0.1  # log-odds; whatever is beyond is in the outermost buckets


class Place(NamedTuple):
    """Where an applicant stands.

    ``rank``: 1 and the number of those with a higher score. ``above``: that number, with half of
    those who have the same score.
    """

    rank: int
    above: float


class Applicants(msgspec.Struct, array_like=True, gc=False):
    """The applicants of one job.

    Attributes:
        count: those who were scored. newest_ms: the largest application time.
        best: the best scores (log-odds), ascending.
        told: matches by day of event time (UTC).
        open: matches whose windows are open.

    """

    count: int = 0
    newest_ms: int = 0
    best: list[float] = []
    told: dict[int, int] = {}
    open: list[str] = []

    def enter(self, score: float, time_ms: int) -> Place | None:
        """Count an applicant, and tell its place; None: it is not among the best kept."""
        best = self.best
        self.count += 1
        self.newest_ms = max(self.newest_ms, time_ms)
        at = bisect_right(best, score)
        higher = len(best) - at
        if higher == MOST_BEST:
            return None
        tied = at - bisect_left(best, score)
        best.insert(at, score)
        if len(best) > MOST_BEST:
            del best[0]
        return Place(higher + 1, higher + 0.5 * tied)

    def tell(self, application_id: str, time_ms: int, most: int) -> bool:
        """Count a match of a day of which ``most`` are told; False: that many were."""
        told, day = self.told, time_ms // DAY_MS
        if told.get(day, 0) >= most or (len(told) == MOST_DAYS and day < min(told)):
            return False
        told[day] = told.get(day, 0) + 1
        if len(told) > MOST_DAYS:
            del told[min(told)]
        self.open.append(application_id)
        return True


class Market(msgspec.Struct, array_like=True, gc=False):
    """The scores of all applications of one partition, in buckets.

    Attributes:
        newest_ms: T, the largest application time.
        weights: sums of 2^(-(T - A) / half-life) by bucket, of shape (:data:`BUCKETS`,).

    """

    newest_ms: int = 0
    weights: list[float] = msgspec.field(default_factory=lambda: [0.0] * BUCKETS)

    def share_above(self, score: float) -> float | None:
        """Share of the market with a higher score, half of those in the same bucket among them.

        None: too little is known of it.
        """
        total = sum(self.weights)
        if total < FEWEST_IN_MARKET:
            return None
        at = _bucket(score)
        return (sum(self.weights[at + 1 :]) + 0.5 * self.weights[at]) / total

    def count(self, score: float, time_ms: int) -> None:
        """Count an application."""
        if time_ms > self.newest_ms:
            faded = 2.0 ** ((self.newest_ms - time_ms) / HALF_LIFE_MS)
            self.weights = [weight * faded for weight in self.weights]
            self.newest_ms = time_ms
        self.weights[_bucket(score)] += 2.0 ** ((time_ms - self.newest_ms) / HALF_LIFE_MS)


class Found(NamedTuple):
    """A match: its rank among so many applicants of its job, and in whose top share it is."""

    rank: int
    applicants: int
    among: Literal["job", "market"]


def enter(
    application_id: str,
    score: float,
    time_ms: int,
    *,
    job: Applicants,
    market: Market,
    settings: MatchSettings,
    wanted: bool = True,
) -> Found | None:
    """Count an application among its job's and the market's, and see whether it is a match.

    Args:
        application_id: which one. score: log-odds. time_ms: of the application.
        job: the job's applicants so far. market: of late. Both are changed.
        settings: what a match is. wanted: False: it is none whatever its score.

    """
    above = market.share_above(score) if job.count + 1 < FEWEST else None
    market.count(score, time_ms)
    place = job.enter(score, time_ms)
    if not wanted or place is None or 0.5 + 0.5 * math.tanh(0.5 * score) < settings.p_min:
        return None
    if job.count < FEWEST:
        if above is None or above > settings.top:
            return None
    elif place.above >= math.ceil(settings.top * job.count):
        return None
    if not job.tell(application_id, time_ms, settings.per_day):
        return None
    return Found(place.rank, job.count, "market" if job.count < FEWEST else "job")


def _bucket(score: float) -> int:
    return min(max(int((score - _LOWEST) / _WIDTH), 0), BUCKETS - 1)
