"""Tuning: better on data it has not seen, blind to what comes after ``until``, safe to stop."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from producers.simulate import START_MS, SimulationSettings, simulate
from stream.backtest.rehearsal import Rehearsal, record, rehearse
from stream.backtest.tuning import (
    LEAST_GAIN,
    Hyperparameter,
    Tuner,
    before,
    cross_fit,
    train_until,
)
from stream.configuration.load import load_config
from stream.configuration.settings import to_toml
from stream.errors import ConfigError
from stream.logs.files import LogLine
from stream.model.kind import ModelKind
from stream.policy import DAY_MS, EffectSettings, Policy
from stream.quality.prequential import quality
from stream.replay.reader import first_look
from tests.cli.test_history import hearback
from tests.kit import parse_policy

UNTIL_MS = START_MS + 30 * DAY_MS
# What a command says every half minute where there is no terminal: only of a slow machine.
PROGRESS = re.compile(
    r"[a-z ]+: ([\d,]+ events, [\d,]+/s, \d+%(, .+ left)?|\d+ of \d+ done, now .+)\n"
)
START = Policy(
    effects={
        "per_member": EffectSettings(prior_precision=0.3),
        "per_job": EffectSettings(prior_precision=0.3),
    }
)
"""Far too weak a prior."""


class Markets(NamedTuple):
    """One market twice: up to ``UNTIL_MS``, and whole."""

    early: Rehearsal
    whole: Rehearsal


def lines_of(settings: SimulationSettings) -> list[LogLine]:
    """Simulate a log."""
    return [LogLine("log", number, line) for number, line in enumerate(simulate(settings), 1)]


def recorded(lines: list[LogLine]) -> Rehearsal:
    """Record a log whose applications carry their global score."""
    rest, space = first_look(lines, None)
    return record(rest, Policy(), None, space)


@pytest.fixture(scope="module")
def markets() -> Markets:
    """Record a market whose entities differ little (λ = 10)."""
    lines = lines_of(
        SimulationSettings(
            members=200, jobs=50, days=50, seed=4, global_score=True, precision_member=10.0,
            precision_job=10.0,
        )
    )  # fmt: skip
    return Markets(recorded(list(before(lines, UNTIL_MS))), recorded(lines))


@pytest.fixture(scope="module")
def tuner(markets: Markets) -> Tuner:
    """Tune from a prior that is far too weak."""
    tuner = Tuner(markets.early, START, UNTIL_MS)
    assert sum(1 for _ in tuner.run()) == len(tuner.trials)
    return tuner


def test_what_it_chooses_is_better_on_what_follows(tuner: Tuner, markets: Markets) -> None:
    """The chosen policy predicts applications after ``until`` better than the start's."""
    later = markets.whole.times_ms > UNTIL_MS
    losses = []
    for policy in (tuner.best.policy, START):
        scores = markets.whole.scores(rehearse(markets.whole, policy))
        judged = quality(markets.whole.targets[later], scores[later])
        assert judged is not None
        losses.append(judged.log_loss)
    assert losses[0] < losses[1] - 0.02
    assert min(tuner.best.policy.effects["per_member"].precisions(["bias"])) >= 3.0
    assert tuner.best.policy.labels == START.labels


def test_every_value_taken_gained(tuner: Tuner) -> None:
    """From one taken trial to the next the log loss falls by at least the least gain."""
    taken = [trial.quality.log_loss for trial in tuner.trials if trial.taken]
    assert len(taken) > 2
    assert all(b <= a - LEAST_GAIN for a, b in itertools.pairwise(taken))
    assert len({repr(trial.policy) for trial in tuner.trials}) == len(tuner.trials)


def test_priors_by_feature_are_tried_from_what_was_learned(tuner: Tuner) -> None:
    """For each effect, all features named; a policy that takes one is read back as it was."""
    rounds = [trial for trial in tuner.trials if trial.value.startswith("by feature, round")]
    assert {trial.setting for trial in rounds} == {
        "per_member.prior_precision", "per_job.prior_precision",
    }  # fmt: skip
    for trial in rounds:
        effect = trial.setting.removesuffix(".prior_precision")
        prior = trial.policy.effects[effect].prior_precision
        assert isinstance(prior, dict)
        assert len(prior) == 4
        # Truth is λ = 10; the rounds lead away from where they began, at most 10 by the rule.
        assert 5.0 < min(prior.values()) <= max(prior.values()) < 60.0
        assert parse_policy(to_toml(trial.policy)) == trial.policy


def test_a_grid_grows_where_its_end_is_best(tuner: Tuner) -> None:
    """What is tried beyond lies outside of the grid, next to the best value of then."""
    beyond = [trial for trial in tuner.trials if trial.beyond]
    assert beyond
    for trial in beyond:
        effect, _, key = trial.setting.partition(".")
        assert key == "half_life"
        half_life_ms = trial.policy.effects[effect].half_life_ms
        assert half_life_ms is not None
        assert half_life_ms < 7 * DAY_MS


@pytest.mark.parametrize(
    ("values", "best", "wanted"),
    [
        ((0.3, 1.0, 30.0), 30.0, 90.0),
        ((0.3, 1.0, 30.0), 0.3, 0.1),
        ((0.3, 1.0, 30.0), 1.0, None),
        ((0.3, 30.0, 90.0), 30.0, None),
        ((5e5, 1.0), 5e5, None),
        ((2e-6, 1.0), 2e-6, None),
        (({"bias": 3.0}, 1.0, 30.0), 30.0, 90.0),
        (({"bias": 3.0}, 1.0, 30.0), {"bias": 3.0}, None),
        ((7, 120, None), 120, None),
        ((8, 120, None), None, None),
    ],
)
def test_beyond_an_end_lies_three_times_or_a_third(
    values: tuple[object, ...], best: object, wanted: float | None
) -> None:
    """Within what a policy takes; off is the longest half-life, so nothing lies beyond it."""
    grid = Hyperparameter(("per_job",), "prior_precision", (), 3, (1e-6, 1e6))
    assert grid.beyond(values, best) == wanted
    assert Hyperparameter(("per_job",), "coupled", ()).beyond((True, False), True) is None


