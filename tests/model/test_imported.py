"""Trees of XGBoost and LightGBM, against these libraries' own predictions.

``tests/golden/imported`` has a small model of each, as the library wrote it, and what the library
predicted of some rows (``python -m tests.model.test_imported`` makes them anew).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray

from stream.errors import ModelError
from stream.model.imported import read_model

GOLDEN = Path(__file__).parents[1] / "golden" / "imported"
NAMES = ["a", "b", "c", "zero"]
BLOCK = ["zero", "other", "c", "b", "a"]
"""A block with the model's features in another order, and one more."""

Rows = NDArray[np.float32]
untyped_xgboost: Any = xgboost
untyped_lightgbm: Any = lightgbm


def data() -> tuple[Rows, Rows, NDArray[np.int64]]:
    """Rows, the same with values missing, and targets; many numbers lie on thresholds."""
    rng = np.random.default_rng(1)
    X = np.round(rng.normal(size=(1500, 4)), 1).astype(np.float32)
    X[:, 3] = np.where(rng.random(1500) < 0.5, 0.0, X[:, 3])
    y = rng.random(1500) < 1 / (1 + np.exp(-X[:, 0] * (1 + X[:, 3])))
    gaps = X.copy()
    gaps[rng.random(X.shape) < 0.1] = np.nan
    return X, gaps, y.astype(np.int64)


def in_block(X: Rows) -> Rows:
    """Bring rows into the order of the block."""
    return np.column_stack([X[:, 3], np.full(len(X), 7.0), X[:, 2], X[:, 1], X[:, 0]]).astype(
        np.float32
    )


def of_xgboost(X: Rows, y: NDArray[np.int64], rounds: int = 20, **options: Any) -> Any:
    """Return a booster."""
    given = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1, **options}
    matrix = untyped_xgboost.DMatrix(X, label=y, feature_names=NAMES)
    return untyped_xgboost.train(given, matrix, rounds)


def of_lightgbm(X: Rows, y: NDArray[np.int64], rounds: int = 20, **options: Any) -> Any:
    """Return a booster."""
    given = {"objective": "binary", "num_leaves": 7, "num_threads": 1, "verbose": -1, **options}
    made = untyped_lightgbm.Dataset(X.astype(np.float64), label=y, feature_name=NAMES)
    return untyped_lightgbm.train(given, made, rounds)


