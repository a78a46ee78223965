"""What matches are worth: how many were answered, against all applications."""

from __future__ import annotations

import msgspec


class MatchQuality(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a run; shares are of those whose windows have closed, None: there are none."""

    told: int
    closed: int
    answered: float | None
    answered_of_all: float | None

    def in_words(self) -> str | None:
        """Tell in a sentence; None: no match's window has closed."""
        if self.answered is None or self.answered_of_all is None:
            return None
        return (
            f"{self.answered:.0%} of {self.closed:,} matches were answered, against"
            f" {self.answered_of_all:.0%} of all applications."
        )


class MatchCounts(msgspec.Struct, kw_only=True):
    """What was told, and what became of it and of all."""

    told: int = 0
    closed: int = 0
    answered: int = 0
    all_closed: int = 0
    all_answered: int = 0

    def close(self, *, answered: bool, match: bool) -> None:
        """Count an application whose window has closed."""
        self.all_closed += 1
        self.all_answered += answered
        self.closed += match
        self.answered += match and answered

    def __add__(self, other: MatchCounts) -> MatchCounts:
        """Return the counts of both."""
        ours, theirs = msgspec.structs.asdict(self), msgspec.structs.asdict(other)
        return MatchCounts(**{name: ours[name] + theirs[name] for name in ours})

    def quality(self) -> MatchQuality | None:
        """Return what they say; None: nothing was told."""
        if not self.told:
            return None
        return MatchQuality(
            told=self.told,
            closed=self.closed,
            answered=self.answered / self.closed if self.closed else None,
            answered_of_all=self.all_answered / self.all_closed if self.all_closed else None,
        )
