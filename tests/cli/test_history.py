"""The commands: what they print, what they refuse, and their exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from stream.cli import PROGRAM
from stream.cli.options import names_in
from stream.errors import ConfigError
from stream.policy import DAY_MS
from tests import kit
from tests.kit import TestEvent, application, engagement
from tests.replay.test_single import market, rows
from tests.replay.test_single import run as replay_of

COMMANDS = [
    "demo", "simulate", "train", "replay", "backtest", "tune", "inspect", "broker", "worker",
    "produce",
]  # fmt: skip


def hearback(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=230,  # the first one compiles the kernel
        env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"},
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small log with global features."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    lines = []
    for event in market(60):
        raw = msgspec.json.decode(kit.to_json(event))
        raw.pop("global_score", None)
        lines.append(msgspec.json.encode(raw))
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.fixture(scope="module")
def run(log: Path) -> Path:
    """Return the folder of a replay made by the commands alone."""
    folder = log.parent
    done = hearback("train", log, "--out", folder / "model", "--until", "1970-02-10")
    *left_out, useless = done.stderr.splitlines()
    assert (done.returncode, left_out) == (
        0,
        ["lines left out, unmatched: 1", "ignored, repeats: 16"],
    )
    assert useless.startswith("the model is no better than a constant"), done.stderr
    assert "applications" in done.stdout
    done = hearback(
        "replay", log, "--out", folder / "run", "--model", folder / "model", "--close",
        "--score-from", "1970-02-10",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "global only" in done.stdout
    return folder / "run"


def test_a_run_is_readable_by_its_owner_alone(run: Path) -> None:
    """It has people's data in it; the model, which has none, is for others too."""
    assert not [path for path in (run, *run.rglob("*")) if path.stat().st_mode & 0o077]
    manifest = run.parent / "model" / "manifest.json"
    probe = run.parent / "probe"
    probe.touch()
    assert manifest.stat().st_mode == probe.stat().st_mode


def test_simulate_writes_over_no_other_log(tmp_path: Path) -> None:
    """What is there stays, log and truth; the same again, byte for byte, is no error."""
    sizes = ("--members", 20, "--jobs", 30, "--days", 5, "--applications-per-member", 3)
    log, truth = tmp_path / "log.jsonl.gz", tmp_path / "log.truth.json"
    simulate = ("simulate", "--out", log, *sizes)
    assert hearback(*simulate).returncode == 0
    made = log.read_bytes()
    assert hearback(*simulate).returncode == 0
    for path in (log, truth):
        kept = path.read_bytes()
        path.write_bytes(b"precious")
        done = hearback(*simulate)
        assert done.returncode == 1
        assert f"{path} is there already: name another file or remove it" in done.stderr
        assert path.read_bytes() == b"precious"
        path.write_bytes(kept)
    assert log.read_bytes() == made
    assert hearback(*simulate, "--seed", 2).returncode == 1
    assert log.read_bytes() == made
    assert {path.name for path in tmp_path.iterdir()} == {log.name, truth.name}


def test_help_names_every_command() -> None:
    """``hearback --help`` lists the commands; each has a help of its own."""
    whole = hearback("--help")
    assert whole.returncode == 0
    for command in COMMANDS:
        assert command in whole.stdout
    one = hearback("replay", "--help")
    assert one.returncode == 0
    assert "--score-from" in one.stdout


def test_train_and_replay_write_their_files(run: Path) -> None:
    """The commands in their order give model, labels, scores and metrics."""
    metrics = msgspec.json.decode((run / "metrics.json").read_bytes())
    assert metrics["quality"]["applications"] == 80
    assert metrics["score_from_ms"] == 40 * DAY_MS
    assert rows(run / "scores.jsonl")


