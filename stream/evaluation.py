"""How good were the scores, and how early the labels?

Prequential: every application was scored before anything of it was learned, and is judged once its
window has closed and its label is the truth.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from stream.labels.changes import Change
from stream.labels.ladder import Kind
from stream.policy import DAY_MS, HOUR_MS
from stream.quality.tally import Quality

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

_ROW = np.dtype([("target", "i1"), ("global", "<f8"), ("full", "<f8")])
ROW_BYTES = _ROW.itemsize

_PART = 1 << 18
"""Scores judged at once: what it takes besides them is for so many."""

Numbers: TypeAlias = "array[int] | array[float] | NDArray[np.float64]"


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of the global score and of the full one (global + member + job)."""

    applications: int
    positives: int
    global_: Quality | None = msgspec.field(name="global")
    full: Quality | None


class Prequential:
    """Collects the scores of applications as their windows close.

    Args:
        score_from_ms: applications submitted earlier are left out.

    """

    def __init__(self, score_from_ms: int = 0) -> None:
        self._score_from_ms = score_from_ms
        self._targets = array("b")
        self._global = array("d")
        self._full = array("d")

    def observe(self, change: Change) -> None:
        """Take a closing in; any other change is ignored."""
        facts = change.facts
        if not change.closed or facts.event_time_ms < self._score_from_ms:
            return
        self._targets.append(change.kind.label)
        self._global.append(facts.global_score)
        self._full.append(facts.global_score + facts.member_score + facts.job_score)

    def __len__(self) -> int:
        """Return how many were collected."""
        return len(self._targets)

    def rows(self, first: int = 0) -> bytes:
        """What was collected from the ``first`` on, :data:`ROW_BYTES` each, for :meth:`extend`."""
        rows = np.empty(len(self._targets) - first, _ROW)
        rows["target"] = self._targets[first:]
        rows["global"] = self._global[first:]
        rows["full"] = self._full[first:]
        return rows.tobytes()

    def extend(self, rows: bytes) -> None:
        """Take in what another, or an earlier life of this one, has collected."""
        collected = np.frombuffer(rows, _ROW)
        self._targets.frombytes(collected["target"].tobytes())
        self._global.frombytes(collected["global"].tobytes())
        self._full.frombytes(collected["full"].tobytes())

    def summary(self) -> Summary:
        """Judge all that was collected."""
        return Summary(
            applications=len(self._targets),
            positives=sum(self._targets),
            global_=quality(self._targets, self._global),
            full=quality(self._targets, self._full),
        )


def quality(targets: Numbers, scores: Numbers) -> Quality | None:
    """Judge log-odds (n,) against 0/1 targets (n,); None where there is nothing to judge."""
    if not len(targets):
        return None
    y = np.asarray(targets, dtype=np.int8)
    p = np.clip(np.asarray(scores, dtype=np.float64), -500.0, 500.0)
    np.negative(p, out=p)
    np.exp(p, out=p)
    p += 1.0
    np.reciprocal(p, out=p)
    positives = int(np.count_nonzero(y))
    loss = sum(
        float(log_loss(y[at : at + _PART], p[at : at + _PART], labels=[0, 1], normalize=False))
        for at in range(0, len(y), _PART)
    )
    return Quality(
        auc=_auc(p[y == 0], p[y != 0]) if 0 < positives < len(y) else None,
        log_loss=loss / len(y),
        observed_over_expected=positives / float(p.sum()),
    )


def _auc(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> float:
    """Share of pairs in which the positive is scored higher; a tie is half a pair.

    The same as scikit-learn's, which takes some hundreds of MB more at the end of a long replay.
    """
    negative.sort()
    pairs = 0
    for at in range(0, len(positive), _PART):
        part = np.sort(positive[at : at + _PART])
        pairs += int(np.searchsorted(negative, part, "left").sum())
        pairs += int(np.searchsorted(negative, part, "right").sum())
    return pairs / (2 * len(negative) * len(positive))


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

    def first_label_within(self) -> dict[str, float | None]:
        """Share of first labels known within each age."""
        return _shares(self.first_within)

    def positives_within(self) -> dict[str, float | None]:
        """Share of positives known within each age."""
        return _shares(self.positives_known_within)


def _shares(within: Counter[str]) -> dict[str, float | None]:
    total = within[_ANY]
    return {name: within[name] / total if total else None for name in AGES_MS}
