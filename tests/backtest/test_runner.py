"""A backtest: the reference is the replay, and the settings are what they say."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from stream.backtest.comparison import Comparison, parse_comparison
from stream.backtest.rehearsal import Rehearsal
from stream.backtest.result import GLOBAL_ALONE, Backtest
from stream.backtest.runner import Runner, Span, look_through
from stream.configuration.settings import parse_toml
from stream.errors import ConfigError
from stream.logs.files import LogLine
from stream.policy import DAY_MS, Policy
from stream.quality.prequential import quality
from tests.backtest.conftest import SETTINGS

COMPARED = """
[[setting]]
name = "as it comes"
[[setting]]
name = "weekly"
refresh = "weekly"
[[setting]]
name = "never"
refresh = "never"
[[setting]]
name = "wait"
learn = "final"
[[setting]]
name = "nothing"
use = []
[[setting]]
name = "short window"
policy.labels.window = "5d"
[[setting]]
name = "explicit window"
learn = "explicit"
policy.labels.window = "5d"
"""
FROM_MS = SETTINGS.start_ms + 20 * DAY_MS


def runner(log: list[LogLine], comparison: Comparison, from_ms: int = FROM_MS) -> Runner:
    """A comparison over the shared log."""
    span = look_through(log)
    return Runner(
        read=lambda: log,
        names=["log"],
        span=span,
        comparison=comparison,
        policy=Policy(),
        model=None,
        score_from_ms=from_ms,
    )


@pytest.fixture(scope="module")
def found(log: list[LogLine]) -> Backtest:
    """Compare some settings."""
    started: list[str] = []
    result = runner(log, parse_comparison(parse_toml(COMPARED), Policy())).run(started.append)
    assert len(started) == 7
    return result


def test_the_reference_is_judged_as_the_replay_is(found: Backtest, rehearsal: Rehearsal) -> None:
    """AUC, log loss and calibration of the plain setting are those of the replay's own scores."""
    last_ms = found.until_ms
    chosen = (rehearsal.times_ms >= FROM_MS) & (rehearsal.times_ms <= last_ms)
    assert found.judged == chosen.sum()
    for name, scores in (
        ("as it comes", rehearsal.recorded),
        (GLOBAL_ALONE, rehearsal.global_scores),
        ("nothing", rehearsal.global_scores),
    ):
        expected = quality(rehearsal.targets[chosen], scores[chosen])
        assert expected is not None
        result = found.named(name)
        assert result.auc.value == pytest.approx(expected.auc, abs=1e-6)
        assert result.log_loss.value == pytest.approx(expected.log_loss, abs=1e-6)
        assert result.observed_over_expected.value == pytest.approx(
            expected.observed_over_expected, abs=1e-6
        )


def test_only_applications_whose_window_lies_in_the_log_are_judged(
    found: Backtest, log: list[LogLine]
) -> None:
    """The last judged application's window ends before the log's last event."""
    span = look_through(log)
    assert span.last_ms is not None
    assert found.until_ms + found.window_ms <= span.last_ms
    assert found.events == len(log)


def test_the_span_leaves_out_what_says_nothing_of_time(log: list[LogLine]) -> None:
    """A far time of an unknown type or a forget is not the log's; that of a jump with a limit."""
    far = b'"event_time_ms":4070908800000}'
    other = [b'{"type":"x",', b'{"type":["job"],', b'{"type":"forget","member_id":"m",']
    lines = [LogLine("log", 0, start + far) for start in other]
    assert look_through([*lines, *log])[1:] == look_through(log)[1:]
    jump = LogLine("log", 0, b'{"type":"application",' + far)
    for spoiled in ([jump, *log], [*log, jump]):
        assert look_through(spoiled).last_ms == 4_070_908_800_000
        assert look_through(spoiled, max_jump_ms=30 * DAY_MS)[1:] == look_through(log)[1:]


def test_the_sooner_labels_take_effect_the_better(found: Backtest) -> None:
    """Updates at every label beat weekly ones, these beat none, and any beats the global model."""
    order = ["as it comes", "weekly", "never", GLOBAL_ALONE]
    losses = [found.named(name).log_loss.value for name in order]
    assert losses == sorted(losses)
    never = found.named("never").auc_difference
    assert never.high is not None
    assert never.high < 0
    assert found.named("wait").log_loss_difference.value > 0


def test_other_labels_are_judged_by_the_same_truth(found: Backtest) -> None:
    """A shorter window learns other labels, but is judged by the base policy's, on the same."""
    short = found.named("short window")
    assert short.auc.value != found.named("as it comes").auc.value
    assert sum(block.applications for block in short.over_time) == found.judged
    assert sum(block.positives for block in short.over_time) == found.positives
    assert found.named(GLOBAL_ALONE).auc.value < short.auc.value


def test_everything_is_in_the_result(found: Backtest) -> None:
    """Labels, freshness, calibration and who gains are there; it is written and read back."""
    assert [one.learn for one in found.labels] == ["early", "final"]
    assert found.labels[0].settings == ["as it comes", "weekly", "never"]
    assert found.freshness is not None
    assert found.freshness.points
    assert sum(one.applications for one in found.by_member_examples) <= found.judged
    assert {one.examples for one in found.by_job_examples} >= {"0", "11-20"}
    gained = [one.log_loss_gained.value for one in found.by_member_examples]
    assert gained[-1] > gained[0]
    assert msgspec.json.decode(msgspec.json.encode(found), type=Backtest) == found


def test_the_same_log_gives_the_same_result(log: list[LogLine]) -> None:
    """Two runs give the same bytes."""
    comparison = parse_comparison({"setting": [{"name": "one"}]}, Policy())
    once, again = (runner(log, comparison).run() for _ in range(2))
    assert msgspec.json.encode(once) == msgspec.json.encode(again)


def test_too_little_to_judge_by_is_refused(log: list[LogLine]) -> None:
    """A time after nearly everything, and a log without applications, are refused in words."""
    comparison = parse_comparison({"setting": [{"name": "one"}]}, Policy())
    with pytest.raises(ConfigError, match="whole window of 14d in the log"):
        runner(log, comparison, SETTINGS.start_ms + 59 * DAY_MS)
    with pytest.raises(ConfigError, match="no application"):
        Span(0, None, None, None).quarter_ms()


def test_examples_are_counted_before_the_application(found: Backtest) -> None:
    """Nobody's first application has examples: the group without any has all the first ones."""
    none = next(one for one in found.by_member_examples if one.examples == "0")
    assert 0 < none.applications < found.judged
    assert np.isfinite(none.log_loss_gained.value)
