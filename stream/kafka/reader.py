"""SHELL: reads partitions of topics: only what is committed, from an offset on, and to the end.

All that reads Kafka outside of a worker's consumer group does it with this: recovery and standbys,
commands, bootstrap, verification, and the lookup of coefficients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self

import msgspec
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from stream.errors import BrokerError, HearbackError, InterruptedSessionError
from stream.kafka.cluster import client_settings, is_embedded
from stream.kafka.refusals import error_of

_ANSWER_S = 10.0
_POLL_S = 0.05
_RECORDS = 2_000  # asked for at once
_FIRST_RECORDS = 64  # while it is not known how large they are
_POLL_BYTES = 2 << 20  # asked for at once, about
_AHEAD_BYTES = 32 << 20
_HELD_MS = 500  # so long a broker holds its answer back where there is nothing new
_SILENCE_S = 30.0  # without a record or an end, before that is an error
_DAMAGED = {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED}
_LOST = {KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART} | _DAMAGED


class Chunk(msgspec.Struct):
    """What came of one partition.

    Attributes:
        topic, partition: where it was read.
        records: offset, key, value of each; the value of a tombstone is None.
        next: the offset to go on from; at the end of the partition it is past what follows the
            last record, such as the end of a transaction.
        at_end: whether there is no more for now.
        error: what the broker says of the partition, if anything.
        times_ms: of each record, Kafka's own, where the reader is told to give them.

    """

    topic: str
    partition: int
    records: list[tuple[int, bytes, bytes | None]] = []
    next: int = 0
    at_end: bool = False
    error: KafkaError | None = None
    times_ms: list[int] = []

    @property
    def lost(self) -> bool:
        """Whether the partition cannot be read on: topic, position or records are gone."""
        return self.error is not None and self.error.code() in _LOST

    @property
    def damaged(self) -> bool:
        """Whether records could not be read; librdkafka goes on behind them, with a hole."""
        return self.error is not None and self.error.code() in _DAMAGED


class Reader:
    """Reads some partitions, without a group. All methods block and raise BrokerError.

    (ConfigError where trying again would not help.) A context manager; to be used by one thread.

    Args:
        broker: where they are.
        ahead_bytes: how much is fetched before it is asked for, about.
        follows: whether it waits for what comes; else an end is told at once.
        times: whether the records' times are given.

    Raises:
        BrokerError: no broker answers.

    """

    def __init__(
        self,
        broker: str,
        ahead_bytes: int = _AHEAD_BYTES,
        *,
        follows: bool = True,
        times: bool = False,
    ) -> None:
        self._times = times
        self._records = _FIRST_RECORDS
        self._consumer = Consumer(
            client_settings(broker)
            | {
                "group.id": "hearback-reader",  # required, and not used
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "check.crcs": not is_embedded(broker),
                "queued.max.messages.kbytes": ahead_bytes >> 10,
                "fetch.max.bytes": ahead_bytes,
                "fetch.queue.backoff.ms": 10,
                "fetch.wait.max.ms": _HELD_MS if follows else 10,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def span(self, topic: str, partition: int) -> tuple[int, int]:
        """Return where a partition starts and ends."""
        try:
            start, end = self._consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=_ANSWER_S
            )
        except KafkaException as error:
            raise _unreadable(topic, partition, error) from None
        return int(start), int(end)

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """Return the first offset of a record time or later; the end, where nothing is as late."""
        try:
            (found,) = self._consumer.offsets_for_times(
                [TopicPartition(topic, partition, time_ms)], timeout=_ANSWER_S
            )
        except KafkaException as error:
            raise _unreadable(topic, partition, error) from None
        return found.offset if found.offset >= 0 else self.span(topic, partition)[1]

    def follow(self, topic: str, partition: int, offset: int = 0) -> None:
        """Read a partition from an offset on; 0 is where it starts."""
        try:
            self._consumer.incremental_assign(
                [TopicPartition(topic, partition, offset or OFFSET_BEGINNING)]
            )
        except KafkaException as error:
            raise _unreadable(topic, partition, error) from None

    def leave(self, topic: str, partition: int) -> None:
        """Read a partition no longer."""
        with suppress(KafkaException):  # it is not read as it is
            self._consumer.incremental_unassign([TopicPartition(topic, partition)])

    def poll(self, wait_s: float = _POLL_S) -> list[Chunk]:
        """Return what has come of the partitions that are followed, each one's in one chunk."""
        chunks: dict[tuple[str | None, int | None], Chunk] = {}
        size = 0
        messages = self._consumer.consume(self._records, wait_s)
        for message in messages:
            size += len(message)
            place = message.topic(), message.partition()
            chunk = chunks.get(place)
            if chunk is None:
                chunk = chunks[place] = Chunk(place[0] or "", place[1] or 0)
            error, offset = message.error(), message.offset() or 0
            if error is None:
                chunk.records.append((offset, message.key() or b"", message.value()))
                if self._times:
                    chunk.times_ms.append(message.timestamp()[1])
                chunk.next = offset + 1
                chunk.at_end = False
            elif error.code() == KafkaError._PARTITION_EOF:
                chunk.next = offset
                chunk.at_end = True
            elif not chunk.lost:  # or another error would hide that it is
                chunk.error = error
        if size:
            self._records = max(1, min(_RECORDS, _POLL_BYTES * len(messages) // size))
        return list(chunks.values())

    def to_end(
        self,
        topic: str,
        partition: int,
        offset: int = 0,
        *,
        least: int = 0,
        go_on: Callable[[], bool] = lambda: True,
    ) -> Iterator[Chunk]:
        """Read one partition from an offset to its end; the last chunk is at the end.

        Args:
            topic: its topic. partition: its number.
            offset: where to begin; 0 is where it starts.
            least: an end before this one is not the real one: a broker does not show for a moment
                what it has confirmed.
            go_on: asked again and again; False: give up.

        Raises:
            BrokerError: it cannot be read. InterruptedSessionError: ``go_on`` said no.

        """
        self.follow(topic, partition, offset)
        try:
            heard_s = time.monotonic()
            while True:
                for chunk in self.poll():
                    heard_s = time.monotonic()
                    if chunk.error is not None:
                        raise _unreadable(topic, partition, KafkaException(chunk.error))
                    chunk.at_end = chunk.at_end and chunk.next >= least
                    yield chunk
                    if chunk.at_end:
                        return
                if not go_on():
                    raise InterruptedSessionError("a rebalance has begun")
                if time.monotonic() - heard_s > _SILENCE_S:
                    raise BrokerError(f"{topic}-{partition}: its broker sends nothing")
        finally:
            self.leave(topic, partition)


def _unreadable(topic: str, partition: int, error: KafkaException) -> HearbackError:
    return error_of(error, f"{topic}-{partition} cannot be read")
