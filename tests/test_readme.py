"""The commands of the README, word by word, as somebody new to it types them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from stream.cli import PROGRAM
from tests.deploy.test_compose import parsed

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
MAKEFILE = Path("Makefile").read_text("utf-8")
PAGES = [Path("README.md"), Path("CONTRIBUTING.md"), *sorted(Path("docs").glob("*.md"))]

NOT_RUN = {
    "make demo": "tests/cli/test_live.py runs the demo, in less time",
    "hearback demo": "the same",
    "make test": "it runs this",
    "docker compose up --build": "no container engine; tests/deploy/test_compose.py reads the file",
    "make stack": "tests/integration/test_stack.py runs it",
    "python3 -m pip install dist/hearback_stream-*.whl": "it would change this installation",
    "open backtest/report.html": "a browser; the file has to be there",
    "hearback worker --broker kafka:9092 --model model --data /var/lib/hearback": (
        "no Kafka of that name; tests/worker/test_worker.py runs workers"
    ),
}
"""Commands of the README's blocks that are not run here, and why."""


def commands(text: str) -> list[str]:
    """What stands behind the prompts of a page's console blocks, without comments."""
    blocks = re.findall(r"^ *```console\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^ *\$ (.*)", "\n".join(blocks), re.MULTILINE)
    return [shlex.join(shlex.split(line, comments=True)).replace("'", "") for line in lines]


def quoted(text: str) -> list[str]:
    """Commands of ours within a page's text."""
    found = re.findall(r"`(hearback [^`…]+)`", text)
    return [" ".join(one.split()) for one in found if not re.search(r"\b[A-Z]{2,}\b", one)]


def test_what_the_readme_says_works(tmp_path: Path) -> None:
    """Each command ends well, in the README's order, after ``simulate`` has made a log."""
    log = "hearback simulate --out log.jsonl.gz"
    assert log in " ".join(README.split())
    smaller = f"{log} --members 150 --jobs 60 --days 90"
    wanted = [command for command in commands(README) if command not in NOT_RUN]
    assert len(wanted) >= 5
    for command in [smaller, *wanted]:
        program, *arguments = shlex.split(command)
        assert program == "hearback", f"{command}: run it here, or say in NOT_RUN why not"
        done = subprocess.run(
            [*PROGRAM, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "COLUMNS": "100"},
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
        assert "Traceback" not in done.stderr
    assert (tmp_path / "backtest" / "report.html").stat().st_size > 10_000


def test_nothing_is_left_out_that_is_not_there() -> None:
    """A command that the README no longer has needs no reason."""
    assert set(NOT_RUN) <= set(commands(README))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_of_the_pages_parses(page: Path) -> None:
    """Whatever is not run: the command line knows the command and its options."""
    text = page.read_text("utf-8")
    whole = commands(text)
    for command in [*whole, *quoted(text)]:
        program, *arguments = shlex.split(re.split(r" [|>&]", command)[0])
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", MAKEFILE, re.MULTILINE)
        elif program == "hearback" and arguments and not {"--version", "--example"} & {*arguments}:
            refused = ""
            try:
                parsed(arguments)
            except ValueError as error:
                refused = str(error)
            # Within the text a command may stand without all that it needs.
            assert not refused or (command not in whole and "No such" not in refused), refused


def test_the_programs_of_the_readme_are_those_of_the_installation() -> None:
    """The command is installed beside Python, as the README's install section says."""
    assert Path(sys.executable).with_name("hearback").is_file()
