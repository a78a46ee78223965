"""SHELL: what topics take at once, where one of them takes less than it should.

A worker does not start on such topics (:mod:`stream.worker.topics`). One that is made tight later
refuses a transaction, however often it is tried. Therefore, once one has, what a topic cannot take
is left out before it is sent: it costs that message, and the partition goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from stream.errors import ConfigError
from stream.events.records import (
    DEAD_LETTERS,
    MAX_DEAD_LETTER_BYTES,
    MAX_SENT_BYTES,
    WRITTEN,
    Message,
    TopicNames,
)
from stream.kafka.cluster import settings_of_topics
from stream.kafka.refusals import set_right
from stream.worker.changelog import MAX_WRITE_BYTES

_SETTINGS = ("max.message.bytes", "segment.bytes")
_ANSWER_S = 10.0
_AGAIN_S = 10.0  # until the broker is asked once more, before messages are left out
_FRAMING_BYTES = 128  # of a batch of one message, generously
_LETTER_BYTES = MAX_DEAD_LETTER_BYTES + (8 << 10)  # of a dead letter, generously


class _Limit(NamedTuple):
    bytes: int
    setting: str


class TopicLimits:
    """What the topics of an application id take at once; shared by all sessions of a worker.

    Args:
        broker: where they are. names: what they are called. changelogs: their names.

    """

    def __init__(self, broker: str, names: TopicNames, changelogs: Sequence[str]) -> None:
        self._broker = broker
        self._names = names
        self._changelogs = changelogs
        self._tight: dict[str, _Limit] = {}  # by plain name, of those below what is needed
        self._asked_s = -_AGAIN_S
        self.doubtful = False
        """Whether a topic has refused something since the broker was asked."""

    @property
    def at_once(self) -> int:
        """The most bytes that every topic takes at once."""
        return min((limit.bytes for limit in self._tight.values()), default=MAX_SENT_BYTES)

    def ask(self) -> None:
        """Ask the broker; blocks.

        Raises:
            ConfigError: without this topic's taking more, nothing can be done.
            BrokerError: no answer.

        """
        self._asked_s = time.monotonic()
        called = {self._names.of(topic): topic for topic in WRITTEN}
        found = settings_of_topics(self._broker, [*called, *self._changelogs], _ANSWER_S)
        limits = {
            name: min(_Limit(int(settings[setting]), setting) for setting in _SETTINGS)
            for name, settings in found.items()
        }
        needed = dict.fromkeys(self._changelogs, MAX_WRITE_BYTES)
        for name, least in (needed | {self._names.of(DEAD_LETTERS): _LETTER_BYTES}).items():
            limit = limits[name]
            if limit.bytes < least:
                raise ConfigError(
                    f"{name} takes no more than {limit.bytes} bytes at once:"
                    f" {set_right(name, {limit.setting: str(max(least, MAX_SENT_BYTES))})}"
                )
        self._tight = {
            topic: limits[name]
            for name, topic in called.items()
            if limits[name].bytes < MAX_SENT_BYTES
        }
        self.doubtful = False

    def refused(self, unit: Sequence[Message]) -> dict[int, str]:
        """Tell which messages their topics cannot take, by place, and why; blocks.

        Raises:
            ConfigError, BrokerError: as :meth:`ask`.

        """
        found = self._refused(unit)
        if found and time.monotonic() - self._asked_s > _AGAIN_S:
            self.ask()  # by now they may take more
            found = self._refused(unit)
        return found

    def _refused(self, unit: Sequence[Message]) -> dict[int, str]:
        found: dict[int, str] = {}
        for number, message in enumerate(unit) if self._tight else ():
            limit = self._tight.get(message.topic)
            if limit is not None and (size := _size(message)) > limit.bytes:
                name = self._names.of(message.topic)
                found[number] = (
                    f"{name} takes {limit.bytes} bytes at once, not {size}:"
                    f" {set_right(name, {limit.setting: str(MAX_SENT_BYTES)})}"
                )
        return found


def _size(message: Message) -> int:
    """Bytes of a message, as if nothing compressed it."""
    headers = sum(len(name) + len(value) for name, value in message.headers)
    return _FRAMING_BYTES + len(message.key or b"") + len(message.value or b"") + headers
