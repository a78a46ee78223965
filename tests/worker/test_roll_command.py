"""hearback model roll: what it sends, what it refuses, and that worse models stay out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from typer.testing import CliRunner

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.backtest.tuning import trainer
from stream.cli import app
from stream.errors import ConfigError, ModelError
from stream.kafka.embedded import EmbeddedBroker
from stream.logs.files import merge, write_lines
from stream.model.boosting import fit_boosted
from stream.model.coefficients import Linear
from stream.model.columns import preference_columns
from stream.model.folder import GlobalModel, new_model, save_model
from stream.model.held_out import Judgement, Unjudged
from stream.partitions.commands import RollCommand, control_of
from stream.policy import DAY_MS, Policy
from stream.units import format_time
from stream.worker.control import CommandReader, sent_rolls
from tests.replay.test_single import rows
from tests.worker.test_control import wait

MARKET = SimulationSettings(
    seed=4, members=80, jobs=40, days=40, applications_per_member=15, d_global=3
)
TRAINED_MS = MARKET.start_ms + 20 * DAY_MS


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated log."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    write_lines(path, simulate(MARKET))
    return path


@pytest.fixture(scope="module")
def features(log: Path) -> dict[str, list[str]]:
    """Return the log's feature names."""
    blocks = next(row["features"] for row in rows(log) if row["type"] == "application")
    return {block: [f"{at}" for at in range(len(values))] for block, values in blocks.items()}


@pytest.fixture(scope="module")
def best(log: Path, features: dict[str, list[str]]) -> list[float]:
    """Return the coefficients of a model that is fitted on all of the log."""
    made = trainer(Policy(), None, features, None, "linear")
    made.read(merge([log]), lambda _: None)
    scorer = made.model().scorer
    assert isinstance(scorer, Linear)
    found: list[float] = scorer.coefficients.tolist()
    return found


def model_of(features: dict[str, list[str]], beta: list[float], until_ms: int) -> GlobalModel:
    """Return a linear model that was trained until a time."""
    return new_model(
        Linear(np.array(beta)),
        features,
        trained_from_ms=0,
        trained_until_ms=until_ms,
        applications=0,
        positives=0,
    )


def test_two_models_are_compared_on_what_neither_has_seen(
    log: Path, features: dict[str, list[str]], best: list[float]
) -> None:
    """AUC and log loss are scikit-learn's, of the applications whose windows ended after both."""
    new = model_of(features, best, TRAINED_MS)
    old = model_of(features, [-b for b in best], TRAINED_MS - 5 * DAY_MS)
    made = trainer(Policy(), None, features, None, "linear")
    made.read(merge([log]), lambda _: None)
    judged = made.compare(new, old)
    assert isinstance(judged, Judgement)
    unseen_ids = {
        (row["job_id"], row["application_id"])
        for row in rows(log)
        if row["type"] == "application"
        and TRAINED_MS < row["event_time_ms"] + 14 * DAY_MS <= made.end_ms
    }
    assert judged.compared == len(unseen_ids)
    final = made.rows(made.end_ms, aged=False)
    unseen = final.times_ms + 14 * DAY_MS > TRAINED_MS
    y = final.y[unseen]
    for found, beta in ((judged.after, best), (judged.before, [-b for b in best])):
        X = final.X[unseen, : len(beta)].astype(np.float32).astype(np.float64)  # the global block
        scores = X @ np.array(beta)
        assert found is not None
        assert found.auc == pytest.approx(roc_auc_score(y, scores))
        assert found.log_loss == pytest.approx(log_loss(y, 1.0 / (1.0 + np.exp(-scores))))
    late = model_of(features, best, MARKET.start_ms + 400 * DAY_MS)
    assert isinstance(made.compare(late, old), Unjudged)
    assert math.isfinite(judged.held_out.log_loss)


