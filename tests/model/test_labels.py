"""The next global model from labels alone: a run's or a topic's."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.backtest.tuning import trainer
from stream.cli import main
from stream.errors import ModelError
from stream.logs.files import merge, write_lines
from stream.model.folder import GlobalModel, load_model
from stream.model.kind import ModelKind
from stream.model.labels import LabelTrainer
from stream.policy import DAY_MS, Policy
from stream.replay.reader import first_look
from stream.replay.resumable import replay_into
from stream.replay.savepoint import Options

SETTINGS = SimulationSettings(seed=7, members=150, jobs=30, days=30, applications_per_member=6)
LAST_MS = SETTINGS.start_ms + 30 * DAY_MS
QUIET_MS = LAST_MS + 3 * DAY_MS  # all have waited for longer than the first step of aging


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a log, a model of its beginning, and a run with that."""
    path = tmp_path_factory.mktemp("labels")
    log = path / "log.jsonl"
    write_lines(log, simulate(SETTINGS))
    arguments = ("train", log, "--until", SETTINGS.start_ms + 20 * DAY_MS, "--out", path / "model")
    with pytest.MonkeyPatch.context() as patch:
        assert hearback(patch, *arguments) == 0
    model = load_model(path / "model")
    lines, space = first_look(merge([log]), model)
    replay_into(path / "run", [log], lines, Policy(), model, space, Options())
    return path


def hearback(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run a command; return its exit code."""
    monkeypatch.setattr("sys.argv", ["hearback", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def labels(folder: Path) -> list[bytes]:
    """Return the run's labels."""
    return (folder / "run" / "labels.jsonl").read_bytes().splitlines()


def of_labels(
    values: list[bytes], until_ms: int | None, kind: ModelKind = "linear"
) -> LabelTrainer:
    """Read labels."""
    fitting = LabelTrainer(Policy(), until_ms, None, kind)
    fitting.read(values, lambda _: None)
    return fitting


@pytest.mark.parametrize("kind", ["linear", "boosted"])
def test_the_model_is_that_of_the_log(folder: Path, kind: ModelKind) -> None:
    """Where all who applied have a label, the same rows give the same model, bit by bit."""
    models: list[GlobalModel] = []
    for until_ms in (QUIET_MS, QUIET_MS + 4 * DAY_MS):
        of_log = trainer(Policy(), until_ms, None, None, kind)
        of_log.read(merge([folder / "log.jsonl"]), lambda _: None)
        wanted = of_log.model()
        found = of_labels(labels(folder), until_ms, kind).model()
        assert found.manifest == wanted.manifest
        models.append(found)
    assert models[0].version != models[1].version


def test_neither_order_nor_repeats_matter(folder: Path) -> None:
    """Labels of several partitions come in any order; a worker's may be read twice."""
    shuffled = labels(folder) * 2
    random.Random(3).shuffle(shuffled)
    wanted = of_labels(labels(folder), QUIET_MS).model()
    assert of_labels(shuffled, QUIET_MS).model().manifest == wanted.manifest


def test_who_applied_just_now_is_left_out(folder: Path) -> None:
    """Those younger than the first step of aging, answered or not; all others are as in the log."""
    until_ms = SETTINGS.start_ms + 25 * DAY_MS
    of_log = trainer(Policy(), until_ms, None, None, "linear")
    of_log.read(merge([folder / "log.jsonl"]), lambda _: None)
    theirs, ours = (
        each.rows(until_ms, aged=True) for each in (of_log, of_labels(labels(folder), until_ms))
    )
    delays = load_model(folder / "model").manifest.delays
    assert delays is not None
    step_ms = delays.age_ms(0.35)
    young = theirs.times_ms > until_ms - step_ms
    assert theirs.y[young].sum() > 0
    kept = theirs.times_ms <= ours.times_ms.max()
    assert not (kept & young).any()
    assert (kept | young).mean() > 0.99
    assert (theirs.times_ms[kept] == ours.times_ms).all()
    assert (theirs.y[kept] == ours.y).all()
    assert (theirs.X[kept] == ours.X).all()
    assert np.abs(theirs.weights[kept] - ours.weights).max() < 0.1  # the delays differ a little


def test_the_command_trains_judges_and_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names are those of the model before, with which it is compared; a prior is chosen."""
    out = folder / "next"
    given = ("train", "--from-labels", folder / "run", "--kind", "boosted", "--out", out)
    compared = ("--not-worse-than", folder / "model", "--margin", 1)
    assert hearback(monkeypatch, *given, *compared) == 0
    said = capsys.readouterr().out
    manifest = load_model(out).manifest
    assert "whose windows ended after the model before was trained" in said
    assert "prior precision of the effects: λ" in said
    assert manifest.prior_precision is not None
    assert manifest.features["global"] == load_model(folder / "model").manifest.features["global"]
    assert manifest.held_out is not None
    assert hearback(monkeypatch, "train", "--out", folder / "other") == 2
    assert "either LOG... or --from-labels" in capsys.readouterr().err
    other = ("train", folder / "log.jsonl", "--broker", "localhost:1", "--out", folder / "other")
    assert hearback(monkeypatch, *other) == 2
    assert "--broker goes with --from-labels" in capsys.readouterr().err


def test_labels_without_what_was_scored_are_refused(folder: Path) -> None:
    """Those of earlier releases and of applications that brought a score cannot be trained on."""
    old = []
    for line in labels(folder):
        label = msgspec.json.decode(line)
        del label["features"]["global"]
        old.append(msgspec.json.encode(label))
    fitting = of_labels(old, None)
    assert fitting.refused["invalid_features"] == len(old)
    with pytest.raises(ModelError, match=r"no features\.global to train on"):
        fitting.model()
    other = of_labels([b"{}", b'{"type":"application"}', b"\xff", *labels(folder)], None)
    assert sum(other.refused.values()) == 3
    assert other.model()
