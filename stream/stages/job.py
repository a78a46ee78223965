"""The per-job stage: global and job score, labels, and what the job learns of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from stream.errors import NoScoreError
from stream.events.structs import (
    Application,
    DeadLetter,
    Engagement,
    JobEvent,
    Label,
    ScoredApplication,
    Source,
)
from stream.labels.changes import Change, Scores, label_of
from stream.labels.machine import LabelMachine
from stream.model.linear import NO_MODEL, GlobalModel
from stream.policy import Policy
from stream.stages.entities import Entities
from stream.state.census import Census
from stream.state.overlay import Overlay
from stream.state.posteriors import StoredPosteriors
from stream.state.stored_facts import StoredFacts
from stream.updaters.effect import MOST_HELD, Effect


class Labelled(msgspec.Struct, frozen=True, gc=False):
    """A change and the label that says so; None where it says nothing new."""

    change: Change
    label: Label | None


Steps = Iterator[Labelled | None]
"""What happens, step by step; None: something ended that has no label."""


class JobStage:
    """Labels applications and learns them per job, for one partition's jobs.

    What may change many labels gives them as an iterator of steps, each learned when it is given.
    It must be iterated to its end; the caller may flush after any step.

    Args:
        overlay: where facts and posteriors are kept.
        size: d of the per-job block.
        policy: label policy and settings of the effect.
        model: the frozen global model; None when every application brings ``global_score``.
        most_held: examples that the effect keeps in memory.

    Attributes:
        dead_letters: set aside since the shell last took them (engagements that expired).

    """

    def __init__(
        self,
        overlay: Overlay,
        size: int,
        policy: Policy,
        model: GlobalModel | None,
        most_held: int = MOST_HELD,
    ) -> None:
        self.dead_letters: list[DeadLetter] = []
        self.census = Census(overlay, "job")
        self._model = model
        self.model_version = NO_MODEL if model is None else model.version
        self.effect = Effect(
            "per_job",
            size,
            policy.effects["per_job"].fitted(size),
            self.model_version,
            StoredPosteriors("per_job", overlay),
            most_held=most_held,
        )
        self.entities = Entities(self.effect, overlay, policy, self.census)
        self._machine = LabelMachine(
            policy.labels,
            StoredFacts(overlay, self.census),
            Counter(),
            self.dead_letters.append,
        )

    @property
    def tally(self) -> Counter[str]:
        """Counts of what was ignored or late, by name; may be set back to a copy."""
        return self._machine.tally

    @tally.setter
    def tally(self, tally: Counter[str]) -> None:
        self._machine.tally = tally

    def application(
        self, scored: ScoredApplication, watermark_ms: int | None
    ) -> tuple[Scores | None, Steps]:
        """Score, enter and label an application.

        Returns its scores as of now (None for a repeat or a late one, which are not scored), and
        the labels that its reading settles.
        """
        app = scored.application
        admission = self._machine.admit(app, watermark_ms)
        if admission is None:
            return None, iter(())
        scores = Scores(
            self._global_score(app),
            scored.member_score,
            self.effect.score(app.job_id, app.features.per_job),
        )
        changes = self._machine.add(admission, scores, scored.partition, watermark_ms)
        return scores, self._learn(changes)

    def engagement(self, event: Engagement, source: Source, watermark_ms: int | None) -> Steps:
        """Apply a recruiter's action; give the labels that it changes."""
        return self._learn(self._machine.engagement(event, source, watermark_ms))

    def job_event(self, event: JobEvent, watermark_ms: int | None) -> Steps:
        """Apply a job event; give the labels that it changes."""
        return self._learn(self._machine.job_event(event, watermark_ms))

    def close_due(self, watermark_ms: int | None) -> Steps:
        """End what the watermark is past, windows above all; one step for each thing that ends."""
        if watermark_ms is None:
            return iter(())
        return self._learn(self._machine.close_due(watermark_ms))

    def _learn(self, changes: Iterable[Change | None]) -> Steps:
        for change in changes:
            if change is None:
                yield None
                continue
            label = label_of(change, self.model_version) if change.label else None
            if label is not None:
                self.entities.learn(label)
            yield Labelled(change, label)

    def _global_score(self, app: Application) -> float:
        if app.global_score is not None:
            return app.global_score
        if self._model is None or app.features.global_ is None:
            raise NoScoreError(
                f"application {app.application_id} carries no global_score and there is no model"
                " (pass one with --model)"
            )
        return self._model.score(app.features.global_)
