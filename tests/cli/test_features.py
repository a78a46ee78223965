"""Commands over attributes: a first spec, a model of it, and one that follows that."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from producers.simulate import SimulationSettings, simulate
from stream.cli import app
from stream.errors import HearbackError
from stream.model.folder import load_model

SETTINGS = SimulationSettings(
    members=50, jobs=24, days=34, applications_per_member=7, attributes=True
)


def hearback(*arguments: object) -> Result:
    """Run a command in this process: each would take seconds to start."""
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a log of applications that have attributes and no features."""
    path = tmp_path_factory.mktemp("attributes") / "log.jsonl"
    lines = []
    for line in simulate(SETTINGS):
        event = msgspec.json.decode(line)
        event.pop("features", None)
        lines.append(msgspec.json.encode(event))
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.fixture(scope="module")
def spec(log: Path) -> Path:
    """Suggest a spec."""
    path = log.with_name("features.toml")
    done = hearback("features", "suggest", log, "--out", path)
    assert done.exit_code == 0, done.output
    assert f"features in {path}; hearback train LOG --spec {path} learns them" in done.output
    return path


def test_a_model_is_all_that_the_next_one_needs(log: Path, spec: Path) -> None:
    """Its spec is in it: a second model keeps that, and can follow the first."""
    folder = log.parent
    done = hearback(
        "train", log, "--spec", spec, "--until", "2024-01-25", "--out", folder / "model"
    )
    assert done.exit_code == 0, done.output
    assert "spec: 17 features make columns: " in done.output
    spec.unlink()
    done = hearback(
        "train",
        log,
        "--spec-of",
        folder / "model",
        "--until",
        "2024-02-01",
        "--out",
        folder / "next",
    )
    assert done.exit_code == 0, done.output
    first, second = (load_model(folder / name).manifest for name in ("model", "next"))
    assert first.spec == second.spec is not None
    assert first.model_version != second.model_version


def test_backtest_fits_a_model_of_a_spec(log: Path, tmp_path: Path) -> None:
    """On the first quarter of the log, as it does of features that are sent."""
    spec = tmp_path / "features.toml"
    spec.write_text(
        '[features.years]\nkind = "number"\nof = "member.years"\nblocks = ["global", "per_job"]\n',
        encoding="utf-8",
    )
    compare = tmp_path / "compare.toml"
    compare.write_text('[[setting]]\nname = "at once"\n', encoding="utf-8")
    done = hearback(
        "backtest", log, "--spec", spec, "--config", compare, "--out", tmp_path / "backtest"
    )
    assert done.exit_code == 0, done.output
    assert "spec: 1 features make columns: 2 global, 1 per_member, 2 per_job" in done.output


REFUSED: list[tuple[list[object], str]] = [
    (["train", "LOG", "--out", "m"], "--spec says what becomes of attributes"),
    (["train", "LOG", "--out", "m", "--spec", "none.toml"], "spec none.toml: No such file"),
    (["tune", "LOG", "--until", "2024-02-01", "--out", "p.toml"], "--spec says what becomes"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_is_missing_is_said(
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
    message: str,
) -> None:
    """Attributes need a spec, or a model that has one; nothing is written without."""
    monkeypatch.chdir(tmp_path)
    done = hearback(*[log if one == "LOG" else one for one in arguments])
    assert isinstance(done.exception, HearbackError)
    assert message in str(done.exception)
    assert not [*tmp_path.iterdir()]


def test_one_way_to_name_features_is_enough(log: Path, tmp_path: Path) -> None:
    """Two are bad usage."""
    done = hearback(
        "train", log, "--out", tmp_path / "m", "--spec", "a.toml", "--spec-of", tmp_path
    )
    assert done.exit_code == 2
    assert "--spec-of" in done.output


def test_a_log_without_attributes_has_no_spec(tmp_path: Path) -> None:
    """The command says what attributes are."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(
        b'{"type":"application","application_id":"a","member_id":"m","job_id":"j",'
        b'"event_time_ms":5,"features":{"per_member":[1],"per_job":[1]},"global_score":0}\n'
    )
    done = hearback("features", "suggest", log)
    assert isinstance(done.exception, HearbackError)
    assert "no application has attributes: send them as member" in str(done.exception)
