"""Both stages over one store, as one share of a replay has them, and what is counted on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stream.events.ladder import Kind
from stream.events.structs import Coefficients, DeadLetter, Match
from stream.features.blocks import FeatureSpace
from stream.labels.changes import Entered, Ignored, Step
from stream.labels.timeliness import Timeliness
from stream.model.folder import NO_MODEL, GlobalModel
from stream.partitions.progress import save_identity
from stream.policy import Policy
from stream.quality.matches import MatchCounts
from stream.quality.prequential import Prequential
from stream.quality.ranking import Decisions
from stream.replay.run_folder import RunCounts
from stream.stages.decisions import MemberDecisions
from stream.stages.job import JobStage, Labelled
from stream.stages.member import MemberStage
from stream.stages.succession import Roll, Rolled
from stream.state.overlay import Overlay
from stream.state.store import Store
from stream.state.waiting import is_waiting

MOST_HELD = 3 << 16
"""Examples of an effect in memory after a flush, an entity for three: 90 MB at 16 features."""


class Stages:
    """One share's stages and counts.

    Args:
        store: its state.
        policy: label policy and effects.
        model: the frozen global model; None when every application brings its ``global_score``.
        space: the feature blocks.
        score_from_ms: applications before it are left out of the quality.
        rolls: models that others follow, and from when on.
        alone: whether it is the only share: then rankings within members are made too.

    Attributes:
        store, jobs, members: as given, and the stages. effects: of both.
        prequential: scores whose truth is known.
        decisions, member_decisions: rankings within jobs and members.

    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        model: GlobalModel | None,
        space: FeatureSpace,
        score_from_ms: int,
        *,
        rolls: Sequence[Rolled] = (),
        alone: bool = False,
    ) -> None:
        self.store = store
        self._overlay = Overlay(store)
        self.jobs = JobStage(
            self._overlay, space=space, policy=policy, model=model, most_held=MOST_HELD
        )
        self.model_version = version = NO_MODEL if model is None else model.version
        self.members = MemberStage(
            self._overlay, space=space, policy=policy, model_version=version, most_held=MOST_HELD
        )
        if len(self.jobs.succession.rolls) == 1:  # else the run is resumed
            for model_rolled, from_ms in rolls:
                self.jobs.models.roll(model_rolled, from_ms)
                self.members.succession.add(Roll(from_ms, model_rolled.version))
        self.effects = [*self.jobs.effects, *self.members.effects]
        self.prequential = Prequential(score_from_ms)
        self.decisions = Decisions()
        self.member_decisions = Decisions()
        self._of_members: MemberDecisions | None = None
        if alone:
            self._of_members = MemberDecisions(
                self._overlay, self.members.effect, policy.labels.window_ms, MOST_HELD
            )
        self._score_from_ms = score_from_ms
        self._timeliness = Timeliness()
        self._dead_letters: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()
        self._applications = 0
        self._matches = MatchCounts()
        save_identity(self._overlay, self.model_version, space, policy)

    def observe(self, step: Labelled | Step | Match) -> None:
        """Count what the job stage gave, before members learn of it."""
        match step:
            case Labelled(change, _, decision, match):
                self._timeliness.observe(change)
                if change.closed and change.facts.event_time_ms >= self._score_from_ms:
                    self._matches.close(answered=change.kind is Kind.POSITIVE, match=match)
                self.prequential.observe(change)
                scored = (change.evidence_time_ms or 0) >= self._score_from_ms
                if decision is not None and scored:
                    self.decisions.add(decision, self.jobs.decisions.halvings)
                if self._of_members is not None and (change.closed or not is_waiting(change.facts)):
                    made = self._of_members.changed(change)
                    if made is not None and scored:
                        self.member_decisions.add(made, self._of_members.halvings)
            case Match(event_time_ms=time_ms):
                self._matches.told += time_ms >= self._score_from_ms
            case Entered():
                self._applications += 1
                if self._of_members is not None:
                    self._of_members.entered(step)
            case Ignored(reason):
                self._ignored[reason] += 1
            case DeadLetter(reason):
                self._dead_letters[reason] += 1

    def expire(self, watermark_ms: int | None, most: int) -> None:
        """Let entities go whose time is over; write the state after each ``most`` looked at."""
        for entities in (*self.jobs.learners, *self.members.learners):
            for count, _ in enumerate(entities.expire(watermark_ms), 1):
                if count % most == 0:
                    self.flush()

    def flush(self) -> None:
        """Refit what is stale and write everything to the store; safe from a checkpoint on."""
        for effect in self.effects:
            effect.flush()
        self._overlay.flush_in_parts()

    @property
    def is_full(self) -> bool:
        """Whether what is in memory should be flushed now."""
        return any(effect.is_full for effect in self.effects)

    def published(self, coefficients: Coefficients) -> Coefficients:
        """Coefficients of an entity as a worker would publish them."""
        return self.jobs.published(self.members.published(coefficients))

    def drop_cached(self) -> None:
        """Keep nothing of the effects in memory; all was flushed."""
        for effect in self.effects:
            effect.discard()

    def counts(self) -> RunCounts:
        """Return what was counted so far."""
        timeliness = self._timeliness
        return RunCounts(
            dead_letters=dict(self._dead_letters),
            ignored=dict(self._ignored),
            labels=dict(timeliness.labels),
            flips=dict(timeliness.flips),
            first_within=dict(timeliness.first_within),
            positives_within=dict(timeliness.positives_known_within),
            refits={effect.name: effect.fitter.refits for effect in self.effects},
            applications=self._applications,
            closed=timeliness.closed,
            decisions=self.decisions,
            member_decisions=self.member_decisions,
            matches=self._matches,
        )

    def restore(self, counts: RunCounts, rows: bytes) -> None:
        """Go on from what was counted before, with the rows of ``prequential``."""
        timeliness = self._timeliness
        self._dead_letters = Counter(counts.dead_letters)
        self._ignored = Counter(counts.ignored)
        timeliness.labels = Counter(counts.labels)
        timeliness.flips = Counter(counts.flips)
        timeliness.first_within = Counter(counts.first_within)
        timeliness.positives_known_within = Counter(counts.positives_within)
        for effect in self.effects:
            effect.fitter.refits = counts.refits[effect.name]
        self._applications = counts.applications
        timeliness.closed = counts.closed
        self.prequential.extend(rows)
        self.decisions = counts.decisions
        self.member_decisions = counts.member_decisions
        self._matches = counts.matches
