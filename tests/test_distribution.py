"""What is installed: the distribution's name and entry, the releases that set-up and image take."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import hearback_stream
import stream
from stream.cli import PROGRAM

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
GIVEN = PROJECT["project"]["dependencies"]
EXTRA = [one for more in PROJECT["project"]["optional-dependencies"].values() for one in more]
ASKED = [Requirement(text) for text in (*GIVEN, *EXTRA, *PROJECT["dependency-groups"]["dev"])]
PINNED = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE
    )
}


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_every_dependency_is_pinned_within_its_bounds(asked: Requirement) -> None:
    """``constraints.txt`` names a release that ``pyproject.toml`` allows."""
    assert asked.specifier.contains(PINNED[canonicalize_name(asked.name)], prereleases=True)


def test_what_the_dependencies_need_is_pinned_too() -> None:
    """Whatever the pinned releases ask for, on this machine, is pinned as they allow it."""
    for name in PINNED:
        for text in distribution(name).requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                pinned = PINNED[canonicalize_name(needed.name)]
                assert needed.specifier.contains(pinned, prereleases=True), (name, text)


def test_set_up_and_image_take_the_pinned_releases() -> None:
    """Every installation that is not the package alone is bound by the constraints."""
    for file in ("Makefile", "Dockerfile"):
        text = (ROOT / file).read_text("utf-8")
        for command in re.findall(r"\bpip install .*", text):
            bound = "constraint" in command or "--no-deps" in command or "'pip>=" in command
            assert bound or ".lock/" in text.split(command)[0].splitlines()[-1], command


def test_what_faust_is_made_of_is_bounded_above() -> None:
    """The transport uses the internals of these: a new minor release may change them."""
    bounded = {one.name for one in ASKED if any(part.operator == "<" for part in one.specifier)}
    assert {"aiokafka", "faust-streaming", "mode-streaming"} <= bounded


def test_a_foreign_stream_is_refused_in_one_line(tmp_path: Path) -> None:
    """The command says whose package Python finds, and runs nothing of it."""
    for name in ("stream", "producers"):
        foreign = tmp_path / name
        foreign.mkdir()
        (foreign / f"{name}.py").write_text("raise SystemExit('foreign code ran')")
        done = subprocess.run(
            [sys.executable, "-P", "-c", "from hearback_stream import main; main()", "--version"],
            env={"PYTHONPATH": str(foreign)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert str(foreign / f"{name}.py") in done.stderr
        assert "hearback-stream" in done.stderr


def test_a_file_of_that_name_in_the_working_folder_is_no_matter(tmp_path: Path) -> None:
    """Neither the command nor a child of it runs a ``stream.py`` that lies around."""
    (tmp_path / "stream.py").write_text("raise SystemExit('foreign code ran')")
    for program in (
        PROGRAM,
        (sys.executable, "-P", "-c", "from hearback_stream import main; main()"),
    ):
        done = subprocess.run(
            [*program, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("hearback ")


def test_every_child_is_started_as_the_command_line_says() -> None:
    """No program starts ``-m stream.cli`` by itself: that would take the working folder's."""
    own = Path(__file__).relative_to(ROOT)
    for folder in ("stream", "producers", "deploy", "benchmarks", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            told = '"-m", "stream.cli"' in file.read_text("utf-8")
            at = file.relative_to(ROOT)
            assert not told or at in {own, Path("stream/cli/__init__.py")}, at


def test_the_command_is_the_checked_entry() -> None:
    """``hearback`` is the script of the distribution ``hearback-stream``."""
    assert PROJECT["project"]["name"] == "hearback-stream"
    (script,) = PROJECT["project"]["scripts"].items()
    assert script == ("hearback", f"{hearback_stream.main.__module__}:main")


def test_the_package_is_typed() -> None:
    """The marker of PEP 561, and the stub of what the package offers, are in the wheel's folder."""
    assert "stream" in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    for name in ("py.typed", "__init__.pyi"):
        assert (ROOT / "stream" / name).is_file()
    stub = (ROOT / "stream" / "__init__.pyi").read_text("utf-8")
    assert re.findall(r'^    "(\w+)",$', stub, re.MULTILINE) == stream.__all__
