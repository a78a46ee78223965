"""A global model that is trained anew every so often: as models that were rolled in."""

from __future__ import annotations

import json

import numpy as np
import pytest

from producers.truth import lively
from stream.backtest.comparison import Setting, parse_comparison
from stream.backtest.rehearsal import Recorder, Rehearsal, record, rehearse
from stream.backtest.result import GLOBAL_ALONE
from stream.backtest.retraining import retrained
from stream.backtest.runner import Runner, look_through
from stream.backtest.tuning import cross_fit, train_until, trainer
from stream.configuration.settings import parse_toml
from stream.errors import ConfigError
from stream.logs.files import LogLine
from stream.model.boosting import fit_boosted
from stream.model.columns import HISTORY_COLUMNS, preference_columns
from stream.model.folder import GlobalModel, new_model
from stream.model.training import Trainer
from stream.model.trees import Trees
from stream.policy import DAY_MS, Policy
from stream.replay.reader import first_look
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.stages.succession import Rolled
from tests.backtest.conftest import lines_of

MARKET = lively(members=60, jobs=50, days=55, seed=5)
UNTIL_MS = MARKET.start_ms + 25 * DAY_MS
EVERY_MS = 12 * DAY_MS
ANEW = Setting(name="anew", retrain_ms=EVERY_MS)
TIMES_MS = (UNTIL_MS + EVERY_MS, UNTIL_MS + 2 * EVERY_MS)


@pytest.fixture(scope="module")
def lines() -> list[LogLine]:
    """A log of applications without a global score."""
    return lines_of(MARKET)


@pytest.fixture(scope="module")
def model(lines: list[LogLine]) -> GlobalModel:
    """Train the first model on the first weeks."""
    return train_until(lines, Policy(), UNTIL_MS, lambda _: None)


@pytest.fixture(scope="module")
def recorded(lines: list[LogLine], model: GlobalModel) -> Rehearsal:
    """Record the log with the first model."""
    rest, space = first_look(lines, model)
    return record(rest, Policy(), model, space)


def test_scores_are_those_of_a_replay_with_rolls(
    lines: list[LogLine], model: GlobalModel, recorded: Rehearsal
) -> None:
    """Models of `train --until`, rolled in at the same times, score and are learned over alike."""
    rolls = tuple(
        Rolled(train_until(lines, Policy(), at_ms, lambda _: None), at_ms) for at_ms in TIMES_MS
    )
    assert len({model.version, *(roll.model.version for roll in rolls)}) == 3
    recorder = Recorder()
    rest, space = first_look(lines, model)
    replay(rest, recorder, Policy(), model, space, Options(close=True, rolls=rolls))
    found = recorded.with_global_scores(retrained(recorded, ANEW, model))
    wanted = np.array([one.global_score for one in recorder.scores])
    np.testing.assert_allclose(found.global_scores, wanted, atol=1e-6)
    assert np.abs(wanted - recorded.global_scores)[recorded.times_ms >= TIMES_MS[0]].min() > 0.0
    full = found.scores(rehearse(found, Policy()))
    np.testing.assert_allclose(full, [one.full_score for one in recorder.scores], atol=1e-5)


def known(lines: list[LogLine], at_ms: int) -> tuple[Trainer, Trees]:
    """What `train` reads of the log up to a time, and trees grown on it."""
    read = trainer(Policy(), at_ms, None, None, "boosted")
    read.read(lines, lambda _: None)
    rows = read.rows(at_ms)
    return read, fit_boosted(rows.X, rows.y, rows.weights)


@pytest.fixture(scope="module")
def trees(lines: list[LogLine]) -> GlobalModel:
    """Return a boosted model that takes all that it could."""
    first, scorer = known(lines, UNTIL_MS)
    return new_model(
        scorer,
        {
            **first.features(),
            "history": HISTORY_COLUMNS,
            "preferences": preference_columns(["skill", "title"]),
        },
        trained_from_ms=MARKET.start_ms,
        trained_until_ms=UNTIL_MS,
        applications=1,
        positives=1,
        delays=first.delays(),
        inputs=("global", "history", "preferences"),
    )


