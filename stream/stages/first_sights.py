"""Labels and histories of a log as a replay has them, where nothing else is learned.

A global model over histories is fitted on those that its applications had at first sight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import attrgetter

from stream.effects import JOB, MEMBER, EffectSpec
from stream.events.structs import Application, Event, Forget, Label, Source
from stream.histories.history import NOTHING
from stream.labels.changes import Change, Scores, Step, label_of
from stream.labels.delays import DelayCurve
from stream.labels.machine import LabelMachine
from stream.model.folder import NO_MODEL
from stream.policy import Policy
from stream.stages.entities import Entities
from stream.stages.histories import JobHistories, MemberHistories
from stream.state.census import Census
from stream.state.overlay import Overlay
from stream.state.stored_facts import StoredFacts


class FirstSights:
    """A label machine whose applications come with histories and preferences in their scores.

    The scores are 0.

    Used as one (:class:`stream.labels.driver.Labels`); its iterators are taken to their end.

    Args:
        overlay: where all is kept.
        policy: of the labels; of the effects, how long entities stay.
        learned: how long answers take; None: not known.
        for_terms: whether only preferences are asked for: then nothing is kept before the first
            application with terms, and a log without any costs what its labels cost.

    """

    def __init__(
        self,
        overlay: Overlay,
        policy: Policy,
        learned: DelayCurve | None = None,
        *,
        for_terms: bool = False,
    ) -> None:
        self._keeps = not for_terms
        census, window_ms = Census(overlay), policy.labels.window_ms
        facts = StoredFacts(overlay, census)
        self._machine = LabelMachine(policy.labels, facts, learned)
        self._of_members = MemberHistories(overlay, window_ms)
        self._of_jobs = JobHistories(overlay, window_ms, facts=facts, census=census)
        self._members = Entities(_Present(MEMBER), overlay, policy, census)
        self._members.histories = self._of_members
        self._jobs = Entities(_Present(JOB), overlay, policy, census)
        self._jobs.histories = self._of_jobs

    def apply(self, event: Event, source: Source, watermark_ms: int | None) -> Iterator[Step]:
        """Apply an event; raises EventError where it becomes a dead letter."""
        if isinstance(event, Forget):
            if event.member_id is not None:
                self._members.forget(event.member_id, event.event_time_ms)
                self._of_jobs.forget_member(event.member_id, event.event_time_ms)
            if event.job_id is not None:
                self._jobs.forget(event.job_id, event.event_time_ms)
            return
        self._keeps |= isinstance(event, Application) and event.terms is not None
        if not self._keeps:
            yield from self._machine.apply(event, source, watermark_ms)
            return
        if not isinstance(event, Application):
            yield from self._learned(self._machine.apply(event, source, watermark_ms), watermark_ms)
            return
        history = self._of_members.first_sight(
            member_id=event.member_id,
            job_id=event.job_id,
            application_id=event.application_id,
            time_ms=event.event_time_ms,
            watermark_ms=watermark_ms,
            counts=self._members.counts(event.member_id, event.event_time_ms),
        )
        score = partial(self._scores, NOTHING if history is None else history)
        steps = self._machine.apply(event, source, watermark_ms, score=score)
        yield from self._learned(steps, watermark_ms)

    def close_due(self, watermark_ms: int | None) -> Iterator[Step]:
        """End all that the watermark is past; let entities go whose time is over."""
        yield from self._learned(self._machine.close_due(watermark_ms), watermark_ms)
        for entities in (self._jobs, self._members):
            for _ in entities.expire(watermark_ms):
                pass

    def _scores(self, history: bytes, app: Application) -> Scores:
        history += self._of_jobs.read(app)
        preferred = self._of_jobs.preferred(app.job_id, app.channel, app.terms)
        return Scores(0.0, 0.0, 0.0, history=history, preferences=preferred)

    def _learned(self, steps: Iterable[Step], watermark_ms: int | None) -> Iterator[Step]:
        """Learn what each step says before it is given."""
        if not self._keeps:
            yield from steps
            return
        for step in steps:
            if not isinstance(step, Change):
                self._of_jobs.follow(step, self._jobs.counts, watermark_ms)
            elif step.label:
                label = label_of(step, (NO_MODEL,))
                if label.evidence_time_ms is not None:
                    self._of_jobs.learn(label)
                    if self._members.counts(label.member_id, label.application_time_ms):
                        self._of_members.learn(label)
                self._jobs.learn(label)
                self._members.learn(label)
            yield step


class _Present:
    """Knows which entities have learned, and nothing of what."""

    def __init__(self, spec: EffectSpec) -> None:
        self.name = spec.name
        self.entity_of: Callable[[Label], str | None] = attrgetter(spec.entity)
        self._newest: dict[str, int] = {}

    def learn(self, label: Label) -> bool:
        entity_id = self.entity_of(label) or ""
        newest_ms = self._newest.get(entity_id)
        self._newest[entity_id] = max(newest_ms or 0, label.application_time_ms)
        return newest_ms is None

    def forget(self, entity_id: str) -> bool:
        return self._newest.pop(entity_id, None) is not None

    def newest_ms(self, entity_id: str) -> int | None:
        return self._newest.get(entity_id)
