"""SHELL: a transactional producer, of a session or of a bootstrap.

A session's ``transactional.id`` is that of the partition, whoever owns it, so that fencing ends
whatever an earlier owner still has open, and nothing that this one tries later reaches Kafka.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivery

from stream.errors import (
    BrokerError,
    FencedError,
    HearbackError,
    InterruptedSessionError,
    RefusedError,
    StateError,
)
from stream.events.records import PLAIN, Message, TopicNames
from stream.kafka.cluster import client_settings
from stream.kafka.refusals import TOO_LARGE, error_of
from stream.partitions.progress import LAST_OF_UNIT
from stream.state import keys
from stream.state.store import Writes
from stream.worker.changelog import MAX_VALUE_BYTES, MAX_WRITE_BYTES
from stream.worker.crashpoints import crash_point

TIMEOUT_S = 60.0
"""After so long the broker aborts a transaction that its owner has left open."""

_FENCE_S = 10.0
_SWEEP_S = 10.0
_SWEEP_LOOK_S = 0.5  # between two looks at whether to go on
_COMMIT_TRY_S = 5.0
_QUEUE_S = 0.05  # between two looks at a full queue
_BY_KEY = -1  # the partition is murmur2's choice
_BATCH_BYTES = 900_000  # sent at once; with framing below MAX_SENT_BYTES, as a single message is
_RECENT_MS = 3_600_000
_ENDED = {
    KafkaError._FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_TXN_STATE,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
    KafkaError.UNKNOWN_PRODUCER_ID,
}


ChangelogPartition = tuple[str, int]
"""A changelog topic and the number of one of its partitions."""


class Transactions:
    """One producer, one transaction after another. All methods block.

    Args:
        broker: where to.
        transactional_id: two producers with one are not at work at the same time.
        names: what Kafka calls the topics of messages.
        at_once: the most bytes that go into one batch, unless one message has more.

    """

    def __init__(
        self,
        broker: str,
        transactional_id: str,
        names: TopicNames = PLAIN,
        at_once: int = _BATCH_BYTES,
    ) -> None:
        self._names = names
        self._ends: dict[ChangelogPartition, int] = {}
        self._producer = Producer(
            client_settings(broker)
            | {
                "transactional.id": transactional_id,
                "transaction.timeout.ms": int(TIMEOUT_S * 1000),
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                # The commit sends whatever waits; until then batches may fill.
                "linger.ms": 100,
                # A transaction that follows at once finds the markers of the one before being
                # written, and asks again; the default is to wait 20 ms and more. It doubles.
                "retry.backoff.ms": 2,
                "batch.size": min(at_once, _BATCH_BYTES),
                "message.max.bytes": MAX_WRITE_BYTES,
                "queue.buffering.max.kbytes": 64 << 10,
            }
        )

    def fence(self) -> None:
        """End every earlier owner of the partition; to be called first, once.

        When this returns, they can write no more, and Kafka takes their transactions for ended
        (:meth:`sweep` makes sure of it).

        Raises:
            BrokerError: not within ten seconds.

        """
        try:
            self._producer.init_transactions(_FENCE_S)
        except KafkaException as error:
            raise _lost(error, "earlier owners cannot be fenced") from None

    def sweep(
        self, changelog: ChangelogPartition, outputs: Iterable[str], go_on: Callable[[], bool]
    ) -> bool:
        """Abort what :meth:`fence` should have ended and may have left open.

        After a broker was killed, its coordinator may find no leader for partitions of which it has
        the only copy, take them for deleted, and not write the end of a transaction there. What an
        earlier owner had left open would become visible with the next commit of this one. So
        begin something wherever there is one copy only, and abort it.

        What was committed in the moment of the kill may be left open as well, and is aborted too:
        the changelog, of which it is a part, says what became of it
        (:meth:`stream.worker.changelog.Changelog.bring_up`).

        Args:
            changelog: of the partition.
            outputs: topics that sessions of this partition write to, besides the changelog.
            go_on: False: give up.

        Returns:
            Whether that took a record in the changelog too.

        Raises:
            FencedError: another session owns the partition. BrokerError: it did not come to its
                end. InterruptedSessionError: ``go_on`` said no.

        """
        failed: list[KafkaError] = []
        try:
            alone = self._with_one_copy(changelog, outputs)
            if not alone:
                return False
            self._producer.begin_transaction()
            for topic, partition in alone:
                # A key, because a compacted topic wants one.
                self._producer.produce(
                    *(topic, None, b"swept", partition),
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                )
            deadline = time.monotonic() + _SWEEP_S
            while self._producer.flush(_SWEEP_LOOK_S):
                if not go_on():
                    raise InterruptedSessionError("a rebalance has begun")
                if time.monotonic() > deadline:
                    raise BrokerError("what earlier owners left open cannot be aborted: no answer")
            self._producer.abort_transaction(_SWEEP_S)  # says why, where something has failed
            if failed:
                raise KafkaException(failed[0])
        except KafkaException as error:
            raise _lost(error, "what earlier owners left open cannot be aborted") from None
        return changelog in alone

    def send(
        self,
        messages: Iterable[Message],
        writes: Mapping[ChangelogPartition, Writes],
        go_on: Callable[[], bool],
    ) -> dict[ChangelogPartition, int]:
        """Send outputs and changelog records in one transaction; return when it is committed.

        A commit that is not answered in time is tried again, on this same producer, while
        ``go_on`` says yes: whether it took place is not known, so nothing else may be done.

        Returns:
            The offset after the last record of each changelog partition.

        Raises:
            FencedError: another session owns the partition, or the broker has given this one up.
            BrokerError: the transaction did not come to its end; what it was is not known. Nothing
                more may be sent.
            RefusedError: a topic takes less at once than what was sent.
            ConfigError: a setting of the broker or of a topic lets nothing be sent.
            StateError: a value is larger than the changelog takes.

        """
        try:
            self._producer.begin_transaction()
            crash_point("begun")
            for message in messages:
                self._produce(message)
            crash_point("sending")
            self._ends = {}
            for changelog, records in writes.items():
                self._send_writes(changelog, records)
            crash_point("sent", self._producer.flush)  # they would wait for more, or the commit
            self._commit(go_on)
        except KafkaException as error:
            raise _lost(error, "a unit of work could not be sent") from None
        self._producer.poll(0)
        if self._ends.keys() != writes.keys():
            raise BrokerError("the broker did not say where the changelog's records are")
        return self._ends

    def close(self) -> None:
        """Give up what is on its way."""
        with suppress(KafkaException):  # a producer that was fenced says so again
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._producer.poll(0)
        del self._producer

    def _with_one_copy(
        self, changelog: ChangelogPartition, outputs: Iterable[str]
    ) -> list[tuple[str, int]]:
        """Return the partitions that one broker alone has, of outputs and changelog."""
        found = []
        for topic in (*map(self._names.of, outputs), changelog[0]):
            partitions = self._producer.list_topics(topic, _SWEEP_S).topics[topic].partitions
            for number, partition in partitions.items():
                mine = topic != changelog[0] or number == changelog[1]
                if mine and len(partition.replicas) == 1:
                    found.append((topic, number))
        return found

    def _send_writes(self, changelog: ChangelogPartition, writes: Writes) -> None:
        # What says how far the partition is comes last, so that a reader without transactions
        # knows where a unit ends.
        last = [key for key in writes if key in LAST_OF_UNIT]
        rest = [key for key in writes if key not in LAST_OF_UNIT]
        *others, final = rest + last
        topic, partition = changelog

        def delivered(error: KafkaError | None, message: Delivery) -> None:
            if error is None:
                self._ends[changelog] = (message.offset() or 0) + 1

        for key, value in writes.items():
            if value is not None and len(value) > MAX_VALUE_BYTES:
                raise StateError(
                    f"{keys.in_words(key)} has {len(value)} bytes, and {topic}-{partition} takes"
                    f" {MAX_VALUE_BYTES}"
                )
        for key in others:
            self._enqueue(topic, writes[key], key, partition)
        self._enqueue(topic, writes[final], final, partition, on_delivery=delivered)

    def _produce(self, message: Message) -> None:
        # A producer's own timestamps may be anything. Brokers refuse those ahead of their clock,
        # and delete at once what looks older than a topic's retention.
        now_ms = time.time_ns() // 1_000_000
        recent = now_ms - _RECENT_MS < message.timestamp_ms <= now_ms
        self._enqueue(
            self._names.of(message.topic),
            message.value,
            message.key,
            _BY_KEY if message.partition is None else message.partition,
            timestamp=message.timestamp_ms if recent else now_ms,
            headers=list(message.headers),
        )

    def _enqueue(self, *record: Any, **more: Any) -> None:
        """Hand a record to librdkafka; wait while its queue is full."""
        while True:
            try:
                self._producer.produce(*record, **more)
            except BufferError:
                self._producer.poll(_QUEUE_S)
            else:
                return

    def _commit(self, go_on: Callable[[], bool]) -> None:
        while True:
            try:
                self._producer.commit_transaction(_COMMIT_TRY_S)
            except KafkaException as error:
                found: KafkaError = error.args[0]
                if not found.retriable() or found.txn_requires_abort() or not go_on():
                    raise
            else:
                return


def _lost(error: KafkaException, what: str) -> HearbackError:
    found: KafkaError = error.args[0]
    if found.code() in _ENDED:
        return FencedError(f"{what}: {found.str()}")
    if found.code() in TOO_LARGE:
        return RefusedError(f"{what}: {found.str()}")
    return error_of(error, what)
