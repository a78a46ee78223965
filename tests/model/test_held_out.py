"""Held-out quality of a global model, and the comparison with the one before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.cli import main
from stream.errors import ModelError
from stream.logs.files import write_lines
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel, Manifest, load_model
from stream.model.held_out import Fit, Judgement, Unjudged, check_not_worse, hold_out
from stream.model.logistic import fit_path
from stream.model.rows import Rows
from stream.policy import DAY_MS

NAMES = ["one", "x", "noise"]
WINDOW_MS = 14 * DAY_MS
Scores = Callable[[NDArray[np.float32]], NDArray[np.float64]]
Data = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


@pytest.fixture(scope="module")
def data() -> Data:
    """A hundred days of applications, shuffled, that depend on x."""
    rng = np.random.default_rng(3)
    X = np.column_stack([np.ones(4000), rng.normal(size=(4000, 2))])
    y = (rng.random(4000) < 1 / (1 + np.exp(1.0 - X[:, 1]))).astype(np.int64)
    times_ms = rng.integers(0, 100 * DAY_MS, 4000)
    return X, y, times_ms


def other(coefficients: list[float], names: list[str] = NAMES, until_ms: int = 0) -> GlobalModel:
    """Return a model from before."""
    manifest = Manifest(
        format=1,
        model_version="before",
        features={"global": names, "per_member": ["m"], "per_job": ["j"]},
        trained_from_ms=0,
        trained_until_ms=until_ms,
        applications=1,
        positives=1,
        regularisation=1.0,
        sha256="",
    )
    return GlobalModel(manifest, Linear(np.array(coefficients)))


def closed(data: Data, at_ms: int = 10**18) -> Rows:
    """Return the rows whose windows had passed at a time."""
    X, y, times_ms = data
    there = times_ms + WINDOW_MS <= at_ms
    count = int(there.sum())
    ones = np.ones(count)
    return Rows(X[there], y[there], ones, times_ms[there], np.zeros(count, np.int64), aged=False)


def judge(data: Data, fit: Fit, than: GlobalModel | None = None) -> Judgement | Unjudged:
    """Hold the newest out."""
    return hold_out(closed(data), WINDOW_MS, NAMES, lambda at_ms: closed(data, at_ms), fit, than)


def fits(rows: Rows) -> Scores:
    """Fit with the penalty that scikit-learn has."""
    return Linear(fit_path(rows.X, rows.y, (1.0,))[0]).score_all


def always(*coefficients: float) -> Fit:
    """Return a fit that does not look."""
    return lambda *_: Linear(np.array(coefficients)).score_all


def test_the_newest_fifth_is_judged_by_what_was_known_before_it(data: Data) -> None:
    """AUC and log loss are scikit-learn's, of a model that saw only windows that had passed."""
    X, y, times_ms = data
    judged = judge(data, fits)
    assert isinstance(judged, Judgement)
    found = judged.held_out
    newest = times_ms >= found.from_ms
    assert found.applications == newest.sum() == 800
    assert found.positives == y[newest].sum()
    older = times_ms + WINDOW_MS <= found.from_ms
    assert older.sum() < 3200 - 400  # a window lies between the two
    untyped: Any = LogisticRegression
    oracle = untyped().fit(X[older][:, 1:], y[older])
    p = oracle.predict_proba(X[newest][:, 1:])[:, 1]
    assert found.auc == pytest.approx(roc_auc_score(y[newest], p), abs=1e-3)
    assert found.log_loss == pytest.approx(log_loss(y[newest], p), abs=1e-3)
    rate = np.full(800, y[older].mean())
    assert found.constant_log_loss == pytest.approx(log_loss(y[newest], rate), abs=1e-4)
    check_not_worse(
        judge(data, fits, other([0, 0, 1])),
        Path("before"),
        0.0,
    )


def test_a_worse_model_is_refused_in_one_line(data: Data) -> None:
    """By AUC, by log loss, or by neither where the margin allows it."""
    truth = other([-1.0, 1.0, 0.0])
    blind = judge(data, always(-1.0, 0.0, 0.1), truth)
    with pytest.raises(ModelError, match=r"is worse than old, by more than 0\.005, on 800") as said:
        check_not_worse(blind, Path("old"), 0.005)
    assert "\n" not in str(said.value)
    shifted = judge(data, always(1.0, 1.0, 0.0), truth)
    with pytest.raises(ModelError, match="log loss"):
        check_not_worse(shifted, Path("old"), 0.005)
    check_not_worse(blind, Path("old"), 0.5)


def test_only_what_the_model_before_has_not_seen_is_compared(data: Data) -> None:
    """Applications that the old model was trained on would flatter it."""
    X, y, times_ms = data
    old = other([-1.0, 1.0], ["one", "x"], until_ms=105 * DAY_MS)
    judged = judge(data, fits, old)
    assert isinstance(judged, Judgement)
    assert judged.before is not None
    unseen = times_ms + WINDOW_MS > 105 * DAY_MS
    assert judged.compared == unseen.sum() < judged.held_out.applications
    assert judged.before.auc == pytest.approx(roc_auc_score(y[unseen], X[unseen, 1]))
    all_seen = other([0.0], ["one"], until_ms=200 * DAY_MS)
    with pytest.raises(ModelError, match="nothing to compare on"):
        judge(data, fits, all_seen)
    with pytest.raises(ModelError, match="such as gone"):
        judge(data, fits, other([0.0], ["gone"]))


def test_too_little_is_not_judged(data: Data) -> None:
    """A log that is hardly longer than the window says why; a gate does not let it pass."""
    X, y, times_ms = data
    few = judge((X[:10], y[:10], times_ms[:10]), fits)
    assert few == Unjudged("10 applications are too few, 20 are needed")
    short = times_ms // 10
    judged = judge((X, y, short), fits)
    assert isinstance(judged, Unjudged)
    assert "when the newest fifth began (1970-01-08" in judged.reason
    with pytest.raises(ModelError, match="cannot be told: when the newest fifth began"):
        check_not_worse(judged, Path("old"), 0.0)


def test_train_reports_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command tells what was held out, keeps it in the manifest, and fails on a worse model."""
    log = tmp_path / "log.jsonl"
    settings = SimulationSettings(seed=5, members=500, jobs=60, days=60)
    write_lines(log, simulate(settings))

    def train(*arguments: object) -> int:
        given = ["hearback", "train", str(log), *map(str, arguments)]
        monkeypatch.setattr("sys.argv", given)
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    middle = settings.start_ms + 45 * DAY_MS
    assert train("--out", tmp_path / "old", "--until", middle) == 0
    assert "held out: " in capsys.readouterr().out
    kept = load_model(tmp_path / "old").manifest.held_out
    assert kept is not None
    assert kept.auc is not None
    compare = ("--out", tmp_path / "new", "--not-worse-than", tmp_path / "old")
    assert train(*compare, "--margin", 0.5) == 0
    assert "whose windows ended after the model before was trained" in capsys.readouterr().out
    manifest = msgspec.json.decode((tmp_path / "new" / "manifest.json").read_bytes())
    assert manifest["held_out"]["applications"] > 100
    monkeypatch.setattr(
        "stream.model.training_set.fit_logistic",
        lambda rows, *_: (np.full(rows.X.shape[1], 3.0), None),
    )
    assert train("--out", tmp_path / "worse", "--not-worse-than", tmp_path / "old") == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "is worse than" in said[0]
    assert not (tmp_path / "worse").exists()
