"""What a backtest found: ``backtest.json``. Nothing in it depends on the clock or the machine."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.backtest.freshness import Freshness
from stream.backtest.importance import Importance
from stream.backtest.judgement import Blocks, CalibrationBin, Interval, Judge, Sums
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
    ``importance``: what the global model goes by, None: applications bring their score.
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
    importance: Importance | None = None

    @property
    def block(self) -> str:
        """What a block of time is: ``week`` or ``day``."""
        return "week" if self.block_ms > DAY_MS else "day"

    def named(self, name: str) -> SettingResult:
        """Return a setting's result."""
        return next(one for one in self.settings if one.name == name)


def setting_result(
    judge: Judge,
    blocks: Blocks,
    name: str,
    in_words: str,
    scores: NDArray[np.float64],
    own: Sums,
    reference: Sums,
) -> SettingResult:
    """Judge a setting by its scores, log-odds (n,), their sums and those of the reference."""
    single = np.eye(len(blocks.from_ms))
    auc, log_loss = own.auc(single), own.log_loss(single)
    return SettingResult(
        name=name,
        in_words=in_words,
        auc=judge.figure(own.auc),
        log_loss=judge.figure(own.log_loss),
        observed_over_expected=judge.figure(own.observed_over_expected),
        auc_difference=judge.figure(own.auc, reference.auc),
        log_loss_difference=judge.figure(
            lambda draws: own.log_loss(draws) - reference.log_loss(draws)
        ),
        over_time=[
            BlockFigures(
                from_ms=from_ms,
                applications=int(own.positives[at] + own.negatives[at]),
                positives=int(own.positives[at]),
                auc=known(auc[at]),
                log_loss=known(log_loss[at]),
            )
            for at, from_ms in enumerate(blocks.from_ms)
        ],
        calibration=judge.calibration(scores),
    )


def known(value: float) -> float | None:
    """Return a figure, None where there is none (NaN)."""
    return None if np.isnan(value) else float(value)
