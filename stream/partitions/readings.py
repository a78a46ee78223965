"""How far a partition has read what it learns of, for whoever waits for what he has written.

A record in ``coefficients``, in the transaction of each unit of work that has moved the position,
also of one that changed nothing else: who has read up to such a record, in all partitions, has all
that the inputs before it have led to.
"""

from __future__ import annotations

from stream import effects
from stream.events.records import COEFFICIENTS, Message
from stream.events.structs import CONTROL, Coefficients
from stream.events.wire import coefficients_key, encode


class Readings:
    """The records of one partition.

    Args:
        stage: of it. number: of it. topic: whose position is told.

    """

    def __init__(self, stage: effects.Stage, number: int, topic: str) -> None:
        self._entity_id = f"read:{stage}:{number}"
        self._key = coefficients_key(CONTROL, self._entity_id)
        self._place = f"{topic}/{number}"
        self._told: int | None = None

    def take(self, position: int | None, now_ms: int) -> list[Message]:
        """Return what is to be sent: nothing, if the position was told already.

        Args:
            position: the next offset. now_ms: the wall clock.

        """
        if position is None or position == self._told:
            return []
        self._told = position
        record = Coefficients(
            effect=CONTROL,
            entity_id=self._entity_id,
            model_version="",
            mean=[],
            variance=[],
            examples=0,
            event_time_ms=0,
            read={self._place: position},
        )
        return [Message(COEFFICIENTS, self._key, encode(record), None, now_ms)]
