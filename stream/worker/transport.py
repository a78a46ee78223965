"""Record batches through Faust: one message for what one fetch brought of one partition.

Faust's cost is per message, so this driver, a subclass of Faust's aiokafka one, hands it whole
batches; assignment, agents and table recovery stay Faust's. Everything that leans on private
parts of Faust, mode or aiokafka is in this file; :func:`check_faust_internals` says in words when
one of them has changed. What differs from Faust's own driver:

- **Positions.** A batch says where its fetch began and where it ended, past transaction markers
  and aborted records. A fetch that moved without a record is an empty batch. The Kafka message
  that carries a batch has the offset ``end - 1``, so that recovery, which waits for a changelog's
  last offset, also sees one that is a marker.
- **Acknowledging is explicit**, :meth:`BatchConsumer.acknowledge`: Faust acknowledges also what
  raised. The end of the newest acknowledged batch is what is committed.
- **A set of partitions that is empty means none.** aiokafka's own fetch takes it for all of them,
  and Faust's set empties whenever all buffers are full.
- **A position that the topic no longer has is an error**, never a jump.
- All is read ``read_committed``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

import aiokafka
import faust
import msgspec
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.consumer import subscription_state as aiokafka_state
from aiokafka.errors import ConsumerStoppedError, KafkaError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.serializers.schemas import Schema
from faust.tables import recovery as faust_recovery
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as faust_driver
from faust.types import TP, ConsumerMessage, Message

from stream.errors import ConfigError, StateError

_log = logging.getLogger(__name__)

FETCH_WAIT_S = 1.0
"""The longest that one call into the consumer's thread waits for records."""


class Record(NamedTuple):
    """One Kafka record as it was received."""

    offset: int
    key: bytes | None
    value: bytes | None


class RecordBatch(msgspec.Struct, frozen=True):
    """What one fetch brought of one partition, in order of offsets.

    ``begin`` is the consumer's position before the fetch, ``end`` the position after it: the next
    batch of the partition begins there. Both may be outside the records' own offsets, because
    transaction markers and aborted records are passed over; ``records`` may be empty.
    ``high_watermark`` is the end of the partition when the fetch was answered, including
    transactions that are still open.
    """

    topic: str
    partition: int
    begin: int
    end: int
    high_watermark: int
    records: tuple[Record, ...]

    def since(self, position: int) -> RecordBatch:
        """Return the part from ``position``, begin < position < end, to the end."""
        kept = tuple(record for record in self.records if record.offset >= position)
        return RecordBatch(
            self.topic, self.partition, position, self.end, self.high_watermark, kept
        )


class BatchSchema(Schema):  # type: ignore[misc]  # Faust's base is generic over Any
    """The schema of a topic whose messages are batches already: nothing is decoded."""

    def compile(
        self,
        app: faust.types.AppT,
        *,
        on_key_decode_error: object = None,
        on_value_decode_error: object = None,
        default_propagate: bool = False,
    ) -> Callable[..., Any]:
        """Return the function that turns a message into an event; Faust calls this per topic."""
        create_event = app.create_event

        async def decode(message: Message, *, propagate: bool = False) -> Any:
            return create_event(message.key, message.value, message.headers, message)

        return decode