def probabilities(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities (n,)."""
    return np.asarray(1 / (1 + np.exp(-log_odds)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"base_score": 0.2, "objective": "reg:logistic"},
        {"objective": "binary:logitraw", "base_score": 0.3},
        {"num_parallel_tree": 3, "subsample": 0.5},
        {"tree_method": "exact", "gamma": 1.0},
        {"grow_policy": "lossguide", "max_depth": 0, "max_leaves": 12},
    ],
)
def test_a_model_of_xgboost_scores_as_xgboost(options: dict[str, Any]) -> None:
    """Its prediction to 1e-6, on thresholds and with values missing, whatever it was fitted on."""
    X, gaps, y = data()
    for fitted in (X, gaps):
        booster = of_xgboost(fitted, y, **options)
        found = read_model(bytes(booster.save_raw("json"))).over(BLOCK)
        for rows in (X, gaps):
            wanted = booster.predict(
                untyped_xgboost.DMatrix(rows, feature_names=NAMES),
            )
            if options.get("objective") == "binary:logitraw":
                wanted = probabilities(wanted)
            scores = found.score_all(in_block(rows))
            assert probabilities(scores) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zero_as_missing": True},
        {"use_missing": False},
        {"sigmoid": 2.0},
        {"objective": "cross_entropy"},
        {"boosting": "dart"},
        {"num_leaves": 60, "min_data_in_leaf": 2},
    ],
)
def test_a_model_of_lightgbm_scores_as_lightgbm(options: dict[str, Any]) -> None:
    """Its prediction to 1e-6, on thresholds and with values missing, whatever it was fitted on."""
    X, gaps, y = data()
    for fitted in (X, gaps):
        booster = of_lightgbm(fitted, y, **options)
        found = read_model(json.dumps(booster.dump_model()).encode()).over(BLOCK)
        for rows in (X, gaps):
            wanted = booster.predict(rows.astype(np.float64))
            scores = found.score_all(in_block(rows))
            assert probabilities(scores) == pytest.approx(wanted, abs=1e-6)


def test_early_stopping_counts_as_the_classifier_counts() -> None:
    """XGBoost writes all trees, and predicts with those up to the best iteration."""
    X, _, y = data()
    classifier = untyped_xgboost.XGBClassifier(
        n_estimators=200, learning_rate=0.5, early_stopping_rounds=5, n_jobs=1
    ).fit(X[:1000], y[:1000], eval_set=[(X[1000:], y[1000:])], verbose=False)
    booster = classifier.get_booster()
    found = read_model(bytes(booster.save_raw("json")))
    assert found.names is None
    scorer = found.over(NAMES)
    assert scorer.trees == 1 + classifier.best_iteration + 1 < 1 + booster.num_boosted_rounds()
    wanted = classifier.predict_proba(X)[:, 1]
    assert probabilities(scorer.score_all(X)) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_what_releases_before_have_written_is_read(library: str) -> None:
    """The committed files give what the library predicted when they were written."""
    wanted = json.loads((GOLDEN / f"{library}.predicted.json").read_text())
    found = read_model((GOLDEN / f"{library}.json").read_bytes()).over(NAMES)
    rows = np.array(
        [[np.nan if x is None else x for x in row] for row in wanted["rows"]], np.float32
    )
    assert probabilities(found.score_all(rows)) == pytest.approx(wanted["predicted"], abs=1e-6)


def test_features_are_found_by_name() -> None:
    """A feature that the block lacks is named; without names the sizes must agree."""
    found = read_model((GOLDEN / "xgboost.json").read_bytes())
    with pytest.raises(ModelError, match="has the feature 'zero', the global block has not"):
        found.over(["a", "b", "c"])
    unnamed = found._replace(names=None)
    with pytest.raises(ModelError, match="names no features and has 4, the global block has 5"):
        unnamed.over(BLOCK)


def _rewritten(library: str, change: Callable[[Any], object]) -> bytes:
    model = json.loads((GOLDEN / f"{library}.json").read_text())
    change(model)
    return msgspec.json.encode(model)


def _x(*path: str | int) -> Callable[[Any], Any]:
    """Return what is at a path below the learner of XGBoost's."""

    def found(model: Any) -> Any:
        at = model["learner"]
        for step in path:
            at = at[step]
        return at

    return found


_first = _x("gradient_booster", "model", "trees", 0)
_params = _x("learner_model_param")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: _x("gradient_booster")(m).update(name="dart"), "its booster is dart"),
        (lambda m: _x("objective")(m).update(name="rank:pairwise"), "its objective is rank"),
        (lambda m: _params(m).update(num_target="2"), "several outputs"),
        (lambda m: _x("gradient_booster", "model", "tree_info")(m).append(1), "several outputs"),
        (lambda m: _first(m)["split_type"].__setitem__(0, 1), "by categories"),
        (lambda m: _params(m).update(base_score="1"), "base_score is '1'"),
        (lambda m: _params(m).update(num_feature="x"), "should be a whole number"),
        (lambda m: _params(m).update(num_feature="1"), "asks column"),
        (lambda m: _first(m)["left_children"].__setitem__(0, 99), "not there"),
        (lambda m: _first(m)["left_children"].__setitem__(1, 0), "below several"),
        (lambda m: _first(m)["default_left"].pop(), "not of one length"),
        (lambda m: _first(m).pop("split_indices"), "split_indices"),
        (lambda m: _x("feature_names")(m).pop(), "4 columns and 3 names"),
        (lambda m: m.pop("learner"), "neither a model of XGBoost"),
    ],
)
def test_what_cannot_be_taken_of_xgboost_is_said(
    change: Callable[[Any], object], says: str
) -> None:
    """Other boosters, outcomes and splits, and damage: one line says which."""
    with pytest.raises(ModelError, match=says) as error:
        read_model(_rewritten("xgboost", change))
    assert "\n" not in str(error.value)


