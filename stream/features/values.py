"""Attributes as people and tables write them → numbers, texts, words and times.

Whatever JSON holds is ordinary: what cannot be read as what is wanted is None, or nothing. Texts
over :data:`MOST_CHARS` and numbers over :data:`LARGEST` are cut or held there: these are mistakes,
and none may grow what is stored or overflow what is computed.
"""

from __future__ import annotations

import re
from datetime import UTC
from functools import lru_cache
from typing import Any, Final

from stream.units import iso_time_ms

LARGEST: Final = 1e15
MOST_CHARS: Final = 256
MOST_ITEMS: Final = 256
"""Of a list, or words of a text, that count."""

_MILLISECONDS_FROM: Final = 1e11  # smaller ones are seconds: 1e11 s is the year 5138
_WORD = re.compile(r"\w+")


def as_number(value: Any) -> float | None:
    """Number, or true and false as 1 and 0; else None."""
    kind = type(value)
    if kind is not float and kind is not int and kind is not bool:
        return None
    if -LARGEST <= value <= LARGEST:
        return value  # type: ignore[no-any-return]
    if value > LARGEST:
        return LARGEST
    return -LARGEST if value < -LARGEST else None  # not a number


def as_text(value: Any) -> str | None:
    """Text that is not empty, or a number or truth value as text; else None."""
    if type(value) is str:
        return value[:MOST_CHARS] or None
    if type(value) is bool:
        return "true" if value else "false"
    number = as_number(value)
    return None if number is None else f"{number:.15g}"


def as_items(value: Any) -> list[str]:
    """List of texts, or one text, → its texts; what is none in it is left out."""
    if type(value) is not list:
        text = as_text(value)
        return [] if text is None else [text]
    return [
        text
        for one in value[:MOST_ITEMS]
        if (text := one if type(one) is str and len(one) <= MOST_CHARS else as_text(one))
    ]


def as_words(value: Any) -> list[str]:
    """Text, or the texts of a list, → words in lower case."""
    text = value if type(value) is str else " ".join(as_items(value))
    return [word[:MOST_CHARS] for word in _WORD.findall(text.lower())[:MOST_ITEMS]]


def as_set(value: Any) -> frozenset[str]:
    """What an attribute has in common with others: the items of a list, the words of a text."""
    if type(value) is str:
        return frozenset(as_words(value))
    return frozenset(item.strip().lower() for item in as_items(value))


def as_time_ms(value: Any) -> int | None:
    """ISO 8601 (UTC without a zone), or seconds or milliseconds since 1970; else None."""
    if type(value) is str:
        return _iso_time_ms(value)
    number = None if type(value) is bool else as_number(value)
    if number is None:
        return None
    return int(number if abs(number) >= _MILLISECONDS_FROM else number * 1000.0)


@lru_cache(maxsize=4096)  # dates come again and again
def _iso_time_ms(text: str) -> int | None:
    return iso_time_ms(text, UTC) if len(text) <= MOST_CHARS else None
