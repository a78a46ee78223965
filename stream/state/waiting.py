"""Who waits for an answer: what a decision chooses from.

Waiting is an open application that was neither answered nor declined. The records of the
applications are the truth; here is only what rankings need of them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from hashlib import blake2b
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

from stream.events.ladder import Kind
from stream.state.facts import ApplicationRecord, Facts

_INFERRED = int(Kind.NEGATIVE_INFERRED)
_MARK_BYTES = 8
MARK_BITS = 8 * _MARK_BYTES

_T = TypeVar("_T")


class Waits(NamedTuple):
    """An application, as it is ranked.

    ``fixed`` is the global score and those of further effects, ``other_score`` that of the effect
    by whose coefficients it is not ranked, within a job the member's: both in log-odds, of first
    sight. ``z`` are the features of the one by whose it is, float32 bytes of shape (d,). ``name``
    is the application's id, where it may be scored anew.
    """

    time_ms: int
    fixed: float
    other_score: float
    z: bytes
    name: str = ""


def waits(facts: Facts, name: str) -> Waits:
    """Take what is ranked within a job out of an application's facts."""
    fixed = facts.global_score
    if facts.further_scores:
        fixed += sum(facts.further_scores.values())
    return Waits(facts.event_time_ms, fixed, facts.member_score, facts.per_job, name)


def mark(owner: str, name: str = "") -> int:
    """Number of a job, member or application, as good as drawn, the same everywhere (64 bits)."""
    text = f"{len(owner)}:{owner}{name}".encode()
    return int.from_bytes(blake2b(text, digest_size=_MARK_BYTES).digest(), "big")


class Candidates(Generic[_T]):
    """Those who wait in one job, or of one member, by name, with whatever is known of each."""

    __slots__ = ("_order", "_owner", "_waiting")

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._waiting: dict[str, tuple[int, _T]] = {}
        self._order: list[tuple[int, str]] | None = None  # by mark, once it was asked for

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def __contains__(self, name: str) -> bool:
        """Whether somebody waits."""
        return name in self._waiting

    def add(self, name: str, time_ms: int, known: _T) -> None:
        """Let somebody wait who applied at a time and does not wait yet."""
        self._waiting[name] = time_ms, known
        if self._order is not None:
            insort(self._order, (mark(self._owner, name), name))

    def remove(self, name: str) -> None:
        """Let somebody wait no longer, if he does."""
        if self._waiting.pop(name, None) is not None and self._order is not None:
            del self._order[bisect_left(self._order, (mark(self._owner, name), name))]

    def others(self, name: str, at_ms: int, window_ms: int, most: int) -> tuple[list[_T], bool]:
        """Return who else could have been chosen at a time, and whether that is a sample.

        Their windows are open then. Of more than ``most`` those are taken that follow the one who
        was chosen in the order of their marks, around the circle: a sample that depends on nothing
        but who waits.
        """
        first_ms, waiting = at_ms - window_ms, self._waiting
        if len(waiting) <= most:
            return [
                known
                for other, (time_ms, known) in waiting.items()
                if first_ms <= time_ms <= at_ms and other != name
            ], False
        if self._order is None:
            self._order = sorted((mark(self._owner, each), each) for each in waiting)
        at = bisect_left(self._order, (mark(self._owner, name), name))
        found: list[_T] = []
        for _, other in chain(self._order[at:], self._order[:at]):
            time_ms, known = waiting[other]
            if first_ms <= time_ms <= at_ms and other != name:
                if len(found) == most:
                    return found, True
                found.append(known)
        return found, False


def is_waiting(record: ApplicationRecord | None) -> bool:
    """Whether an application is open and was neither answered nor declined."""
    return isinstance(record, Facts) and record.kind <= _INFERRED


def follow(candidates: Candidates[Waits], name: str, record: ApplicationRecord | None) -> None:
    """Take an application's record in, as it is now."""
    if isinstance(record, Facts) and record.kind <= _INFERRED:
        if name not in candidates:
            candidates.add(name, record.event_time_ms, waits(record, name))
    else:
        candidates.remove(name)
