"""The per-member stage: the member's score, and what the member learns of the labels."""

from __future__ import annotations

from stream.events.structs import Application, Label, ScoredApplication
from stream.stages.base import Stage


class MemberStage(Stage):
    """Scores members and learns their labels, for one partition's members."""

    stage = "member"

    def score(
        self, app: Application, partition: int, watermark_ms: int | None
    ) -> ScoredApplication:
        """Score an application, before anything of it is learned.

        Args:
            app: the application. partition: the input partition it was read from.
            watermark_ms: that partition's.

        """
        score = self.effect.score_of(app)
        further = self.further_scores(app) if self.further else None
        return ScoredApplication(app, score, partition, watermark_ms, further)

    def learn(self, label: Label) -> None:
        """Take a label in."""
        for entities in self.learners:
            entities.learn(label)
