"""A backtest in sentences: what they say follows from the figures."""

from __future__ import annotations

import msgspec

from stream.backtest.judgement import Interval
from stream.backtest.result import Backtest
from stream.report.words import sentences, subject
from tests.report.conftest import setting


def said(found: Backtest) -> str:
    """All sentences in one."""
    return " ".join(sentences(found))


def test_the_figures_are_in_the_sentences(found: Backtest) -> None:
    """Worth, refresh, decay, labels, who gains and calibration are told, with their figures."""
    text = said(found)
    assert "73 times in 100" in text
    assert "it is 62 times" in text
    assert "clearly better" in text
    assert "−0.020 when refreshed every 7d" in text
    assert "−0.080 when never updated" in text
    assert "lost after 21 days (18 to 24)" in text
    assert "jobs’ coefficients add after 7 days (4 to 9)" in text
    assert "members’ coefficients add after 30 days (at least 25)" in text
    assert "30% of the applications have a label, and 90% of these labels, counted as they" in text
    assert "Members with over 50 labelled applications gain most: 0.090" in text
    assert "right on average" in text
    assert (
        "would miss most: history.job.answers, <salary>. Of its 2 most important features, the"
        " stream itself counts 1."
    ) in text
    assert "None of the other 3 settings predicts clearly better" in text
    assert "1,000 applications from 2024-01-01 to 2024-03-10, of which 27%" in subject(found)


def test_who_has_no_example_is_named_once(found: Backtest) -> None:
    """Where members without labelled applications gain most, that is said once."""
    none, more = found.by_member_examples
    none = msgspec.structs.replace(none, log_loss_gained=Interval(0.2, 0.1, 0.3))
    text = said(msgspec.structs.replace(found, by_member_examples=[none, more]))
    assert (
        "Members with no labelled applications gain most: 0.200 nats of log loss per application."
    ) in text


def test_a_better_setting_is_named(found: Backtest) -> None:
    """A setting whose log loss is clearly lower is recommended by name."""
    better = setting("half-life 7 days", "per_job.half_life = 7d", 0.74, 0.51)
    settings = [*found.settings[:-1], better, found.settings[-1]]
    text = said(msgspec.structs.replace(found, settings=settings))
    assert "“half-life 7 days” predicts better than “every label”: log loss 0.5100" in text


def test_no_clear_difference_is_said_so(found: Backtest) -> None:
    """Where the interval crosses zero, nothing is claimed."""
    alone = msgspec.structs.replace(found.settings[-1], auc_difference=Interval(-0.01, -0.03, 0.01))
    text = said(msgspec.structs.replace(found, settings=[*found.settings[:-1], alone]))
    assert "made no clear difference" in text
    assert "clearly better:" not in text


def test_miscalibration_is_said(found: Backtest) -> None:
    """Too many or too few answers are told in per cent."""
    for ratio, words in ((1.2, "20% more answers"), (0.9, "10% fewer answers")):
        reference = msgspec.structs.replace(
            found.settings[0], observed_over_expected=Interval(ratio, None, None)
        )
        changed = msgspec.structs.replace(found, settings=[reference, *found.settings[1:]])
        assert words in said(changed)


def test_a_short_log_has_fewer_sentences(found: Backtest) -> None:
    """Without a curve, groups or intervals the rest is still told."""
    bare = msgspec.structs.replace(
        found, freshness=None, by_member_examples=[], by_job_examples=[], labels=[]
    )
    assert "When updates stop" not in said(bare)
    assert len(sentences(bare)) >= 3
