"""The store of one partition: an ordered map of bytes that is written in batches.

:class:`MemoryStore` is for tests and short replays, :class:`RocksStore` for everything else.
Nothing is written but by :meth:`Store.write`, all of a batch or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DataBlockIndexType,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)
from sortedcontainers import SortedDict

from stream.errors import DamagedStateError, StateError

Writes = Mapping[bytes, bytes | None]
"""Key → value; None deletes."""

_OWN_CACHE_BYTES = 32 << 20
_TICKER = "rocksdb.block.cache."
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

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of several keys, in their order."""

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries with first ≤ key < end, in key order."""

    def write(self, writes: Writes, *, logged: bool = True) -> None:
        """Apply all writes at once; what is not logged is safe only after :meth:`flush`.

        A process that dies before finds the store as it was after one of the writes before.
        """

    def flush(self) -> None:
        """Make safe what was written without a log; to be called before the next logged write."""

    def close(self) -> None:
        """Release what is held; the store cannot be used afterwards."""


class MemoryStore:
    """A store that lives and dies with the process."""

    def __init__(self) -> None:
        self._map: SortedDict[bytes, bytes] = SortedDict()

    def get(self, key: bytes) -> bytes | None:
        """Value of a key."""
        return self._map.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of several keys, in their order."""
        return [self._map.get(key) for key in keys]

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries with first ≤ key < end, in key order."""
        for key in self._map.irange(first, end, inclusive=(True, False)):
            yield key, self._map[key]

    def write(self, writes: Writes, *, logged: bool = True) -> None:
        """Apply all writes at once."""
        del logged
        for key, value in writes.items():
            if value is None:
                self._map.pop(key, None)
            else:
                self._map[key] = value

    def flush(self) -> None:
        """Nothing is safe anyway."""

    def close(self) -> None:
        """Nothing is held."""


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
        options = self._options = _options(memory)
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign, assignment]  # no method
        try:
            if not read_only:
                path.mkdir(parents=True, exist_ok=True)
            # A reopened database keeps its cache and bloom options only when they are passed for
            # the column family too.
            self._db = Rdict(
                str(path),
                options,
                column_families={"default": options},
                access_type=AccessType.read_only() if read_only else AccessType.read_write(),
            )
        except Exception as error:
            # rocksdict raises bare Exception with RocksDB's status text.
            if not isinstance(error, OSError) and type(error) is not Exception:
                raise
            reason = str(error)
            if "lock" in reason.lower():
                raise StateError(f"{path} is in use by another process") from None
            if reason.startswith("Corruption"):
                raise DamagedStateError(f"{path} is damaged: {reason}") from None
            raise StateError(f"{path} cannot be opened: {reason}") from None

    def get(self, key: bytes) -> bytes | None:
        """Value of a key."""
        try:
            found: bytes | None = self._db.get(key)
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise self._unreadable(error) from None
        return found

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of several keys, in their order."""
        try:
            found = self._db.get(list(keys))
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise self._unreadable(error) from None
        return list(found or ())

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries with first ≤ key < end, in key order."""
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        iterator = self._db.iter(options)
        iterator.seek(first)
        while iterator.valid():
            yield iterator.key(), iterator.value()
            iterator.next()
        try:
            iterator.status()  # a block that cannot be read ends an iterator as the end does
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise self._unreadable(error) from None

    def write(self, writes: Writes, *, logged: bool = True) -> None:
        """Apply all writes at once; what is not logged is safe only after :meth:`flush`."""
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in writes.items():
            if value is None:
                delete(key)
            else:
                put(key, value)
        try:
            self._db.write(batch, None if logged else self._unlogged)
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise StateError(f"the state cannot be written: {error}") from None

    def flush(self) -> None:
        """Write what is in memory only into a file; blocks until that is done."""
        try:
            self._db.flush()
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise StateError(f"the state cannot be written: {error}") from None

    def count_roughly(self) -> int:
        """Estimate how many keys there are."""
        return self._db.property_int_value("rocksdb.estimate-num-keys") or 0

    def checkpoint(self, path: Path) -> None:
        """Copy the store as it is between two writes; by hard links within one file system.

        Args:
            path: a folder that is not there yet.

        Raises:
            StateError: it cannot be made.

        """
        try:
            Checkpoint(self._db).create_checkpoint(str(path))
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise StateError(f"{path} cannot be written: {error}") from None

    def size(self) -> StoreSize:
        """Say how large the store is, and how well the cache serves; some hundred µs."""
        ticks = {"hit": 0, "miss": 0}
        for line in (self._options.get_statistics() or "").splitlines():
            name, _, count = line.partition(" COUNT : ")
            if name.startswith(_TICKER):
                what = name.removeprefix(_TICKER)
                if what in ticks:
                    ticks[what] = int(count)
        sizes = [self._db.property_int_value(name) or 0 for name in _SIZES]
        return StoreSize(sum(sizes), ticks["hit"], ticks["miss"])

    def _unreadable(self, error: Exception) -> StateError:
        """Translate what rocksdict raises while reading: a bare Exception with RocksDB's status."""
        if str(error).startswith("Corruption"):
            return DamagedStateError(
                f"{self._path} is damaged: {error}; remove it, a worker makes it again"
            )
        return StateError(f"{self._path} cannot be read: {error}")

    def close(self) -> None:
        """Release the folder."""
        try:
            self._db.close()
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise StateError(f"the state cannot be closed: {error}") from None


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