def test_trees_are_grown_on_the_rows_and_histories_of_that_time(
    lines: list[LogLine], trees: GlobalModel
) -> None:
    """Each succession's trees are those of what `train` reads of the log up to then."""
    rest, space = first_look(lines, trees)
    recorded = record(rest, Policy(), trees, space)
    found = retrained(recorded, ANEW, trees)
    X = np.array([np.frombuffer(row, "<f4") for row in recorded.rows])
    wanted = recorded.global_scores.copy()
    for at_ms in TIMES_MS:
        later = recorded.times_ms >= at_ms
        wanted[later] = known(lines, at_ms)[1].score_all(X[later])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_applications_that_bring_their_score_take_no_part(
    lines: list[LogLine], model: GlobalModel
) -> None:
    """Without global features they keep it; the others are scored by the new models."""
    mixed = []
    for at, line in enumerate(lines):
        event = json.loads(line.raw)
        if event["type"] == "application" and at % 7 == 0:
            del event["features"]["global"]
            event["global_score"] = -1.5
        mixed.append(LogLine("log", at, json.dumps(event).encode()))
    rest, space = first_look(mixed, model)
    recorded = record(rest, Policy(), model, space)
    brings = np.array([app.global_score is not None for app in recorded.applications])
    assert 0 < brings.sum() < len(brings)
    found = retrained(recorded, ANEW, model)
    assert set(found[brings]) == {-1.5}
    later = (recorded.times_ms >= TIMES_MS[0]) & ~brings
    assert (found[later] != recorded.global_scores[later]).all()
    assert (found[~later] == recorded.global_scores[~later]).all()
    cross_fit(recorded, Policy(), TIMES_MS[1])
    assert set(recorded.global_scores[brings]) == {-1.5}
    assert len(set(recorded.global_scores[~brings])) > 100


COMPARED = """
[[setting]]
name = "as it is"
[[setting]]
name = "anew"
retrain = "12d"
[[setting]]
name = "anew, alone"
retrain = "12d"
use = []
"""


def runner(
    text: str, lines: list[LogLine], model: GlobalModel | None, *, simpler: bool = False
) -> Runner:
    """Compare settings over a log."""
    return Runner(
        read=lambda: lines,
        names=["log"],
        span=look_through(lines),
        comparison=parse_comparison(parse_toml(text), Policy()),
        policy=Policy(),
        model=model,
        score_from_ms=UNTIL_MS,
        simpler=simpler,
    )


def test_a_setting_trains_anew_as_reference_and_as_another(
    lines: list[LogLine], model: GlobalModel
) -> None:
    """Its figures are the same in both places; its global scores are those of the succession."""
    found = runner(COMPARED, lines, model).run()
    turned = runner('reference = "anew"\n' + COMPARED, lines, model).run()
    assert found.named("anew").in_words == "at every label, a new global model every 12d"
    for name in ("as it is", "anew", "anew, alone", GLOBAL_ALONE):
        loss = found.named(name).log_loss.value
        assert turned.named(name).log_loss.value == pytest.approx(loss, abs=1e-6)
    losses = [found.named(name).log_loss.value for name in ("anew, alone", GLOBAL_ALONE)]
    assert losses[0] != losses[1]
    assert turned.freshness is not None
    assert turned.rankings is not None


def test_simpler_models_stand_beside_a_boosted_one(
    lines: list[LogLine], model: GlobalModel, trees: GlobalModel
) -> None:
    """Those that `train` would have made on the same span, without effects; a file names others."""
    only = '[[setting]]\nname = "as it is"\n'
    found = runner(only, lines, trees, simpler=True).run()
    said = {one.name: one.in_words for one in found.settings}
    assert said == {
        "as it is": "at every label",
        "linear model": "a linear model over global features, no effects",
        "boosted model": "a boosted model over global features, no effects",
        "boosted, with histories": "a boosted model over global features and histories, no effects",
        GLOBAL_ALONE: "no effects",
    }
    alone = runner(only, lines, model, simpler=True).run()
    assert len(alone.settings) == 2
    linear = alone.named(GLOBAL_ALONE)
    assert found.named("linear model").log_loss.value == pytest.approx(linear.log_loss.value, 1e-6)
    named = (
        only
        + """
        [[setting]]
        name = "linear, preferences"
        model = "linear"
        inputs = ["preferences"]
        [[setting]]
        name = "all"
        model = "boosted"
        inputs = ["preferences", "history"]
        use = []
        """
    )
    other = runner(named, lines, trees).run()
    whole = other.named(GLOBAL_ALONE).log_loss.value
    assert other.named("all").log_loss.value == pytest.approx(whole, 1e-6)
    with_effects = "at every label, a linear model over global features and preferences"
    assert sorted(other.named("linear, preferences").in_words.split(", ")) == sorted(
        with_effects.split(", ")
    )
    assert other.importance is not None
    assert {one.block for one in other.importance.columns} == set(trees.manifest.inputs)
    with pytest.raises(ConfigError, match="takes no preferences, so they were not recorded"):
        runner(named, lines, model)


def test_a_log_that_brings_its_scores_is_refused(log: list[LogLine]) -> None:
    """There is no model to train anew; said before anything is learned."""
    with pytest.raises(ConfigError, match="retrain and model: applications bring their"):
        runner(COMPARED, log, None)
