"""The docs name files and modules that are there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    """Paths from the root, and on the page that says so those below ``stream/``."""
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"`((?:stream|tests|producers|deploy|benchmarks|examples)/[\w/.]*)`", text)
    missing = [path for path in paths if not (ROOT / path).exists()]
    if "Paths are below `stream/`" in text:
        below = re.findall(r"`(?!stream/)([a-z]+/[a-z_]+\.py)`", text)
        assert below
        missing += [path for path in below if not (ROOT / "stream" / path).exists()]
    assert not missing
    modules = re.findall(r"`(?:from )?(stream(?:\.[a-z_]+)+)", text)
    assert [name for name in modules if not _is_there(name)] == []


def _is_there(name: str) -> bool:
    """Whether a module, or a name in a module, can be imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return _is_there(name.rpartition(".")[0])
