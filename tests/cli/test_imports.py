"""What the command line imports: a command's libraries when it runs, and no others."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import pytest
import typer
from typer.testing import CliRunner

from stream import VERSION
from stream.cli import COMMANDS, app

LEARNING = (
    "sklearn",
    "pandas",
    "pyarrow",
    "duckdb",
    "scipy.linalg",
    "scipy.special",
    "scipy.sparse",
)
"""Of SciPy itself only what Numba imports to ask for its version is there."""

HEAVY = (
    *("numpy", "scipy", "numba", "faust", "aiokafka", "rocksdict", "confluent_kafka"),
    *("prometheus_client", "asyncio", "msgspec", "stream.policy", "stream.cli.options"),
)
SETTINGS_ONLY = ("numpy", "numba", "faust", "aiokafka", "rocksdict", "confluent_kafka")


def imported(program: str, names: tuple[str, ...]) -> list[str]:
    """Return those of the modules that another Python has imported when a program ends."""
    told = f"print('imported', [name for name in {names!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\ntry:\n {program}\nfinally:\n {told}"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("imported ")
    return [name for name in names if repr(name) in last]


def command(arguments: str) -> str:
    """Return the program of a command."""
    return f"sys.argv[1:] = {arguments.split()!r}; from stream.cli import main; main()"


@pytest.mark.parametrize("arguments", ["--help", "--version", "nonsense"])
def test_the_list_of_commands_imports_none(arguments: str) -> None:
    """To list the commands takes Typer alone."""
    assert imported(command(arguments), HEAVY + LEARNING) == []


def test_the_package_alone_imports_nothing() -> None:
    """``import stream`` loads what it offers when that is used; listing it is no use."""
    names = (*HEAVY, *LEARNING, "polars", "rich", "typer", "stream.api", "stream.errors")
    assert imported("import stream; dir(stream)", names) == []
    used = imported("import stream; stream.read", ("stream.api", "polars", "sklearn", "numba"))
    assert used == ["stream.api"]


def test_the_python_api_is_no_command_line() -> None:
    """All that the package offers is there without Typer, and Polars comes with the first frame."""
    assert imported("from stream import *", ("typer", "stream.cli", "polars")) == []


@pytest.mark.parametrize("arguments", ["worker --help", "config show", "topics create --help"])
def test_help_and_settings_take_no_heavy_library(arguments: str) -> None:
    """A command's help, and its settings, are there before Kafka, the store and the kernel."""
    assert imported(command(arguments), SETTINGS_ONLY + LEARNING) == []


def test_a_worker_imports_nothing_that_trains() -> None:
    """A worker has Faust and the kernel, and neither scikit-learn nor SciPy.

    Numba takes BLAS from SciPy, where that is installed, as soon as it loads a kernel.
    """
    modules = "stream.cli.live, stream.worker.main, stream.serving.belief"
    assert imported(f"import {modules}", (*LEARNING, "faust", "numba")) == ["faust", "numba"]


def test_the_list_says_what_each_command_says_itself() -> None:
    """The list has the first line of each command's docstring, or its group's text."""
    wide = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert wide.exit_code == 0
    rows = [line.strip("│ ").split(None, 1) for line in wide.stdout.splitlines()]
    listed = {row[0]: row[1] for row in rows if row and row[0] in COMMANDS}
    said = {}
    for name, module in COMMANDS.items():
        own = "import_" if name == "import" else name
        found = getattr(import_module(f"stream.cli.{module}"), own)
        docstring = found.info.help if isinstance(found, typer.Typer) else inspect.getdoc(found)
        assert isinstance(docstring, str)
        said[name] = docstring.split("\n\n")[0].replace("\n", " ").strip()
    assert listed == said
    assert list(listed) == list(COMMANDS)


def test_the_version_is_that_of_the_distribution() -> None:
    """``hearback --version`` prints the command's name and the version, and nothing else."""
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.stdout == f"hearback {VERSION}\n"
    assert VERSION.count(".") == 2


def test_functions_stay_what_they_are_whatever_is_imported() -> None:
    """The package ``stream.replay`` does not take the place of the function of that name."""
    program = (
        "import stream.replay.run_folder, stream.backtest, stream;"
        " from stream.replay import run_folder;"
        " print(stream.replay.__name__, run_folder.LABELS, callable(stream.backtest))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["replay", "labels.jsonl", "True"]


def test_modules_are_found_beside_the_functions_of_their_packages() -> None:
    """``import stream.replay.x as y`` gives the module, before and after the function was used."""
    program = (
        "import stream.replay.run_folder as folder, stream as hb, inspect;"
        " assert hb.replay.__name__ == 'replay';"
        " import stream.replay.savepoint as savepoint, stream.check.survey as survey;"
        " import stream.backtest.schedule as schedule;"
        " assert inspect.signature(hb.check).parameters['log'];"
        " print(folder.LABELS, savepoint.Options.__name__, survey.Survey.__name__, schedule.NEVER)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["labels.jsonl", "Options", "Survey", "None"]
