"""SHELL: how far the worker is behind, where a broker drops what is old, read or not.

The embedded broker keeps the newest 5 MB of a partition. Whoever writes there asks a
:class:`Throttle` how much the worker has not read yet, and waits.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import confluent_kafka

from stream.errors import BrokerError

MAX_UNREAD_BYTES: Final = 1_000_000
"""How much may be unread in any partition: a fifth of what the embedded broker keeps."""

RECORD_BYTES: Final = 70
"""A record's own fields beside key and value, at most: they are part of what a broker keeps."""

GROWTH: Final = 3
"""How many times an application's size a message of the worker has, at most: it carries the
features of an application with all the digits of a float32, and some fields more."""

ANSWER_S: Final = 10.0
"""How long the broker may take to answer one question."""

_UNKNOWN_BYTES: Final = 1_000  # of an application, while none was sent
_PATIENCE_S: Final = 60.0  # how long it may fail to, before that is an error
_PAUSE_S: Final = 0.1  # between two tries


class Throttle:
    """Knows how much is unread, by the offsets that the worker's group committed.

    Of what was sent by this producer (:meth:`delivered`) the bytes are known. Of everything else,
    such as what the worker writes for itself, only the number of unread messages is, and each
    counts as :data:`GROWTH` average applications (:meth:`saw_application`).

    Args:
        settings: librdkafka's, with ``bootstrap.servers``.
        group: the worker's consumer group.
        topics: all that the worker reads.
        written: those of them that this producer writes.
        partitions: how many each of them has.

    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        group: str,
        topics: Sequence[str],
        written: Sequence[str],
        partitions: int,
    ) -> None:
        self._group = group
        self._where = [
            confluent_kafka.TopicPartition(topic, partition)
            for topic in topics
            for partition in range(partitions)
        ]
        # Of what was sent from here and may be unread: (offset after it, bytes).
        self._sent: dict[tuple[str, int], deque[tuple[int, int]]] = {
            (topic, partition): deque() for topic in written for partition in range(partitions)
        }
        self._sent_bytes: Counter[tuple[str, int]] = Counter()
        self._applications = 0
        self._bytes_of_applications = 0
        # It never subscribes, so it is no member of the group.
        self._consumer = confluent_kafka.Consumer(
            {**settings, "group.id": group, "enable.auto.commit": False}
        )

    def saw_application(self, size: int) -> None:
        """Count one towards the average."""
        self._applications += 1
        self._bytes_of_applications += size

    def delivered(self, message: confluent_kafka.Message) -> None:
        """Note what the broker has taken."""
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is None or partition is None or offset is None:
            return
        size = len(message.value() or b"") + len(message.key() or b"") + RECORD_BYTES
        self._sent[topic, partition].append((offset + 1, size))
        self._sent_bytes[topic, partition] += size

    def most_unread(self) -> tuple[int, str]:
        """Tell the bytes unread where most are, and where that is, as text.

        Everything sent must have been delivered.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._most_unread()
            except confluent_kafka.KafkaException as error:
                if time.monotonic() > deadline:
                    raise BrokerError(
                        f"the broker does not tell what group {self._group} has read: "
                        f"{error.args[0].str()}"
                    ) from error
                time.sleep(_PAUSE_S)

    def has_unread_sent(self) -> bool:
        """Tell whether anything sent by this producer was unread at the last look."""
        return any(self._sent.values())

    def _most_unread(self) -> tuple[int, str]:
        mean = self._bytes_of_applications / self._applications if self._applications else 0.0
        average = GROWTH * (mean or _UNKNOWN_BYTES) + RECORD_BYTES
        worst = 0, ""
        for at in self._consumer.committed(self._where, timeout=ANSWER_S):
            begin, end = self._kept(at)
            # No commit yet is a negative offset: the worker will start at the beginning.
            read_to = max(at.offset, begin)
            sent = self._sent.get((at.topic, at.partition))
            unread = 0.0
            if sent is not None:
                while sent and sent[0][0] <= read_to:
                    self._sent_bytes[at.topic, at.partition] -= sent.popleft()[1]
                unread = self._sent_bytes[at.topic, at.partition]
                if sent:  # what was there before comes first
                    end = sent[0][0] - 1
            unread += max(end - read_to, 0) * average
            if unread > worst[0]:
                worst = math.ceil(unread), f"{at.topic}/{at.partition} (group {self._group})"
        return worst

    def _kept(self, at: confluent_kafka.TopicPartition) -> tuple[int, int]:
        """Give the first offset that the broker keeps and the next that it will give."""
        try:
            return self._consumer.get_watermark_offsets(at, timeout=ANSWER_S, cached=False)
        except confluent_kafka.KafkaException as error:
            if error.args[0].code() in {
                confluent_kafka.KafkaError._UNKNOWN_PARTITION,
                confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART,
            }:
                return 0, 0  # the worker has not written there yet
            raise

    def end(self) -> None:
        """Close the connection."""
        self._consumer.close()