def test_it_says_what_the_effects_are_worth(tuner: Tuner, markets: Markets) -> None:
    """Worse than the global model alone, no more than noise, or better; that baseline is exact."""
    scores = markets.early.global_scores[tuner.judged]
    assert tuner.alone == quality(markets.early.targets[tuner.judged], scores)
    assert "less than their standard error" in tuner.worth()
    weak = Tuner(markets.early, START, UNTIL_MS)
    start = next(weak.run())
    assert weak.worth() == (
        "on this log the global model alone is better:"
        f" {weak.alone.log_loss:.3f} against {start.quality.log_loss:.3f}"
    )
    strong = recorded(
        lines_of(
            SimulationSettings(
                members=60, jobs=40, days=40, seed=4, global_score=True, precision_member=0.5,
                precision_job=0.5,
            )
        )
    )  # fmt: skip
    better = Tuner(strong, Policy(), UNTIL_MS + 30 * DAY_MS)
    next(better.run())
    assert better.worth().startswith("the effects gain 0.")


def test_only_closed_windows_are_judged(tuner: Tuner, markets: Markets) -> None:
    """No application counts whose label could still change after ``until``."""
    assert markets.early.times_ms.max() <= UNTIL_MS
    assert markets.early.times_ms[tuner.judged].max() <= UNTIL_MS - 14 * DAY_MS
    assert tuner.judged.sum() > 500


def test_too_little_to_judge_is_refused(markets: Markets) -> None:
    """A time before enough windows have closed is an error that says what is needed."""
    with pytest.raises(ConfigError, match="at least 200"):
        Tuner(markets.early, Policy(), START_MS + 15 * DAY_MS)


@pytest.mark.parametrize("kind", ["linear", "boosted"])
def test_global_scores_are_of_models_that_did_not_see_the_job(kind: ModelKind) -> None:
    """Cross-fitted scores change when another job's labels do, not when the own job's do."""
    lines = lines_of(SimulationSettings(members=120, jobs=40, days=30, seed=5))
    model = train_until(lines, Policy(), UNTIL_MS, lambda _: None, kind=kind)
    rest, space = first_look(lines, model)
    rehearsal = record(rest, Policy(), model, space)
    of_job = np.array([app.job_id for app in rehearsal.applications])
    job = of_job[0]
    cross_fit(rehearsal, Policy(), UNTIL_MS, kind)
    first = rehearsal.global_scores.copy()
    rehearsal.targets[of_job == job] = 1.0 - rehearsal.targets[of_job == job]
    cross_fit(rehearsal, Policy(), UNTIL_MS, kind)
    changed = ~np.isclose(first, rehearsal.global_scores, atol=1e-12)
    assert not changed[of_job == job].any()
    assert changed.mean() > 0.5


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a log without global scores."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    settings = SimulationSettings(members=200, jobs=50, days=40, seed=4)
    path.write_bytes(b"\n".join(simulate(settings)))
    return path


def test_the_command_writes_a_policy_that_is_ready(log: Path, tmp_path: Path) -> None:
    """``tune`` prints what it tried, and its file serves ``replay --policy``."""
    out = tmp_path / "policy.toml"
    done = hearback("tune", log, "--until", UNTIL_MS, "--out", out)
    said = [line for line in done.stderr.splitlines(True) if not PROGRESS.fullmatch(line)]
    assert (done.returncode, said) == (0, [])
    for name in ("per_job.prior_precision", "per_member.half_life", "capacity", "coupled", "start",
                 "global model alone", "by feature, round 3"):  # fmt: skip
        assert name in done.stdout
    assert load_config(None, {}, out).policy.labels == Policy().labels
    done = hearback("train", log, "--out", tmp_path / "model")
    done = hearback(
        "replay", log, "--out", tmp_path / "run", "--model", tmp_path / "model", "--policy", out
    )
    assert done.returncode == 0, done.stderr


def test_ctrl_c_keeps_the_best_so_far(tmp_path: Path) -> None:
    """Interrupted, ``tune`` writes the best policy so far and says so in one line."""
    log, out = tmp_path / "big.jsonl", tmp_path / "policy.toml"
    settings = SimulationSettings(members=800, jobs=200, days=40, seed=4, global_score=True)
    log.write_bytes(b"\n".join(simulate(settings)))
    # A trial says on stderr that it began, so that the signal comes in between.
    script = (
        "import sys; from stream.backtest import tuning as t; from stream.cli import main\n"
        "old = t.rehearse\n"
        "def told(*a, **k): print('trial', file=sys.stderr, flush=True); return old(*a, **k)\n"
        "t.rehearse = told; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "tune", str(log), "--until", str(UNTIL_MS), "--out", out],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ},
    )  # fmt: skip
    assert process.stderr is not None
    said = (line for line in process.stderr if not PROGRESS.fullmatch(line))
    assert list(itertools.islice(said, 3)) == 3 * ["trial\n"]
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    last = stderr.strip().splitlines()[-1]
    assert process.returncode == 130
    assert last.startswith("hearback: interrupted; the best of the")
    assert str(out) in last
    assert "Traceback" not in stderr
    load_config(None, {}, out)


def test_policies_compare_as_values() -> None:
    """Two equal policies are one: the tuner tries none twice."""
    assert msgspec.structs.replace(Policy()) == Policy()
