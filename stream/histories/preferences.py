"""What a job's recruiters prefer: its candidates' terms, counted by channel and by rating.

Of each term the weight for a rating is ln of observed over expected, both with a pseudo-count: k
rated candidates have the term, and n_rated·k_all/n_all would if the rating did not depend on it
(LinkedIn, 'Learning hiring preferences', 2019). It is zero for a term that nobody has and where
nothing was rated. A rating that is corrected leaves no trace.

What counts of an application's terms is a function of the application alone, and a job that is full
stays so: whatever was counted can be found again when the rating comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import log
from typing import NamedTuple

import msgspec

MOST_TERMS = 64
"""Terms of one type that count of an application."""

MOST_TYPES = 16
"""Types of terms that count of an application, in alphabetical order."""

MOST_KEPT = 2000
"""Terms of a job, of all types; a new one is not counted any more."""

MOST_BYTES = 64 * 1024
"""... or so much text."""

MOST_CHARS = 256
"""Of a term or type; a longer one does not count."""

MOST_CHANNELS = 8
"""Channels of a job that are told apart; what comes by others counts for all channels together."""

APPLICATIONS, POSITIVE, NEGATIVE = range(3)
EACH = 3
"""Counts of a term, or of all: its applications, positive ones, declined ones."""

COUNTS = (
    "applications",
    "positives",
    "negatives",
    "channel_applications",
    "channel_positives",
    "channel_negatives",
)
"""Of a job's applications with terms: all, and those of the candidate's channel."""

WEIGHTS = ("positive", "negative", "channel_positive", "channel_negative")
"""Of each type: sums over the candidate's terms of it."""

Terms = dict[str, list[str]]


class Preferred(msgspec.Struct, frozen=True, gc=False):
    """What is read at first sight of an application: :data:`COUNTS`, by type :data:`WEIGHTS`."""

    counts: tuple[float, float, float, float, float, float]
    weights: dict[str, tuple[float, float, float, float]]


class Weighed(NamedTuple):
    """A term of a job, its weights for either rating, and its counts."""

    kind: str
    term: str
    positive: float
    negative: float
    applications: int
    positives: int
    negatives: int


class Preferences(msgspec.Struct, array_like=True):
    """A job's counts.

    Attributes:
        channels: in order of their appearance; an application without one has ``""``.
        totals: applications with terms, positive ones, declined ones; then those of each channel.
        terms: by type and term the same, as far as there are any.
        size: terms, of all types. text_bytes: of all of them.

    """

    channels: list[str] = []
    totals: list[int] = msgspec.field(default_factory=lambda: [0] * EACH)
    terms: dict[str, dict[str, list[int]]] = {}
    size: int = 0
    text_bytes: int = 0

    def count(self, channel: str | None, terms: Terms) -> int:
        """Count an application; return how many of its terms are not, because there are so many."""
        name = channel or ""
        if name not in self.channels and len(self.channels) < MOST_CHANNELS:
            self.channels.append(name)
        at = self._place(channel)
        _add(self.totals, at, APPLICATIONS, 1)
        refused = 0
        for kind, chosen in _counting(terms):
            table = self.terms.get(kind)
            for term in chosen:
                row = None if table is None else table.get(term)
                if row is None:
                    text_bytes = len(term.encode()) + len(kind.encode())
                    if self.size >= MOST_KEPT or self.text_bytes + text_bytes > MOST_BYTES:
                        refused += 1
                        continue
                    table = self.terms.setdefault(kind, {})
                    row = table[term] = [0, 0, 0]
                    self.size += 1
                    self.text_bytes += text_bytes
                _add(row, at, APPLICATIONS, 1)
        return refused

    def rate(self, channel: str | None, terms: Terms, rating: int, change: int) -> None:
        """Add a rating of a counted application, or take it back (-1)."""
        at = self._place(channel)
        _add(self.totals, at, rating, change)
        for kind, chosen in _counting(terms):
            table = self.terms.get(kind, {})
            for term in chosen:
                row = table.get(term)
                if row is not None:
                    _add(row, at, rating, change)

    def read(self, channel: str | None, terms: Terms) -> Preferred:
        """Read the counts, and by type the sums of a candidate's weights, to 6 decimals."""
        at = self._place(channel)
        totals = self.totals
        own = _part(totals, at)
        everywhere = totals[0], totals[1], totals[2]
        weights = {}
        for kind, chosen in _counting(terms):
            table = self.terms.get(kind)
            if table is None or not (totals[POSITIVE] or totals[NEGATIVE]):
                weights[kind] = _UNRATED
                continue
            rows = [row for term in chosen if (row := table.get(term)) is not None]
            weights[kind] = (
                _summed(rows, 0, everywhere, POSITIVE),
                _summed(rows, 0, everywhere, NEGATIVE),
                _summed(rows, at, own, POSITIVE),
                _summed(rows, at, own, NEGATIVE),
            )
        return Preferred((*map(float, everywhere), *map(float, own)), weights)  # type: ignore[arg-type]

    def by_weight(self) -> list[Weighed]:
        """All terms with their weights over all channels, the largest for a positive one first."""
        totals = self.totals[0], self.totals[1], self.totals[2]
        found = []
        for kind, table in self.terms.items():
            for term, row in table.items():
                counts = row[0], row[1], row[2]
                weights = weight(counts, totals, POSITIVE), weight(counts, totals, NEGATIVE)
                found.append(Weighed(kind, term, *weights, *counts))
        return sorted(found, key=lambda each: (-each.positive, each.negative, each[:2]))

    def _place(self, channel: str | None) -> int | None:
        """Where a channel's counts begin; None: it is not told apart."""
        name = channel or ""
        return EACH * (1 + self.channels.index(name)) if name in self.channels else None


