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
application waits as an orphan; responses and closings stay for as long as an application that they
could settle may still be read. Evidence reaches only what is *pending*, so that a response costs
what it settles, not what the job holds.

The machine decides; scoring and learning are the stage's. Each event is applied in full, then the
stage moves the watermark and calls :meth:`LabelMachine.close_due`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from stream.errors import (
    ConflictError,
    EventError,
    MismatchError,
    UnknownActionError,
    UnmatchedError,
)
from stream.events import Application, DeadLetter, Engagement, JobEvent, Source
from stream.labels.changes import (
    Change,
    Scores,
    application_digest,
    engagement_digest,
    job_event_digest,
)
from stream.labels.facts import (
    Deadline,
    DeadlineKind,
    EngagementFact,
    FactBook,
    Facts,
    JobEventFact,
    Marker,
    Waiting,
)
from stream.labels.ladder import Kind
from stream.labels.rules import (
    Explicit,
    JobClosed,
    LaterResponse,
    Neutral,
    Positive,
    SettlingRule,
)
from stream.policy import LabelPolicy

CLOSED = "closed"  # the one job action that is known


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
        self._policy = policy
        self._window_ms = policy.window_ms
        self._book = book
        self.tally = tally
        self._dead_letter = dead_letter
        self._kind_of_action: dict[str, Kind] = {
            action: rule.kind
            for rule in (Positive(policy), Explicit(policy), Neutral(policy))
            for action in rule.actions
        }
        self._later_response = LaterResponse(policy) if policy.later_response else None
        self._job_closed = JobClosed(policy) if policy.job_closed else None
        self._settling: tuple[SettlingRule, ...] = tuple(
            rule for rule in (self._later_response, self._job_closed) if rule is not None
        )

    # -- events ------------------------------------------------------------------------------

    def admit(self, app: Application, watermark_ms: int | None) -> bool:
        """Whether an application is new and in time, and so to be scored and :meth:`add`-ed.

        Raises:
            ConflictError: one with this id but other content was read before.

        """
        record = self._book.application(app.job_id, app.application_id)
        if isinstance(record, Facts):
            if record.digest != application_digest(app):
                raise ConflictError(
                    f"application {app.application_id} of job {app.job_id} was read before with"
                    " other content"
                )
            self.tally["repeats"] += 1
            return False
        if isinstance(record, Marker):
            self.tally["repeats"] += 1
            return False
        if not _past(watermark_ms, app.event_time_ms + self._window_ms):
            return True
        self.tally["late_applications"] += 1
        if isinstance(record, Waiting):
            self._late_orphans(app)
        self._mark(app.job_id, app.application_id, app.member_id, app.event_time_ms, watermark_ms)
        return False

    def add(
        self, app: Application, scores: Scores, partition: int, watermark_ms: int | None
    ) -> list[Change]:
        """Enter an application that was admitted; return its first label and what it settles."""
        book, job_id = self._book, app.job_id
        submitted_ms = app.event_time_ms
        record = book.application(job_id, app.application_id)
        own = self._adopt_orphans(app) if isinstance(record, Waiting) else []
        evidence: list[tuple[Kind, int]] = [
            (kind, fact.event_time_ms)
            for fact in own
            if (kind := self._evidence(fact, submitted_ms)) is not Kind.PENDING
        ]
        kind, rule, decided_ms = self._first_verdict(job_id, submitted_ms, evidence)
        facts = Facts(
            member_id=app.member_id,
            event_time_ms=submitted_ms,
            digest=application_digest(app),
            partition=partition,
            per_member=app.features.per_member,
            per_job=app.features.per_job,
            global_score=scores.global_,
            member_score=scores.member,
            job_score=scores.job,
            channel=app.channel,
            terms=app.terms,
            kind=kind,
            rule=rule,
            engagements=len(own),
        )
        book.put_application(job_id, app.application_id, facts)
        book.add_deadline(
            Deadline(
                submitted_ms + self._window_ms, DeadlineKind.WINDOW, job_id, app.application_id
            )
        )
        label_time_ms = _latest(submitted_ms, watermark_ms)
        changes: list[Change] = []
        if kind is Kind.PENDING:
            book.add_pending(job_id, submitted_ms, app.application_id)
        else:
            changes.append(
                Change(
                    job_id,
                    app.application_id,
                    facts,
                    Kind.PENDING,
                    None,
                    kind is Kind.POSITIVE,
                    decided_ms,
                    label_time_ms,
                )
            )
        for _, time_ms in evidence:
            changes += self._respond(job_id, time_ms, submitted_ms, label_time_ms)
        return changes

    def engagement(
        self, event: Engagement, source: Source, watermark_ms: int | None
    ) -> list[Change]:
        """Apply a recruiter's action; return the labels that it changes.

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
            return []
        record = book.application(job_id, event.application_id)
        fact = EngagementFact(
            event.engagement_id,
            event.application_id,
            event.member_id,
            event.event_time_ms,
            event.action,
            digest,
        )
        if record is None or isinstance(record, Waiting):
            self._wait(job_id, fact, source, record, watermark_ms)
            return []
        if record.member_id != event.member_id:
            raise _mismatch(job_id, fact, record.member_id)
        if isinstance(record, Marker):
            self.tally["late_engagements"] += 1
            return []
        book.put_engagement(job_id, fact)
        facts = msgspec.structs.replace(record, engagements=record.engagements + 1)
        kind = self._evidence(fact, record.event_time_ms)
        label_time_ms = _latest(event.event_time_ms, watermark_ms)
        changes: list[Change] = []
        if kind > record.kind:
            changes.append(
                self._climb(
                    job_id,
                    event.application_id,
                    facts,
                    kind,
                    None,
                    fact.event_time_ms,
                    label_time_ms,
                )
            )
        else:
            book.put_application(job_id, event.application_id, facts)
        if kind is not Kind.PENDING:
            changes += self._respond(
                job_id, fact.event_time_ms, record.event_time_ms, label_time_ms
            )
        return changes

    def job_event(self, event: JobEvent, watermark_ms: int | None) -> list[Change]:
        """Apply the closing of a job; return the labels that it settles.

        Raises:
            UnknownActionError, ConflictError: a dead letter; the state is untouched.

        """
        if event.action != CLOSED:
            raise UnknownActionError(f"job action {event.action[:64]!r} is not known (closed is)")
        book, job_id, time_ms = self._book, event.job_id, event.event_time_ms
        digest = job_event_digest(event)
        known = book.job_event(job_id, event.job_event_id)
        if known is not None:
            if known.digest != digest:
                raise ConflictError(
                    f"job event {event.job_event_id} of job {job_id} was read before with other"
                    " content"
                )
            self.tally["repeats"] += 1
            return []
        if _past(watermark_ms, time_ms + self._window_ms):
            self.tally["late_job_events"] += 1
            return []
        book.put_closing(job_id, event.job_event_id, JobEventFact(time_ms, digest))
        book.add_deadline(
            Deadline(
                time_ms + self._window_ms,
                DeadlineKind.CLOSING,
                job_id,
                event.job_event_id,
                time_ms=time_ms,
            )
        )
        if self._job_closed is None:
            return []
        first_ms, last_ms = self._job_closed.reach(time_ms)
        return self._settle(
            job_id,
            self._job_closed.name,
            time_ms,
            first_ms,
            last_ms,
            _latest(time_ms, watermark_ms),
        )

    # -- the watermark -----------------------------------------------------------------------

    def close_due(self, watermark_ms: int) -> Iterator[Change]:
        """End all that the watermark is strictly past, in order of time; yield window closings."""
        book = self._book
        for deadline in book.due(watermark_ms):
            match deadline.kind:
                case DeadlineKind.WINDOW:
                    yield self._close(deadline, watermark_ms)
                case DeadlineKind.MARKER:
                    book.forget_application(deadline.job_id, deadline.subject)
                case DeadlineKind.ORPHAN:
                    self._expire(deadline)
                case DeadlineKind.RESPONSE:
                    book.forget_response(deadline.job_id, deadline.time_ms, deadline.answered_ms)
                case DeadlineKind.CLOSING:
                    book.forget_closing(deadline.job_id, deadline.subject, deadline.time_ms)

    def _close(self, deadline: Deadline, watermark_ms: int) -> Change:
        book, job_id, application_id = self._book, deadline.job_id, deadline.subject
        facts = book.application(job_id, application_id)
        if not isinstance(facts, Facts):  # a WINDOW deadline is made with the facts, once
            raise TypeError(f"application {application_id} of job {job_id} has no facts to close")
        previous = Kind(facts.kind)
        if previous is Kind.PENDING:
            book.remove_pending(job_id, facts.event_time_ms, application_id)
        if facts.engagements:
            for fact in book.engagements_of(job_id, application_id):
                book.forget_engagement(job_id, application_id, fact.engagement_id)
        self._mark(job_id, application_id, facts.member_id, facts.event_time_ms, None)
        previous_rule = facts.rule
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
            label=previous is not Kind.POSITIVE,
            closed=True,
        )

    def _mark(
        self,
        job_id: str,
        application_id: str,
        member_id: str,
        submitted_ms: int,
        watermark_ms: int | None,
    ) -> None:
        """Leave the marker that tells a late engagement from an orphan, until A + 2W."""
        until_ms = submitted_ms + 2 * self._window_ms
        if _past(watermark_ms, until_ms):
            self._book.forget_application(job_id, application_id)
            return
        self._book.put_application(job_id, application_id, Marker(member_id, submitted_ms))
        self._book.add_deadline(Deadline(until_ms, DeadlineKind.MARKER, job_id, application_id))

    # -- evidence ----------------------------------------------------------------------------

    def _evidence(self, fact: EngagementFact, submitted_ms: int) -> Kind:
        """What an engagement says about its own application; PENDING: nothing."""
        if not submitted_ms <= fact.event_time_ms <= submitted_ms + self._window_ms:
            self.tally["outside_window"] += 1
            return Kind.PENDING
        # An orphan may have been stored under a policy that still knew its action.
        return self._kind_of_action.get(fact.action, Kind.PENDING)

    def _first_verdict(
        self, job_id: str, submitted_ms: int, evidence: list[tuple[Kind, int]]
    ) -> tuple[Kind, str | None, int | None]:
        """Kind, rule and deciding time of an application at its first sight."""
        if evidence:
            kind = max(kind for kind, _ in evidence)
            return kind, None, min(time_ms for own, time_ms in evidence if own is kind)
        for rule in self._settling:
            time_ms = rule.found(self._book, job_id, submitted_ms)
            if time_ms is not None:
                return Kind.NEGATIVE_INFERRED, rule.name, time_ms
        return Kind.PENDING, None, None

    def _respond(
        self, job_id: str, time_ms: int, answered_ms: int, label_time_ms: int
    ) -> list[Change]:
        """Evidence about one application settles the pending ones submitted before it."""
        rule = self._later_response
        if rule is None:
            return []
        self._book.put_response(job_id, time_ms, answered_ms)
        self._book.add_deadline(
            Deadline(
                time_ms + self._window_ms,
                DeadlineKind.RESPONSE,
                job_id,
                time_ms=time_ms,
                answered_ms=answered_ms,
            )
        )
        first_ms, last_ms = rule.reach(time_ms, answered_ms)
        return self._settle(job_id, rule.name, time_ms, first_ms, last_ms, label_time_ms)

    def _settle(
        self,
        job_id: str,
        rule: str,
        evidence_ms: int,
        first_ms: int,
        last_ms: int,
        label_time_ms: int,
    ) -> list[Change]:
        """Infer a negative for every pending application submitted in the closed range."""
        changes = []
        for application_id in self._book.pending_between(job_id, first_ms, last_ms):
            facts = self._book.application(job_id, application_id)
            if isinstance(facts, Facts):
                changes.append(
                    self._climb(
                        job_id,
                        application_id,
                        facts,
                        Kind.NEGATIVE_INFERRED,
                        rule,
                        evidence_ms,
                        label_time_ms,
                    )
                )
        return changes

    def _climb(
        self,
        job_id: str,
        application_id: str,
        facts: Facts,
        kind: Kind,
        rule: str | None,
        evidence_ms: int,
        label_time_ms: int,
    ) -> Change:
        previous = Kind(facts.kind)
        if previous is Kind.PENDING:
            self._book.remove_pending(job_id, facts.event_time_ms, application_id)
        after = msgspec.structs.replace(facts, kind=kind, rule=rule)
        self._book.put_application(job_id, application_id, after)
        return Change(
            job_id,
            application_id,
            after,
            previous,
            facts.rule,
            kind is Kind.POSITIVE,
            evidence_ms,
            label_time_ms,
        )

    # -- orphans -----------------------------------------------------------------------------

    def _wait(
        self,
        job_id: str,
        fact: EngagementFact,
        source: Source,
        record: Waiting | None,
        watermark_ms: int | None,
    ) -> None:
        """Keep an engagement whose application is not known yet, with its bytes."""
        expires_ms = fact.event_time_ms + self._policy.orphan_ttl_ms
        if _past(watermark_ms, expires_ms):
            raise _unmatched(job_id, fact)
        self.tally["orphans"] += 1
        waiting = 1 if record is None else record.orphans + 1
        self._book.put_application(job_id, fact.application_id, Waiting(waiting))
        self._book.put_engagement(job_id, msgspec.structs.replace(fact, source=source))
        self._book.add_deadline(
            Deadline(
                expires_ms,
                DeadlineKind.ORPHAN,
                job_id,
                fact.application_id,
                engagement_id=fact.engagement_id,
            )
        )

    def _adopt_orphans(self, app: Application) -> list[EngagementFact]:
        """Return the engagements that waited for this application, mismatched ones set aside."""
        own = []
        for fact in self._book.engagements_of(app.job_id, app.application_id):
            if fact.member_id != app.member_id:
                self._set_aside(app.job_id, fact, _mismatch(app.job_id, fact, app.member_id))
                continue
            kept = msgspec.structs.replace(fact, source=None)
            self._book.put_engagement(app.job_id, kept)
            own.append(kept)
        return own

    def _late_orphans(self, app: Application) -> None:
        for fact in self._book.engagements_of(app.job_id, app.application_id):
            if fact.member_id != app.member_id:
                self._set_aside(app.job_id, fact, _mismatch(app.job_id, fact, app.member_id))
                continue
            self.tally["late_engagements"] += 1
            self._book.forget_engagement(app.job_id, app.application_id, fact.engagement_id)

    def _expire(self, deadline: Deadline) -> None:
        """No application came: a dead letter. A deadline of an adopted orphan is void."""
        job_id, application_id = deadline.job_id, deadline.subject
        fact = self._book.engagement(job_id, deadline.engagement_id)
        record = self._book.application(job_id, application_id)
        if fact is None or fact.source is None or not isinstance(record, Waiting):
            return
        self._set_aside(job_id, fact, _unmatched(job_id, fact))
        if record.orphans > 1:
            self._book.put_application(job_id, application_id, Waiting(record.orphans - 1))
        else:
            self._book.forget_application(job_id, application_id)

    def _set_aside(self, job_id: str, fact: EngagementFact, error: EventError) -> None:
        self._book.forget_engagement(job_id, fact.application_id, fact.engagement_id)
        if fact.source is not None:
            self._dead_letter(DeadLetter(error.reason, str(error), fact.source))


def _past(watermark_ms: int | None, deadline_ms: int) -> bool:
    return watermark_ms is not None and watermark_ms > deadline_ms


def _latest(time_ms: int, watermark_ms: int | None) -> int:
    return time_ms if watermark_ms is None else max(time_ms, watermark_ms)


def _mismatch(job_id: str, fact: EngagementFact, member_id: str) -> MismatchError:
    return MismatchError(
        f"engagement {fact.engagement_id} names member {fact.member_id}, application"
        f" {fact.application_id} of job {job_id} is of {member_id}"
    )


def _unmatched(job_id: str, fact: EngagementFact) -> UnmatchedError:
    return UnmatchedError(
        f"engagement {fact.engagement_id}: no application {fact.application_id} of job {job_id}"
        " came within orphan_ttl"
    )
