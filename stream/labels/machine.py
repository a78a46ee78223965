"""The label machine: events and the watermark in, changes of labels out.

An application's label is a function of the *set* of events known, never of their order:

==================  ============================================  ==========================
in state            what happens                                  becomes
==================  ============================================  ==========================
(unknown)           application read, watermark past its window   late: a marker, no label
(unknown)           application read                              the verdict on all known
pending             evidence about a later applicant, or closing  inferred
pending, inferred   the recruiter declined                        explicit
all but positive    the recruiter answered                        positive (final)
pending, inferred   watermark strictly past A + W                 conclusive (final)
explicit            watermark strictly past A + W                 explicit (final)
positive            watermark strictly past A + W                 (no label: it was final)
any                 after its window                              a marker until A + 2W
==================  ============================================  ==========================

It can be so because facts are kept, not conclusions: an engagement that comes before its
application waits as an orphan; what evidence has settled is remembered for as long as an
application that it could settle may still be read. Evidence reaches only what is *pending*, so
that a response costs what it settles, not what the job holds.

The machine decides; scoring and learning are the stage's. Each event is applied in full, then the
stage moves the watermark and calls :meth:`LabelMachine.close_due`. What may be a lot comes as an
iterator: the caller may pause it after any change, write the state and go on, or begin again with
the same event after a crash. For that, an event settles others before its own fact is written:
begun again it goes on where it stopped. What the watermark closes is struck off the deadlines as
it goes, so that closing goes on where it stopped too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import msgspec

from stream.errors import ConflictError, UnknownActionError
from stream.events.structs import Application, DeadLetter, Engagement, JobEvent, Source
from stream.labels.changes import (
    Change,
    Scores,
    application_digest,
    engagement_digest,
    job_event_digest,
)
from stream.labels.facts import (
    MOST_LISTED,
    Applied,
    Deadline,
    DeadlineKind,
    FactBook,
    Facts,
    JobEventFact,
    Marker,
    Waiting,
)
from stream.labels.ladder import KINDS, Kind
from stream.labels.orphans import Orphans, mismatch
from stream.labels.rules import Explicit, JobClosed, LaterResponse, Neutral, Positive
from stream.labels.settled import Settled, Stretch, added, found, since, with_stretch
from stream.policy import LabelPolicy

CLOSED = "closed"  # the one job action that is known


class Admission(msgspec.Struct, frozen=True, gc=False):
    """An application that is new and in time. ``waited``: engagements were read before it."""

    application: Application
    digest: bytes
    waited: bool


class LabelMachine:
    """Labels of all jobs of one partition.

    Args:
        policy: what counts as an answer, and for how long.
        book: where facts are kept.
        tally: counts of what was ignored and why; the caller reads it.
        dead_letter: called with engagements that expire unmatched or turn out mismatched.

    """

    def __init__(
        self,
        policy: LabelPolicy,
        book: FactBook,
        tally: Counter[str],
        dead_letter: Callable[[DeadLetter], None],
    ) -> None:
        self._window_ms = policy.window_ms
        self._book = book
        self.tally = tally
        self._orphans = Orphans(policy.orphan_ttl_ms, book, dead_letter)
        self._kind_of_action: dict[str, Kind] = {
            action: rule.kind
            for rule in (Positive(policy), Explicit(policy), Neutral(policy))
            for action in rule.actions
        }
        self._later_response = LaterResponse(policy) if policy.later_response else None
        self._job_closed = JobClosed(policy) if policy.job_closed else None

    # -- events ------------------------------------------------------------------------------

    def admit(self, app: Application, watermark_ms: int | None) -> Admission | None:
        """Let in what is new and in time: it is to be scored and :meth:`add`-ed.

        Raises:
            ConflictError: one with this id but other content was read before.

        """
        record = self._book.application(app.job_id, app.application_id)
        digest = application_digest(app)
        if isinstance(record, Facts):
            if record.digest != digest:
                raise ConflictError(
                    f"application {app.application_id} of job {app.job_id} was read before with"
                    " other content"
                )
            self.tally["repeats"] += 1
            return None
        if isinstance(record, Marker):
            self.tally["repeats"] += 1
            return None
        if not _past(watermark_ms, app.event_time_ms + self._window_ms):
            return Admission(app, digest, record is not None)
        self.tally["late_applications"] += 1
        if record is not None:
            self.tally["late_engagements"] += self._orphans.too_late(app)
        self._mark_late(app, watermark_ms)
        return None

    def add(
        self, admission: Admission, scores: Scores, partition: int, watermark_ms: int | None
    ) -> Iterable[Change]:
        """Enter an application that was admitted; give what it settles and its first label.

        It may not be done before the result is iterated to its end.
        """
        if admission.waited:
            return self._add_awaited(admission, scores, partition, watermark_ms)
        return self._enter(admission, scores, partition, watermark_ms, [], [])

    def _add_awaited(
        self, admission: Admission, scores: Scores, partition: int, watermark_ms: int | None
    ) -> Iterator[Change]:
        """Enter an application of which engagements were read before it."""
        app = admission.application
        job_id, submitted_ms = app.job_id, app.event_time_ms
        waiting = self._orphans.of(app)
        evidence = [
            (kind, orphan.event_time_ms)
            for orphan in waiting
            if orphan.member_id == app.member_id
            and (kind := self._evidence(orphan.action, orphan.event_time_ms, submitted_ms))
        ]
        for _, time_ms in evidence:
            label_time_ms = _latest(time_ms, watermark_ms)
            yield from self._respond(job_id, time_ms, submitted_ms, label_time_ms, watermark_ms)
        engagements = self._orphans.adopt(app, waiting)
        for engagement_id in engagements[MOST_LISTED:]:
            self._book.index_engagement(job_id, app.application_id, engagement_id)
        yield from self._enter(admission, scores, partition, watermark_ms, evidence, engagements)

    def _enter(
        self,
        admission: Admission,
        scores: Scores,
        partition: int,
        watermark_ms: int | None,
        evidence: list[tuple[Kind, int]],
        engagements: list[str],
    ) -> tuple[Change, ...]:
        """Enter an application with its own engagements, and what they say of it."""
        book, app = self._book, admission.application
        job_id, submitted_ms = app.job_id, app.event_time_ms
        kind, rule, decided_ms = self._first_verdict(job_id, submitted_ms, evidence)
        facts = Facts(
            app.member_id,
            submitted_ms,
            admission.digest,
            partition,
            app.features.per_member,
            app.features.per_job,
            scores.global_,
            scores.member,
            scores.job,
            app.channel,
            app.terms,
            kind,
            rule,
            tuple(engagements[:MOST_LISTED]),
            len(engagements) > MOST_LISTED,
        )
        book.put_application(job_id, app.application_id, facts)
        book.add_deadline(
            Deadline(
                submitted_ms + self._window_ms, DeadlineKind.WINDOW, job_id, app.application_id
            )
        )
        if kind is Kind.PENDING:
            book.add_pending(job_id, submitted_ms, app.application_id)
            return ()
        change = Change(
            job_id,
            app.application_id,
            facts,
            Kind.PENDING,
            None,
            kind is Kind.POSITIVE,
            decided_ms,
            _latest(submitted_ms if decided_ms is None else decided_ms, watermark_ms),
        )
        return (change,)

    def engagement(
        self, event: Engagement, source: Source, watermark_ms: int | None
    ) -> Iterable[Change]:
        """Apply a recruiter's action; give the labels that it changes, others' before its own.

        It may not be done before the result is iterated to its end.

        Raises:
            UnknownActionError, ConflictError, MismatchError, UnmatchedError: a dead letter; the
                state is untouched.

        """
        if event.action not in self._kind_of_action:
            raise UnknownActionError(
                f"action {event.action[:64]!r} is in none of the policy's lists"
            )
        book, job_id = self._book, event.job_id
        digest = engagement_digest(event)
        known = book.engagement(job_id, event.engagement_id)
        if known is not None:
            if known.digest != digest:
                raise ConflictError(
                    f"engagement {event.engagement_id} of job {job_id} was read before with other"
                    " content"
                )
            self.tally["repeats"] += 1
            return ()
        record = book.application(job_id, event.application_id)
        if record is None or isinstance(record, Waiting):
            self._orphans.wait(event, digest, source, record, watermark_ms)
            self.tally["orphans"] += 1
            return ()
        if record.member_id != event.member_id:
            raise mismatch(job_id, event, record.member_id)
        if isinstance(record, Marker):
            self.tally["late_engagements"] += 1
            return ()
        return self._act(event, digest, record, watermark_ms)

    def job_event(self, event: JobEvent, watermark_ms: int | None) -> Iterable[Change]:
        """Apply the closing of a job; give the labels that it settles.

        It may not be done before the result is iterated to its end.

        Raises:
            UnknownActionError, ConflictError: a dead letter; the state is untouched.

        """
        if event.action != CLOSED:
            raise UnknownActionError(f"job action {event.action[:64]!r} is not known (closed is)")
        digest = job_event_digest(event)
        known = self._book.job_event(event.job_id, event.job_event_id)
        if known is not None:
            if known.digest != digest:
                raise ConflictError(
                    f"job event {event.job_event_id} of job {event.job_id} was read before with"
                    " other content"
                )
            self.tally["repeats"] += 1
            return ()
        if _past(watermark_ms, event.event_time_ms + self._window_ms):
            self.tally["late_job_events"] += 1
            return ()
        return self._end_job(event, digest, watermark_ms)

    # -- the watermark -----------------------------------------------------------------------

    def close_due(self, watermark_ms: int) -> Iterable[Change | None]:
        """End all that the watermark is strictly past, in order of time.

        Gives one item for each thing that ended: the change of a window, None for all else. It may
        not be done before the result is iterated to its end.
        """
        due = self._book.due(watermark_ms)
        return self._end(due, watermark_ms) if due else ()

    def _end(self, due: Iterable[Deadline], watermark_ms: int) -> Iterator[Change | None]:
        for deadline in due:
            match deadline.kind:
                case DeadlineKind.WINDOW:
                    yield self._close(deadline, watermark_ms)
                    continue
                case DeadlineKind.MARKER:
                    self._book.forget_application(deadline.job_id, deadline.subject)
                case DeadlineKind.ORPHAN:
                    self._orphans.expire(deadline)
                case DeadlineKind.SETTLED:
                    self._forget_settled(deadline.job_id, watermark_ms)
                case DeadlineKind.CLOSING:
                    self._book.forget_job_event(deadline.job_id, deadline.subject)
                case DeadlineKind.ENGAGEMENTS:
                    self._forget_engagements(deadline)
            yield None

    def _close(self, deadline: Deadline, watermark_ms: int) -> Change:
        book, job_id, application_id = self._book, deadline.job_id, deadline.subject
        facts = book.application(job_id, application_id)
        if not isinstance(facts, Facts):  # a WINDOW deadline is made with the facts, once
            raise TypeError(f"application {application_id} of job {job_id} has no facts to close")
        previous, previous_rule = KINDS[facts.kind], facts.rule
        submitted_ms = facts.event_time_ms
        if previous is Kind.PENDING:
            book.remove_pending(job_id, submitted_ms, application_id)
        for engagement_id in facts.engagements:
            book.forget_engagement(job_id, engagement_id)
        if facts.more:
            book.add_deadline(
                Deadline(deadline.at_ms, DeadlineKind.ENGAGEMENTS, job_id, application_id)
            )
        self._mark(job_id, application_id, facts.member_id, submitted_ms, deadline.at_ms)
        if previous < Kind.NEGATIVE_EXPLICIT:
            facts = msgspec.structs.replace(facts, kind=Kind.NEGATIVE_CONCLUSIVE, rule=None)
        return Change(
            job_id,
            application_id,
            facts,
            previous,
            previous_rule,
            True,
            None,
            watermark_ms,
            previous is not Kind.POSITIVE,
            True,
        )

    def _forget_engagements(self, deadline: Deadline) -> None:
        """Forget a part of a closed application's engagements; the rest has its own turn."""
        book, job_id, application_id = self._book, deadline.job_id, deadline.subject
        part = book.indexed_engagements(job_id, application_id, MOST_LISTED)
        for engagement_id in part:
            book.unindex_engagement(job_id, application_id, engagement_id)
            book.forget_engagement(job_id, engagement_id)
        if len(part) == MOST_LISTED:
            rest = msgspec.structs.replace(deadline, engagement_id=part[-1])
            book.add_deadline(rest)

    def _mark(
        self, job_id: str, application_id: str, member_id: str, submitted_ms: int, now_ms: int = 0
    ) -> None:
        """Leave the marker that tells a late engagement from an orphan, until A + 2W.

        A window that was opened under a longer policy may end after that: then at ``now_ms``, the
        deadline that has just been taken out, before which none may be entered.
        """
        self._book.put_application(job_id, application_id, Marker(member_id, submitted_ms))
        at_ms = max(submitted_ms + 2 * self._window_ms, now_ms)
        self._book.add_deadline(Deadline(at_ms, DeadlineKind.MARKER, job_id, application_id))

    def _mark_late(self, app: Application, watermark_ms: int | None) -> None:
        if _past(watermark_ms, app.event_time_ms + 2 * self._window_ms):
            self._book.forget_application(app.job_id, app.application_id)
        else:
            self._mark(app.job_id, app.application_id, app.member_id, app.event_time_ms)

    def _forget_settled(self, job_id: str, watermark_ms: int) -> None:
        settled = since(self._book.settled(job_id), watermark_ms - self._window_ms)
        self._book.put_settled(job_id, settled)
        if settled:
            self._expect_end(job_id, settled[-1].last_ms)

    def _expect_end(self, job_id: str, last_ms: int) -> None:
        self._book.add_deadline(Deadline(last_ms + self._window_ms, DeadlineKind.SETTLED, job_id))

    # -- evidence ----------------------------------------------------------------------------

    def _evidence(self, action: str, time_ms: int, submitted_ms: int) -> Kind:
        """What an engagement says about its own application; PENDING: nothing."""
        if not submitted_ms <= time_ms <= submitted_ms + self._window_ms:
            self.tally["outside_window"] += 1
            return Kind.PENDING
        # An orphan may have been stored under a policy that still knew its action.
        return self._kind_of_action.get(action, Kind.PENDING)

    def _first_verdict(
        self, job_id: str, submitted_ms: int, evidence: list[tuple[Kind, int]]
    ) -> tuple[Kind, str | None, int | None]:
        """Kind, rule and deciding time of an application at its first sight."""
        if evidence:
            kind = max(kind for kind, _ in evidence)
            return kind, None, min(time_ms for own, time_ms in evidence if own is kind)
        stretch = found(self._book.settled(job_id), submitted_ms)
        if stretch is not None:
            return Kind.NEGATIVE_INFERRED, stretch.rule, stretch.evidence_ms
        return Kind.PENDING, None, None

    def _act(
        self, event: Engagement, digest: bytes, facts: Facts, watermark_ms: int | None
    ) -> Iterable[Change]:
        """Apply a new engagement to its open application: what it settles, then its own fact."""
        kind = self._evidence(event.action, event.event_time_ms, facts.event_time_ms)
        label_time_ms = _latest(event.event_time_ms, watermark_ms)
        if kind is Kind.PENDING:
            return self._note(event, digest, facts, kind, label_time_ms)
        settled = self._respond(
            event.job_id, event.event_time_ms, facts.event_time_ms, label_time_ms, watermark_ms
        )
        if not settled:
            return self._note(event, digest, facts, kind, label_time_ms)
        return self._act_after(settled, event, digest, facts, kind, label_time_ms)

    def _act_after(
        self,
        settled: Iterable[Change],
        event: Engagement,
        digest: bytes,
        facts: Facts,
        kind: Kind,
        label_time_ms: int,
    ) -> Iterator[Change]:
        yield from settled
        yield from self._note(event, digest, facts, kind, label_time_ms)

    def _note(
        self, event: Engagement, digest: bytes, facts: Facts, kind: Kind, label_time_ms: int
    ) -> tuple[Change, ...]:
        """Keep an engagement's own fact; give its application's change."""
        job_id, application_id = event.job_id, event.application_id
        self._book.put_engagement(job_id, event.engagement_id, Applied(digest))
        listed = facts.engagements
        more = len(listed) >= MOST_LISTED
        if more:
            self._book.index_engagement(job_id, application_id, event.engagement_id)
        else:
            listed = (*listed, event.engagement_id)
        if kind <= facts.kind:
            after = msgspec.structs.replace(facts, engagements=listed, more=more)
            self._book.put_application(job_id, application_id, after)
            return ()
        after = msgspec.structs.replace(facts, kind=kind, rule=None, engagements=listed, more=more)
        return (
            self._climb(job_id, application_id, facts, after, event.event_time_ms, label_time_ms),
        )

    def _end_job(
        self, event: JobEvent, digest: bytes, watermark_ms: int | None
    ) -> Iterator[Change]:
        """Apply a new closing: what it settles, then its own fact."""
        job_id, time_ms = event.job_id, event.event_time_ms
        rule = self._job_closed
        if rule is not None:
            first_ms, last_ms = rule.reach(time_ms)
            stretch = Stretch(first_ms, last_ms, time_ms, rule.name)
            yield from self._settle(job_id, stretch, _latest(time_ms, watermark_ms), watermark_ms)
        self._book.put_job_event(job_id, event.job_event_id, JobEventFact(time_ms, digest))
        self._book.add_deadline(
            Deadline(time_ms + self._window_ms, DeadlineKind.CLOSING, job_id, event.job_event_id)
        )

    def _respond(
        self,
        job_id: str,
        time_ms: int,
        answered_ms: int,
        label_time_ms: int,
        watermark_ms: int | None,
    ) -> Iterable[Change]:
        """Evidence about one application settles the pending ones submitted before it."""
        rule = self._later_response
        if rule is None:
            return ()
        first_ms, last_ms = rule.reach(time_ms, answered_ms)
        stretch = Stretch(first_ms, last_ms, time_ms, rule.name)
        return self._settle(job_id, stretch, label_time_ms, watermark_ms)

    def _settle(
        self, job_id: str, stretch: Stretch, label_time_ms: int, watermark_ms: int | None
    ) -> Iterable[Change]:
        """Infer a negative for every pending application submitted in the stretch."""
        settled = self._book.settled(job_id)
        ranges = added(settled, stretch.first_ms, stretch.last_ms)
        if not ranges:
            return ()
        return self._infer(job_id, stretch, settled, ranges, label_time_ms, watermark_ms)

    def _infer(
        self,
        job_id: str,
        stretch: Stretch,
        settled: Settled,
        ranges: list[tuple[int, int]],
        label_time_ms: int,
        watermark_ms: int | None,
    ) -> Iterator[Change]:
        book = self._book
        for first_ms, last_ms in ranges:
            for application_id in book.pending_between(job_id, first_ms, last_ms):
                facts = book.application(job_id, application_id)
                if isinstance(facts, Facts):
                    yield self._climb(
                        job_id,
                        application_id,
                        facts,
                        msgspec.structs.replace(
                            facts, kind=Kind.NEGATIVE_INFERRED, rule=stretch.rule
                        ),
                        stretch.evidence_ms,
                        label_time_ms,
                    )
        if _past(watermark_ms, stretch.last_ms + self._window_ms):
            return  # nothing that it could settle will be admitted
        book.put_settled(job_id, with_stretch(settled, stretch))
        if not settled:
            self._expect_end(job_id, stretch.last_ms)

    def _climb(
        self,
        job_id: str,
        application_id: str,
        before: Facts,
        after: Facts,
        evidence_ms: int,
        label_time_ms: int,
    ) -> Change:
        if before.kind == Kind.PENDING:
            self._book.remove_pending(job_id, before.event_time_ms, application_id)
        self._book.put_application(job_id, application_id, after)
        return Change(
            job_id,
            application_id,
            after,
            KINDS[before.kind],
            before.rule,
            after.kind == Kind.POSITIVE,
            evidence_ms,
            label_time_ms,
        )


def _past(watermark_ms: int | None, deadline_ms: int) -> bool:
    return watermark_ms is not None and watermark_ms > deadline_ms


def _latest(time_ms: int, watermark_ms: int | None) -> int:
    return time_ms if watermark_ms is None or watermark_ms < time_ms else watermark_ms
