"""Names of partitions, and what one fetch brought of one."""

from __future__ import annotations

import msgspec

from stream.events.records import Record

InputPartition = tuple[str, int]
"""A topic and the number of one of its partitions."""


PartitionId = tuple[str, int]
"""A stage and the number of one of its partitions."""


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
