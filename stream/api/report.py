"""Pages about what was found, for the Python API."""

from __future__ import annotations

import os
from pathlib import Path

from stream.api import html


class Report:
    """A page about a run; notebooks show it.

    Attributes:
        page: HTML, whole in itself.

    """

    def __init__(self, page: str) -> None:
        self.page = page

    def __repr__(self) -> str:
        """Say how long it is."""
        return f"Report({len(self.page):,} characters of HTML)"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to a file, over one that is there."""
        to = Path(path)
        to.write_text(self.page, encoding="utf-8")
        return to

    def _repr_html_(self) -> str:
        return html.framed(self.page)
