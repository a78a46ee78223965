"""From a log to figures in Python: what the commands give, as frames and pages."""

from __future__ import annotations

import gc
import warnings
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from typer.testing import CliRunner

import stream as hb
from producers.simulate import simulate
from producers.truth import lively
from stream.api import given
from stream.backtest.finished import judged
from stream.backtest.result import GLOBAL_ALONE
from stream.cli import app
from stream.errors import ConfigError, LogError, ModelError
from stream.logs.files import write_lines
from stream.replay.run_folder import DEAD_LETTERS, METRICS, STATE

MARKET = lively(seed=3, members=120, jobs=60, days=45, applications_per_member=12)
UNTIL = "2024-01-29"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated log."""
    path = tmp_path_factory.mktemp("market") / "log.jsonl"
    write_lines(path, simulate(MARKET))
    return path


@pytest.fixture(scope="module")
def model(path: Path) -> hb.Model:
    """Return a model of its first weeks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hb.LogWarning)
        return hb.train(path, until=UNTIL, progress=False)


@pytest.fixture(scope="module")
def run(path: Path, model: hb.Model) -> hb.Run:
    """Return the replay of all of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hb.LogWarning)
        return hb.replay(path, model, score_from=UNTIL, close=True, progress=False)


def test_it_is_what_the_commands_do(
    path: Path, model: hb.Model, run: hb.Run, tmp_path: Path
) -> None:
    """The same model, and the same files byte by byte, as of `train` and `replay`."""
    saved, out = tmp_path / "model", tmp_path / "run"
    for arguments in (
        ["train", path, "--until", UNTIL, "--out", saved],
        ["replay", path, "--model", saved, "--score-from", UNTIL, "--close", "--out", out,
         "--format", "parquet"],
    ):  # fmt: skip
        done = CliRunner().invoke(app, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
        for note in model.notes if arguments[0] == "train" else []:
            assert note in done.output
    assert hb.load_model(saved).version == model.version
    files = {file.name for file in out.iterdir() if file.is_file()}
    assert files > {METRICS, DEAD_LETTERS}
    for name in files:
        assert (run.path / name).read_bytes() == (out / name).read_bytes(), name
    assert hb.load_run(out).metrics == run.metrics


def test_frames_have_the_rows_of_the_run(run: hb.Run) -> None:
    """A row for each application, label and entity, typed; pandas can have them."""
    metrics = run.metrics
    assert run.scores.height == metrics.applications
    assert run.labels.height == sum(metrics.labels.values())
    by_effect = run.coefficients.group_by("effect").len().sort("effect")
    assert dict(by_effect.iter_rows()) == metrics.entities
    assert run.scores.schema["event_time"] == pl.Datetime("ms", "UTC")
    assert run.lazy("labels").select("label").collect()["label"].is_in([0, 1]).all()
    assert len(run.scores.select("application_id", "score", "event_time").to_pandas()) > 0
    assert run.scores is run.scores


def test_the_page_judges_as_the_run_did(run: hb.Run) -> None:
    """Figures of the report are those of metrics.json, and scikit-learn's on the frames."""
    found = judged(run.path, ["log"])
    quality = run.metrics.quality
    assert (found.judged, found.positives) == (quality.applications, quality.positives)
    for setting, known in zip(found.settings, (quality.full, quality.global_), strict=True):
        assert known is not None
        assert setting.auc.value == pytest.approx(known.auc, abs=1e-12)
        assert setting.log_loss.value == pytest.approx(known.log_loss, abs=1e-12)
    from_time = datetime(2024, 1, 29, tzinfo=UTC)
    final = run.labels.filter("final", pl.col("application_time") >= from_time)
    p = 1 / (1 + (-final["global_score"]).exp())
    alone = found.named(GLOBAL_ALONE)
    assert alone.auc.value == pytest.approx(roc_auc_score(final["label"], p), abs=1e-12)
    assert alone.log_loss.value == pytest.approx(log_loss(final["label"], p), abs=1e-9)