class JobPreferences(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="preferences"):
    """A job's preferences as they are published; see :class:`Preferences`."""

    job_id: str
    channels: list[str]
    totals: list[int]
    terms: dict[str, dict[str, list[int]]]

    @classmethod
    def of(cls, job_id: str, preferences: Preferences) -> JobPreferences:
        """Message of what a job has."""
        return cls(job_id, preferences.channels, preferences.totals, preferences.terms)

    def counts(self) -> Preferences:
        """What it was made of."""
        size = sum(map(len, self.terms.values()))
        return Preferences(self.channels, self.totals, self.terms, size)


_Part = tuple[int, int, int]
_UNRATED = 0.0, 0.0, 0.0, 0.0


def weight(of: _Part, among: _Part, rating: int) -> float:
    """Weight of a term for a rating: its counts among those of all applications."""
    everybody = among[APPLICATIONS]
    if not everybody:
        return 0.0
    expected = among[rating] * of[APPLICATIONS] / everybody
    return log((of[rating] + 1.0) / (expected + 1.0))


def _summed(rows: list[list[int]], at: int | None, among: _Part, rating: int) -> float:
    """Weights of terms for a rating, summed, to 6 decimals; ``at``: where counts are in rows."""
    everybody, rated = among[APPLICATIONS], among[rating]
    if at is None or not rated:
        return 0.0
    total = 0.0
    for row in rows:
        if len(row) > at:
            total += log((row[at + rating] + 1.0) / (rated * row[at] / everybody + 1.0))
    return round(total, 6)


def _counting(terms: Terms) -> Iterator[tuple[str, list[str]]]:
    """What counts of an application's terms."""
    for kind in sorted(terms)[:MOST_TYPES]:
        if len(kind) <= MOST_CHARS:
            chosen = terms[kind]
            count = len(chosen)
            if (
                count > MOST_TERMS
                or (count > 1 and len(set(chosen)) < count)
                or (count and max(map(len, chosen)) > MOST_CHARS)
            ):
                distinct = dict.fromkeys(term for term in chosen if len(term) <= MOST_CHARS)
                chosen = list(islice(distinct, MOST_TERMS))
            yield kind, chosen


def _add(counts: list[int], at: int | None, which: int, change: int) -> None:
    counts[which] += change
    if at is not None:
        if len(counts) < at + EACH:
            counts.extend([0] * (at + EACH - len(counts)))
        counts[at + which] += change


def _part(counts: list[int], at: int | None) -> _Part:
    if at is None or len(counts) <= at:
        return 0, 0, 0
    return counts[at], counts[at + 1], counts[at + 2]
