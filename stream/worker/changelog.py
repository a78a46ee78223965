"""SHELL: the changelog of one partition of one stage, and a store that is brought up to its end.

Every write to a store is a record in the partition's changelog first: the store's key and value,
a deleted key as a tombstone, in the same transaction as the outputs that belong to it. The store
says up to where it holds the changelog (:class:`Mark`) in the same batch as the values, so it can
be brought up to the end from wherever it stands, also in the middle of doing so.

Tombstones vanish from a compacted topic after ``delete.retention.ms``. A store that is older than
half of that and not at the end may have missed some, and is rebuilt from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import msgspec

from stream.errors import StateError
from stream.kafka.reader import Reader
from stream.partitions.progress import LAST_OF_UNIT
from stream.state import keys
from stream.state.codec import Codec
from stream.state.facts import Count
from stream.state.store import Store, Writes
from stream.worker.contract import PartitionId
from stream.worker.crashpoints import crash_point

DELETE_RETENTION_MS = 7 * 24 * 3_600_000
"""How long tombstones stay in a changelog at least."""

TOO_OLD_MS = DELETE_RETENTION_MS // 2
"""A store that was at the end longer ago may have missed deletions."""

MAX_VALUE_BYTES = 4 << 20
"""Largest record of a changelog; an entity's state stays far below."""

MAX_WRITE_BYTES = MAX_VALUE_BYTES + (64 << 10)
"""What a changelog has to take at once: such a record, with its key and framing."""

MARK = keys.own("changelog")
"""Key of the store's :class:`Mark`, the only one that is not in the changelog."""

END: Writes = {MARK: None}
"""What a session writes first, to learn for sure where the changelog ends; it changes no store."""

UNFINISHED = keys.own("bootstrap")
"""Key of what a bootstrap writes before all else, and removes from all partitions at once when it
has come to its end (:mod:`stream.bootstrap.load`)."""

STAGES = ("member", "job")
"""Each has a changelog of its own."""

RECORD_BYTES = 256
"""What Python takes for a record that is held, besides the bytes of its key and value."""

CHUNK_BYTES = 4 << 20
"""Held of a changelog before it is written to the store, keys and :data:`RECORD_BYTES` included."""

AHEAD_BYTES = 2 << 20
"""Read ahead of it."""
_NO_IDS: Mapping[str, str] = MappingProxyType({})


def anything_learned(broker: str, application_id: str, partitions: int) -> bool:
    """Whether the changelogs of an application id hold, or held, any coefficients; blocks.

    Raises:
        BrokerError: no answer.

    """
    with Reader(broker) as reader:
        return any(
            key[:1] == keys.POSTERIOR
            for stage in STAGES
            for number in range(partitions)
            for chunk in reader.to_end(changelog_of(application_id, stage), number)
            for _, key, _ in chunk.records
        )


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """How much of which changelog a store holds."""

    topic: str
    topic_id: str
    """Kafka's; empty where the broker has none."""
    offset: Count
    """The next record to apply."""
    applied_ms: int
    """When it was last at the changelog's end, or begun; wall clock."""
    own: bool = False
    """The record before ``offset`` is one that was written here, and not read."""

    def at(self, offset: int, now_ms: int, *, own: bool = False) -> Mark:
        """Return the mark of a store that has come as far as this."""
        return Mark(self.topic, self.topic_id, offset, now_ms, own)


MARKS = Codec[Mark](Mark, unversioned=msgspec.msgpack.Decoder(Mark))


def changelog_of(application_id: str, stage: str) -> str:
    """Name the changelog of a stage."""
    return f"{application_id}-{stage}-changelog"


def load_mark(store: Store) -> Mark | None:
    """Read how far a store is; None for an empty one.

    Raises:
        StateError: the store holds values, but says nothing, or nothing readable.

    """
    value = store.get(MARK)
    if value is None:
        if next(store.scan(b"\x00", b"\xff"), None) is not None:
            raise StateError("the store does not say which changelog it follows: remove its folder")
        return None
    return MARKS.decode(value)