def test_trees_over_preferences_without_histories_are_judged(
    tmp_path: Path, embedded_broker: EmbeddedBroker
) -> None:
    """They take counts of preferences, which a linear model's training does not make."""
    log, until = tmp_path / "log.jsonl", format_time(TRAINED_MS)
    write_lines(log, simulate(msgspec.structs.replace(MARKET, preference_sd=1.0, terms_share=1.0)))
    read = trainer(Policy(), TRAINED_MS, None, None, "boosted")
    read.read(merge([log]), lambda _: None)
    preferences = preference_columns(["skill", "title"])
    d, rng = MARKET.d_global + len(preferences), np.random.default_rng(5)
    model = new_model(
        fit_boosted(rng.normal(size=(200, d)), rng.integers(0, 2, 200), np.ones(200)),
        {**read.features(), "preferences": preferences},
        trained_from_ms=MARKET.start_ms,
        trained_until_ms=TRAINED_MS,
        applications=1,
        positives=1,
        inputs=("global", "preferences"),
    )
    folder = str(tmp_path / "model")
    save_model(tmp_path / "model", model)
    broker = ["--broker", embedded_broker.bootstrap_servers, "--app-id", "trees"]
    embedded_broker.create_topics({control_of("trees"): 1})
    gate = ["--on", str(log), "--not-worse-than", folder]
    done = CliRunner().invoke(app, ["model", "roll", folder, "--at", until, *broker, *gate])
    assert done.exit_code == 0, done.exception
    (roll,) = sent_rolls(embedded_broker.bootstrap_servers, "trees")
    assert roll.model.manifest.model_version == model.version


def test_the_command_sends_the_model_or_refuses_it(
    log: Path,
    features: dict[str, list[str]],
    best: list[float],
    tmp_path: Path,
    embedded_broker: EmbeddedBroker,
) -> None:
    """A better one is sent, whole, each roll newer than the last; worse ones and misfits not."""
    address, application_id = embedded_broker.bootstrap_servers, "rolled"
    embedded_broker.create_topics({control_of(application_id): 1})
    good = model_of(features, best, TRAINED_MS)
    save_model(tmp_path / "good", good)
    save_model(tmp_path / "bad", model_of(features, [-b for b in best], TRAINED_MS))
    names = features | {"per_job": ["other"]}
    save_model(tmp_path / "other", model_of(names, best, TRAINED_MS))
    broker = ["--broker", address, "--app-id", application_id]
    at = ["--at", format_time(TRAINED_MS)]

    def roll(name: str, *more: str) -> Any:
        return CliRunner().invoke(app, ["model", "roll", str(tmp_path / name), *at, *broker, *more])

    assert sent_rolls(address, application_id) == []
    gate = ["--on", str(log), "--not-worse-than"]
    worse = roll("bad", *gate, str(tmp_path / "good"))
    assert isinstance(worse.exception, ModelError)
    assert "is worse than" in str(worse.exception)
    config = tmp_path / "hearback.toml"
    config.write_text(f"[worker]\nmodel = '{tmp_path / 'good'}'\n")
    misfit = roll("other", "--config", str(config))
    assert isinstance(misfit.exception, ConfigError)
    assert roll("good", "--on", str(log)).exit_code == 2
    assert sent_rolls(address, application_id) == []
    better = roll("good", *gate, str(tmp_path / "bad"), "--config", str(config))
    assert better.exit_code == 0, better.output
    assert f"by model {good.version}" in better.output.replace("\n", " ")
    assert "has passed" in better.output
    (first,) = sent_rolls(address, application_id)
    assert roll("bad").exit_code == 0
    before, after = sent_rolls(address, application_id)
    assert before == first
    assert after.issued_ms > first.issued_ms > 0

    def check(model: GlobalModel) -> None:
        if model.version != good.version:
            raise ConfigError("another one")

    taken: list[str] = []
    service = CommandReader(
        address, application_id, lambda model: taken.append(model.version), keeps_rolls=False
    )
    service.start()
    wait(lambda: len(taken) == 2)
    assert taken[0] == good.version
    assert service.commands() == []
    service.stop()
    reader = CommandReader(address, application_id, check)
    reader.start()
    try:
        wait(lambda: len(reader.commands()) == 1)
        (command,) = reader.commands()
        assert isinstance(command, RollCommand)
        assert (command.from_ms, command.issued_ms) == (TRAINED_MS, first.issued_ms)
        assert command.model.model().version == good.version
    finally:
        reader.stop()
