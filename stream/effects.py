"""The random effects: each declared once.

An effect is one family of small models. Its declaration says which stage learns it, which feature
block its coefficients multiply, and which id of an application names the entity. Settings, keys,
metrics and messages go by its name. What takes effects (a policy above all) takes any number of
them; :data:`EFFECTS` are those that are shipped.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Stage = Literal["member", "job"]


class EffectSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One effect.

    An entity that is not what the stage's topics are keyed by is learned by each partition apart.

    Attributes:
        name: in settings, keys of the state, metrics and messages.
        stage: that scores and learns it.
        block: the feature block that its coefficients multiply.
        entity: the field of applications and labels with the entity's id. An application without
            one scores 0 and teaches nothing.
        score: the field of labels with its score at first sight; None: it is one of their
            ``further_scores``.

    """

    name: str
    stage: Stage
    block: str
    entity: str
    score: str | None = None

    @property
    def kind(self) -> str:
        """What its entities are: ``member`` or ``job``."""
        return self.entity.removesuffix("_id")


MEMBER = EffectSpec(
    name="per_member", stage="member", block="per_member", entity="member_id", score="member_score"
)
JOB = EffectSpec(name="per_job", stage="job", block="per_job", entity="job_id", score="job_score")

EFFECTS: tuple[EffectSpec, ...] = (MEMBER, JOB)
EFFECT_NAMES = tuple(spec.name for spec in EFFECTS)
