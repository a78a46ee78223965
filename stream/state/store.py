"""The store of one partition: an ordered map of bytes that is written in batches.

:class:`MemoryStore` is for tests and short replays, :class:`RocksStore` for everything else.
Nothing is written but by :meth:`Store.write`, all of a batch or nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from errno import EACCES, EDQUOT, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM, EROFS
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import NamedTuple, Protocol

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DataBlockIndexType,
    DbClosedError,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)
from sortedcontainers import SortedDict

from stream.errors import DamagedStateError, NotOpenError, StateError
from stream.state.inspection import Recorded, what_is_missing

Writes = Mapping[bytes, bytes | None]
"""Key → value; None deletes."""

_OWN_CACHE_BYTES = 32 << 20
_TICKER = "rocksdb.block.cache."
_FEW_FILES = 16
_IN_USE = ("IO error: While lock file", "IO error: lock hold by current process")
_OF_THE_MACHINE = tuple(
    map(os.strerror, (EACCES, EDQUOT, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM, EROFS))
)
"""Why a file that is as it should be may be refused."""
_CORRUPT = "Corruption"
_FAILED = os.strerror(EIO)  # the last words of what the disk could not do
_READING = "IO error: While pread"
_SIZES = ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables")


class StoreSize(NamedTuple):
    """What a RocksDB says of itself: size, also of what is in no file yet; blocks since opened."""

    total_bytes: int
    cache_hits: int
    cache_misses: int


class Store(Protocol):
    """An ordered map of bytes."""

    def get(self, key: bytes) -> bytes | None:
        """Value of a key."""

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries with first ≤ key < end, in key order."""

    def write(self, writes: Writes, *, logged: bool = True) -> None:
        """Apply all writes at once; what is not logged is safe only after :meth:`flush`.

        A process that dies before finds the store as it was after one of the writes before.
        """

    def flush(self) -> None:
        """Make safe what was written without a log; to be called before the next logged write."""

    def close(self) -> None:
        """Release what is held; any use of the store afterwards raises :class:`NotOpenError`."""


