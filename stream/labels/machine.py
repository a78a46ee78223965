"""The label machine: events and the watermark in; changes of labels, and all else, out in steps.

What it decides is the table of :mod:`stream.labels.transitions`. Scoring and learning are the
stage's: the machine asks for the scores of an application once it knows that it is new and in time.

All that the machine gives comes out of the iterators of :meth:`LabelMachine.apply` and
:meth:`LabelMachine.close_due` (:data:`~stream.labels.changes.Step`), what it ignored too: so the
counts are the caller's, and a caller that undoes something undoes them with it. Each event is
applied in full, then the caller moves the watermark and closes what is due.

An iterator must be taken to its end: until then the machine refuses the next event. It may be
paused after any step, the state written, and gone on with; or begun again with the same event after
a crash. For that, an event settles others before its own fact is written: begun again it goes on
where it stopped. What the watermark ends is struck off the deadlines as it goes, so that closing
goes on where it stopped too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from stream.errors import ConflictError, EventError, UnknownActionError
from stream.events.structs import Application, Engagement, Event, JobEvent, Source
from stream.labels.changes import (
    Change,
    Entered,
    Ignored,
    Scores,
    Step,
    application_digest,
    event_digest,
)
from stream.labels.endings import Endings
from stream.labels.facts import (
    MOST_LISTED,
    ApplicationRecord,
    Applied,
    Deadline,
    DeadlineKind,
    FactBook,
    Facts,
    JobEventFact,
    Marker,
    Orphan,
    Waiting,
)
from stream.labels.inference import Inference, climb, latest, past
from stream.labels.ladder import Kind
from stream.labels.orphans import Orphans, mismatch
from stream.labels.settled import found
from stream.labels.transitions import EVIDENCE, RULES, State, Stimulus, Transition, after, stimuli
from stream.policy import LabelPolicy

CLOSED = "closed"  # the one job action that is known

_REPEAT = Ignored("repeats")


def unscored(_: Application) -> Scores:
    """Scores of an application where labels are all that is wanted."""
    return Scores(0.0, 0.0, 0.0)


class LabelMachine:
    """Labels of all jobs of one partition.

    Args:
        policy: what counts as an answer, and for how long.
        book: where facts are kept.

    """

    def __init__(self, policy: LabelPolicy, book: FactBook) -> None:
        self._window_ms = policy.window_ms
        self._book = book
        self._stimuli = stimuli(policy)
        self._orphans = Orphans(policy.orphan_ttl_ms, book)
        self._inference = Inference(policy, book)
        self._endings = Endings(policy.window_ms, book, self._orphans, self._inference)
        self._under_way = False

    def apply(
        self,
        event: Event,
        source: Source,
        watermark_ms: int | None,
        score: Callable[[Application], Scores] = unscored,
        partition: int = 0,
    ) -> Iterator[Step]:
        """Apply an event; give what comes of it, others' labels before its own.

        Args:
            event: of any type; clocks and what is to be forgotten change no label.
            source: where it was read.
            watermark_ms: event time before it; None: not known yet.
            score: called with an application that is new and in time, before anything else.
            partition: where the application's labels go back to.

        Raises, instead of giving a first step, and leaving the state as it was:
            EventError: the event becomes a dead letter.

        Raises:
            RuntimeError: an earlier iterator was not taken to its end.

        """
        match event:
            case Application():
                steps = self._application(event, score, partition, watermark_ms)
            case Engagement():
                steps = self._engagement(event, source, watermark_ms)
            case JobEvent():
                steps = self._job_event(event, watermark_ms)
            case _:
                return iter(())
        return self._whole(steps)

    def close_due(self, watermark_ms: int | None) -> Iterable[Step]:
        """End all that the watermark is strictly past, in order of time; a step for each."""
        if watermark_ms is None or not (due := self._book.due(watermark_ms)):
            return ()
        return self._whole(self._endings.end(due, watermark_ms))

    def begin_again(self) -> None:
        """Forget an event that was not applied to its end: its changes of the state are undone."""
        self._under_way = False

    def _whole(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Give all steps of an event; the next one has to wait for them, taken or not."""
        if self._under_way:
            raise RuntimeError("what the label machine gave last was not taken to its end")
        self._under_way = True
        return self._given(steps)

    def _given(self, steps: Iterator[Step]) -> Iterator[Step]:
        try:
            yield from steps
        except EventError:
            self._under_way = False
            raise
        self._under_way = False

    def _application(
        self,
        app: Application,
        score: Callable[[Application], Scores],
        partition: int,
        watermark_ms: int | None,
    ) -> Iterator[Step]:
        record = self._book.application(app.job_id, app.application_id)
        digest = application_digest(app)
        if isinstance(record, Facts):
            _check_repeat("application", app.application_id, app.job_id, record.digest, digest)
        state = _state(record)
        late = past(watermark_ms, app.event_time_ms + self._window_ms)
        transition = after(state, Stimulus.READ_LATE if late else Stimulus.READ)
        if transition.ignored:
            yield Ignored(transition.ignored)
        if state != State.UNKNOWN:
            return
        if transition.state is State.CLOSED:
            yield from self._miss(app, watermark_ms)
            return
        scores = score(app)
        yield Entered(app, scores)
        orphans = [] if record is None else (yield from self._orphans.claim(app))
        yield from self._enter(app, digest, scores, partition, orphans, watermark_ms)

    def _enter(
        self,
        app: Application,
        digest: bytes,
        scores: Scores,
        partition: int,
        orphans: list[Orphan],
        watermark_ms: int | None,
    ) -> Iterator[Step]:
        """Enter an application and the engagements that waited for it; give its first label."""
        book, job_id, application_id = self._book, app.job_id, app.application_id
        submitted_ms = app.event_time_ms
        known: list[tuple[int, Stimulus]] = []
        for orphan in orphans:
            # It may have been stored under a policy that still knew its action.
            stimulus = self._stimuli.get(orphan.action, Stimulus.NOTED)
            stimulus = self._within(stimulus, orphan.event_time_ms, submitted_ms)
            known.append((orphan.event_time_ms, stimulus))
            if stimulus in EVIDENCE:
                yield from self._inference.response(
                    job_id, orphan.event_time_ms, submitted_ms, watermark_ms
                )
        stretch = found(book.settled(job_id), submitted_ms)
        if stretch is not None:
            known.append((stretch.evidence_ms, RULES[stretch.rule]))
        given, decided_ms = Transition(State.PENDING), 0
        for time_ms, stimulus in sorted(known):
            transition = after(given.state, stimulus)
            if transition.ignored:
                yield Ignored(transition.ignored)
            if transition.label is not None:
                given, decided_ms = transition, time_ms
        self._orphans.adopt(app, orphans)
        engagements = [orphan.engagement_id for orphan in orphans]
        for engagement_id in engagements[MOST_LISTED:]:
            book.index_engagement(job_id, application_id, engagement_id)
        facts = Facts(
            app.member_id,
            submitted_ms,
            digest,
            partition,
            app.features.per_member,
            app.features.per_job,
            scores.global_,
            scores.member,
            scores.job,
            app.channel,
            app.terms,
            given.label or Kind.PENDING,
            given.rule,
            tuple(engagements[:MOST_LISTED]),
            len(engagements) > MOST_LISTED,
        )
        book.put_application(job_id, application_id, facts)
        book.add_deadline(
            Deadline(submitted_ms + self._window_ms, DeadlineKind.WINDOW, job_id, application_id)
        )
        if given.label is None:
            book.add_pending(job_id, submitted_ms, application_id)
            return
        yield Change(
            job_id,
            application_id,
            facts,
            Kind.PENDING,
            None,
            given.final,
            decided_ms,
            latest(decided_ms, watermark_ms),
        )

    def _miss(self, app: Application, watermark_ms: int | None) -> Iterator[Step]:
        """Mark an application that came too late; engagements that waited for it did, too."""
        orphans = yield from self._orphans.claim(app)
        for _ in orphans:
            yield Ignored(after(State.CLOSED, Stimulus.NOTED).ignored)
        self._orphans.adopt(app, orphans)
        for orphan in orphans:
            self._book.forget_engagement(app.job_id, orphan.engagement_id)
        marker = Marker(app.member_id, app.event_time_ms)
        self._endings.mark_late(app.job_id, app.application_id, marker, watermark_ms)

    # -- engagements and job events ----------------------------------------------------------

    def _engagement(
        self, event: Engagement, source: Source, watermark_ms: int | None
    ) -> Iterator[Step]:
        stimulus = self._stimuli.get(event.action)
        if stimulus is None:
            raise UnknownActionError(
                f"action {event.action[:64]!r} is in none of the policy's lists"
            )
        book, job_id, application_id = self._book, event.job_id, event.application_id
        digest = event_digest(event)
        known = book.engagement(job_id, event.engagement_id)
        if known is not None:
            _check_repeat("engagement", event.engagement_id, job_id, known.digest, digest)
            yield _REPEAT
            return
        facts = book.application(job_id, application_id)
        if facts is None or isinstance(facts, Waiting):
            self._orphans.wait(event, digest, source, facts, watermark_ms)
        elif facts.member_id != event.member_id:
            raise mismatch(job_id, event, facts.member_id)
        elif isinstance(facts, Facts):
            stimulus = self._within(stimulus, event.event_time_ms, facts.event_time_ms)
        transition = after(_state(facts), stimulus)
        if transition.ignored:
            yield Ignored(transition.ignored)
        if not isinstance(facts, Facts):
            return
        if stimulus in EVIDENCE:
            yield from self._inference.response(
                job_id, event.event_time_ms, facts.event_time_ms, watermark_ms
            )
        book.put_engagement(job_id, event.engagement_id, Applied(digest))
        listed = facts.engagements
        more = len(listed) >= MOST_LISTED
        if more:
            book.index_engagement(job_id, application_id, event.engagement_id)
        else:
            listed = (*listed, event.engagement_id)
        if transition.label is None:
            noted = msgspec.structs.replace(facts, engagements=listed, more=more)
            book.put_application(job_id, application_id, noted)
            return
        climbed = msgspec.structs.replace(
            facts,
            kind=transition.label,
            rule=transition.rule,
            engagements=listed,
            more=more,
        )
        yield climb(book, job_id, application_id, facts, climbed, event.event_time_ms, watermark_ms)

    def _job_event(self, event: JobEvent, watermark_ms: int | None) -> Iterator[Step]:
        if event.action != CLOSED:
            raise UnknownActionError(f"job action {event.action[:64]!r} is not known (closed is)")
        book, job_id, time_ms = self._book, event.job_id, event.event_time_ms
        digest = event_digest(event)
        known = book.job_event(job_id, event.job_event_id)
        if known is not None:
            _check_repeat("job event", event.job_event_id, job_id, known.digest, digest)
            yield _REPEAT
            return
        ends_ms = time_ms + self._window_ms
        if past(watermark_ms, ends_ms):
            yield Ignored("late_job_events")
            return
        yield from self._inference.closing(job_id, time_ms, watermark_ms)
        book.put_job_event(job_id, event.job_event_id, JobEventFact(time_ms, digest))
        book.add_deadline(Deadline(ends_ms, DeadlineKind.CLOSING, job_id, event.job_event_id))

    def _within(self, stimulus: Stimulus, time_ms: int, submitted_ms: int) -> Stimulus:
        """What an engagement is to its application, by their times."""
        inside = submitted_ms <= time_ms <= submitted_ms + self._window_ms
        return stimulus if inside else Stimulus.OUTSIDE


def _state(record: ApplicationRecord | None) -> int:
    if isinstance(record, Facts):
        return record.kind
    return State.CLOSED if isinstance(record, Marker) else State.UNKNOWN


def _check_repeat(what: str, name: str, job_id: str, known: bytes, digest: bytes) -> None:
    if known != digest:
        raise ConflictError(f"{what} {name} of job {job_id} was read before with other content")
