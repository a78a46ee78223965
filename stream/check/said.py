"""Which attributes a log has: their kinds, how often each is there, how many values it has."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec

from stream.check.attributes import flat
from stream.check.tallies import Distinct
from stream.events.applications import RawApplication
from stream.features.spec import SIDES
from stream.features.values import as_items, as_time_ms

MOST: Final = 200
"""Attributes that are counted; further names are counted together."""

_MOST_VALUES: Final = 1 << 12
_KINDS: Final = {bool: "true or false", int: "number", float: "number", list: "list"}


class Counted(msgspec.Struct):
    """One attribute: how many applications have it, by kind, and its values (of lists: items)."""

    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    values: Distinct = msgspec.field(default_factory=lambda: Distinct(_MOST_VALUES))

    @property
    def filled(self) -> int:
        """How many applications have it."""
        return self.kinds.total()

    @property
    def exact(self) -> bool:
        """Whether the number of values is no estimate."""
        return self.values.exact

    def in_words(self) -> str:
        """Name the kinds, with shares where there are several."""
        if len(self.kinds) == 1:
            return next(iter(self.kinds))
        shares = self.kinds.most_common()
        return ", ".join(f"{kind} {count / self.filled:.0%}" for kind, count in shares)

    def different(self) -> str:
        """Say how many different values there are."""
        return f"{'' if self.exact else 'about '}{self.values.count:,}"


class Said:
    """Counts what applications say of members, jobs and the occasion.

    Attributes:
        applications: all of them. found: by name (``member.city``), at most :data:`MOST`.
        others: how often an attribute came that is not in ``found``.

    """

    def __init__(self) -> None:
        self.applications = self.others = 0
        self.found: dict[str, Counted] = {}

    def add(self, app: RawApplication) -> None:
        """Take an application in."""
        self.applications += 1
        for side, said in zip(SIDES, (app.member, app.job, app.context), strict=True):
            for name, value in flat(said or {}):
                self._add(f"{side}.{name}", value)

    def _add(self, name: str, value: Any) -> None:
        counted = self.found.get(name)
        if counted is None:
            if len(self.found) == MOST:
                self.others += 1
                return
            counted = self.found[name] = Counted()
        counted.kinds[_kind(value)] += 1
        for one in as_items(value):
            counted.values.add(one)


def _kind(value: Any) -> str:
    if type(value) is str:
        return "date" if value[4:5] == "-" and as_time_ms(value) is not None else "text"
    return _KINDS.get(type(value), "object")
