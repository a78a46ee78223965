"""The per-member stage: the member's score, and what the member learns of the labels."""

from __future__ import annotations

from stream.events.structs import Application, Label, ScoredApplication
from stream.features.blocks import FeatureSpace
from stream.policy import Policy
from stream.stages.base import Stage
from stream.stages.histories import MemberHistories
from stream.state.overlay import Overlay
from stream.updaters.effect import MOST_HELD


class MemberStage(Stage):
    """Scores members and learns their labels, for one partition's members.

    Args:
        overlay, space, policy, model_version, most_held: those of every stage.

    """

    stage = "member"

    def __init__(
        self,
        overlay: Overlay,
        *,
        space: FeatureSpace,
        policy: Policy,
        model_version: str,
        most_held: int = MOST_HELD,
    ) -> None:
        super().__init__(
            overlay, space=space, policy=policy, model_version=model_version, most_held=most_held
        )
        self._histories: MemberHistories | None = None
        if policy.features.histories:
            self._histories = MemberHistories(overlay, policy.labels.window_ms)
            self.entities.histories = self._histories

    def score(
        self, app: Application, partition: int, watermark_ms: int | None
    ) -> ScoredApplication:
        """Score an application and read the member's history, before anything of it is learned.

        Args:
            app: the application. partition: the input partition it was read from.
            watermark_ms: that partition's.

        """
        score = self.effect.score_of(app)
        further = self.further_scores(app) if self.further else None
        history = self.history(
            app.member_id, app.job_id, app.application_id, app.event_time_ms, watermark_ms
        )
        return ScoredApplication(app, score, partition, watermark_ms, further, history)

    def history(
        self,
        member_id: str,
        job_id: str,
        application_id: str,
        time_ms: int,
        watermark_ms: int | None,
    ) -> bytes | None:
        """Read a member's history, float32 of shape (12,), and count an application.

        None: none is kept, or the application comes after its window.
        """
        if self._histories is None:
            return None
        return self._histories.first_sight(
            member_id=member_id,
            job_id=job_id,
            application_id=application_id,
            time_ms=time_ms,
            watermark_ms=watermark_ms,
            counts=self.entities.counts(member_id, time_ms),
        )

    def learn(self, label: Label) -> None:
        """Take a label in."""
        for entities in self.learners:
            entities.learn(label)
        if (
            self._histories is not None
            and label.evidence_time_ms is not None
            and self.entities.counts(label.member_id, label.application_time_ms)
        ):
            self._histories.learn(label)
