"""The guide 'Your own data', word by word, and the tables that it begins with."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stream.events import wire
from stream.events.structs import Application
from stream.model.folder import load_model
from tests.cli.test_history import hearback

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
GUIDE = (ROOT / "docs" / "your-own-data.md").read_text("utf-8")

pytest.importorskip("duckdb", reason="DuckDB is not installed: no tables are read")


def fenced(kind: str) -> list[str]:
    """Return the guide's blocks of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.mark.timeout(600)
def test_the_guide_leads_to_the_report(tmp_path: Path) -> None:
    """Its map of at most 15 lines and its four commands, as they stand, and its message."""
    for table in EXAMPLES.glob("*.csv"):
        shutil.copy(table, tmp_path)
    (map_,) = fenced("toml")
    assert len(map_.splitlines()) <= 15
    (tmp_path / "map.toml").write_text(map_, "utf-8")
    block = fenced("console")[0]  # tests/integration/test_guide.py runs the others
    commands = [shlex.split(line.removeprefix("$ hearback ")) for line in block.splitlines()]
    assert len(commands) == 4
    assert block.count("$ hearback ") == 4
    (sentence,) = fenced("text")
    for command in commands:
        done = hearback(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        if command[0] == "import":
            assert done.stdout.endswith("no problems\n")
            assert "not mapped" not in done.stdout
        if command[0] == "backtest":
            assert sentence in done.stdout
    assert "<html" in (tmp_path / "backtest" / "report.html").read_text("utf-8")
    message, _ = fenced("json")
    model = load_model(tmp_path / "model")
    made = wire.decode_event(message.encode(), model.space)
    assert isinstance(made, Application)
    assert made.features.global_


def test_a_first_map_is_guessed(tmp_path: Path) -> None:
    """`import --guess` writes a map that the same command takes, and shows what becomes of rows."""
    for table in EXAMPLES.glob("*.csv"):
        shutil.copy(table, tmp_path)
    tables = [f"--{name}={name}.csv" for name in ("applications", "actions", "jobs")]
    done = hearback("import", *tables, "--map", "map.toml", "--guess", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "map.toml").read_text("utf-8").strip() in done.stdout
    assert 'zone = "UTC"  # a guess' in done.stdout
    assert '"Profile opened" = "view_profile"' in done.stdout
    for kind in ("application", "engagement", "job"):
        assert f'{{"type":"{kind}"' in done.stdout
    made = hearback("import", *tables, "--map", "map.toml", "--out", "log.jsonl", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    lines = (tmp_path / "log.jsonl").read_bytes().splitlines()
    count = len((EXAMPLES / "applications.csv").read_bytes().splitlines()) - 1
    assert sum(b'"type":"application"' in line[:22] for line in lines) == count
    again = hearback("import", *tables, "--map", "map.toml", "--guess", cwd=tmp_path)
    assert again.returncode == 1
    assert "map.toml is there already" in again.stderr


def test_the_tables_can_be_made_again(tmp_path: Path) -> None:
    """The script gives the same bytes, which are some hundred kilobytes in all."""
    subprocess.run(
        [sys.executable, str(EXAMPLES / "tables.py"), str(tmp_path)], check=True, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in EXAMPLES.glob("*.csv")}
    assert sum(map(len, made.values())) < 500_000