def _root(model: Any) -> Any:
    return model["tree_info"][0]["tree_structure"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(num_class=3, num_tree_per_iteration=3), "several outputs"),
        (lambda m: m.update(average_output=True), "random forest"),
        (lambda m: m.update(objective="regression"), "its objective is regression"),
        (lambda m: m.update(objective="binary sigmoid:x"), "no number"),
        (lambda m: m.pop("objective"), "its objective is unknown"),
        (lambda m: _root(m).update(decision_type="==", threshold="0||2"), "by categories"),
        (lambda m: _root(m).update(missing_type="Some"), "missing_type 'Some'"),
        (lambda m: _root(m).pop("left_child"), "neither a leaf nor a split"),
        (lambda m: _root(m).update(split_feature=9), "asks column 9"),
        (lambda m: _root(m).update(split_feature=-1), "asks no feature"),
        (lambda m: m["feature_names"].append("a"), "names repeat"),
        (lambda m: m["feature_names"].append("e"), "4 columns and 5 names"),
        (lambda m: _root(m).update(threshold=None), "threshold"),
    ],
)
def test_what_cannot_be_taken_of_lightgbm_is_said(
    change: Callable[[Any], object], says: str
) -> None:
    """Other outcomes and splits, and damage: one line says which."""
    with pytest.raises(ModelError, match=says) as error:
        read_model(_rewritten("lightgbm", change)).over(NAMES)
    assert "\n" not in str(error.value)


def test_models_that_these_libraries_have_besides_are_refused() -> None:
    """As they write them: categories, linear leaves, forests, dart, several classes."""
    X, _, y = data()
    with pytest.raises(ModelError, match="dart"):
        read_model(bytes(of_xgboost(X, y, 2, booster="dart").save_raw("json")))
    classes = of_xgboost(X, (y + (X[:, 1] > 0)), 2, objective="multi:softprob", num_class=3)
    with pytest.raises(ModelError, match="multi:softprob"):
        read_model(bytes(classes.save_raw("json")))
    for options, says in (
        ({"linear_tree": True}, "linear models"),
        ({"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1}, "random forest"),
    ):
        with pytest.raises(ModelError, match=says):
            read_model(json.dumps(of_lightgbm(X, y, 2, **options).dump_model()).encode())
    whole = np.abs(np.round(X[:, :1] * 3))
    made = untyped_lightgbm.Dataset(whole, label=y, categorical_feature=[0])
    options = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_per_group": 1}
    booster = untyped_lightgbm.train(options, made, 5)
    with pytest.raises(ModelError, match="by categories"):
        read_model(json.dumps(booster.dump_model()).encode())


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"tree\nversion=v4", b"\x7b\x4c\x00\x01"])
def test_other_files_are_refused_with_what_to_do(content: bytes) -> None:
    """LightGBM's text, XGBoost's binary JSON, or anything else."""
    with pytest.raises(ModelError, match="save_model") as error:
        read_model(content)
    assert "\n" not in str(error.value)


def _make() -> None:
    """Write the committed files anew, with the libraries that are installed."""
    _, gaps, y = data()
    boosters = {"xgboost": of_xgboost(gaps, y, 3), "lightgbm": of_lightgbm(gaps, y, 3)}
    GOLDEN.mkdir(exist_ok=True)
    rows = gaps[:40]
    for library, booster in boosters.items():
        if library == "xgboost":
            text = bytes(booster.save_raw("json")).decode()
            predicted = booster.predict(untyped_xgboost.DMatrix(rows, feature_names=NAMES))
        else:
            text = json.dumps(booster.dump_model())
            predicted = booster.predict(rows.astype(np.float64))
        (GOLDEN / f"{library}.json").write_text(text + "\n")
        plain = [[None if np.isnan(x) else float(x) for x in row] for row in rows]
        found = {"rows": plain, "predicted": [float(p) for p in predicted]}
        (GOLDEN / f"{library}.predicted.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    _make()
