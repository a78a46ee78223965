"""`check`, `tune` and `explain` from Python give what the commands give."""

from __future__ import annotations

import re
import tomllib
import warnings
from pathlib import Path

import msgspec
import polars as pl
import pytest
from typer.testing import CliRunner

import stream as hb
from producers.simulate import SimulationSettings, simulate
from stream.backtest.tuning import Tuner
from stream.cli import app
from stream.errors import ConfigError
from stream.logs.files import write_lines

SETTINGS = SimulationSettings(
    members=60, jobs=24, days=30, applications_per_member=9, global_score=True, attributes=True
)
UNTIL = "2024-02-05"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated log of applications with scores and attributes."""
    path = tmp_path_factory.mktemp("market") / "log.jsonl"
    write_lines(path, simulate(SETTINGS))
    return path


def command(*words: object) -> str:
    """Run a command; return what it prints."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_check_counts_what_the_command_counts(path: Path) -> None:
    """The same counts, problems and attributes; errors are told, not raised."""
    found = hb.check(path, progress=False)
    printed = command("check", path)
    for title, values in found.counts.items():
        assert title in printed
        for name, count in values.items():
            assert f"{name} {count:,}" in printed
    assert [one.text for one in found.problems if one.text not in printed] == []
    frame = found.attributes
    raw = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    said = [event["member"] for event in raw if event["type"] == "application"]
    years = frame.row(by_predicate=pl.col("attribute") == "member.years", named=True)
    assert years["kind"] == "number"
    assert years["there"] == pytest.approx(sum("years" in one for one in said) / len(said))
    assert years["different"] == len({one["years"] for one in said if "years" in one})
    assert "member.years" in found._repr_html_()
    only = [line for line in path.read_bytes().splitlines() if b'"application"' in line[:30]]
    alone = path.with_name("alone.jsonl")
    write_lines(alone, only)
    assert "no engagements" in hb.check(alone, progress=False).errors[0]


def test_tune_chooses_what_the_command_chooses(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file; the policy can be given to other calls; an interruption keeps the best."""
    monkeypatch.setattr(Tuner, "run", Tuner.prior)  # a few values are enough to compare
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hb.LogWarning)
        found = hb.tune(path, until=UNTIL, progress=False)
        printed = command("tune", path, "--until", UNTIL, "--out", tmp_path / "policy.toml")
        assert (tmp_path / "policy.toml").read_text("utf-8") == found.text
        assert found.notes[-1] in printed
        assert found.policy == tomllib.loads(found.text)
        assert found.trials["log_loss"].min() == pytest.approx(
            float(re.findall(r"log loss ([0-9.]+)\n", found.text)[0]), abs=1e-4
        )
        assert len(hb.replay(path, policy=found.policy, progress=False).scores) > 0
        with pytest.raises(ConfigError, match="is there already"):
            found.save(tmp_path / "policy.toml")

        def interrupted(tuner: Tuner) -> object:
            yield next(tuner.prior())
            raise KeyboardInterrupt

        monkeypatch.setattr(Tuner, "run", interrupted)
        stopped = hb.tune(path, until=UNTIL, progress=False)
    assert stopped.notes[0] == "interrupted: the best of the 1 policies tried so far"
    assert stopped.trials.height == 1


def test_explain_sums_to_the_score(path: Path) -> None:
    """What each feature adds, the largest first, and the constant are the global score."""
    bare = path.with_name("bare.jsonl")
    rows = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    for row in rows:
        row.pop("global_score", None)
    write_lines(bare, map(msgspec.json.encode, rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hb.LogWarning)
        model = hb.train(bare, until=UNTIL, progress=False)
        run = hb.replay(bare, model, progress=False)
    asked = run.scores.row(5, named=True)
    found = model.explain(bare, asked["application_id"], progress=False)
    assert found["adds"].sum() == pytest.approx(asked["global_score"], abs=1e-6)
    assert found["feature"].to_list()[-1] == "constant"
    sizes = found["adds"].abs().to_list()[:-1]
    assert sizes == sorted(sizes, reverse=True)
    with pytest.raises(ConfigError, match="no application nobody"):
        model.explain(bare, "nobody", progress=False)
