"""hearback config: what is in force, and whether it can be used."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stream.cli import PROGRAM
from stream.configuration.sections import Config
from stream.configuration.settings import table
from stream.model.folder import save_model, with_prior
from tests import kit


def run(*arguments: object, **environment: str) -> tuple[int, str, str]:
    """Run the command as a user would; return exit code, stdout and stderr."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/bin", **environment},
        cwd=Path(__file__).parents[2],
    )
    return done.returncode, done.stdout, done.stderr


def test_show_says_what_is_in_force_and_where_it_is_from(tmp_path: Path) -> None:
    """File and environment, secrets left out; what is shown can be checked again."""
    file = tmp_path / "hearback.toml"
    file.write_text('[kafka]\nbroker = "kafka:9092"\n')
    code, shown, said = run("config", "show", "--config", file, HEARBACK_GATE_MARGIN="0.05")
    assert (code, said) == (0, "")
    assert f'broker = "kafka:9092"  # {file}' in shown
    assert "margin = 0.05  # HEARBACK_GATE_MARGIN" in shown
    file.write_text(shown)
    code, checked, _ = run("config", "check", HEARBACK_CONFIG=str(file))
    assert code == 0
    assert "can be used" in checked


def test_show_tells_what_is_from_the_model(tmp_path: Path) -> None:
    """The prior precision that a model brings, where nothing else gives one."""
    model = with_prior(kit.model(), 12.0)
    save_model(tmp_path / "model", model)
    given = {"HEARBACK_WORKER_MODEL": str(tmp_path / "model")}
    code, shown, said = run("config", "show", HEARBACK_EFFECTS_PER_JOB_PRIOR_PRECISION="4", **given)
    assert (code, said) == (0, "")
    assert f"prior_precision = 12.0  # model {model.version}" in shown
    assert "prior_precision = 4.0  # HEARBACK_EFFECTS_PER_JOB_PRIOR_PRECISION" in shown
    (tmp_path / "model" / "manifest.json").unlink()
    code, shown, said = run("config", "show", **given)
    assert code == 0
    assert "is no model folder" in said
    assert "prior_precision = 3.0\n" in shown


@pytest.mark.parametrize("command", ["show", "check"])
def test_what_cannot_be_used_is_one_line(tmp_path: Path, command: str) -> None:
    """Exit code 1, without a traceback."""
    file = tmp_path / "hearback.toml"
    file.write_text("[kafka]\nbrokers = 1\n")
    code, _, said = run("config", command, "--config", file)
    assert code == 1
    assert said.count("\n") == 1
    assert "brokers" in said
    assert str(file) in said


def test_a_worker_without_broker_or_model_is_bad_usage(tmp_path: Path) -> None:
    """It says which setting to give."""
    code, _, said = run("worker", "--broker", "k:1", "--data", tmp_path)
    assert code == 2
    assert "[worker] model" in " ".join(said.split())


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (
            ("--idle-timeout", "5"),
            '[worker] idle_timeout must be a duration such as "14d", not "5"',
        ),
        (("--metrics-port", "70000"), "less than or equal to 65535"),
        (("--log-level", "LOUD"), "'DEBUG', 'INFO'"),
    ],
)
def test_an_option_that_cannot_be_is_bad_usage(option: tuple[str, str], words: str) -> None:
    """Exit code 2, and what it must be."""
    code, _, said = run("worker", *option)
    assert code == 2
    assert words in " ".join(said.replace("│", " ").split())


def test_the_help_of_an_option_is_that_of_its_setting() -> None:
    """What it means and the default, as the configuration has them."""
    code, told, _ = run("worker", "--help", COLUMNS="200")
    assert code == 0
    words = " ".join(told.replace("│", " ").split())
    for name in ("worker.session_timeout", "console.host", "log.level", "worker.model"):
        row = next(row for row in table(Config()) if row.name == name)
        assert row.help[1:] in words
        assert f"Default: [{row.section}] {row.key}" in words
    assert "Default: [worker] session_timeout, 10s." in words


@pytest.mark.parametrize(
    "command",
    [
        ("topics", "create"),
        ("forget", "member", "m"),
        ("state", "verify", "--checkpoint", "c"),
        ("gate", "open", "all"),
        ("produce", "LOG"),
    ],
)
def test_who_talks_to_a_broker_asks_for_it_in_one_way(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Option, variable or configuration; what is configured is used, password and all."""
    log = tmp_path / "log.jsonl"
    log.write_text("")
    words = [str(log) if word == "LOG" else word for word in command]
    code, _, said = run(*words)
    assert code == 2
    assert "HEARBACK_KAFKA_BROKER" in said
    code, _, said = run(*words, HEARBACK_KAFKA_BROKER="k:1", HEARBACK_KAFKA_SECURITY="sasl_ssl")
    assert code == 1
    assert "needs sasl_mechanism" in said
