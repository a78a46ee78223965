"""What the global model goes by: permutation importance, against scikit-learn's."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.inspection import permutation_importance
from sklearn.metrics import log_loss

from producers.truth import lively
from stream.backtest.importance import Importance, importance
from stream.backtest.rehearsal import Rehearsal, record
from stream.backtest.tuning import trainer
from stream.logs.files import LogLine
from stream.model.boosting import fit_boosted
from stream.model.coefficients import Linear
from stream.model.columns import HISTORY_COLUMNS, preference_columns
from stream.model.folder import GlobalModel, new_model
from stream.model.kind import ModelKind
from stream.policy import DAY_MS, Policy
from stream.quality.prequential import probability
from stream.replay.reader import first_look
from tests.backtest.conftest import lines_of

MARKET = lively(members=60, jobs=50, days=45, seed=5, preference_sd=2.0, terms_share=1.0)
UNTIL_MS = MARKET.start_ms + 25 * DAY_MS
WEEKS = 6


class Estimator:
    """A model as scikit-learn looks at it."""

    classes_ = (0, 1)

    def __init__(self, model: GlobalModel) -> None:
        self.model = model

    def fit(self, *_: object) -> None:
        """It is fitted."""

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities of both outcomes."""
        p = probability(self.model.scorer.score_all(X))
        return np.stack([1.0 - p, p], axis=1)


@pytest.fixture(scope="module")
def lines() -> list[LogLine]:
    """A log of applications with terms."""
    return lines_of(MARKET)


def recorded(lines: list[LogLine], kind: ModelKind) -> tuple[GlobalModel, Rehearsal]:
    """Fit a model on all that it could take, and record the log with it."""
    read = trainer(Policy(), UNTIL_MS, None, None, kind)
    read.read(lines, lambda _: None)
    rows = read.rows(UNTIL_MS)
    features = {**read.features(), "preferences": preference_columns(["skill", "title"])}
    inputs: tuple[str, ...] = ("global", "preferences")
    if kind == "boosted":
        features["history"], inputs = HISTORY_COLUMNS, ("global", "history", "preferences")
    else:
        features["preferences"] = preference_columns(["skill", "title"], counts=False)
    coefficients: NDArray[np.float64] = np.random.default_rng(2).normal(
        0.0, 0.2, (rows.X.shape[1],)
    )
    model = new_model(
        Linear(coefficients) if kind == "linear" else fit_boosted(rows.X, rows.y, rows.weights),
        features,
        trained_from_ms=MARKET.start_ms,
        trained_until_ms=UNTIL_MS,
        applications=1,
        positives=1,
        delays=read.delays(),
        inputs=inputs,
    )
    rest, space = first_look(lines, model)
    return model, record(rest, Policy(), model, space)


def told(model: GlobalModel, rehearsal: Rehearsal) -> tuple[Importance, NDArray[np.bool_]]:
    """Importance on what was labelled, and which that is."""
    judged = ~np.isnan(rehearsal.targets)
    blocks = (rehearsal.times_ms - MARKET.start_ms) // (10 * DAY_MS)
    found = importance(rehearsal, model, judged, blocks, WEEKS)
    assert found is not None
    return found, judged


@pytest.mark.parametrize("kind", ["linear", "boosted"])
def test_it_is_what_scikit_learn_finds(lines: list[LogLine], kind: ModelKind) -> None:
    """Of every column, up to what dealing out differently makes; the largest come first."""
    model, rehearsal = recorded(lines, kind)
    found, judged = told(model, rehearsal)
    X = np.array([np.frombuffer(row, "<f4") for row in rehearsal.rows])[judged]
    oracle = permutation_importance(
        *(Estimator(model), X, rehearsal.targets[judged]),
        scoring=lambda model, X, y: -log_loss(y, model.predict_proba(X)[:, 1]),
        n_repeats=30 if kind == "linear" else 12,
        random_state=0,
    )
    assert found.applications == len(X)
    values = [one.log_loss.value for one in found.columns]
    assert values == sorted(values, reverse=True)
    assert sorted(one.name for one in found.columns) == sorted(model.columns)
    by_name = {one.name: one for one in found.columns}
    for name, mean, deviation in zip(
        model.columns, oracle.importances_mean, oracle.importances_std, strict=True
    ):
        one = by_name[name].log_loss
        assert one.value == pytest.approx(mean, abs=5 * deviation + 1e-4)
        low, high = one.ends
        assert low <= one.value <= high
    assert max(values) > 0.003


def test_blocks_are_dealt_out_as_a_whole(lines: list[LogLine]) -> None:
    """Each row of a block gets another's, all of it: as one column would, if it were one."""
    model, rehearsal = recorded(lines, "linear")
    found, judged = told(model, rehearsal)
    assert [one.name for one in found.blocks] == ["global", "preferences"]
    X = np.array([np.frombuffer(row, "<f4") for row in rehearsal.rows]).astype(float)[judged]
    y, size = rehearsal.targets[judged], len(model.manifest.features["global"])
    assert isinstance(model.scorer, Linear)
    parts = X * model.scorer.coefficients
    scores, own = parts.sum(axis=1), parts[:, size:].sum(axis=1)
    rng = np.random.default_rng(9)
    losses = []
    for _ in range(40):
        dealt = scores - own + own[rng.permutation(len(own))]
        losses.append(log_loss(y, probability(dealt)) - log_loss(y, probability(scores)))
    value = found.blocks[1].log_loss.value
    assert value == pytest.approx(np.mean(losses), abs=5 * float(np.std(losses)) + 1e-4)


def test_what_a_model_does_not_ask_is_nothing(lines: list[LogLine]) -> None:
    """Its log loss stays, to the digit; applications that bring their score do not count."""
    model, rehearsal = recorded(lines, "linear")
    assert isinstance(model.scorer, Linear)
    model.scorer.coefficients[1:] = 0.0
    found, judged = told(model, rehearsal)
    assert found.columns[0].name == model.columns[0]
    assert {one.log_loss.value for one in found.columns[1:]} == {0.0}
    apps = rehearsal.applications
    rehearsal.applications = [msgspec.structs.replace(app, global_score=0.5) for app in apps]
    assert importance(rehearsal, model, judged, rehearsal.times_ms * 0, 1) is None
