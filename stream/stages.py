"""The two stages, over structs: who scores, who labels, who learns.

An application travels member → job → member, one turn of coordinate descent: the member stage
attaches the member's score, the job stage adds the global and the job score, labels and learns,
and the label goes back to the member stage, which learns it too. The replay calls these stages
record by record; :mod:`stream.partitions` puts decoding, routing and positions around them for the
worker.
"""

from __future__ import annotations

from collections import Counter

from stream.errors import NoScoreError
from stream.events import (
    Application,
    DeadLetter,
    Engagement,
    JobEvent,
    Label,
    ScoredApplication,
    Source,
)
from stream.global_model import NO_MODEL, GlobalModel
from stream.labels.changes import Change, Scores
from stream.labels.machine import LabelMachine
from stream.policy import Policy
from stream.state.facts import StoredFacts
from stream.state.overlay import Overlay
from stream.state.posteriors import StoredPosteriors
from stream.updaters.effect import Effect


class MemberStage:
    """Scores members and learns their labels, for one partition's members.

    Args:
        overlay: where posteriors are kept.
        size: d of the per-member block.
        policy: settings of the effect.
        model_version: of the frozen global model.

    """

    def __init__(self, overlay: Overlay, size: int, policy: Policy, model_version: str) -> None:
        self.effect = Effect(
            "per_member",
            size,
            policy.per_member.fitted(size),
            model_version,
            StoredPosteriors("per_member", overlay),
        )

    def score(self, app: Application) -> float:
        """Log-odds of the member's effect, before anything of this application is learned."""
        return self.effect.score(app.member_id, app.features.per_member)

    def learn(self, label: Label) -> None:
        """Take a label in."""
        self.effect.learn(label)


class JobStage:
    """Labels applications and learns them per job, for one partition's jobs.

    Args:
        overlay: where facts and posteriors are kept.
        size: d of the per-job block.
        policy: label policy and settings of the effect.
        model: the frozen global model; None when every application brings ``global_score``.

    Attributes:
        dead_letters: set aside since the shell last took them (engagements that expired).

    """

    def __init__(
        self, overlay: Overlay, size: int, policy: Policy, model: GlobalModel | None
    ) -> None:
        self.dead_letters: list[DeadLetter] = []
        self._model = model
        self.model_version = NO_MODEL if model is None else model.version
        self.effect = Effect(
            "per_job",
            size,
            policy.per_job.fitted(size),
            self.model_version,
            StoredPosteriors("per_job", overlay),
        )
        self._machine = LabelMachine(
            policy.labels, StoredFacts(overlay), Counter(), self.dead_letters.append
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
    ) -> tuple[Scores | None, list[Change]]:
        """Score, enter and label an application.

        Returns its scores as of now (None for a repeat or a late one, which are not scored), and
        the labels that its reading settled, all of them learned.
        """
        app = scored.application
        if not self._machine.admit(app, watermark_ms):
            return None, []
        scores = Scores(
            self._global_score(app),
            scored.member_score,
            self.effect.score(app.job_id, app.features.per_job),
        )
        return scores, self._learn(self._machine.add(app, scores, scored.partition, watermark_ms))

    def engagement(
        self, event: Engagement, source: Source, watermark_ms: int | None
    ) -> list[Change]:
        """Apply a recruiter's action; the labels that it changed are learned."""
        return self._learn(self._machine.engagement(event, source, watermark_ms))

    def job_event(self, event: JobEvent, watermark_ms: int | None) -> list[Change]:
        """Apply a job event; the labels that it changed are learned."""
        return self._learn(self._machine.job_event(event, watermark_ms))

    def close_due(self, watermark_ms: int | None) -> list[Change]:
        """Close the windows that the watermark is past; the final labels are learned."""
        if watermark_ms is None:
            return []
        return self._learn(list(self._machine.close_due(watermark_ms)))

    def label(self, change: Change) -> Label:
        """Self-contained training example of a change."""
        return label_of(change, self.model_version)

    def _learn(self, changes: list[Change]) -> list[Change]:
        for change in changes:
            if change.label:
                self.effect.learn(self.label(change))
        return changes

    def _global_score(self, app: Application) -> float:
        if app.global_score is not None:
            return app.global_score
        if self._model is None or app.features.global_ is None:
            raise NoScoreError(
                f"application {app.application_id} carries no global_score and there is no model"
                " (pass one with --model)"
            )
        return self._model.score(app.features.global_)


def label_of(change: Change, model_version: str) -> Label:
    """Self-contained training example of a change."""
    facts = change.facts
    kind, previous = change.kind, change.previous
    return Label(
        application_id=change.application_id,
        member_id=facts.member_id,
        job_id=change.job_id,
        label=kind.label,
        kind=kind.wire,
        previous=previous.wire if previous else None,
        rule=facts.rule,
        final=change.final,
        weight=1.0,
        application_time_ms=facts.event_time_ms,
        evidence_time_ms=change.evidence_time_ms,
        label_time_ms=change.label_time_ms,
        model_version=model_version,
        per_member=facts.per_member,
        per_job=facts.per_job,
        global_score=facts.global_score,
        member_score=facts.member_score,
        job_score=facts.job_score,
        channel=facts.channel,
        terms=facts.terms,
    )
