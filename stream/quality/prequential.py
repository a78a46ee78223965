"""How good were the scores?

Prequential: every application was scored before anything of it was learned, and is judged once its
window has closed and its label is the truth.
"""

from __future__ import annotations

from array import array
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.events.ladder import target
from stream.labels.changes import Change
from stream.quality.tally import Quality

_ROW = np.dtype([("target", "i1"), ("global", "<f8"), ("full", "<f8")])
ROW_BYTES = _ROW.itemsize

_PART = 1 << 18
"""Scores judged at once: what it takes besides them is for so many."""

_EPS = float(np.finfo(np.float64).eps)

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
        self._targets.append(target(facts.kind))
        self._global.append(facts.global_score)
        self._full.append(facts.full_score)

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
    p = probability(np.asarray(scores, dtype=np.float64))
    positives = int(np.count_nonzero(y))
    loss = sum(_log_loss(y[at : at + _PART], p[at : at + _PART]) for at in range(0, len(y), _PART))
    return Quality(
        auc=_auc(p[y == 0], p[y != 0]) if 0 < positives < len(y) else None,
        log_loss=loss / len(y),
        observed_over_expected=positives / float(p.sum()),
    )


def probability(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds (n,) → probabilities (n,), in one array: there may be millions."""
    p = np.clip(scores, -500.0, 500.0)
    np.negative(p, out=p)
    np.exp(p, out=p)
    p += 1.0
    return np.reciprocal(p, out=p)


def _log_loss(y: NDArray[np.int8], p: NDArray[np.float64]) -> float:
    """Summed log loss of probabilities (n,), in nats.

    The same as scikit-learn's to the last bit, clipping included; importing that costs each worker
    82 MB and a second.
    """
    likelihood = np.where(y, p, 1.0 - p)
    return -float(np.log(np.clip(likelihood, _EPS, 1.0 - _EPS)).sum())


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
