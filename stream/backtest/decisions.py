"""Watches a rehearsal for decisions: an application's first answer, and who else waited for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from stream.backtest.rehearsal import Rehearsal
from stream.effects import JOB, MEMBER
from stream.events.ladder import Kind
from stream.events.structs import Application, Label
from stream.quality.ranking import Decisions

_OPEN = {Kind.NEGATIVE_INFERRED.wire}  # of labels, those that leave an application waiting

ScoreOf = Callable[[Application], float]


class Watch:
    """Keeps who waits in each job; ranks them when one is answered.

    Args:
        rehearsal: what is rehearsed. from_ms: decisions before it are left out.

    Attributes:
        decisions: those that were taken.

    """

    def __init__(self, rehearsal: Rehearsal, from_ms: int) -> None:
        self.decisions = Decisions()
        self._rehearsal = rehearsal
        self._from_ms = from_ms
        self._waiting: dict[str, dict[int, None]] = {}

    def scored(self, number: int) -> None:
        """An application was read: it waits from now on."""
        job_id = self._rehearsal.applications[number].job_id
        self._waiting.setdefault(job_id, {})[number] = None

    def label(self, number: int, label: Label, scores: Mapping[str, ScoreOf]) -> None:
        """See whether somebody is answered, before the label is learned.

        Args:
            number: of the application. label: of it, as recorded.
            scores: gives the score of now, by effect.

        """
        if label.kind in _OPEN:
            return
        waiting = self._waiting.get(label.job_id, {})
        if number not in waiting:
            return
        del waiting[number]
        answered_ms = label.evidence_time_ms
        if not label.label or answered_ms is None or answered_ms < self._from_ms or not waiting:
            return
        others, sampled = self.decisions.sample(list(waiting))
        candidates = [number, *others]
        apps = [self._rehearsal.applications[at] for at in candidates]
        fixed = self._rehearsal.global_scores[candidates]
        member, job = (
            np.array([score(app) for app in apps]) if score is not None else np.zeros(len(apps))
            for score in (scores.get(MEMBER.name), scores.get(JOB.name))
        )
        newest = np.array([float(app.event_time_ms) for app in apps])
        values = np.column_stack([fixed, fixed + member, fixed + job, fixed + member + job, newest])
        self.decisions.add(label.job_id, values, sampled=sampled)
