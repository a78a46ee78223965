"""What the Faust side and the host that does the work ask of each other.

Faust assigns partitions and brings record batches (:mod:`stream.worker.app`); the handler, which
knows nothing of Faust, does the work (:mod:`stream.worker.host`). What a handler may count on:

- ``assigned`` → ``process``, ``tick`` → ``revoked`` → ``assigned`` → …, ``stop`` at the end.
  ``assigned`` and ``revoked`` never run together with each other, with ``tick`` or ``process``.
- ``process`` gets the batches of one topic partition one after the other and without a gap, from
  the position that ``assigned`` sought, or else from the group's committed offset. Batches of
  different topic partitions run at the same time.
- A batch is acknowledged when ``process`` returns True, unless its partition was sought meanwhile;
  otherwise it comes again.
- ``leaving`` is called at any time, when a rebalance or the end begins, before the batches in
  flight are waited for.
- Any error that leaves the handler stops the worker, with exit code 1 and nothing acknowledged of
  that batch: events that cannot be used are the handler's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

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


class Handler(Protocol):
    """What does the work; the module's docstring says when each method is called."""

    def leaving(self) -> None:
        """Wake what waits: the batches in flight are to end soon."""

    async def process(self, batch: RecordBatch) -> bool:
        """Handle one batch; True: it is acknowledged, False: it comes again."""

    async def tick(self) -> None:
        """Do what is due without input; called every ``tick_s`` while an assignment stands.

        Also while it is one of no partitions: a worker may have copies of others' alone.
        """

    async def assigned(self, partitions: frozenset[InputPartition]) -> None:
        """Take over these partitions, which are all that this worker owns from now on."""

    async def skip(self, partition: InputPartition, position: int, first: int) -> None:
        """Go on from ``first``: what lies before it was deleted unread, from ``position`` on.

        Called again while ``position``, where the newest fetch began, is not sought.
        """

    async def revoked(self, partitions: frozenset[InputPartition]) -> None:
        """Give up these partitions, which are all that it owned."""

    async def stop(self) -> None:
        """Release everything; called once, also after an error."""


class Membership(Protocol):
    """What a handler may ask of the worker that calls it."""

    async def seek(self, positions: Mapping[InputPartition, int]) -> None:
        """Continue these partitions from these offsets.

        Within ``assigned``: where they start. Within ``process``, for its own partition: the batch
        is not acknowledged, and what comes next begins there. A partition that is not owned any
        more is left alone.
        """

    def positions(self) -> dict[InputPartition, int]:
        """Return where each owned partition stands: the end of its newest acknowledged batch."""

    def high_watermark(self, partition: InputPartition) -> int | None:
        """Return the partition's end as of the newest fetch, or None before the first."""

    def answer_age_s(self, partition: InputPartition) -> float | None:
        """Return how old the broker's newest answer for a partition is; None before the first."""

    def standbys(self) -> frozenset[InputPartition]:
        """Return the input partitions that this worker is to take over when their owner is gone."""

    async def begun(self, partitions: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Return the committed offsets of those partitions of which the group has read something.

        Raises:
            BrokerError: the broker does not tell.

        """

    def settled(self) -> bool:
        """Whether no rebalance has begun since the newest assignment, and the end neither.

        May be called from any thread.
        """

    async def confirm(self) -> bool:
        """Commit all positions now; True proves that the group still counts on this worker."""

    def fail(self, error: Exception) -> None:
        """Stop the worker with this error; for tasks of the handler's own."""


HandlerFactory = Callable[[Membership], Handler]