def test_train_says_where_a_policys_curve_stands_above_the_delays(
    log: Path, tmp_path: Path
) -> None:
    """It is the policy's curve that is in force, and the reason why who waits has no model."""
    (tmp_path / "policy.toml").write_text('[labels]\ndelay_curve = ["2d:0.5", "14d:1"]\n')
    done = hearback(
        "train", log, "--out", tmp_path / "model", "--until", "1970-02-10",
        "--policy", tmp_path / "policy.toml",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the policy's delay_curve is in force" in done.stdout
    assert "who waits: not learned with a delay_curve" in done.stdout


def test_inspect_shows_coefficients_by_name(run: Path) -> None:
    """``inspect`` tells an entity's coefficients with standard errors, as the run wrote them."""
    written = next(row for row in rows(run / "coefficients.jsonl") if row["effect"] == "per_member")
    done = hearback("inspect", "member", written["entity_id"], "--run", run)
    assert done.returncode == 0, done.stderr
    assert f"{written['mean'][0]:+.4f}" in done.stdout
    assert f"{written['variance'][1] ** 0.5:.4f}" in done.stdout
    assert "per_member[1]" in done.stdout
    assert f"{written['examples']} applications learned" in done.stdout


def test_inspect_shows_what_recruiters_prefer(tmp_path: Path) -> None:
    """Of a job whose candidates have terms it prints them by weight, and the history."""
    log: list[TestEvent] = []
    for number, skill in enumerate(["sql", "sql", "go", "go"]):
        app = application(f"a{number}", number, member=f"m{number}")
        log.append(msgspec.structs.replace(app, terms={"skill": [skill]}))
    log.append(engagement("e", "a0", 5, member="m0"))
    log.append(engagement("f", "a2", 6, "reject", member="m2"))
    replay_of(tmp_path / "run", log, close=True)
    done = hearback("inspect", "job", "j", "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "4 applications read, 2 of them answered, 1 positively." in said
    assert "Of 4 candidates with terms recruiters of j answered 1 positively and declined 1" in said
    assert said.index("skill: sql +0.29 -0.41 2 1 0") < said.index("skill: go -0.41 +0.29 2 0 1")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["replay", "none.jsonl", "--out", "r"], 1, "none.jsonl does not exist"),
        (["replay", "LOG", "--out", "r"], 1, "--model"),
        (["replay", "LOG", "--out", "r", "--model", "none"], 1, "no model folder"),
        (["replay", "LOG", "--out", "r", "--policy", "none.toml"], 1, "policy none.toml"),
        (["replay", "LOG", "--out", "r", "--score-from", "soon"], 2, "soon"),
        (
            ["train", "LOG", "--out", "m", "--until", "1970-01-02", "--policy", "HARD"],
            1,
            "both kinds are needed",
        ),
        (["train", "LOG", "--out", "RUN"], 1, "is there already: name another folder"),
        (["backtest", "none.jsonl", "--out", "b"], 1, "does not exist"),
        (["backtest", "LOG", "--out", "RUN"], 1, "is there already"),
        (["backtest", "LOG", "--out", "b", "--config", "none.toml"], 1, "comparison none.toml"),
        (["backtest", "LOG", "--out", "b", "--model", "MODEL"], 1, "at least 200"),
        (["backtest", "LOG", "--out", "b", "--score-from", "soon"], 2, "soon"),
        (["backtest", "LOG"], 2, "--out"),
        (["simulate", "--out", "l.jsonl", "--market", "wild"], 2, "wild"),
        (["tune", "LOG", "--until", "1970-02-10", "--out", "LOG"], 1, "is there already"),
        (["tune", "LOG", "--until", "1970-01-20", "--out", "p.toml"], 1, "at least 200"),
        (["tune", "none.jsonl", "--until", "1970-01-20", "--out", "p.toml"], 1, "does not exist"),
        (["tune", "LOG", "--out", "p.toml"], 2, "--until"),
        (["inspect", "cat", "x", "--run", "RUN"], 2, "cat"),
        (["inspect", "member", "x"], 2, "exactly one"),
        (["inspect", "member", "nobody", "--run", "RUN"], 1, "nothing was learned"),
        (["inspect", "member", "x", "--run", "none"], 1, "no state"),
        (["inspect", "member", "x", "--data", "none"], 1, "no state"),
        (["simulate", "--out", "l.jsonl", "--members", "0"], 1, "members"),
        (["produce", "LOG", "--broker", "127.0.0.1:1"], 1, "127.0.0.1:1"),
        (["worker", "--broker", "127.0.0.1:1", "--model", "none"], 1, "no model folder"),
        (["worker", "--broker", "127.0.0.1:1", "--model", "MODEL"], 1, "no Kafka broker answers"),
        (["replay"], 2, "Missing argument"),
        (["dance"], 2, "No such command"),
    ],
)
def test_refusals_are_one_clear_line(
    arguments: list[str], code: int, says: str, log: Path, run: Path, tmp_path: Path
) -> None:
    """What cannot be done is said without a traceback, and nothing is written."""
    known = {
        "LOG": log,
        "RUN": run,
        "MODEL": run.parent / "model",
        "HARD": log.parent / "hard.toml",
    }
    known["HARD"].write_text('[labels]\naging = "off"\n', encoding="utf-8")
    done = hearback(*(known.get(word, word) for word in arguments), cwd=tmp_path)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    if code == 1:
        assert len(done.stderr.strip().splitlines()) == 1
    assert not [path for path in tmp_path.iterdir() if path.name != "hearback-data"]


