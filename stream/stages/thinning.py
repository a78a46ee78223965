"""Of many decisions, those of a sample of jobs or members: which are looked at.

A decision costs a refit and up to a hundred scores, as much as one or two events. So where a week
of event time brings more than :data:`MOST_A_WEEK`, only those of half of the owners are looked at,
by their marks, and so on; a week that brings few gives some back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from stream.policy import DAY_MS
from stream.quality.ranking import Owner, watched
from stream.state import keys
from stream.state.codec import Codec
from stream.state.facts import Count
from stream.state.overlay import Overlay

MOST_A_WEEK: Final[dict[Owner, int]] = {"job": 512, "member": 128}
"""Decisions of a week of event time that are judged before half of the owners are left out: of
jobs they cost some 2 % of a replay, of members, where nobody looks at a list of these, 1 %."""

_WEEK_MS = 7 * DAY_MS
_MOST_HALVINGS = 20

TooMany = Callable[[int], bool]
"""Whether more memory would be taken than should be, after so many halvings."""


class Looked(msgspec.Struct, array_like=True):
    """``judged`` decisions of a ``week``, of the owners that are left after ``halvings``."""

    week: Count = 0
    judged: Count = 0
    halvings: Count = 0


LOOKED = Codec[Looked](Looked)


class Thinning:
    """Which owners are looked at, kept in a partition's state.

    Args:
        overlay: of the state. within: whose decisions.
        too_many: see :data:`TooMany`.

    """

    def __init__(self, overlay: Overlay, within: Owner, too_many: TooMany) -> None:
        self._key = keys.own(f"{within} decisions")
        self._within = within
        self._overlay = overlay
        self._too_many = too_many
        overlay.attach(self.throw_away, self.write_out)
        self.throw_away()

    @property
    def _most(self) -> int:
        return MOST_A_WEEK[self._within]

    @property
    def halvings(self) -> int:
        """How often the owners were halved."""
        return self._looked.halvings

    def looks_at(self, owner: int, at_ms: int) -> bool:
        """Whether a decision of an owner, by its mark, is to be judged at a time."""
        looked, week = self._looked, at_ms // _WEEK_MS
        if week > looked.week:
            fewer = looked.halvings - 1
            if fewer >= 0 and 4 * looked.judged < self._most and not self._too_many(fewer):
                looked.halvings = fewer
            looked.week, looked.judged = week, 0
            self._changed = True
        return watched(owner, looked.halvings)

    def count(self) -> bool:
        """Count a decision that was judged; return whether fewer are looked at from now on."""
        looked = self._looked
        looked.judged += 1
        self._changed = True
        if looked.judged < self._most and not self._too_many(looked.halvings):
            return False
        if looked.halvings == _MOST_HALVINGS:
            return False
        looked.halvings += 1
        looked.judged //= 2
        return True

    def write_out(self) -> None:
        """Put what changed into the overlay."""
        if self._changed:
            self._overlay.put(self._key, LOOKED.encode(self._looked))
            self._changed = False

    def throw_away(self) -> None:
        """Go back to what the store says."""
        value = self._overlay.store.get(self._key)
        self._looked = Looked() if value is None else LOOKED.decode(value)
        self._changed = False