def test_the_report_is_a_page(path: Path, run: hb.Run, tmp_path: Path) -> None:
    """It is written where it is wanted, names both scores, and a notebook shows it in a frame."""
    report = run.report(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert text == report.page
    assert "as replayed" in text
    assert f"<title>hearback backtest: {path.name}</title>" in text
    assert "<svg" in text
    assert report._repr_html_().startswith("<iframe")
    assert "<script>" not in report._repr_html_()


def test_an_open_window_is_not_judged(path: Path, model: hb.Model) -> None:
    """Answered applications whose window is still open would make the share of answers too high."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hb.LogWarning)
        still_open = hb.replay(path, model, score_from=UNTIL, progress=False)
    found = judged(still_open.path, ["log"])
    quality = still_open.metrics.quality
    assert (found.judged, found.positives) == (quality.applications, quality.positives)
    final = still_open.labels.filter("final")
    assert final.height > found.judged


def test_notebooks_show_model_run_and_metrics(run: hb.Run, model: hb.Model) -> None:
    """Tables name version, figures and counts."""
    assert model.version in model._repr_html_()
    full = run.metrics.quality.full
    assert full is not None
    for shown in (run._repr_html_(), run.metrics._repr_html_()):
        assert f"{full.auc:.4f}" in shown
        assert f"{run.metrics.events['application']:,}" in shown
    assert model.held_out is not None
    assert model.trained_until <= datetime(2024, 1, 29, tzinfo=UTC)
    assert repr(model).startswith("Model(linear")
    assert f"full AUC {full.auc:.4f}" in repr(run.metrics)


def test_a_temporary_run_goes_with_its_object(
    path: Path, model: hb.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder is the owner's alone, and there as long as the run is; nothing is printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hb.LogWarning)
        found = hb.replay(path, model, progress=False)
    assert capsys.readouterr() == ("", "")
    folder = found.path
    assert folder.stat().st_mode & 0o777 == 0o700
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert any(file.parent.name == STATE for file in files)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    del found
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda path: hb.train(path, until="soon"), ConfigError, "soon"),
        (lambda path: hb.train(path, policy={"labels": {"windw": "7d"}}), ConfigError, "window"),
        (lambda path: hb.replay(path, path), ModelError, "is no model folder"),
        (hb.replay, ModelError, "global_score"),
        (lambda path: hb.replay(path, workers=100), ConfigError, "between 1 and 64"),
        (lambda path: hb.load_run(path.parent), ConfigError, "is no replay's folder"),
        (
            lambda path: hb.train(path, policy={"labels": {"positive_actions": ["x"]}}),
            LogError,
            "force=True",
        ),
    ],
)
def test_errors_are_the_packages_own(path: Path, call: Any, error: Any, said: str) -> None:
    """What cannot be done raises an error with a line that says what to do, and ends nothing."""
    with pytest.raises(error, match=said) as raised:
        call(path)
    assert isinstance(raised.value, hb.HearbackError)


@pytest.mark.parametrize(
    "time",
    [
        "2024-01-31",
        date(2024, 1, 31),
        datetime(2024, 1, 31),
        1706659200000,
        20240131,
        datetime(2024, 1, 31, 1, tzinfo=UTC) - timedelta(hours=1),
    ],
)
def test_times_are_given_in_many_ways(time: given.Time) -> None:
    """Texts, numbers, dates and datetimes of one moment are the same; no zone is UTC."""
    assert given.time_ms(time) == 1706659200000


def test_durations_and_policies_are_given_in_many_ways(tmp_path: Path) -> None:
    """A timedelta is a duration; a dictionary is what stands in a policy file."""
    assert given.duration_ms(timedelta(days=2)) == given.duration_ms("2d") == 172_800_000
    file = tmp_path / "policy.toml"
    file.write_text('[labels]\nwindow = "7d"\n')
    as_file, as_dict = given.settings(file), given.settings({"labels": {"window": "7d"}})
    assert as_file.policy == as_dict.policy != given.settings(None).policy


def test_a_backtest_is_that_of_the_command(path: Path, model: hb.Model, tmp_path: Path) -> None:
    """Every figure is that of `backtest.json`; frame, page and notebook show them."""
    file, saved, out = tmp_path / "compare.toml", tmp_path / "model", tmp_path / "out"
    file.write_text('[[setting]]\nname = "at once"\n')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hb.LogWarning)
        found = hb.backtest(path, model, compare_file=file, progress=False)
    arguments = ["backtest", path, "--model", model.save(saved), "--config", file, "--out", out]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    text = msgspec.json.format(msgspec.json.encode(found.found)) + b"\n"
    assert text == (out / "backtest.json").read_bytes()
    assert found.report().page == (out / "report.html").read_text("utf-8")
    assert found.settings["setting"].to_list() == ["at once", GLOBAL_ALONE]
    assert found.settings["auc"].to_list() == [one.auc.value for one in found.found.settings]
    assert found.settings["auc_low"].dtype == pl.Float64
    assert "at once" in found._repr_html_()
    with pytest.raises(ConfigError, match="give model or spec"):
        hb.backtest(path, model, spec="features.toml")


def test_models_can_follow_each_other(path: Path, model: hb.Model) -> None:
    """From its time on the later model scores: before, scores are those of the first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hb.LogWarning)
        later = hb.train(path, until="2024-02-03", progress=False)
        both, alone = (
            hb.replay(path, model, rolls=rolls, progress=False)
            for rolls in ([(later, "2024-02-05")], [])
        )
    same = both.scores["global_score"] == alone.scores["global_score"]
    before = both.scores["event_time"] < datetime(2024, 2, 5, tzinfo=UTC)
    assert both.metrics.rolls == [(later.version, 1707091200000)]
    assert same.filter(before).all()
    assert not same.filter(~before).any()
