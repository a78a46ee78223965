"""Moments at which applications wait, sampled from a rehearsal.

Each application is looked at :data:`MOMENTS` times: half of the ages are uniform over the window,
half on a logarithmic scale, so that the first hours count too. At every first answer those who wait
for the job are looked at together, the answered one with them. Whose job is closed is not looked at
alone any more: that tells more than any age.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.backtest.decisions import ScoreOf, still_open
from stream.backtest.rehearsal import Rehearsal
from stream.events.structs import Label
from stream.labels.delays import DelayCurve
from stream.model.landmark import columns
from stream.quality.ranking import MOST_CANDIDATES

MOMENTS: Final = 6
"""Of each application."""

_SHORTEST_MS: Final = 10 * 60_000  # age of the earliest moments
_SEED: Final = 20_070_101  # any: the same log gives the same moments

_Floats = NDArray[np.float64]


class Seen(NamedTuple):
    """One application as it waited: its number, score of then, age, and later ones answered."""

    number: int
    score: float
    age_ms: int
    later: int


class Moments:
    """Watches a rehearsal (:class:`stream.backtest.rehearsal.Watch`).

    Args:
        rehearsal: what is rehearsed. window_ms: W.
        chosen: whose moments count (n,); None: everybody's.
        decisions: whether to look at these too.

    Attributes:
        moments: of open applications.
        decisions: time, job and candidates of each, the answered one first.

    """

    def __init__(
        self,
        rehearsal: Rehearsal,
        window_ms: int,
        *,
        chosen: NDArray[np.bool_] | None = None,
        decisions: bool = True,
    ) -> None:
        self.moments: list[Seen] = []
        self.decisions: list[tuple[int, str, list[Seen]]] = []
        self._rehearsal = rehearsal
        self._window_ms = window_ms
        self._decides = decisions
        self._rng = np.random.default_rng(_SEED)
        n = len(rehearsal.applications)
        ages = self._rng.uniform(0, window_ms, (n, MOMENTS))
        half, shortest_ms = MOMENTS // 2, min(_SHORTEST_MS, window_ms // 2)
        spread = self._rng.uniform(np.log(shortest_ms), np.log(window_ms), (n, half))
        ages[:, :half] = np.exp(spread)
        at_ms = (rehearsal.times_ms[:, None] + ages.astype(np.int64)).ravel()
        order = np.argsort(at_ms, kind="stable")
        if chosen is not None:
            order = order[chosen[order // MOMENTS]]
        self._planned = list(zip(at_ms[order].tolist(), (order // MOMENTS).tolist(), strict=True))
        self._next = 0
        self._waiting: dict[str, dict[int, None]] = {}
        self._closed: set[int] = set()  # whose job was closed
        self._answered: dict[str, list[int]] = {}  # by job: times of the answered applications
        self._scores: Mapping[str, ScoreOf] = {}

    def scored(self, number: int) -> None:
        """An application was read: it waits from now on."""
        app = self._rehearsal.applications[number]
        self._look(app.event_time_ms)
        self._waiting.setdefault(app.job_id, {})[number] = None

    def label(self, number: int, label: Label, scores: Mapping[str, ScoreOf]) -> None:
        """See who waits still, before the label is learned."""
        self._scores = scores
        self._look(label.label_time_ms)
        if still_open(label):
            if label.rule == "job_closed":
                self._closed.add(number)
            return
        waiting = self._waiting.get(label.job_id, {})
        waited, answered_ms = number in waiting, label.evidence_time_ms
        waiting.pop(number, None)
        if not label.label or answered_ms is None:
            return
        if waited and self._decides:
            self._decide(label.job_id, number, list(waiting), answered_ms)
        submitted_ms = int(self._rehearsal.times_ms[number])
        insort(self._answered.setdefault(label.job_id, []), submitted_ms)

    def later(self, number: int) -> int:
        """How many who applied later to the same job were answered so far."""
        app = self._rehearsal.applications[number]
        answered = self._answered.get(app.job_id, [])
        return len(answered) - bisect_right(answered, app.event_time_ms)

    def _decide(self, job_id: str, number: int, waiting: list[int], now_ms: int) -> None:
        """Look at those among whom one is answered."""
        times_ms = self._rehearsal.times_ms
        first_ms = now_ms - self._window_ms
        others = [at for at in waiting if first_ms <= times_ms[at] <= now_ms]
        if len(others) >= MOST_CANDIDATES:
            drawn = self._rng.choice(len(others), MOST_CANDIDATES - 1, replace=False)
            others = [others[at] for at in sorted(drawn.tolist())]
        if others:
            seen = [self._seen(at, now_ms) for at in (number, *others)]
            self.decisions.append((now_ms, job_id, seen))

    def _look(self, now_ms: int) -> None:
        """Look at those whose moments have come."""
        planned = self._planned
        while self._next < len(planned) and planned[self._next][0] < now_ms:
            at_ms, number = planned[self._next]
            self._next += 1
            waiting = self._waiting.get(self._rehearsal.applications[number].job_id, {})
            if number in waiting and number not in self._closed:
                self.moments.append(self._seen(number, at_ms))

    def _seen(self, number: int, at_ms: int) -> Seen:
        app = self._rehearsal.applications[number]
        score = float(self._rehearsal.global_scores[number])
        score += sum(score_of(app) for score_of in self._scores.values())
        return Seen(number, score, at_ms - app.event_time_ms, self.later(number))


def features(seen: list[Seen], curve: DelayCurve) -> _Floats:
    """Columns of what was seen (n, 5)."""
    _, scores, ages_ms, later = np.array(seen, dtype=np.float64).reshape(-1, 4).T
    return columns(scores, ages_ms, later, curve)
