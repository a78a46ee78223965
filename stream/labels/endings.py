"""What the watermark ends: windows, and the waiting and remembering of everything else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from stream.events.ladder import KINDS
from stream.labels.aging import Aging
from stream.labels.changes import Change, Ended, Step
from stream.labels.inference import Inference, past
from stream.labels.orphans import Orphans
from stream.labels.transitions import Stimulus, after, state_of
from stream.state.facts import MOST_LISTED, Deadline, DeadlineKind, Facts, Marker
from stream.state.stored_facts import StoredFacts

_ENDED = Ended()
_MARKER = DeadlineKind.MARKER
_WINDOW_ENDED = Stimulus.WINDOW_ENDED


class Endings:
    """Ends what is due, in all jobs of one partition.

    Args:
        window_ms: W.
        book: where facts are kept.
        aging, orphans, inference: what they keep ends too.

    """

    def __init__(
        self,
        window_ms: int,
        book: StoredFacts,
        *,
        aging: Aging,
        orphans: Orphans,
        inference: Inference,
    ) -> None:
        self._window_ms = window_ms
        self._book = book
        self._aging = aging
        self._orphans = orphans
        self._inference = inference

    def end(self, due: Iterable[Deadline], watermark_ms: int) -> Iterator[Step]:
        """End what is due; give one step for each deadline."""
        for deadline in due:
            match deadline.kind:
                case DeadlineKind.WINDOW:
                    yield self._close(deadline, watermark_ms)
                    continue
                case DeadlineKind.AGE:
                    yield self._aging.step(deadline, watermark_ms)
                    continue
                case DeadlineKind.ORPHAN:
                    yield self._orphans.expire(deadline) or _ENDED
                    continue
                case DeadlineKind.MARKER:
                    self._book.put_application(deadline.job_id, deadline.subject, None)
                    yield Ended(deadline)
                    continue
                case DeadlineKind.SETTLED:
                    self._inference.forget(deadline.job_id, watermark_ms)
                case DeadlineKind.CLOSING:
                    self._book.put_job_event(deadline.job_id, deadline.subject, None)
                case DeadlineKind.ENGAGEMENTS:
                    self._forget_engagements(deadline)
            yield _ENDED

    def mark_late(
        self, job_id: str, application_id: str, fact: Marker, watermark_ms: int | None
    ) -> None:
        """Leave a marker of an application that was read after its window, or nothing."""
        if past(watermark_ms, fact.event_time_ms + 2 * self._window_ms):
            self._book.put_application(job_id, application_id, None)
        else:
            self._mark(job_id, application_id, fact, 0)

    def _close(self, deadline: Deadline, watermark_ms: int) -> Change:
        book, job_id, application_id = self._book, deadline.job_id, deadline.subject
        facts = book.application(job_id, application_id)
        if not isinstance(facts, Facts):  # a WINDOW deadline is made with the facts, once
            raise TypeError(f"application {application_id} of job {job_id} has no facts to close")
        before, previous = facts, KINDS[facts.kind]
        transition = after(state_of(before), _WINDOW_ENDED)
        if before.unsettled:
            book.pending.remove(job_id, facts.event_time_ms, application_id)
        for engagement_id in facts.engagements:
            book.put_engagement(job_id, engagement_id, None)
        if facts.more:
            book.deadlines.add(
                Deadline(deadline.at_ms, DeadlineKind.ENGAGEMENTS, job_id, application_id)
            )
        marker = Marker(facts.member_id, facts.event_time_ms)
        self._mark(job_id, application_id, marker, deadline.at_ms)
        if transition.label is not None and transition.label is not previous:
            facts = msgspec.structs.replace(
                facts, kind=transition.label, rule=transition.rule, weight=1.0
            )
        return Change(
            job_id=job_id,
            application_id=application_id,
            facts=facts,
            previous=previous,
            previous_rule=before.rule,
            previous_weight=before.weight,
            final=transition.final,
            evidence_time_ms=None,
            label_time_ms=watermark_ms,
            label=transition.label is not None,
            closed=True,
        )

    def _forget_engagements(self, deadline: Deadline) -> None:
        """Forget a part of a closed application's engagements; the rest has its own turn."""
        book, job_id, application_id = self._book, deadline.job_id, deadline.subject
        part = book.indexed_engagements(job_id, application_id, MOST_LISTED)
        for engagement_id in part:
            book.index_engagement(job_id, application_id, engagement_id, indexed=False)
            book.put_engagement(job_id, engagement_id, None)
        if len(part) == MOST_LISTED:
            rest = msgspec.structs.replace(deadline, detail=part[-1])
            book.deadlines.add(rest)

    def _mark(self, job_id: str, application_id: str, marker: Marker, now_ms: int) -> None:
        """Leave a marker until A + 2W.

        A window that was opened under a longer policy may end after that: then at ``now_ms``, the
        deadline that has just been taken out, before which none may be entered.
        """
        self._book.put_application(job_id, application_id, marker)
        at_ms = max(marker.event_time_ms + 2 * self._window_ms, now_ms)
        self._book.deadlines.add(Deadline(at_ms, _MARKER, job_id, application_id, marker.member_id))