class Changelog:
    """One partition of a changelog, to be read.

    Args:
        broker: where it is.
        application_id: whose. place: of which partition.
        topic_ids: what Kafka calls topics; empty where that is of no matter, or the broker has no
            ids.
        whole_units: apply only what a unit of work wrote to its end; for the embedded broker,
            which shows transactions that were never committed.

    """

    def __init__(
        self,
        broker: str,
        application_id: str,
        place: PartitionId,
        *,
        topic_ids: Mapping[str, str] = _NO_IDS,
        whole_units: bool = False,
    ) -> None:
        stage, self.partition = place
        self.topic = changelog_of(application_id, stage)
        self.at = self.topic, self.partition
        self.topic_id = topic_ids.get(self.topic, "")
        self._whole_units = whole_units
        self._broker = broker

    def fresh(self, now_ms: int) -> Mark:
        """Return the mark of an empty store."""
        return Mark(self.topic, self.topic_id, 0, now_ms)

    def check(self, mark: Mark, start: int, end: int) -> None:
        """Refuse a store that cannot be brought up to date from this changelog.

        Raises:
            StateError: it followed another one, or stands where this one has no records.

        """
        where = f"{self.topic}-{self.partition}"
        if self._whole_units and mark.offset > end:
            raise StateError(
                "the data folder has the state of an earlier embedded broker, which kept nothing"
                " when it stopped: remove the folder, or name another --data"
            )
        if mark.topic != self.topic or mark.topic_id != self.topic_id:
            raise StateError(
                f"the store follows another changelog than {where} ({mark.topic} {mark.topic_id},"
                f" not {self.topic_id}): the topic was recreated, or the data folder is from"
                " elsewhere; use the folder that belongs to it, or start over with an empty one"
                " under another --app-id"
            )
        if not start <= mark.offset <= end:
            raise StateError(
                f"the store stands at {mark.offset} of {where}, which keeps {start} to {end}:"
                " records are missing; a changelog must be compacted, never deleted from, and"
                " --accept-lost-records is for what is read, not for state. Use a data folder or a"
                " checkpoint that has come further, or start over with an empty one under another"
                " --app-id"
            )

    def bring_up(
        self,
        store: Store,
        *,
        renew: Callable[[], Store],
        go_on: Callable[[], bool],
        now_ms: Callable[[], int],
        end: int | None = None,
        on_remaining: Callable[[int], None] = lambda _: None,
        swept: bool = False,
    ) -> tuple[Store, Mark, int]:
        """Apply what the store lacks, up to the changelog's end.

        Nobody may write to the changelog meanwhile, or the end is not the end. Blocks.

        Args:
            store: of this partition.
            renew: throws the store away and returns an empty one.
            go_on: False: give up, what was done so far is kept.
            now_ms: the wall clock.
            end: what was returned to the last one who wrote to it (:data:`END`). A broker that was
                killed hard names, for a moment after its start, an earlier end than what it has
                confirmed; None: believe it.
            on_remaining: called with how many records are still to come, markers included.
            swept: the session has aborted a record here, and with it what was left open
                (:meth:`stream.worker.transactions.Transactions.sweep`). What this store takes for
                committed may be gone by that; then the changelog is right.

        Returns:
            The store (another one if it was renewed), its mark, and how many records were applied.

        Raises:
            BrokerError: no answer. InterruptedSessionError: ``go_on`` said no.
            StateError: the store does not belong to this changelog.

        """
        with Reader(self._broker, AHEAD_BYTES) as reader:
            start, shown = reader.span(*self.at)
            # A transaction's end; the embedded broker writes none.
            of_no_matter = 0 if self._whole_units else 1
            if end is None:
                end = shown
            else:
                of_no_matter += 1  # END
            if swept:
                of_no_matter += 2  # the record and the marker of its abort
            mark = load_mark(store) or self.fresh(now_ms())
            self.check(mark, start, end)
            more = end - mark.offset
            doubtful = swept and mark.own and more != of_no_matter
            if more <= of_no_matter and not doubtful:
                return store, apply(store, {}, mark.at(end, now_ms())), 0
            store, mark = self._renewed(store, mark, start, end, renew, now_ms())
            if doubtful and not self._shows(reader, mark.offset - 1, end, go_on):
                store, mark = renew(), self.fresh(now_ms())
            on_remaining(end - mark.offset)
            try:
                mark, count = self._read(reader, store, mark, end, go_on, now_ms, on_remaining)
            finally:
                store.flush()  # or a log that goes on later would have a gap before it
            return store, mark, count

    def begin(
        self, reader: Reader, store: Store, renew: Callable[[], Store], now_ms: Callable[[], int]
    ) -> tuple[Store, Mark]:
        """Return a store, this one or a new one, that may be brought up, and how far it is.

        Raises:
            StateError: it does not belong to this changelog. BrokerError: no answer.

        """
        start, end = reader.span(*self.at)
        mark = load_mark(store) or self.fresh(now_ms())
        self.check(mark, start, end)
        return self._renewed(store, mark, start, end, renew, now_ms())

    def is_too_old(self, mark: Mark, end: int, now_ms: int) -> bool:
        """Whether a store is not at the end, and may have missed deletions that have vanished."""
        behind = end - mark.offset > 1  # one may be a transaction's end
        return behind and mark.offset > 0 and now_ms - mark.applied_ms > TOO_OLD_MS

    def records(self) -> Iterator[tuple[int, bytes, bytes | None]]:
        """Give (offset, key, value) of all that it keeps, up to its end as of now.

        Raises:
            BrokerError: no answer.

        """
        with Reader(self._broker) as reader:
            _, end = reader.span(*self.at)
            for chunk in reader.to_end(*self.at):
                for record in chunk.records:
                    if record[0] >= end:
                        return
                    yield record

    def span(self) -> tuple[int, int]:
        """Return where it starts and ends.

        Raises:
            BrokerError: no answer.

        """
        with Reader(self._broker) as reader:
            return reader.span(*self.at)

    def _renewed(
        self,
        store: Store,
        mark: Mark,
        start: int,
        end: int,
        renew: Callable[[], Store],
        now_ms: int,
    ) -> tuple[Store, Mark]:
        """Begin with an empty store where one is too old to be brought up."""
        if self.is_too_old(mark, end, now_ms):
            store, mark = renew(), self.fresh(now_ms)
            self.check(mark, start, end)
        return store, mark

    def _shows(self, reader: Reader, offset: int, end: int, go_on: Callable[[], bool]) -> bool:
        """Whether a record is there, committed; one that was compacted away is not."""
        chunks = reader.to_end(*self.at, offset, least=end, go_on=go_on)
        return next((chunk.records[0][0] == offset for chunk in chunks if chunk.records), False)

    def _read(
        self,
        reader: Reader,
        store: Store,
        mark: Mark,
        least: int,
        go_on: Callable[[], bool],
        now_ms: Callable[[], int],
        on_remaining: Callable[[int], None],
    ) -> tuple[Mark, int]:
        # All without a log: it is in the changelog, and a crash costs reading it again.
        writes: dict[bytes, bytes | None] = {}
        unit: dict[bytes, bytes | None] = {} if self._whole_units else writes
        offset, count, size = mark.offset, 0, 0
        for chunk in reader.to_end(*self.at, mark.offset, least=least, go_on=go_on):
            for _, key, value in chunk.records:
                if key == MARK and self._whole_units:
                    unit.clear()  # of a session that did not come to the end of a unit
                    continue
                unit[key] = value
                count += 1
                size += len(key) + len(value or b"") + RECORD_BYTES
                if self._whole_units and key in LAST_OF_UNIT:
                    writes |= unit
                    unit.clear()
            offset = chunk.next
            on_remaining(max(least - offset, 0))
            if size >= CHUNK_BYTES and not self._whole_units and not chunk.at_end:
                # Not at the end: as old as before.
                mark = apply(store, writes, mark.at(offset, mark.applied_ms), logged=False)
                writes.clear()
                size = 0
                crash_point("recovering")
        return apply(store, writes, mark.at(offset, now_ms()), logged=False), count


def apply(store: Store, writes: Writes, mark: Mark, *, logged: bool = True) -> Mark:
    """Write records of a changelog into a store, in one batch with how far it is now."""
    store.write({**writes, MARK: MARKS.encode(mark)}, logged=logged)
    return mark
