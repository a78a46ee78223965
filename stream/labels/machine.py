"""The label machine: events and the watermark in; changes of labels, and all else, out in steps.

What it decides is the table of :mod:`stream.labels.transitions`. Scoring and learning are the
stage's: the machine asks for the scores of an application once it knows that it is new and in time.

All that the machine gives comes out of the results of :meth:`LabelMachine.apply` and
:meth:`LabelMachine.close_due` (:data:`~stream.labels.changes.Step`), what it ignored too: so the
counts are the caller's, and a caller that undoes something undoes them with it. Each event is
applied in full, then the caller moves the watermark and closes what is due.

What may be a lot is done as it is taken, and must be taken to its end: until then the machine
refuses the next event. (The few steps of all other events are made at once.) The caller may pause
after any step, write the state and go on, or begin again with the same event after a crash. For
that, an event settles others before its own fact is written: begun again it goes on where it
stopped. What the watermark ends is struck off the deadlines as it goes, so that closing goes on
where it stopped too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from stream.errors import UnknownActionError
from stream.events.ladder import Kind
from stream.events.structs import Application, Engagement, Event, JobEvent, Source
from stream.labels.aging import Aging
from stream.labels.changes import (
    Change,
    Decide,
    Entered,
    Ignored,
    Scores,
    Step,
    application_digest,
    check_repeat,
    event_digest,
    unheeded,
    unscored,
)
from stream.labels.delays import DelayCurve, steps_of
from stream.labels.endings import Endings
from stream.labels.inference import Inference, climb, latest, past
from stream.labels.orphans import Orphans, mismatch
from stream.labels.settled import found
from stream.labels.transitions import (
    EVIDENCE,
    RULES,
    State,
    Stimulus,
    Transition,
    after,
    state_of,
    state_of_record,
    stimuli,
)
from stream.policy import LabelPolicy
from stream.state.facts import (
    MOST_LISTED,
    Applied,
    Deadline,
    DeadlineKind,
    Facts,
    JobEventFact,
    Marker,
    Orphan,
    Waiting,
)
from stream.state.stored_facts import StoredFacts
from stream.state.waiting import waits

CLOSED = "closed"  # the one job action that is known

_REPEAT = (Ignored("repeats"),)

# Looking a member of an enumeration up takes 0.1 µs, and every event would do so several times.
_UNKNOWN, _EXPLICIT = State.UNKNOWN, State.EXPLICIT
_READ, _READ_LATE, _OUTSIDE = Stimulus.READ, Stimulus.READ_LATE, Stimulus.OUTSIDE
_ANSWERED = Stimulus.ANSWERED
_PENDING, _POSITIVE, _WINDOW = Kind.PENDING, Kind.POSITIVE, DeadlineKind.WINDOW
_ENTERED = after(_UNKNOWN, _READ)
_AGED = after(State.PENDING, Stimulus.AGED)


class LabelMachine:
    """Labels of all jobs of one partition.

    Args:
        policy: what counts as an answer, and for how long.
        book: where facts are kept.
        learned: how long answers take, from the model folder; None: the policy's, or the default.
        decide: called when an application is answered for the first time, before anything that
            follows from it is given.

    """

    def __init__(
        self,
        policy: LabelPolicy,
        book: StoredFacts,
        learned: DelayCurve | None = None,
        decide: Decide = unheeded,
    ) -> None:
        self._decide = decide
        self._window_ms = policy.window_ms
        self._clock_skew_ms = policy.clock_skew_ms
        self._book = book
        self._stimuli = stimuli(policy)
        self._orphans = Orphans(policy.orphan_ttl_ms, book)
        self._inference = Inference(policy, book)
        self._aging = Aging(steps_of(policy, learned), policy.window_ms, book)
        self._endings = Endings(
            policy.window_ms,
            book,
            aging=self._aging,
            orphans=self._orphans,
            inference=self._inference,
        )
        self._under_way = False

    def apply(
        self,
        event: Event,
        source: Source,
        watermark_ms: int | None,
        *,
        score: Callable[[Application], Scores] = unscored,
        partition: int = 0,
    ) -> Iterable[Step]:
        """Apply an event; give what comes of it, others' labels before its own.

        Args:
            event: of any type; clocks and what is to be forgotten change no label.
            source: where it was read.
            watermark_ms: event time before it; None: not known yet.
            score: called with an application that is new and in time, before anything else.
            partition: where the application's labels go back to.

        Raises:
            EventError: the event becomes a dead letter; the state is as it was.
            RuntimeError: an earlier iterator was not taken to its end.

        """
        self._check_whole()
        match event:
            case Application():
                return self._application(event, score, partition, watermark_ms)
            case Engagement():
                return self._engagement(event, source, watermark_ms)
            case JobEvent():
                return self._job_event(event, watermark_ms)
            case _:
                return ()

    def close_due(self, watermark_ms: int | None) -> Iterable[Step]:
        """End all that the watermark is strictly past, in order of time; a step for each."""
        self._check_whole()
        if watermark_ms is None:
            return ()
        if self._aging.changed:
            return self._whole(self._begin(watermark_ms))
        if not (due := self._book.deadlines.due(watermark_ms)):
            return ()
        return self._whole(self._endings.end(due, watermark_ms))

    def _begin(self, watermark_ms: int) -> Iterator[Step]:
        """See that every open application has its next step, then end what is due."""
        yield from self._aging.begin(watermark_ms)
        yield from self._endings.end(self._book.deadlines.due(watermark_ms), watermark_ms)

    def begin_again(self) -> None:
        """Forget an event that was not applied to its end: its changes of the state are undone."""
        self._under_way = False

    def _check_whole(self) -> None:
        if self._under_way:
            raise RuntimeError("what the label machine gave last was not taken to its end")

    def _whole(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Give steps that are made as they are taken; the next event waits for the last of them."""
        self._under_way = True
        return self._given(steps)

    def _given(self, steps: Iterator[Step]) -> Iterator[Step]:
        yield from steps
        self._under_way = False

    # -- applications ------------------------------------------------------------------------

    def _application(
        self,
        app: Application,
        score: Callable[[Application], Scores],
        partition: int,
        watermark_ms: int | None,
    ) -> Iterable[Step]:
        record = self._book.application(app.job_id, app.application_id)
        digest = application_digest(app)
        state = state_of_record(record)
        if isinstance(record, Facts):
            check_repeat("application", app.application_id, app.job_id, record.digest, digest)
        late = past(watermark_ms, app.event_time_ms + self._window_ms)
        transition = after(state, _READ_LATE if late else _READ)
        if state != _UNKNOWN:
            return (Ignored(transition.ignored),)
        if transition.ignored:
            return self._whole(self._miss(app, transition.ignored, watermark_ms))
        entered = Entered(app, score(app))
        if record is not None:
            return self._whole(self._adopt(entered, digest, partition, watermark_ms))
        return (entered, *self._enter(entered, digest, partition, [], [], watermark_ms))

    def _adopt(
        self, entered: Entered, digest: bytes, partition: int, watermark_ms: int | None
    ) -> Iterator[Step]:
        """Enter an application and the engagements that waited for it."""
        app = entered.application
        submitted_ms = app.event_time_ms
        orphans = yield from self._orphans.claim(app)
        known: list[tuple[int, Stimulus]] = []
        for orphan in orphans:
            # It may have been stored under a policy that still knew its action.
            stimulus = self._stimuli.get(orphan.action, Stimulus.NOTED)
            stimulus, time_ms = self._placed(stimulus, orphan.event_time_ms, submitted_ms)
            known.append((time_ms, stimulus))
        answers = [time_ms for time_ms, stimulus in known if stimulus is _ANSWERED]
        if answers:
            self._decide(app.job_id, app.application_id, entered.waits, min(answers))
        for time_ms, stimulus in tuple(known):
            if stimulus in EVIDENCE:
                yield from self._inference.response(
                    app.job_id,
                    time_ms=time_ms,
                    submitted_ms=submitted_ms,
                    watermark_ms=watermark_ms,
                )
        yield entered  # with nothing that may end a unit of work before its facts are written
        yield from self._enter(entered, digest, partition, orphans, known, watermark_ms)

    def _enter(
        self,
        entered: Entered,
        digest: bytes,
        partition: int,
        orphans: list[Orphan],
        known: list[tuple[int, Stimulus]],
        watermark_ms: int | None,
    ) -> list[Step]:
        """Write an application's facts; give the label of all that is known of it."""
        book, app, scores = self._book, entered.application, entered.scores
        job_id, application_id, submitted_ms = app.job_id, app.application_id, app.event_time_ms
        steps: list[Step] = []
        stretch = found(book.settled(job_id), submitted_ms)
        if stretch is not None:
            known.append((stretch.evidence_ms, RULES[stretch.rule]))
        given: Transition = _ENTERED
        decided_ms: int | None = None
        declined_ms: int | None = None
        for time_ms, stimulus in sorted(known) if known else ():
            transition = after(given.state, stimulus)
            if transition.ignored:
                steps.append(Ignored(transition.ignored))
            if transition.label is not None:
                declined_ms = decided_ms if given.state == _EXPLICIT else None
                given, decided_ms = transition, time_ms
        weight = 1.0
        if given.label is None and (reached := self._aging.reached(submitted_ms, watermark_ms)):
            given, decided_ms, weight = _AGED, None, reached
        if orphans:
            self._orphans.adopt(app, orphans)
        engagements = [orphan.engagement_id for orphan in orphans]
        for engagement_id in engagements[MOST_LISTED:]:
            book.index_engagement(job_id, application_id, engagement_id)
        facts = Facts(
            member_id=app.member_id,
            event_time_ms=submitted_ms,
            digest=digest,
            partition=partition,
            per_member=app.features.per_member,
            per_job=app.features.per_job,
            global_score=scores.global_score,
            member_score=scores.member_score,
            job_score=scores.job_score,
            channel=app.channel,
            terms=app.terms,
            kind=given.label or _PENDING,
            rule=given.rule,
            engagements=tuple(engagements[:MOST_LISTED]),
            more=len(engagements) > MOST_LISTED,
            further_scores=scores.further_scores,
            weight=weight,
            history=scores.history,
            preferences=scores.preferences,
            global_=app.features.global_,
            model=scores.model,
        )
        book.put_application(job_id, application_id, facts)
        book.deadlines.add(
            Deadline(submitted_ms + self._window_ms, _WINDOW, job_id, application_id)
        )
        if facts.unsettled:
            book.pending.add(job_id, submitted_ms, application_id)
            self._aging.schedule(job_id, application_id, submitted_ms, watermark_ms)
        if given.label is None:
            return steps
        change = Change(
            job_id=job_id,
            application_id=application_id,
            facts=facts,
            final=given.final,
            evidence_time_ms=decided_ms,
            label_time_ms=latest(decided_ms or 0, watermark_ms),
            declined_time_ms=declined_ms,
        )
        return [*steps, change]

    def _miss(self, app: Application, ignored: str, watermark_ms: int | None) -> Iterator[Step]:
        """Mark an application that came too late; engagements that waited for it did, too."""
        yield Ignored(ignored)
        orphans = yield from self._orphans.claim(app)
        for _ in orphans:
            yield Ignored(after(State.CLOSED, Stimulus.NOTED).ignored)
        self._orphans.adopt(app, orphans)
        for orphan in orphans:
            self._book.put_engagement(app.job_id, orphan.engagement_id, None)
        marker = Marker(app.member_id, app.event_time_ms)
        self._endings.mark_late(app.job_id, app.application_id, marker, watermark_ms)

    # -- engagements and job events ----------------------------------------------------------

    def _engagement(
        self, event: Engagement, source: Source, watermark_ms: int | None
    ) -> Iterable[Step]:
        stimulus = self._stimuli.get(event.action)
        if stimulus is None:
            raise UnknownActionError(
                f"action {event.action[:64]!r} is in none of the policy's lists"
            )
        book, job_id = self._book, event.job_id
        digest = event_digest(event)
        known = book.engagement(job_id, event.engagement_id)
        if known is not None:
            check_repeat("engagement", event.engagement_id, job_id, known.digest, digest)
            return _REPEAT
        facts = book.application(job_id, event.application_id)
        if facts is None or isinstance(facts, Waiting):
            self._orphans.wait(event, digest, source, facts, watermark_ms)
        elif facts.member_id != event.member_id:
            raise mismatch(job_id, event, facts.member_id)
        if not isinstance(facts, Facts):
            return (Ignored(after(state_of_record(facts), stimulus).ignored),)
        stimulus, time_ms = self._placed(stimulus, event.event_time_ms, facts.event_time_ms)
        if stimulus is _ANSWERED and facts.kind != _POSITIVE:
            name = event.application_id
            self._decide(job_id, name, waits(facts, name), time_ms)
        if stimulus in EVIDENCE:
            settled = self._inference.response(
                job_id,
                time_ms=time_ms,
                submitted_ms=facts.event_time_ms,
                watermark_ms=watermark_ms,
            )
            if settled:
                return self._whole(
                    self._act_after(settled, event, time_ms, digest, facts, stimulus, watermark_ms)
                )
        return self._act(event, time_ms, digest, facts, stimulus, watermark_ms)

    def _act_after(
        self,
        settled: Iterable[Change],
        event: Engagement,
        time_ms: int,
        digest: bytes,
        facts: Facts,
        stimulus: Stimulus,
        watermark_ms: int | None,
    ) -> Iterator[Step]:
        yield from settled
        yield from self._act(event, time_ms, digest, facts, stimulus, watermark_ms)

    def _act(
        self,
        event: Engagement,
        time_ms: int,
        digest: bytes,
        facts: Facts,
        stimulus: Stimulus,
        watermark_ms: int | None,
    ) -> tuple[Step, ...]:
        """Write an engagement's own fact; give what it is to its application."""
        book, job_id, application_id = self._book, event.job_id, event.application_id
        transition = after(state_of(facts), stimulus)
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
            return (Ignored(transition.ignored),) if transition.ignored else ()
        climbed = msgspec.structs.replace(
            facts,
            kind=transition.label,
            rule=transition.rule,
            weight=1.0,
            engagements=listed,
            more=more,
        )
        change = climb(
            book,
            job_id,
            application_id,
            before=facts,
            after=climbed,
            evidence_ms=time_ms,
            watermark_ms=watermark_ms,
        )
        return (change,)

    def _job_event(self, event: JobEvent, watermark_ms: int | None) -> Iterable[Step]:
        if event.action != CLOSED:
            raise UnknownActionError(f"job action {event.action[:64]!r} is not known (closed is)")
        digest = event_digest(event)
        known = self._book.job_event(event.job_id, event.job_event_id)
        if known is not None:
            check_repeat("job event", event.job_event_id, event.job_id, known.digest, digest)
            return _REPEAT
        if past(watermark_ms, event.event_time_ms + self._window_ms):
            return (Ignored("late_job_events"),)
        return self._whole(self._end_job(event, digest, watermark_ms))

    def _end_job(self, event: JobEvent, digest: bytes, watermark_ms: int | None) -> Iterator[Step]:
        """Apply the closing of a job: what it settles, then its own fact."""
        job_id, time_ms, event_id = event.job_id, event.event_time_ms, event.job_event_id
        yield from self._inference.closing(job_id, time_ms, watermark_ms)
        self._book.put_job_event(job_id, event_id, JobEventFact(time_ms, digest))
        ends_ms = time_ms + self._window_ms
        self._book.deadlines.add(Deadline(ends_ms, DeadlineKind.CLOSING, job_id, event_id))

    def _placed(self, stimulus: Stimulus, time_ms: int, submitted_ms: int) -> tuple[Stimulus, int]:
        """What an engagement is to its application, by their times, and when it counts.

        Clocks differ: it counts as at the application's time if it is up to the skew before it.
        """
        if submitted_ms - self._clock_skew_ms <= time_ms < submitted_ms:
            time_ms = submitted_ms
        inside = submitted_ms <= time_ms <= submitted_ms + self._window_ms
        return stimulus if inside else _OUTSIDE, time_ms
