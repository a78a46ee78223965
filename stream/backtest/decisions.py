"""Watches a rehearsal for decisions: an application's first answer, and who else waited for one.

By the global score of first sight and both effects' coefficients of that moment. Where the rule
``later_response`` is on, what an answer says of other applicants has been learned just before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from stream.backtest.rehearsal import Rehearsal
from stream.effects import JOB, MEMBER
from stream.events.ladder import Kind
from stream.events.structs import Application, Label
from stream.quality.ranking import MOST_CANDIDATES, Decisions, Owner, RankingQuality, row
from stream.state.waiting import Candidates, mark

_OPEN = {Kind.NEGATIVE_INFERRED.wire}  # of labels, those that leave an application waiting
_OWN = (MEMBER.name, JOB.name)
FIRST_SIGHT = ("global",)

ScoreOf = Callable[[Application], float]

_Floats = NDArray[np.float64]


def still_open(label: Label) -> bool:
    """Whether an application still waits after a label of it."""
    return label.kind in _OPEN


class Watch:
    """Keeps who waits in each job, and of each member; ranks them when one is answered.

    Args:
        rehearsal: what is rehearsed. window_ms: W of its labels.
        from_ms: decisions before it are left out.

    """

    def __init__(self, rehearsal: Rehearsal, window_ms: int, from_ms: int = 0) -> None:
        self._rehearsal = rehearsal
        self._window_ms = window_ms
        self._from_ms = from_ms
        self._within: dict[Owner, _Within] = {"job": _Within("job"), "member": _Within("member")}

    def scored(self, number: int) -> None:
        """An application was read: it waits from now on."""
        app = self._rehearsal.applications[number]
        for within in self._within.values():
            within.of(app).add(within.name(app), app.event_time_ms, number)

    def label(self, number: int, label: Label, scores: Mapping[str, ScoreOf]) -> None:
        """See whether somebody is answered, before the label is learned.

        Args:
            number: of the application. label: of it, as recorded.
            scores: gives the score of now, by effect.

        """
        if still_open(label):
            return
        app, answered_ms = self._rehearsal.applications[number], label.evidence_time_ms
        decided = label.label and answered_ms is not None and answered_ms >= self._from_ms
        for owner, within in self._within.items():
            waiting, name = within.of(app), within.name(app)
            if decided and answered_ms is not None:
                others, sampled = waiting.others(
                    name, answered_ms, self._window_ms, MOST_CANDIDATES - 1
                )
                if others:
                    numbers = [number, *others]
                    values = self._values(numbers, scores)
                    self.decided(owner, numbers, answered_ms, values, sampled=sampled)
            waiting.remove(name)

    def decided(
        self,
        within: Owner,
        numbers: list[int],
        at_ms: int,  # noqa: ARG002 - for who asks how long they have waited
        values: _Floats,
        *,
        sampled: bool,
    ) -> None:
        """Keep a decision at a time.

        Args:
            within: whose candidates these are. numbers: of them, the answered one first (n,).
            at_ms: when it was answered. values: by what each order ranks them (5, n).
            sampled: whether there were more.

        """
        self._within[within].decisions.add(self.row(within, numbers, values, sampled=sampled))

    def row(self, within: Owner, numbers: list[int], values: _Floats, *, sampled: bool) -> bytes:
        """Rank a decision; arguments as of :meth:`decided`."""
        owner = self._within[within].id(self._rehearsal.applications[numbers[0]])
        return row(mark(owner), values, sampled=sampled)

    def rankings(self, within: Owner = "job") -> RankingQuality | None:
        """Judge the decisions so far; None where there was nothing to choose from."""
        return self._within[within].decisions.quality(FIRST_SIGHT, within)

    def _values(self, numbers: list[int], scores: Mapping[str, ScoreOf]) -> _Floats:
        """By what each order ranks (5, n)."""
        rehearsal = self._rehearsal
        apps = [rehearsal.applications[at] for at in numbers]
        values = np.empty((5, len(apps)))
        values[:] = rehearsal.global_scores[numbers]
        further = [score for name, score in scores.items() if name not in _OWN]
        for score in further:
            values += [score(app) for app in apps]
        member, job = (
            np.array([score(app) for app in apps]) if score is not None else np.zeros(len(apps))
            for score in (scores.get(MEMBER.name), scores.get(JOB.name))
        )
        values[1] += member
        values[2] += job
        values[3] = values[1] + job
        values[4] = rehearsal.times_ms[numbers]
        return values


class _Within:
    """The decisions of all jobs, or of all members."""

    def __init__(self, owner: Owner) -> None:
        self.decisions = Decisions()
        self._owner = owner
        self._waiting: dict[str, Candidates[int]] = {}

    def of(self, app: Application) -> Candidates[int]:
        owner = self.id(app)
        if owner not in self._waiting:
            self._waiting[owner] = Candidates(owner)
        return self._waiting[owner]

    def id(self, app: Application) -> str:
        return app.job_id if self._owner == "job" else app.member_id

    def name(self, app: Application) -> str:
        """Name an application; only those of one job have ids of their own."""
        if self._owner == "job":
            return app.application_id
        return f"{len(app.job_id)}:{app.job_id}{app.application_id}"
