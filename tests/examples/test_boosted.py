"""The guide 'From a linear to a boosted model in an afternoon', word by word."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec
import pytest

from stream.model.folder import load_model
from tests.cli.test_history import hearback

GUIDE = (Path(__file__).parents[2] / "docs" / "boosted.md").read_text("utf-8")


@pytest.mark.timeout(600)
def test_the_guide_leads_to_a_model_that_is_rolled_in(tmp_path: Path) -> None:
    """Its seven commands, as they stand; the last model scores from its time on."""
    commands = re.findall(r"^\$ hearback (.*)$", GUIDE, re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        done = hearback(*shlex.split(command), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    kinds = [load_model(tmp_path / name).manifest.kind for name in ("linear", "boosted", "next")]
    assert kinds == ["linear", "boosted", "boosted"]
    lines = (tmp_path / "run-rolled" / "labels.jsonl").read_bytes().splitlines()
    versions = {msgspec.json.decode(line)["model_version"] for line in lines}
    assert versions == {load_model(tmp_path / name).version for name in ("boosted", "next")}
