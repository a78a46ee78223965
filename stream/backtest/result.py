"""What a backtest found: ``backtest.json``. Nothing in it depends on the clock or the machine."""

from __future__ import annotations

import msgspec

from stream.backtest.freshness import Freshness
from stream.backtest.judgement import CalibrationBin, Interval
from stream.backtest.schedule import AtAge
from stream.backtest.waiting import AgeBracket
from stream.policy import DAY_MS
from stream.quality.matches import MatchQuality
from stream.quality.ranking import RankingQuality

GLOBAL_ALONE = "global model alone"
"""Name of the row that every comparison has: no effects at all."""


class BlockFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A setting in one block of time. ``auc`` is None where only one outcome came."""

    from_ms: int
    applications: int
    positives: int
    auc: float | None
    log_loss: float | None


class SettingResult(msgspec.Struct, frozen=True, kw_only=True):
    """How good a setting's scores were; differences are to the reference."""

    name: str
    in_words: str
    auc: Interval
    log_loss: Interval
    observed_over_expected: Interval
    auc_difference: Interval
    log_loss_difference: Interval
    over_time: list[BlockFigures]
    calibration: list[CalibrationBin]


class LabelTiming(msgspec.Struct, frozen=True, kw_only=True):
    """How early one way of taking labels knows them; ``settings`` that take them so."""

    learn: str
    settings: list[str]
    ages: list[AtAge]

    def at(self, age: str) -> AtAge | None:
        """What was known at an age; None where it was not asked."""
        return next((one for one in self.ages if one.age == age), None)


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """Applications whose member or job had so many labelled ones before, by the reference.

    ``log_loss_gained`` is what the effects take off the log loss of the global model alone.
    """

    examples: str
    applications: int
    auc_global: float | None
    auc: float | None
    log_loss_global: float
    log_loss: float
    log_loss_gained: Interval


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    ``judged`` applications, ``positives`` of them, from ``score_from_ms`` to ``until_ms``: those
    whose whole window lies in the log. ``blocks`` blocks of ``block_ms`` carry the intervals.
    ``rankings``: of the reference, at the moment of decision, within jobs; ``member_rankings``
    within members. None where there was no choice. ``waiting``: whether the probability of an
    answer still to come is right, by age, with the reference; empty where that waits for labels.
    ``matches``: what the reference's would have been worth, at most ``matches_a_day`` of a job.
    """

    logs: list[str]
    model_version: str
    events: int
    applications: int
    from_ms: int
    until_ms: int
    score_from_ms: int
    window_ms: int
    judged: int
    positives: int
    blocks: int
    block_ms: int
    reference: str
    settings: list[SettingResult]
    labels: list[LabelTiming]
    freshness: Freshness | None
    by_member_examples: list[Gain]
    by_job_examples: list[Gain]
    rankings: RankingQuality | None = None
    member_rankings: RankingQuality | None = None
    waiting: list[AgeBracket] = []
    matches: MatchQuality | None = None
    matches_a_day: int = 0

    @property
    def block(self) -> str:
        """What a block of time is: ``week`` or ``day``."""
        return "week" if self.block_ms > DAY_MS else "day"

    def named(self, name: str) -> SettingResult:
        """Return a setting's result."""
        return next(one for one in self.settings if one.name == name)
