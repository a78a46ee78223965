"""A problem, and how its share of a log makes it an error or a warning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

FEWEST: Final = 20
"""Events by which a share is judged, at least."""

MOST: Final = 0.5
"""A larger share is an error."""

_NAMED = 8

Level = Literal["error", "warning"]


class Problem(msgspec.Struct, frozen=True):
    """One problem."""

    level: Level
    text: str


def level_of(count: int, of: int, *, most: float = MOST) -> Level:
    """Judge a share."""
    return "error" if of >= FEWEST and count > most * of else "warning"


def share_of(count: int, of: int) -> str:
    """Write a share."""
    return f"{count:,} of {of:,} ({count / max(of, 1):.0%})"


def listing(names: Iterable[str]) -> str:
    """Write the first names."""
    first = list(names)
    return ", ".join(first[:_NAMED]) + (", ..." if len(first) > _NAMED else "")
