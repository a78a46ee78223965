"""A boosted global model through everything that scores: train, import, replay, partitions."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest

from producers.simulate import simulate
from producers.truth import lively
from stream.backtest.prior import with_chosen_prior
from stream.backtest.tuning import train_until, trainer
from stream.cli import main
from stream.configuration.load import with_model
from stream.configuration.sections import Config
from stream.effects import EFFECT_NAMES
from stream.errors import ConfigError, ModelError
from stream.events.structs import Label
from stream.events.wire import decode_label
from stream.logs.files import merge, write_lines
from stream.model.columns import HISTORY_COLUMNS
from stream.model.folder import GlobalModel, load_model, save_model
from stream.model.trees import Trees
from stream.policy import DAY_MS, FeaturePolicy, Policy
from stream.replay.reader import first_look
from stream.replay.resumable import replay_into
from stream.replay.savepoint import Options
from tests.kit import Market
from tests.model.test_imported import of_lightgbm, probabilities

SETTINGS = lively(seed=4, members=300, jobs=30, days=40, applications_per_member=8)
UNTIL_MS = SETTINGS.start_ms + 30 * DAY_MS


def hearback(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run a command; return its exit code."""
    monkeypatch.setattr("sys.argv", ["hearback", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a log and a boosted model of it, by the commands, and what they said."""
    path = tmp_path_factory.mktemp("boosted")
    write_lines(path / "log.jsonl", simulate(SETTINGS))
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        train = ("train", path / "log.jsonl", "--kind", "boosted", "--until", UNTIL_MS)
        assert hearback(patch, *train, "--out", path / "model") == 0
    (path / "said.txt").write_text(said.getvalue())
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> GlobalModel:
    """Return that model."""
    return load_model(folder / "model")


def blocks(folder: Path) -> dict[tuple[str, str], list[float]]:
    """Global features of each application, as the log has them."""
    events = map(msgspec.json.decode, (folder / "log.jsonl").read_bytes().splitlines())
    return {
        (event["job_id"], event["application_id"]): event["features"]["global"]
        for event in events
        if event["type"] == "application"
    }


def replayed(folder: Path, out: Path, model: GlobalModel, workers: int) -> list[bytes]:
    """Replay the log; return the lines of its labels."""
    lines, space = first_look(merge([folder / "log.jsonl"]), model)
    options = Options(close=True, workers=workers)
    replay_into(out, [folder / "log.jsonl"], lines, Policy(), model, space, options)
    return (out / "labels.jsonl").read_bytes().splitlines()


def test_train_says_what_kind_it_made(folder: Path, model: GlobalModel) -> None:
    """The manifest names the kind, the rows are aged ones, nothing is said of a C."""
    manifest = msgspec.json.decode((folder / "model" / "manifest.json").read_bytes())
    assert (manifest["kind"], manifest["inputs"], manifest["rows"]) == (
        "boosted",
        ["global", "history"],
        "aged",
    )
    assert manifest["regularisation"] is None
    assert manifest["prior_precision"] == model.manifest.prior_precision is not None
    assert manifest["held_out"]["auc"] > 0.5
    assert isinstance(model.scorer, Trees)
    said = (folder / "said.txt").read_text()
    assert "silence weighed by age\n" in said
    assert f"prior precision of the effects: λ = {manifest['prior_precision']:g}, on" in said
    assert "regularisation" not in said


def test_replay_and_partitions_score_alike(
    folder: Path, model: GlobalModel, tmp_path: Path
) -> None:
    """One process, two and a worker's partitions score what each application's label carries.

    Partitions that keep up give the scores of one process.
    """
    asked = blocks(folder)
    found: list[dict[tuple[str, str], Label]] = []
    for workers in (1, 2):
        lines = replayed(folder, tmp_path / str(workers), model, workers)
        labels = [decode_label(line, model.space) for line in lines]
        found.append({(one.job_id, one.application_id): one for one in labels})
    market = Market(Policy(), 1, global_model=model)
    market.now_ms = SETTINGS.start_ms + 100 * DAY_MS
    for line in islice(simulate(SETTINGS), 1200):
        event = msgspec.json.decode(line)
        is_application = event["type"] == "application"
        topic = "applications" if is_application else "engagements"
        routed = str(event["member_id" if is_application else "job_id"]).encode()
        market.append(topic, 0, routed, line)
        market.run()
    market.clock(SETTINGS.start_ms + 100 * DAY_MS)
    market.run()
    found.append({(one.job_id, one.application_id): one for one in market.labels()})
    assert found[0].keys() == found[1].keys() == asked.keys()
    for key, label in found[2].items():
        assert (label.history, label.global_score) == (
            found[0][key].history,
            found[0][key].global_score,
        )
    assert len(found[2]) > 600
    for labels_of in found:
        for key, label in labels_of.items():
            assert label.history is not None
            x = np.array([*asked[key], *np.frombuffer(label.history, "<f4")])
            assert label.global_score == model.score_all(x[None]).item()
    assert len({round(label.global_score, 9) for label in found[0].values()}) > 50


def test_rows_to_train_on_have_the_histories_of_a_replay(
    folder: Path, model: GlobalModel, tmp_path: Path
) -> None:
    """Global features and histories of every row are those of the labels of a replay."""
    fitting = trainer(Policy(), None, None, None, "boosted")
    fitting.read(merge([folder / "log.jsonl"]), lambda _: None)
    rows = fitting.rows(fitting.end_ms + 100 * DAY_MS)
    asked, wanted = blocks(folder), set()
    for line in replayed(folder, tmp_path / "run", model, 1):
        label = decode_label(line, model.space)
        assert label.history is not None
        x = np.array(asked[label.job_id, label.application_id], "<f4")
        wanted.add(x.tobytes() + label.history)
    assert len(rows.X) == len(wanted) == len(asked)
    with_history = len(x) + len(HISTORY_COLUMNS)
    assert {x.tobytes() for x in rows.X[:, :with_history].astype("<f4")} == wanted
    assert model.columns[-36:] == HISTORY_COLUMNS == fitting.model().manifest.features["history"]


def test_a_policy_that_keeps_no_histories(folder: Path, model: GlobalModel, tmp_path: Path) -> None:
    """It refuses a model that takes them, and trains one that does not."""
    without = Policy(features=FeaturePolicy(histories=False))
    lines, space = first_look(merge([folder / "log.jsonl"]), model)
    with pytest.raises(ConfigError, match="takes histories: set"):
        replay_into(tmp_path / "r", [], lines, without, model, space, Options())
    with pytest.raises(ConfigError, match="takes histories: set"):
        with_model(Config(policy=without), model)
    log = merge([folder / "log.jsonl"])
    other = train_until(log, without, UNTIL_MS, lambda _: None, kind="boosted")
    assert other.manifest.inputs == ("global",)
    assert with_model(Config(policy=without), other) == Config(policy=without)


def test_histories_of_another_release_are_refused(
    folder: Path, model: GlobalModel, tmp_path: Path
) -> None:
    """Columns that this release would fill with other numbers score nothing."""
    names = model.manifest.features | {"history": HISTORY_COLUMNS[::-1]}
    for changed, said in (
        ({"features": names}, "takes other histories"),
        ({"inputs": ("history", "global")}, "it takes history, global, this release"),
        ({"inputs": ("global", "history", "weather")}, "it takes global, history, weather, this"),
    ):
        path = tmp_path / said[-8:]
        manifest = msgspec.structs.replace(model.manifest, **changed)
        save_model(path, model)
        (path / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        with pytest.raises(ModelError, match=said):
            load_model(path)


def test_a_backtest_fits_the_kind_that_it_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a model it fits one on the first quarter: the one that ``train`` would."""
    compare = tmp_path / "compare.toml"
    compare.write_text('[[setting]]\nname = "all"\n')
    arguments = ("backtest", folder / "log.jsonl", "--config", compare, "--kind", "boosted")
    assert hearback(monkeypatch, *arguments, "--out", tmp_path / "out") == 0
    result = json.loads((tmp_path / "out" / "backtest.json").read_text())
    until_ms = result["score_from_ms"]
    fitted = train_until(
        merge([folder / "log.jsonl"]), Policy(), until_ms, lambda _: None, kind="boosted"
    )
    wanted, _ = with_chosen_prior(merge([folder / "log.jsonl"]), fitted, Policy())
    assert result["model_version"] == wanted.version
    assert wanted.manifest.kind == "boosted"


def test_a_model_from_elsewhere_replays(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """``model import`` with a log takes names and delays from it; scores are LightGBM's."""
    asked = blocks(folder)
    X = np.array(list(asked.values()), np.float32)
    booster = of_lightgbm(X[:, :4], (X[:, 1] > 0).astype(np.int64), 5)
    text = json.dumps(booster.dump_model())
    for number in range(4):
        text = text.replace(f'"{["a", "b", "c", "zero"][number]}"', f'"global[{number}]"')
    (tmp_path / "lightgbm.json").write_text(text)
    given = ("model", "import", tmp_path / "lightgbm.json", "--out", tmp_path / "model")
    until = ("--trained-until", UNTIL_MS)
    assert hearback(monkeypatch, *given, *until) == 2
    assert "give --log or --feature-names" in capsys.readouterr().err
    assert hearback(monkeypatch, *given, *until, "--log", folder / "log.jsonl") == 0
    assert "5 trees of LightGBM" in capsys.readouterr().out
    model = load_model(tmp_path / "model")
    assert model.manifest.trained_until_ms == UNTIL_MS
    assert model.manifest.delays == load_model(folder / "model").manifest.delays
    assert set(EFFECT_NAMES) < set(model.manifest.features)
    wanted = dict(zip(asked, booster.predict(X[:, :4].astype(float)).tolist(), strict=True))
    for line in replayed(folder, tmp_path / "run", model, 1):
        label = decode_label(line, model.space)
        (found,) = probabilities(np.array([label.global_score])).tolist()
        assert found == pytest.approx(wanted[label.job_id, label.application_id], abs=1e-6)
    assert hearback(monkeypatch, *given, *until, "--log", folder / "log.jsonl") == 1
    assert "is there already" in capsys.readouterr().err
    (tmp_path / "lightgbm.json").write_text("tree\nversion=v4\n")
    elsewhere = ("--out", tmp_path / "other", "--log", folder / "log.jsonl")
    assert hearback(monkeypatch, *given[:3], *until, *elsewhere) == 1
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert "lightgbm.json: it is no JSON of XGBoost or LightGBM" in said


def test_a_score_is_explained(
    folder: Path,
    model: GlobalModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """What is shown, feature by feature, sums to the application's score."""
    job, name = list(blocks(folder))[300]
    lines = replayed(folder, tmp_path / "run", model, 1)
    log = folder / "log.jsonl"
    explain = ("model", "explain", folder / "model", log, "--application", name)
    assert hearback(monkeypatch, *explain, "--job", job, "--most", 3) == 0
    shown = capsys.readouterr().out
    score = next(
        label.global_score
        for label in (decode_label(line, model.space) for line in lines)
        if (label.job_id, label.application_id) == (job, name)
    )
    assert f"global score {score:+.4f}" in shown
    adds = [float(line.split()[-1]) for line in shown.splitlines() if line.strip()[-5:-4] == "."]
    assert sum(adds[1:]) == pytest.approx(score, abs=0.001)
    assert hearback(monkeypatch, *explain[:4], "--application", "nobody") == 1
    assert "no application nobody in these logs fits the model" in capsys.readouterr().err
