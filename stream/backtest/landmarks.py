"""Moments at which applications wait, sampled from a rehearsal: what landmark models learn from.

Each application is looked at :data:`MOMENTS` times: half of the ages are uniform over the window,
half on a logarithmic scale, so that the first hours count too. At every first answer those who wait
for the job are looked at together, the answered one with them. Whose job is closed is not looked at
alone any more: that tells more than any age.

Global scores are cross-fitted (:mod:`stream.backtest.tuning`), and the effects' are those of the
moment, learned from what came before: as scores of new applications are.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.backtest.decisions import ScoreOf, still_open
from stream.backtest.rehearsal import Rehearsal, record_labels, rehearse
from stream.backtest.tuning import before, cross_fit
from stream.errors import ConfigError
from stream.events.structs import Label
from stream.labels.delays import DelayCurve, curve_of
from stream.logs.files import LogLine
from stream.model.folder import GlobalModel
from stream.model.landmark import Landmark, columns
from stream.model.landmark_fit import fit_landmark
from stream.policy import Policy
from stream.quality.ranking import MOST_CANDIDATES
from stream.replay.reader import first_look

MOMENTS: Final = 6
"""Of each application."""

MOST: Final = 5_000
"""Applications with closed windows that ``train`` looks at, the newest, and all after them: more
make it slower, not better."""

_SHORTEST_MS: Final = 10 * 60_000  # age of the earliest moments
_SEED: Final = 20_070_101  # any: the same log gives the same moments

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


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

    Attributes:
        moments: of open applications.
        decisions: time, job and candidates of each, the answered one first.

    """

    def __init__(self, rehearsal: Rehearsal, window_ms: int) -> None:
        self.moments: list[Seen] = []
        self.decisions: list[tuple[int, str, list[Seen]]] = []
        self._rehearsal = rehearsal
        self._window_ms = window_ms
        self._rng = np.random.default_rng(_SEED)
        n = len(rehearsal.applications)
        ages = self._rng.uniform(0, window_ms, (n, MOMENTS))
        half, shortest_ms = MOMENTS // 2, min(_SHORTEST_MS, window_ms // 2)
        spread = self._rng.uniform(np.log(shortest_ms), np.log(window_ms), (n, half))
        ages[:, :half] = np.exp(spread)
        at_ms = (rehearsal.times_ms[:, None] + ages.astype(np.int64)).ravel()
        order = np.argsort(at_ms, kind="stable")
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
        if waited:
            self._decide(label.job_id, number, list(waiting), answered_ms)
        submitted_ms = int(self._rehearsal.times_ms[number])
        insort(self._answered.setdefault(label.job_id, []), submitted_ms)

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
        answered = self._answered.get(app.job_id, [])
        score = float(self._rehearsal.global_scores[number])
        score += sum(score_of(app) for score_of in self._scores.values())
        return Seen(
            number,
            score,
            at_ms - app.event_time_ms,
            len(answered) - bisect_right(answered, app.event_time_ms),
        )


def features(seen: list[Seen], curve: DelayCurve) -> _Floats:
    """Columns of what was seen (n, 5)."""
    _, scores, ages_ms, later = np.array(seen, dtype=np.float64).reshape(-1, 4).T
    return columns(scores, ages_ms, later, curve)


def fitted(
    rehearsal: Rehearsal, policy: Policy, curve: DelayCurve, until_ms: int
) -> Landmark | None:
    """Fit landmark models on a rehearsal whose scores are those of new applications.

    Only applications whose windows had passed by ``until_ms`` tell whether an answer came.
    """
    window_ms = policy.labels.window_ms
    watch = Moments(rehearsal, window_ms)
    rehearse(rehearsal, policy, watch=watch)
    known = (rehearsal.times_ms + window_ms <= until_ms) & ~np.isnan(rehearsal.targets)
    moments = [seen for seen in watch.moments if known[seen.number]]
    decisions = [seen for at_ms, _, seen in watch.decisions if at_ms <= until_ms]
    if not moments or not decisions:
        return None
    y = rehearsal.targets[[seen.number for seen in moments]].astype(np.int64)
    sizes = [len(candidates) for candidates in decisions]
    starts = np.cumsum([0, *sizes[:-1]]).astype(np.int64)
    chosen = [seen for candidates in decisions for seen in candidates]
    return fit_landmark(features(moments, curve), y, features(chosen, curve), starts)


def learn_landmark(
    lines: Iterable[LogLine],
    policy: Policy,
    model: GlobalModel,
    from_ms: int,
    max_jump_ms: int | None = None,
) -> Landmark | None:
    """Fit landmark models on the span that a global model was trained on; None: too little there.

    Args:
        lines: the log. policy: labels and effects.
        model: just fitted; its regularisation is that of the cross-fitted ones, too.
        from_ms: earlier events are left out.
        max_jump_ms: as in training.

    """
    until_ms = model.manifest.trained_until_ms
    curve = curve_of(policy.labels, model.manifest.delays)
    if curve != model.manifest.delays:
        return None  # it would not be known with which curve it goes
    known, space = first_look(before(lines, until_ms, from_ms), model)
    rehearsal = record_labels(known, policy, model, space, max_jump_ms)
    brought = np.array([app.global_score is not None for app in rehearsal.applications], bool)
    theirs = rehearsal.global_scores.copy()
    if not brought.all():
        try:
            known_as = model.manifest
            cross_fit(rehearsal, policy, until_ms, known_as.kind, known_as.regularisation)
        except ConfigError:
            return None  # too few jobs or outcomes
        rehearsal.global_scores[brought] = theirs[brought]
    return fitted(rehearsal, policy, curve, until_ms)