def test_a_prior_of_what_is_no_feature_is_refused(log: Path, run: Path, tmp_path: Path) -> None:
    """By each command that learns, in one line that names effect and feature, at once."""
    policy, compare = tmp_path / "policy.toml", tmp_path / "compare.toml"
    policy.write_text("[effects.per_job]\nprior_precision = { pay = 1.0 }\n")
    compare.write_text('[[setting]]\nname = "a"\npolicy.effects.per_job.prior_precision.pay = 1\n')
    model = run.parent / "model"
    config = tmp_path / "hearback.toml"
    config.write_text(f'[worker]\nmodel = "{model}"\n')
    for arguments in (
        ["replay", log, "--model", model, "--policy", policy, "--out", tmp_path / "r"],
        ["tune", log, "--until", "1970-02-10", "--policy", policy, "--out", tmp_path / "r"],
        ["backtest", log, "--model", model, "--config", compare, "--out", tmp_path / "r"],
        ["config", "check", "--config", config, "--policy", policy],
        ["worker", "--broker", "127.0.0.1:1", "--model", model, "--policy", policy,
         "--data", tmp_path / "r"],
    ):  # fmt: skip
        done = hearback(*arguments)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "[effects.per_job] prior_precision names 'pay'" in line
        assert not (tmp_path / "r").exists()


def test_from_a_log_to_a_report(tmp_path: Path) -> None:
    """A model is fitted where there is none; table, sentences, figures, page and curve appear."""
    log = tmp_path / "log.jsonl.gz"
    hearback(
        "simulate", "--out", log, "--members", 150, "--jobs", 60, "--days", 80,
        "--applications-per-member", 25,
    )  # fmt: skip
    example = hearback("backtest", "--example")
    assert example.returncode == 0
    config = tmp_path / "compare.toml"
    config.write_text(
        example.stdout[: example.stdout.index('[[setting]]\nname = "nothing inferred')]
    )
    done = hearback("backtest", log, "--config", config, "--out", tmp_path / "found")
    assert done.returncode == 0, done.stderr
    for words in ("every label", "never again", "global model alone", "times in 100"):
        assert words in done.stdout
    folder = tmp_path / "found"
    assert sorted(path.name for path in folder.iterdir()) == [
        "backtest.json", "freshness.svg", "report.html",
    ]  # fmt: skip
    result = msgspec.json.decode((folder / "backtest.json").read_bytes())
    assert len(result["settings"]) == 5
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    hearback("train", log, "--until", "2024-01-21", "--out", tmp_path / "model")
    done = hearback(
        "backtest", log, "--config", config, "--model", tmp_path / "model",
        "--score-from", "2024-02-01", "--out", tmp_path / "other",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    other = msgspec.json.decode((tmp_path / "other" / "backtest.json").read_bytes())
    assert other["judged"] < result["judged"]
    assert other["score_from_ms"] == 1_706_745_600_000


def test_interrupted_replay_says_so(log: Path, tmp_path: Path) -> None:
    """Ctrl-C ends a replay with one line and exit code 130; lines written so far are whole."""
    big = tmp_path / "big.jsonl"
    hearback("simulate", "--out", big, "--members", "2500", "--days", "20", "--jobs", "500")
    hearback("train", big, "--out", tmp_path / "model")
    process = subprocess.Popen(
        [*PROGRAM, "replay", str(big), "--out", str(tmp_path / "run"),
         "--model", str(tmp_path / "model")],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    scores = tmp_path / "run" / "scores.jsonl"
    while process.poll() is None and not (scores.exists() and scores.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_names_file_may_begin_with_a_mark(tmp_path: Path) -> None:
    """The names of features are read with a byte order mark; UTF-16 is refused in one line."""
    path = tmp_path / "names.json"
    names = {"global": ["one"], "per_member": ["é", "n"], "per_job": ["j"]}
    text = msgspec.json.encode({"feature_names": names}).decode()
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert names_in(path) == names
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(ConfigError, match=r"names.json: the file is UTF-16: save it as UTF-8"):
        names_in(path)
