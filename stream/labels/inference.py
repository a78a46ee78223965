"""Negatives inferred from what happens to others (docs/labels.md, 3).

A rule says which applications, by the time of their submission, a piece of evidence settles,
whether they were read before it or are read after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from stream.events.ladder import KINDS, Kind
from stream.labels.changes import Change
from stream.labels.settled import added, since, with_stretch
from stream.labels.transitions import RULES, after, state_of
from stream.policy import LabelPolicy
from stream.state.facts import Deadline, DeadlineKind, Facts, Settled, Stretch
from stream.state.stored_facts import StoredFacts

_POSITIVE = Kind.POSITIVE


class Inference:
    """What evidence settles, in all jobs of one partition.

    Args:
        policy: which rules are on, and how far they reach.
        book: where facts are kept.

    """

    def __init__(self, policy: LabelPolicy, book: StoredFacts) -> None:
        self._policy = policy
        self._window_ms = policy.window_ms
        self._book = book

    def response(
        self, job_id: str, *, time_ms: int, submitted_ms: int, watermark_ms: int | None
    ) -> Iterable[Change]:
        """Evidence at ``time_ms`` about an application settles the pending ones before it.

        They were submitted strictly earlier than it was, at ``submitted_ms``, and passed over.
        The result is empty and false where nothing is left to settle.
        """
        if not self._policy.infers_from_responses:
            return ()
        first_ms = time_ms - self._window_ms
        last_ms = min(submitted_ms - 1, time_ms - self._policy.min_age_ms)
        return self._settle(
            job_id, Stretch(first_ms, last_ms, time_ms, "later_response"), watermark_ms
        )

    def closing(self, job_id: str, time_ms: int, watermark_ms: int | None) -> Iterable[Change]:
        """The closing of a job settles the pending ones whose windows are open then."""
        if self._policy.job_closed == "off":
            return ()
        stretch = Stretch(time_ms - self._window_ms, time_ms, time_ms, "job_closed")
        return self._settle(job_id, stretch, watermark_ms)

    def forget(self, job_id: str, watermark_ms: int) -> None:
        """Forget what can settle nothing any more."""
        settled = since(self._book.settled(job_id), watermark_ms - self._window_ms)
        self._book.put_settled(job_id, settled)
        if settled:
            self._forget_after(job_id, settled[-1].last_ms)

    def _settle(self, job_id: str, stretch: Stretch, watermark_ms: int | None) -> Iterable[Change]:
        settled = self._book.settled(job_id)
        ranges = added(settled, stretch.first_ms, stretch.last_ms)
        return self._infer(job_id, stretch, settled, ranges, watermark_ms) if ranges else ()

    def _infer(
        self,
        job_id: str,
        stretch: Stretch,
        settled: Settled,
        ranges: list[tuple[int, int]],
        watermark_ms: int | None,
    ) -> Iterator[Change]:
        """Infer a negative for every unsettled application submitted in the ranges."""
        book, stimulus = self._book, RULES[stretch.rule]
        for first_ms, last_ms in ranges:
            for application_id in book.pending.between(job_id, first_ms, last_ms):
                facts = book.application(job_id, application_id)
                if not isinstance(facts, Facts):
                    continue
                given = after(state_of(facts), stimulus)
                yield climb(
                    book,
                    job_id,
                    application_id,
                    before=facts,
                    after=msgspec.structs.replace(
                        facts, kind=given.label, rule=given.rule, weight=1.0
                    ),
                    evidence_ms=stretch.evidence_ms,
                    watermark_ms=watermark_ms,
                )
        if past(watermark_ms, stretch.last_ms + self._window_ms):
            return  # nothing that it could settle will be entered
        if watermark_ms is not None:
            settled = since(settled, watermark_ms - self._window_ms)
        book.put_settled(job_id, with_stretch(settled, stretch))
        if not settled:
            self._forget_after(job_id, stretch.last_ms)

    def _forget_after(self, job_id: str, last_ms: int) -> None:
        self._book.deadlines.add(Deadline(last_ms + self._window_ms, DeadlineKind.SETTLED, job_id))


def climb(
    book: StoredFacts,
    job_id: str,
    application_id: str,
    *,
    before: Facts,
    after: Facts,
    evidence_ms: int,
    watermark_ms: int | None,
) -> Change:
    """Enter the facts of an application that a piece of evidence has changed."""
    if before.unsettled:
        book.pending.remove(job_id, before.event_time_ms, application_id)
    book.put_application(job_id, application_id, after)
    return Change(
        job_id=job_id,
        application_id=application_id,
        facts=after,
        previous=KINDS[before.kind],
        previous_rule=before.rule,
        previous_weight=before.weight,
        final=after.kind == _POSITIVE,
        evidence_time_ms=evidence_ms,
        label_time_ms=latest(evidence_ms, watermark_ms),
    )


def past(watermark_ms: int | None, deadline_ms: int) -> bool:
    """Whether the watermark is strictly past a time."""
    return watermark_ms is not None and watermark_ms > deadline_ms


def latest(time_ms: int, watermark_ms: int | None) -> int:
    """Time of a label: that of the evidence, or the watermark if that is later."""
    return time_ms if watermark_ms is None or watermark_ms < time_ms else watermark_ms
