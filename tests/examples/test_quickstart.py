"""The walk-through runs as it stands, and a notebook can show all that it shows."""

from __future__ import annotations

import builtins
import runpy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from producers.simulate import simulate
from producers.truth import lively
from stream.logs.files import write_lines
from stream.model.folder import load_model

SCRIPT = Path(__file__).parents[2] / "examples" / "quickstart.py"
MARKET = lively(seed=3, members=120, jobs=60, days=45, applications_per_member=12)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        """Note a tag."""
        self.seen.append(tag)


def test_the_quickstart_runs_and_shows_tables_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thing but the folder at the end has a form for notebooks, a table or a page."""
    write_lines(tmp_path / "log.jsonl.gz", simulate(MARKET))
    shown: list[Any] = []
    monkeypatch.setattr(builtins, "display", shown.append, raising=False)
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(SCRIPT))
    *pictured, folder = shown
    kinds = []
    for one in pictured:
        tags = _Tags()
        tags.feed(one._repr_html_())
        kinds.append("iframe" if "iframe" in tags.seen else "table" if "table" in tags.seen else "")
    assert kinds == ["table"] * 5 + ["iframe"]
    assert pictured[3].height > 2
    assert pictured[4].height == 5
    assert "<svg" in (tmp_path / "report.html").read_text("utf-8")
    assert load_model(tmp_path / folder).version == names["model"].version
