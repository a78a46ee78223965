"""How early are labels known, and how often do they turn?"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from stream.events.ladder import Kind
from stream.labels.changes import Change
from stream.policy import DAY_MS, HOUR_MS

AGES_MS: dict[str, int] = {
    "1h": HOUR_MS,
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
    "7d": 7 * DAY_MS,
    "14d": 14 * DAY_MS,
}
"""Ages of an application at which it is asked how many labels were known."""

_ANY = "any"
_LIMITS_MS = [*AGES_MS.values()]
_WITHIN = [[*list(AGES_MS)[at:], _ANY] for at in range(len(AGES_MS) + 1)]
"""Names of the ages that are not exceeded, by how many are."""


class Timeliness:
    """How long applications waited for their first label and positives to be known; flips.

    Attributes:
        labels: by kind. decided: by (kind, what decided: ``later_response``, ``job_closed``,
            ``action``, or ``window`` for its end).
        flips: labels that turned positive, by what had made them negative.
        closed: applications whose window has closed.
        first_within: first labels that came within each of :data:`AGES_MS`, and at ``any`` age.
        positives_known_within: positives likewise.
        first_age_ms, positive_age_ms: sums of the ages of these.

    """

    def __init__(self) -> None:
        self.labels: Counter[str] = Counter()
        self.decided: Counter[tuple[str, str]] = Counter()
        self.flips: Counter[str] = Counter()
        self.closed = 0
        self.first_within: Counter[str] = Counter()
        self.positives_known_within: Counter[str] = Counter()
        self.first_age_ms = 0
        self.positive_age_ms = 0

    def observe(self, change: Change) -> None:
        """Take a change in."""
        self.closed += change.closed
        if not change.label:
            return
        self.labels[change.kind.wire] += 1
        decided = change.facts.rule or ("window" if change.closed else "action")
        self.decided[change.kind.wire, decided] += 1
        age_ms = change.label_time_ms - change.facts.event_time_ms
        within = _WITHIN[bisect_left(_LIMITS_MS, age_ms)]
        if change.previous is Kind.PENDING:
            self.first_age_ms += age_ms
            for name in within:
                self.first_within[name] += 1
        if change.kind is Kind.POSITIVE:
            self.positive_age_ms += age_ms
            for name in within:
                self.positives_known_within[name] += 1
            if change.previous is not Kind.PENDING:
                self.flips[change.previous_rule or change.previous.wire] += 1


def shares(within: Counter[str]) -> dict[str, float | None]:
    """Share of labels that came within each age."""
    total = within[_ANY]
    return {name: within[name] / total if total else None for name in AGES_MS}
