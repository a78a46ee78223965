"""How many there are of what a partition keeps: counted as it comes and goes, never by a scan.

The counts are part of the partition's state: they are written with the values that they count and
go back with them when a unit of work is undone.
"""

from __future__ import annotations

import msgspec

from stream.state import keys
from stream.state.codec import Codec
from stream.state.facts import Count
from stream.state.overlay import Overlay


class StateCounts(msgspec.Struct, array_like=True):
    """What is counted; new counts go to the end."""

    pending: Count = 0
    """Applications of which nothing but, perhaps, their age is known."""
    orphans: Count = 0
    """Engagements that wait for their application."""
    entities: Count = 0
    """Members or jobs of which something was learned."""
    pairs: Count = 0
    """Members and jobs of which a common history is kept."""


COUNTS = Codec[StateCounts](StateCounts, unversioned=msgspec.msgpack.Decoder(StateCounts))


class Census:
    """The counts of one partition.

    A partition whose state is older than the census counts from its beginning; what was there
    before goes without having come, so no count falls below zero.

    Args:
        overlay: of the partition's state.
        stage: whose; the replay keeps the state of both in one store.

    """

    def __init__(self, overlay: Overlay, stage: str = "") -> None:
        self._overlay = overlay
        self._key = keys.own(f"census-{stage}")
        self._changed = False
        self.counts = _load(overlay, self._key)
        overlay.attach(self.throw_away, self.write_out)

    def pending(self, change: int) -> None:
        """An application waits for its label, or has it."""
        self.counts.pending = max(self.counts.pending + change, 0)
        self._changed = True

    def orphans(self, change: int) -> None:
        """An engagement waits for its application, or does no longer."""
        self.counts.orphans = max(self.counts.orphans + change, 0)
        self._changed = True

    def entities(self, change: int) -> None:
        """Something was learned of a member or job for the first time."""
        self.counts.entities = max(self.counts.entities + change, 0)
        self._changed = True

    def pairs(self, change: int) -> None:
        """A member has applied for a job, or that has expired."""
        self.counts.pairs = max(self.counts.pairs + change, 0)
        self._changed = True

    def write_out(self) -> None:
        """Put the counts into the overlay, if they changed; of nothing, nothing is kept."""
        if not self._changed:
            return
        some = self.counts != StateCounts()
        self._overlay.put(self._key, COUNTS.encode(self.counts) if some else None)
        self._changed = False

    def throw_away(self) -> None:
        """Go back to what the store says."""
        if self._changed:
            self.counts = _load(self._overlay, self._key)
            self._changed = False


def _load(overlay: Overlay, key: bytes) -> StateCounts:
    value = overlay.get(key)
    return StateCounts() if value is None else COUNTS.decode(value)


def census_entry(stage: str, counts: StateCounts) -> tuple[bytes, bytes]:
    """Key and value of a partition's counts."""
    return keys.own(f"census-{stage}"), COUNTS.encode(counts)
