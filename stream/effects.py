"""The random effects: each declared once.

An effect is one family of small models. Its declaration says which stage learns it, which feature
block its coefficients multiply, and which id of an application names the entity. Settings, keys,
metrics and messages go by its name.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Stage = Literal["member", "job"]


class EffectSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One effect.

    Attributes:
        name: in settings, keys of the state, metrics and messages.
        stage: that scores and learns it.
        block: the feature block that its coefficients multiply.
        entity: the field of applications and labels with the entity's id.
        score: the field of labels with its score at first sight.

    """

    name: str
    stage: Stage
    block: str
    entity: str
    score: str


MEMBER = EffectSpec(
    name="per_member", stage="member", block="per_member", entity="member_id", score="member_score"
)
JOB = EffectSpec(name="per_job", stage="job", block="per_job", entity="job_id", score="job_score")

EFFECTS: tuple[EffectSpec, ...] = (MEMBER, JOB)
