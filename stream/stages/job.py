"""The per-job stage: global and job score, labels, and what the job learns of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import msgspec

from stream.errors import NoScoreError
from stream.events.structs import (
    Application,
    DeadLetter,
    Event,
    JobEvent,
    Label,
    Match,
    ScoredApplication,
    Source,
)
from stream.features.blocks import FeatureSpace
from stream.histories.history import NOTHING, NUMBERS_BYTES
from stream.histories.preferences import JobPreferences, Preferred
from stream.labels.changes import Change, Ended, Entered, Ignored, Scores, Step, label_of
from stream.labels.machine import LabelMachine
from stream.model.folder import NO_MODEL, GlobalModel
from stream.policy import Policy
from stream.stages.applicants import OpenApplications
from stream.stages.base import Stage
from stream.stages.decisions import JobDecisions
from stream.stages.histories import JobHistories
from stream.stages.matches import Matches
from stream.stages.succession import Models, StoredModel
from stream.state.facts import Facts
from stream.state.overlay import Overlay
from stream.state.stored_facts import StoredFacts
from stream.state.waiting import Waits
from stream.updaters.effect import MOST_HELD


class Labelled(msgspec.Struct, frozen=True, gc=False):
    """A change and the label that says so; None where it says nothing new.

    ``decision``: who was answered, ranked among those who waited
    (:func:`stream.quality.ranking.row`). ``match``: the window of a match has closed.
    """

    change: Change
    label: Label | None
    decision: bytes | None = None
    match: bool = False


Steps = Iterator[Labelled | DeadLetter | Ended | Ignored | Entered | Match]
"""What the label machine gives, its changes learned and labelled."""


class JobStage(Stage):
    """Labels applications and learns them per job, for one partition's jobs.

    All that happens comes out of an iterator of steps, each learned when it is given. It must be
    taken to its end (:mod:`stream.labels.machine`); the caller may flush after any step.

    Args:
        model: the global model that a new state begins with, or one that the state has; None when
            every application brings ``global_score``. The others are those of every stage; facts
            are kept in the overlay, too.
        publishes: whether open applications are published, if the policy has it.

    Attributes:
        models: those that score applications.
        decisions: ranks who is answered among those who wait.
        applicants: publishes open applications; None: they are not published.

    """

    stage = "job"

    def __init__(
        self,
        overlay: Overlay,
        *,
        space: FeatureSpace,
        policy: Policy,
        model: GlobalModel | None,
        most_held: int = MOST_HELD,
        publishes: bool = False,
    ) -> None:
        version = NO_MODEL if model is None else model.version
        super().__init__(
            overlay, space=space, policy=policy, model_version=version, most_held=most_held
        )
        self.models = Models(overlay, self.succession, model, policy)
        first = self.models.first
        learned = None if first is None else first.manifest.delays
        facts = StoredFacts(overlay, self.census)
        self._facts = facts
        self.decisions = JobDecisions(
            overlay,
            facts,
            self.effect,
            window_ms=policy.labels.window_ms,
            most=most_held,
            scored_now=self._scored_now,
        )
        self._machine = LabelMachine(policy.labels, facts, learned, self.decisions.decide)
        self._histories: JobHistories | None = None
        if policy.features.histories:
            self._histories = JobHistories(
                overlay, policy.labels.window_ms, facts=facts, census=self.census
            )
            self.entities.histories = self._histories
        self._matches: Matches | None = None
        if policy.matches.enabled:
            self._matches = Matches(overlay, policy.matches, self.succession.version_at)
            self.entities.matches = self._matches
        self.applicants: OpenApplications | None = None
        if publishes and policy.applicants.enabled:
            self.applicants = self.entities.applicants = OpenApplications(
                overlay, facts, self.succession, self.entities.counts
            )

    def apply(
        self, event: ScoredApplication | Event, source: Source, watermark_ms: int | None
    ) -> Steps:
        """Apply an event: score what is entered, and give what comes of it.

        Raises, instead of giving a first step, and leaving the state as it was:
            EventError: the event becomes a dead letter.

        """
        self.decisions.begin()
        if not isinstance(event, ScoredApplication):
            steps = self._learn(self._machine.apply(event, source, watermark_ms), watermark_ms)
            if self.applicants is not None and isinstance(event, JobEvent):
                return self._close(self.applicants, event, steps)
            return steps
        return self._learn(
            self._machine.apply(
                event.application,
                source,
                watermark_ms,
                score=partial(self._scores, event),
                partition=event.partition,
            ),
            watermark_ms,
        )

    def take_recounted(self) -> list[tuple[str, JobPreferences | None]]:
        """Jobs whose counts have changed since this was asked, with their preferences now."""
        return [] if self._histories is None else self._histories.take_recounted()

    @property
    def terms_refused(self) -> int:
        """Terms that were not counted, for their job had too many."""
        return 0 if self._histories is None else self._histories.refused

    def close_due(self, watermark_ms: int | None) -> Steps:
        """End what the watermark is past, windows above all; one step for each thing that ends."""
        over_ms = self.models.let_go_ms
        if over_ms is not None and watermark_ms is not None and watermark_ms >= over_ms:
            self.models.let_go(watermark_ms)
        return self._learn(self._machine.close_due(watermark_ms), watermark_ms)

    def forget_member(self, member_id: str, until_ms: int, now_ms: int = 0) -> None:
        """Let what jobs have in common with a member go, as :meth:`Entities.forget` does."""
        if self._histories is not None:
            self._histories.forget_member(member_id, until_ms, now_ms)
        if self.applicants is not None:
            self.applicants.forget_member(member_id, until_ms, now_ms)

    def begin_again(self) -> None:
        """Forget an event that was not applied to its end; what it did to the state is undone."""
        self._machine.begin_again()

    def _roll(self, model: StoredModel, from_ms: int, issued_ms: int) -> None:
        self.models.roll(model.model(), from_ms, issued_ms)

    def _learn(self, steps: Iterable[Step], watermark_ms: int | None) -> Steps:
        histories, matches, applicants = self._histories, self._matches, self.applicants
        entered: Entered | None = None  # not yet known to be a match or none
        for step in steps:
            if applicants is not None:
                applicants.follow(step)
            if matches is not None:
                if entered is not None and isinstance(step, Change):
                    yield from self._match(matches, entered, step)
                    entered = None
                if isinstance(step, Entered):
                    entered = step
            if not isinstance(step, Change):
                if histories is not None:
                    histories.follow(step, self.entities.counts, watermark_ms)
                yield step
                continue
            label = label_of(step, self.succession.versions) if step.label else None
            decision = None
            if label is not None:
                if label.label:
                    decision = self.decisions.take()
                for entities in self.learners:
                    entities.learn(label)
                if histories is not None and label.evidence_time_ms is not None:
                    histories.learn(label)
            match = step.closed and matches is not None and matches.closed(step)
            yield Labelled(step, label, decision, match)
        if matches is not None and entered is not None:
            yield from self._match(matches, entered, None)

    @staticmethod
    def _close(applicants: OpenApplications, event: JobEvent, steps: Steps) -> Steps:
        """Withdraw a job's applicants once all that its closing settles is known."""
        yield from steps
        applicants.close(event.job_id, event.event_time_ms)

    @staticmethod
    def _match(matches: Matches, entered: Entered, label: Change | None) -> Iterator[Match]:
        """Tell of an application that has come, unless its own label says more than silence.

        It is asked for with that label, if there is one, so within the application's unit of work.
        """
        answered = label is not None and label.evidence_time_ms is not None
        match = matches.enter(entered.application, entered.scores, answered=answered)
        if match is not None:
            yield match

    def _scores(self, scored: ScoredApplication, app: Application) -> Scores:
        further = scored.further_scores
        if self.further:
            further = self.further_scores(app, further)
        job_score = self.effect.score_of(app)
        history = scored.history
        if history is not None:
            history = None if self._histories is None else history + self._histories.read(app)
        preferred = None
        if self._histories is not None:
            preferred = self._histories.preferred(app.job_id, app.channel, app.terms)
        number = self.succession.number_at(app.event_time_ms)
        global_score = self._global_score(app, history, preferred, self.models.at(number))
        return Scores(
            global_score, scored.member_score, job_score, further, history, preferred, number
        )

    def _scored_now(self, job_id: str, waiting: Waits, at_ms: int) -> Waits:
        """Score a candidate anew, where the global model takes histories or preferences.

        By those of the job and the pair as they are, and the member's of first sight.
        """
        histories, first = self._histories, self.models.first
        if histories is None or first is None or not first.takes_further:
            return waiting
        facts = self._facts.application(job_id, waiting.name)
        if not isinstance(facts, Facts) or facts.history is None or facts.global_ is None:
            return waiting
        history = facts.history[:NUMBERS_BYTES] + histories.as_of(job_id, facts.member_id, at_ms)
        model = self.models.at(facts.model)
        if model is None:
            return waiting
        preferred = histories.preferred(job_id, facts.channel, facts.terms)
        now = model.score(model.row(facts.global_, history, preferred))
        fixed = waiting.fixed - facts.global_score + now
        return waiting._replace(fixed=fixed)

    def _global_score(
        self,
        app: Application,
        history: bytes | None,
        preferred: Preferred | None,
        model: GlobalModel | None,
    ) -> float:
        if app.global_score is not None:
            return app.global_score
        if model is None or app.features.global_ is None:
            raise no_score(app)
        if not model.takes_further:
            return model.score(app.features.global_)
        if history is None and self._histories is not None:  # the member's part did not come
            history = NOTHING + self._histories.read(app)
        return model.score(model.row(app.features.global_, history, preferred))


def no_score(app: Application) -> NoScoreError:
    """Say that an application has no score, and nothing that makes one."""
    return NoScoreError(
        f"application {app.application_id} carries no global_score and there is no model"
        " (pass one with --model)"
    )
