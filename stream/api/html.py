"""What notebooks show: tables, and pages in a frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

_HEIGHT_PX = 640


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Write a table; the notebook's own style sheet says what it looks like."""
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def facts(title: str, values: Mapping[str, object]) -> str:
    """Write names and values, one below the other."""
    rows = [(name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in
            values.items()]  # fmt: skip
    return table((title, ""), rows)


def listing(lines: Iterable[str]) -> str:
    """Write sentences as a list."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def framed(page: str) -> str:
    """Write a whole page in a frame of its own, where its styles disturb no other."""
    return (
        f'<iframe srcdoc="{escape(page)}" width="100%" height="{_HEIGHT_PX}"'
        ' style="border:0" sandbox="allow-scripts"></iframe>'
    )
