"""What both stages have in common: the effects that they score and learn."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from stream import effects
from stream.events.structs import Application, Coefficients, FurtherScores
from stream.features.blocks import FeatureSpace
from stream.policy import Policy
from stream.stages.entities import Entities
from stream.stages.succession import Roll, StoredModel, Succession
from stream.state.census import Census
from stream.state.entities import StoredPosteriors
from stream.state.overlay import Overlay
from stream.updaters.effect import MOST_HELD, Effect


class Stage:
    """Scores and learns all effects of a stage, for one partition's members or jobs.

    Args:
        overlay: where posteriors are kept.
        space: the feature blocks.
        policy: the effects and their settings.
        model_version: of the global model that a new state begins with.
        most_held: examples that an effect keeps in memory.

    Attributes:
        effect: the stage's own, of the member or the job. further: declared besides.
        entities: of ``effect``. learners: entities of all effects, its own first.
        census: how many there are of what is kept.
        succession: names of the global models, and which of them is in force when.

    """

    stage: ClassVar[effects.Stage]

    def __init__(
        self,
        overlay: Overlay,
        *,
        space: FeatureSpace,
        policy: Policy,
        model_version: str,
        most_held: int = MOST_HELD,
    ) -> None:
        self.succession = Succession(overlay, model_version)
        self.census = Census(overlay, self.stage)
        settings = space.fitted(policy)
        self.effects = [
            Effect(
                spec,
                space.block(spec.block).size,
                settings=settings[spec.name],
                model_version=model_version,
                book=StoredPosteriors(spec.name, overlay),
                most_held=most_held,
            )
            for spec in policy.of_stage(self.stage)
        ]
        self.learners = [Entities(each, overlay, policy, self.census) for each in self.effects]
        self.effect, *self.further = self.effects
        self.entities = self.learners[0]

    def further_scores(
        self, app: Application, before: FurtherScores | None = None
    ) -> FurtherScores:
        """Scores of the further effects, of which there are some, with those of a stage before."""
        return {**(before or {}), **{each.name: each.score_of(app) for each in self.further}}

    def roll(self, model: StoredModel, from_ms: int, issued_ms: int) -> bool:
        """Let another global model score the applications from a time on.

        Each ``issued_ms`` counts once, and none that is not newer than those before: then nothing
        happens, and the answer is False.
        """
        if issued_ms <= self.succession.rolls[-1].issued_ms:
            return False
        self._roll(model, from_ms, issued_ms)
        return True

    def _roll(self, model: StoredModel, from_ms: int, issued_ms: int) -> None:
        self.succession.add(Roll(from_ms, model.manifest.model_version, issued_ms))

    def published(self, coefficients: Coefficients) -> Coefficients:
        """Coefficients of an entity of the stage as they are published.

        With the version of the model that scores the entity's newest application, and, of the
        stage's own effect, with its history, if it has one.
        """
        version = self.succession.version_at(coefficients.event_time_ms)
        if version != coefficients.model_version:
            coefficients = msgspec.structs.replace(coefficients, model_version=version)
        histories = self.entities.histories
        if histories is None or coefficients.effect != self.effect.name:
            return coefficients
        summary = histories.summary(coefficients.entity_id)
        if summary is None:
            return coefficients
        return msgspec.structs.replace(coefficients, history=summary)

    @property
    def has_worked(self) -> bool:
        """Whether refits have taken as long as a worker may be without a pause."""
        for effect in self.effects:  # noqa: SIM110 - quicker; asked after every record
            if effect.has_worked:
                return True
        return False

    @property
    def some_may_expire(self) -> bool:
        """Whether some entity's time may be over though the watermark stands where it did."""
        for entities in self.learners:  # noqa: SIM110 - quicker; asked after every record
            if entities.some_may_expire:
                return True
        return False
