"""The entities of one effect: who comes, and who goes when.

With ``entity_ttl`` an entity goes when the watermark of its stage is past T + ``entity_ttl``, T
being its newest application. One that is learned of again begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream.events import Label
from stream.policy import EffectSettings
from stream.state.ages import EntityAges
from stream.state.overlay import Overlay
from stream.updaters.effect import Effect


class Entities:
    """Lets an effect learn, and entities go.

    Args:
        effect: of the entities.
        overlay: where they are kept. Making this may put writes into it.
        settings: the effect's.

    """

    def __init__(self, effect: Effect, overlay: Overlay, settings: EffectSettings) -> None:
        self._effect = effect
        self._ttl_ms = settings.entity_ttl_ms
        self._ages = EntityAges(effect.name, overlay, kept=self._ttl_ms is not None)

    def learn(self, label: Label) -> None:
        """Take a label in."""
        if self._effect.learn(label):
            self._ages.enter(self._effect.entity_of(label), label.application_time_ms)

    def leave(self, watermark_ms: int | None) -> Iterator[str | None]:
        """Let everybody go whose time is over, one step after the other.

        Each step gives who went, or None where one who was looked at stays. The caller may flush
        after any step.
        """
        if watermark_ms is None or self._ttl_ms is None:
            return
        limit_ms = watermark_ms - self._ttl_ms
        while found := self._ages.before(limit_ms):
            for entered_ms, entity_id in found:
                self._ages.remove(entity_id, entered_ms)
                newest_ms = self._effect.newest_ms(entity_id)
                if newest_ms is not None and newest_ms < limit_ms:
                    self._effect.forget(entity_id)
                    yield entity_id
                    continue
                if newest_ms is not None:
                    self._ages.enter(entity_id, newest_ms)
                yield None
