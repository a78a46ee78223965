"""SHELL: event time, as the newest labels tell it."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from stream.errors import BrokerError
from stream.kafka.reader import Reader

_TAIL: Final = 100
"""Records at the end of a partition that are looked at: labels, and the ends of transactions."""

_SILENCE_S: Final = 30.0


class _Times(msgspec.Struct, tag_field="type", tag="label"):
    application_time_ms: int
    label_time_ms: int
    evidence_time_ms: int | None = None


def newest_label_ms(broker: str, topic: str, partitions: int) -> int:
    """Return the newest time (ms) at which a label of a topic could be known; 0: there is none.

    A single application with a wrong clock does not move it: its label would have to be known.

    Raises:
        BrokerError: the topic cannot be read.

    """
    newest_ms, left = 0, set[int]()
    with Reader(broker, follows=False) as reader:
        for partition in range(partitions):
            start, end = reader.span(topic, partition)
            if start < end:
                reader.follow(topic, partition, max(start, end - _TAIL))
                left.add(partition)
        deadline = time.monotonic() + _SILENCE_S
        while left:
            for chunk in reader.poll():
                if chunk.error is not None:
                    raise BrokerError(f"{topic}-{chunk.partition} cannot be read: {chunk.error}")
                for _, _, value in chunk.records:
                    newest_ms = max(newest_ms, _known_ms(value))
                if chunk.at_end:
                    left.discard(chunk.partition)
                    reader.leave(topic, chunk.partition)
            if time.monotonic() > deadline:
                raise BrokerError(f"{topic}: the brokers of partitions {sorted(left)} send nothing")
    return newest_ms


def _known_ms(value: bytes | None) -> int:
    if value is None:
        return 0
    try:
        found = msgspec.json.decode(value, type=_Times)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0
    at_ms = found.label_time_ms if found.evidence_time_ms is None else found.evidence_time_ms
    return max(at_ms, found.application_time_ms)