class MemoryStore:
    """A store that lives and dies with the process."""

    def __init__(self) -> None:
        self._open: SortedDict[bytes, bytes] | None = SortedDict()

    @property
    def _map(self) -> SortedDict[bytes, bytes]:
        if self._open is None:
            raise NotOpenError("the store in memory is closed")
        return self._open

    def get(self, key: bytes) -> bytes | None:
        """Value of a key."""
        return self._map.get(key)

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries with first ≤ key < end, in key order."""
        entries = self._map
        for key in entries.irange(first, end, inclusive=(True, False)):
            yield key, entries[key]

    def write(self, writes: Writes, *, logged: bool = True) -> None:
        """Apply all writes at once."""
        del logged
        entries = self._map
        for key, value in writes.items():
            if value is None:
                entries.pop(key, None)
            else:
                entries[key] = value

    def flush(self) -> None:
        """Nothing is safe anyway; a closed store refuses."""
        self.write({})

    def close(self) -> None:
        """Forget the entries."""
        self._open = None


class RocksMemory:
    """What the stores of one process share: a cache of blocks, and a limit to unwritten data.

    Args:
        cache_bytes: of the block cache, of which ``write_bytes`` are for what is not in a file yet.

    """

    def __init__(self, cache_bytes: int, write_bytes: int) -> None:
        self.cache = Cache(cache_bytes + write_bytes)
        self.writes = WriteBufferManager.new_write_buffer_manager_with_cache(
            write_bytes, False, self.cache
        )


class RocksStore:
    """A store in a RocksDB folder.

    Args:
        path: the folder; made when it is not there.
        memory: shared with other stores; None: 32 MB of its own.
        read_only: open beside a folder that is at rest, changing nothing.

    Raises:
        StateError: the folder is in use, damaged, or not RocksDB.

    """

    def __init__(
        self, path: Path, *, memory: RocksMemory | None = None, read_only: bool = False
    ) -> None:
        if read_only and not (path / "CURRENT").exists():
            raise StateError(f"{path} holds no state")
        self._path = path
        self._reading = _Translated(path, self._unreadable)
        self._writing = _Translated(path, self._unwritable)
        self._scans: dict[int, list[RdictIter]] = {}  # those that have not ended
        options = self._options = _options(memory)
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign, assignment]  # no method
        with _Translated(path, self._not_opened):
            if not read_only:
                path.mkdir(parents=True, exist_ok=True)
            missing = what_is_missing(path, self._recorded)
            if missing is not None:
                raise self._damaged(missing)
            # A reopened database keeps its cache and bloom options only when they are passed for
            # the column family too.
            self._db = Rdict(
                str(path),
                options,
                column_families={"default": options},
                access_type=AccessType.read_only() if read_only else AccessType.read_write(),
            )

    def get(self, key: bytes) -> bytes | None:
        """Value of a key."""
        with self._reading:
            found: bytes | None = self._db.get(key)
        return found

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries with first ≤ key < end, in key order."""
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        with self._reading:
            iterator = self._db.iter(options)
        iterator.seek(first)
        # Whoever fails between two entries keeps this frame in a traceback, and an iterator that is
        # there keeps the folder locked: so it is held where `close` can let it go.
        held = [iterator]
        del iterator
        self._scans[id(held)] = held
        try:
            while held and held[0].valid():
                yield held[0].key(), held[0].value()
                if held:
                    held[0].next()
            if not held:
                raise NotOpenError(f"the store {self._path} is closed")
            with self._reading:
                held[0].status()  # a block that cannot be read ends an iterator as the end does
        finally:
            held.clear()
            del self._scans[id(held)]

    def write(self, writes: Writes, *, logged: bool = True) -> None:
        """Apply all writes at once; what is not logged is safe only after :meth:`flush`."""
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in writes.items():
            if value is None:
                delete(key)
            else:
                put(key, value)
        with self._writing:
            self._db.write(batch, None if logged else self._unlogged)

    def flush(self) -> None:
        """Write what is in memory only into a file; blocks until that is done."""
        with self._writing:
            self._db.flush()

    def count_roughly(self) -> int:
        """Estimate how many keys there are."""
        with self._reading:
            return self._db.property_int_value("rocksdb.estimate-num-keys") or 0

    def checkpoint(self, path: Path) -> None:
        """Copy the store as it is between two writes; by hard links within one file system.

        Args:
            path: a folder that is not there yet.

        Raises:
            StateError: it cannot be made.

        """
        with _Translated(
            self._path, lambda error: StateError(f"{path} cannot be written: {error}")
        ):
            Checkpoint(self._db).create_checkpoint(str(path))

    def size(self) -> StoreSize:
        """Say how large the store is, and how well the cache serves; some hundred µs."""
        ticks = {"hit": 0, "miss": 0}
        for line in (self._options.get_statistics() or "").splitlines():
            name, _, count = line.partition(" COUNT : ")
            if name.startswith(_TICKER):
                what = name.removeprefix(_TICKER)
                if what in ticks:
                    ticks[what] = int(count)
        with self._reading:
            sizes = [self._db.property_int_value(name) or 0 for name in _SIZES]
        return StoreSize(sum(sizes), ticks["hit"], ticks["miss"])

    def close(self) -> None:
        """Release the folder; a store that is closed stays so."""
        for held in list(self._scans.values()):
            held.clear()
        # What is damaged is closed all the same; whoever opens it again will see.
        with suppress(NotOpenError, DamagedStateError), self._writing:
            self._db.close()

    def _recorded(self) -> Recorded:
        """Read the manifest, without the logs; changes nothing."""
        options = Options(raw_mode=True)
        options.set_max_open_files(_FEW_FILES)  # tables are not opened all at once
        with TemporaryDirectory() as nowhere:
            options.set_wal_dir(nowhere)
            database = Rdict(
                str(self._path),
                options,
                column_families={"default": options},
                access_type=AccessType.read_only(),
            )
            try:
                return Recorded(
                    database.latest_sequence_number(),
                    database.property_int_value("rocksdb.min-log-number-to-keep") or 0,
                )
            finally:
                database.close()

    def _not_opened(self, error: Exception) -> StateError:
        reason = str(error)
        if reason.startswith(_IN_USE):
            return StateError(f"{self._path} is in use by another process")
        refused = isinstance(error, OSError) and error.errno != EIO
        if refused or reason.endswith(_OF_THE_MACHINE):
            return StateError(f"{self._path} cannot be opened: {reason}")
        return self._damaged(reason)

    def _damaged(self, reason: object) -> DamagedStateError:
        return DamagedStateError(
            f"{self._path} is damaged ({reason}): a worker rebuilds it from the changelog"
        )

    def _unreadable(self, error: Exception) -> StateError:
        reason = str(error)
        if reason.startswith(_CORRUPT) or reason.endswith(_FAILED):
            return self._damaged(error)
        return StateError(f"{self._path} cannot be read: {error}")

    def _unwritable(self, error: Exception) -> StateError:
        reason = str(error)
        # Of a table that was to be joined with others. A disk that does not write is no damage:
        # what is rebuilt could not be written either.
        if reason.startswith(_CORRUPT) or (
            reason.startswith(_READING) and reason.endswith(_FAILED)
        ):
            return self._damaged(error)
        return StateError(f"the state cannot be written: {error}")


class _Translated:
    """Raises RocksDB's errors as ours; reused by all calls, as a get may take a microsecond.

    rocksdict raises a bare Exception with RocksDB's status text. Anything else but an OSError is
    no error of RocksDB, and passes.
    """

    __slots__ = ("_path", "_translate")

    def __init__(self, path: Path, translate: Callable[[Exception], StateError]) -> None:
        self._path = path
        self._translate = translate

    def __enter__(self) -> None:
        """Nothing to be done."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            return
        if isinstance(error, DbClosedError):
            raise NotOpenError(f"the store {self._path} is closed") from None
        if isinstance(error, OSError) or (isinstance(error, Exception) and kind is Exception):
            raise self._translate(error) from None


def _options(memory: RocksMemory | None) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.enable_statistics()  # hits of the cache; not to be seen in the time of a get
    options.set_write_buffer_size(16 << 20)
    options.set_max_write_buffer_number(3)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_compression_type(DBCompressionType.lz4())
    table = BlockBasedOptions()
    if memory is None:
        table.set_block_cache(Cache(_OWN_CACHE_BYTES))
    else:
        table.set_block_cache(memory.cache)
        options.set_write_buffer_manager(memory.writes)
    # Most reads are of single keys, and many of keys that are not there.
    table.set_bloom_filter(10, False)
    table.set_data_block_index_type(DataBlockIndexType.binary_and_hash())
    options.set_memtable_prefix_bloom_ratio(0.1)
    options.set_memtable_whole_key_filtering(True)
    options.set_block_based_table_factory(table)
    return options
