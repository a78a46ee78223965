"""What readers of the coefficients have to know besides: control records, as partitions send them.

They say what holds for all coefficients of an effect that one partition publishes
(:class:`~stream.events.structs.Control`). A partition sends them with the first coefficients that
it publishes after it was opened, and whenever they change.
"""

from __future__ import annotations

from collections.abc import Mapping

from stream import effects
from stream.events.records import COEFFICIENTS, Message
from stream.events.structs import CONTROL, Coefficients, Control, ModelSince
from stream.events.wire import coefficients_key, encode
from stream.features.blocks import FeatureSpace
from stream.policy import Policy
from stream.stages.succession import Roll, Succession


def priors_of(policy: Policy, stage: effects.Stage, space: FeatureSpace) -> dict[str, list[float]]:
    """Prior precisions (d,) of the effects of a stage, by name."""
    return {
        spec.name: policy.effects[spec.name].precisions(space.block(spec.block).names)
        for spec in policy.of_stage(stage)
    }


class Controls:
    """The control records of one partition.

    Args:
        number: of the partition.
        priors: of each of its effects, the prior precision of every coefficient (d,).
        succession: of the global models.
        gated: the effect that has a gate.

    Attributes:
        due: whether there is anything that readers have to know it for.

    """

    def __init__(
        self, number: int, priors: Mapping[str, list[float]], succession: Succession, gated: str
    ) -> None:
        self.due = False
        self._gated = gated
        self._number = number
        self._priors = priors
        self._succession = succession
        self._told: tuple[bool, tuple[Roll, ...]] | None = None

    def take(self, now_ms: int, *, gate_open: bool) -> list[Message]:
        """Return what is to be sent: nothing, if it was said already.

        Args:
            now_ms: the wall clock.
            gate_open: whether the gate is.

        """
        now = gate_open, self._succession.rolls
        if now == self._told or not self.due:
            return []
        self._told = now
        return [
            Message(
                COEFFICIENTS,
                coefficients_key(CONTROL, entity_id),
                encode(self._record(effect, entity_id, gate_open or effect != self._gated)),
                None,
                now_ms,
            )
            for effect in self._priors
            for entity_id in [f"{effect}:{self._number}"]
        ]

    def _record(self, effect: str, entity_id: str, is_open: bool) -> Coefficients:
        models = [
            ModelSince(version, from_ms) for version, from_ms in self._succession.in_order_of_time()
        ]
        return Coefficients(
            effect=CONTROL,
            entity_id=entity_id,
            model_version=models[-1].model_version,
            mean=[],
            variance=[],
            examples=0,
            event_time_ms=models[-1].from_ms,
            control=Control(
                effect=effect,
                partition=self._number,
                models=models,
                gate="open" if is_open else "shut",
                prior_precision=self._priors[effect],
            ),
        )
