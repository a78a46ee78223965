"""Writes the settings with what they mean: the example file, and their parts in the docs.

``make docs`` runs this module; a test keeps what it writes up to date.
"""

from __future__ import annotations

import re
from pathlib import Path

from stream.configuration.sections import Config
from stream.configuration.settings import Row, table

EXAMPLE = Path("hearback.example.toml")
PAGES = tuple(Path(f"docs/{name}.md") for name in ("labels", "learning", "operations", "serving"))
"""What is between ``<!-- settings: SECTION SECTION -->`` and ``<!-- end -->`` is made here."""

_HEAD = """\
# Every setting of hearback with its default. Made by `make docs`; copy what you change.
# The environment stands above the file: HEARBACK_KAFKA_BROKER is [kafka] broker,
# HEARBACK_EFFECTS_PER_JOB_CAPACITY is [effects.per_job] capacity. Secrets only come from
# there ({}) or from files.
"""
_PART = re.compile(r"(<!-- settings: ([\w. ]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
_WIDEST = 48  # comments stand behind it, or two blanks behind a longer line


def example(config: Config = Config()) -> str:  # noqa: B008 - frozen
    """Return the example file: every setting with its default, what has none switched off."""
    rows = table(config)
    head = _HEAD.format(", ".join(row.variable for row in rows if row.declared.secret))
    sections = dict.fromkeys(row.section for row in rows)
    return "\n".join([head, *(_explained(section, rows) for section in sections)])


def page(text: str, config: Config = Config()) -> str:  # noqa: B008 - frozen
    """Return a page with the sections that it shows as they are declared."""
    rows = table(config)

    def made(part: re.Match[str]) -> str:
        shown = "\n".join(_explained(section, rows) for section in part[2].split())
        return f"{part[1]}```toml\n{shown}```\n{part[3]}"

    return _PART.sub(made, text)


def _explained(section: str, rows: list[Row]) -> str:
    """Write a section with a comment behind each setting."""
    public = (row for row in rows if row.section == section and not row.declared.secret)
    lines = [(_line(row), row.help) for row in public]
    width = min(max(len(line) for line, _ in lines), _WIDEST)
    return "\n".join([f"[{section}]", *(f"{line:{width}}  # {said}" for line, said in lines), ""])


def _line(row: Row) -> str:
    if row.written is None:
        return f'# {row.key} = "{row.declared.example}"'
    return f"{row.key} = {row.written}"


if __name__ == "__main__":
    EXAMPLE.write_text(example(), encoding="utf-8")
    for path in PAGES:
        path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
