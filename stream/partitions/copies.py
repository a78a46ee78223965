"""Copies of what is counted, which a unit of work that is done again takes back."""

from __future__ import annotations

from array import array
from collections import Counter
from copy import copy
from typing import TypeVar

_T = TypeVar("_T")


def copied(counts: _T) -> _T:
    """Copy a counter, or an object whose attributes are numbers, texts and containers of such.

    Each unit of work pays for it: a tenth of what :func:`copy.deepcopy` takes.
    """
    twin = copy(counts)
    for name, value in getattr(twin, "__dict__", {}).items():
        if isinstance(value, Counter | dict | list | array):
            setattr(twin, name, copy(value))
    return twin
