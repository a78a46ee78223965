"""How far a partition has read its topics, for whoever waits for what he has written.

A record in ``coefficients``, in the transaction of each unit of work that has moved a position,
also of one that changed nothing else: who has read up to such a record, in all partitions, has all
that the inputs before it have led to. What moves a position without a unit of work (bare
watermarks, ends of transactions) is told soon after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stream import effects
from stream.events.records import COEFFICIENTS, Message
from stream.events.structs import CONTROL, Coefficients
from stream.events.wire import coefficients_key, encode

PAUSE_MS: Final = 500
"""From one record to another that has a unit of work of its own."""


class Readings:
    """The records of one partition.

    Args:
        stage: of it. number: of it.

    """

    def __init__(self, stage: effects.Stage, number: int) -> None:
        self._entity_id = f"read:{stage}:{number}"
        self._key = coefficients_key(CONTROL, self._entity_id)
        self._number = number
        self._told: dict[str, int] = {}
        self._told_ms = 0

    def take(self, positions: Mapping[str, int], now_ms: int) -> list[Message]:
        """Return what is to be sent: nothing, if the positions were told already.

        Args:
            positions: the next offsets by topic. now_ms: the wall clock.

        """
        if positions == self._told:
            return []
        self._told, self._told_ms = dict(positions), now_ms
        record = Coefficients(
            effect=CONTROL,
            entity_id=self._entity_id,
            model_version="",
            mean=[],
            variance=[],
            examples=0,
            event_time_ms=0,
            read={f"{topic}/{self._number}": at for topic, at in positions.items()},
        )
        return [Message(COEFFICIENTS, self._key, encode(record), None, now_ms)]

    def are_due(self, positions: Mapping[str, int], now_ms: int) -> bool:
        """Whether positions have not been told, and nothing has for a while."""
        return positions != self._told and not 0 <= now_ms - self._told_ms < PAUSE_MS
