"""Negatives inferred from silence: an open application's label climbs with its age.

An application has one deadline for its next step while nothing but its age is known of it. Of
steps that event time passes at once only the heaviest is given, and none once its window is over.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from stream.events.ladder import KINDS
from stream.labels.changes import Change, Ended
from stream.labels.delays import Steps
from stream.labels.transitions import Stimulus, after, state_of
from stream.state.facts import Deadline, DeadlineKind, Facts
from stream.state.stored_facts import StoredFacts

_AGED = Stimulus.AGED
_AGE = DeadlineKind.AGE
_ENDED = Ended()


class Aging:
    """The steps of all open applications of one partition.

    Args:
        steps: in force; none where aging is off.
        window_ms: W.
        book: where facts are kept.

    """

    def __init__(self, steps: Steps, window_ms: int, book: StoredFacts) -> None:
        self._steps = tuple((step.age_ms, step.weight) for step in steps)
        self._window_ms = window_ms
        self._book = book

    @property
    def changed(self) -> bool:
        """Whether the steps are others than those that open applications have deadlines by."""
        return self._book.steps != self._steps

    def reached(self, submitted_ms: int, watermark_ms: int | None) -> float:
        """Weight of the heaviest step that an application has passed; 0 before the first."""
        weight = 0.0
        if watermark_ms is not None:
            age_ms = watermark_ms - submitted_ms
            for step_ms, reached in self._steps:
                if step_ms >= age_ms:
                    break
                weight = reached
        return weight

    def schedule(
        self, job_id: str, application_id: str, submitted_ms: int, watermark_ms: int | None
    ) -> None:
        """Enter the next step of an application that is ahead of the watermark."""
        for step_ms, _ in self._steps:
            at_ms = submitted_ms + step_ms
            if watermark_ms is None or at_ms >= watermark_ms:
                self._book.deadlines.add(Deadline(at_ms, _AGE, job_id, application_id))
                return

    def step(self, deadline: Deadline, watermark_ms: int) -> Change | Ended:
        """Let an application that is still silent climb to the step that it has passed."""
        book, job_id, application_id = self._book, deadline.job_id, deadline.subject
        before = book.application(job_id, application_id)
        if not isinstance(before, Facts) or not before.unsettled:
            return _ENDED
        submitted_ms = before.event_time_ms
        if watermark_ms > submitted_ms + self._window_ms:
            return _ENDED  # its window ends now too
        self.schedule(job_id, application_id, submitted_ms, watermark_ms)
        weight = self.reached(submitted_ms, watermark_ms)
        if weight <= (before.weight if before.kind else 0.0):
            return _ENDED
        given = after(state_of(before), _AGED)
        facts = msgspec.structs.replace(before, kind=given.label, rule=given.rule, weight=weight)
        book.put_application(job_id, application_id, facts)
        return Change(
            job_id=job_id,
            application_id=application_id,
            facts=facts,
            previous=KINDS[before.kind],
            previous_rule=before.rule,
            previous_weight=before.weight,
            final=False,
            evidence_time_ms=None,
            label_time_ms=watermark_ms,
        )

    def begin(self, watermark_ms: int) -> Iterator[Ended]:
        """Enter a step for every open application: those in force are others than before.

        A state of an earlier release knows none, one of another curve has other ages. Each step
        becomes due when the watermark moves again.
        """
        for job_id, submitted_ms, application_id in self._book.pending.stored():
            if self._steps:
                at_ms = max(submitted_ms + self._steps[0][0], watermark_ms)
                self._book.deadlines.add(Deadline(at_ms, _AGE, job_id, application_id))
            yield _ENDED
        self._book.put_steps(self._steps)
