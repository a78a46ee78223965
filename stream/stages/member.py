"""The per-member stage: the member's score, and what the member learns of the labels."""

from __future__ import annotations

from stream.events.structs import Application, Label
from stream.policy import Policy
from stream.stages.entities import Entities
from stream.state.census import Census
from stream.state.overlay import Overlay
from stream.state.posteriors import StoredPosteriors
from stream.updaters.effect import MOST_HELD, Effect


class MemberStage:
    """Scores members and learns their labels, for one partition's members.

    Args:
        overlay: where posteriors are kept.
        size: d of the per-member block.
        policy: settings of the effect.
        model_version: of the frozen global model.
        most_held: examples that the effect keeps in memory.

    """

    def __init__(
        self,
        overlay: Overlay,
        size: int,
        policy: Policy,
        model_version: str,
        most_held: int = MOST_HELD,
    ) -> None:
        self.census = Census(overlay, "member")
        self.effect = Effect(
            "per_member",
            size,
            policy.effects["per_member"].fitted(size),
            model_version,
            StoredPosteriors("per_member", overlay),
            most_held=most_held,
        )
        self.entities = Entities(self.effect, overlay, policy, self.census)

    def score(self, app: Application) -> float:
        """Log-odds of the member's effect, before anything of this application is learned."""
        return self.effect.score(app.member_id, app.features.per_member)

    def learn(self, label: Label) -> None:
        """Take a label in."""
        self.entities.learn(label)
