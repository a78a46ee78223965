"""A result that the tests of the report share."""

from __future__ import annotations

import msgspec
import pytest

from stream.backtest.freshness import AgePoint, Freshness, Share
from stream.backtest.importance import Importance, Missed
from stream.backtest.judgement import CalibrationBin, Interval
from stream.backtest.result import (
    GLOBAL_ALONE,
    Backtest,
    BlockFigures,
    Gain,
    LabelTiming,
    SettingResult,
)
from stream.backtest.schedule import AtAge
from stream.backtest.waiting import AgeBracket
from stream.policy import DAY_MS, HOUR_MS

START_MS = 1_704_067_200_000
WEEKS = 10


def setting(name: str, words: str, auc: float, loss: float) -> SettingResult:
    """A setting that is as good in every week."""
    return SettingResult(
        name=name,
        in_words=words,
        auc=Interval(auc, auc - 0.01, auc + 0.01),
        log_loss=Interval(loss, loss - 0.01, loss + 0.01),
        observed_over_expected=Interval(1.01, 0.95, 1.05),
        auc_difference=Interval(auc - 0.73, auc - 0.735, auc - 0.725),
        log_loss_difference=Interval(loss - 0.53, loss - 0.535, loss - 0.525),
        over_time=[
            BlockFigures(
                from_ms=START_MS + week * 7 * DAY_MS,
                applications=100,
                positives=0 if week == 3 else 30,
                auc=None if week == 3 else auc + 0.002 * week,
                log_loss=loss,
            )
            for week in range(WEEKS)
        ],
        calibration=[
            CalibrationBin(expected=0.05 + at / 20, observed=0.06 + at / 20, applications=100)
            for at in range(10)
        ],
    )


def at_age(days: int, labelled: float) -> AtAge:
    """What was known at an age."""
    return AtAge(
        age_ms=days * DAY_MS,
        age=f"{days}d",
        labelled=labelled,
        right=0.9 if labelled else None,
        positives_known=labelled / 2,
        negatives_right=None,
    )


def share(value: float) -> Share:
    """What is left of an advantage."""
    found = Interval(value, value - 0.1, value + 0.1)
    return Share(auc=found, log_loss=found)


@pytest.fixture
def found() -> Backtest:
    """A backtest with everything in it, and names that are no HTML."""
    points = [
        AgePoint(
            from_days=day, to_days=day + 7, mean_days=day + 3.5, applications=1000,
            auc_live=0.73, auc_frozen=0.73 - day / 400, auc_global=0.62,
            log_loss_live=0.53, log_loss_frozen=0.55, log_loss_global=0.58,
            both=share(0.5 ** (day / 21)), member=share(0.5 ** (day / 30)),
            job=share(0.5 ** (day / 7)),
        )
        for day in range(0, 42, 7)
    ]  # fmt: skip
    gain = Gain(
        examples="0", applications=500, auc_global=0.6, auc=None, log_loss_global=0.58,
        log_loss=0.57, log_loss_gained=Interval(0.01, 0.005, 0.015),
    )  # fmt: skip
    more = msgspec.structs.replace(
        gain, examples="over 50", log_loss_gained=Interval(0.09, 0.05, 0.12)
    )
    return Backtest(
        logs=["<log>.jsonl"],
        model_version="abc",
        events=20_000,
        applications=9_000,
        from_ms=START_MS - 30 * DAY_MS,
        until_ms=START_MS + WEEKS * 7 * DAY_MS - 1,
        score_from_ms=START_MS,
        window_ms=14 * DAY_MS,
        judged=1000,
        positives=270,
        blocks=WEEKS,
        block_ms=7 * DAY_MS,
        reference="every label",
        settings=[
            setting("every label", "at every label", 0.73, 0.53),
            setting('<b>"weekly"</b>', "refreshed every 7d", 0.71, 0.54),
            setting("wait", "at every label, final labels only", 0.69, 0.55),
            setting("never", "never updated", 0.65, 0.57),
            setting(GLOBAL_ALONE, "no effects", 0.62, 0.58),
        ],
        labels=[
            LabelTiming(
                learn="early",
                settings=["every label"],
                ages=[at_age(1, 0.3), at_age(14, 0.9), at_age(15, 1.0)],
            ),
            LabelTiming(
                learn="final",
                settings=["wait"],
                ages=[at_age(1, 0.0), at_age(14, 0.0), at_age(15, 1.0)],
            ),
        ],
        freshness=Freshness(
            frozen_at_ms=[START_MS],
            points=points,
            half_life_days={
                "both": Interval(21.0, 18.0, 24.0),
                "member": Interval(30.0, 25.0, None),
                "job": Interval(7.0, 4.0, 9.0),
            },
        ),
        by_member_examples=[gain, more],
        by_job_examples=[gain, more],
        importance=Importance(
            applications=800,
            blocks=[
                Missed(name="global", block="global", log_loss=Interval(0.02, 0.01, 0.03)),
                Missed(name="history", block="history", log_loss=Interval(0.03, 0.02, 0.04)),
            ],
            columns=[
                Missed(
                    name="history.job.answers", block="history",
                    log_loss=Interval(0.0123, 0.008, 0.016),
                ),
                Missed(name="<salary>", block="global", log_loss=Interval(0.01, 0.005, 0.015)),
                Missed(name="noise", block="global", log_loss=Interval(0.0001, -0.001, 0.001)),
            ],
        ),
        waiting=[
            AgeBracket(
                from_ms=0, to_ms=6 * HOUR_MS, moments=1234,
                observed_over_expected={
                    "delays": Interval(1.02, 0.98, 1.06), "landmark": Interval(0.99, 0.95, 1.03),
                },
            ),
            AgeBracket(
                from_ms=6 * HOUR_MS, to_ms=DAY_MS, moments=567,
                observed_over_expected={
                    "delays": Interval(1.55, 1.4, 1.7), "landmark": Interval(1.07),
                },
            ),
        ],
    )  # fmt: skip
