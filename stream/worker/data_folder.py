"""SHELL: the data folder of one worker: whose it is, and the stores of its partitions.

::

    hearback.json      format of the folder, and the application id whose state it holds
    lock               held by the worker that uses the folder
    worker.sock        where that worker takes requests (:mod:`stream.worker.requests`)
    job-3/ member-3/   one RocksDB for each stage and partition
    faust/             Faust's own
    kernel/            machine code, where Numba's own folders cannot be written

A store is a copy of a changelog and may be thrown away: the changelog rebuilds it. One that is
damaged is put aside as ``damaged-job-3-…`` for whoever wants to know why; the newest of each, for
:data:`ASIDE_MS`, since it still has everybody who is forgotten meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path
from threading import Lock

import msgspec

from stream.errors import ConfigError, DamagedStateError, StateError
from stream.state.store import RocksMemory, RocksStore
from stream.worker.changelog import STAGES, TOO_OLD_MS
from stream.worker.contract import PartitionId

FORMAT = 1
"""Version of the folder's layout."""

ASIDE_MS = 7 * 24 * 3_600_000
"""How long a damaged store is kept."""

_ABOUT = "hearback.json"
_LOCK = "lock"
KERNEL = "kernel"
_OWNER_ALONE = 0o700
_CACHE_BYTES = 256 << 20
_WRITE_BYTES = 128 << 20


class _About(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    application_id: str


def name_of(place: PartitionId) -> str:
    """Name the folder of a partition's store."""
    stage, number = place
    return f"{stage}-{number}"


def partition_ids_in(path: Path) -> list[PartitionId]:
    """Return the partitions whose stores a data folder or checkpoint holds, in order."""
    found = []
    for folder in path.iterdir() if path.is_dir() else ():
        stage, _, number = folder.name.partition("-")
        if stage in STAGES and number.isdecimal() and folder.is_dir():
            found.append((stage, int(number)))
    return sorted(found)


def say_whose(path: Path, application_id: str) -> None:
    """Make a folder a data folder of this application id."""
    making = (path / _ABOUT).with_suffix(".new")
    making.write_bytes(msgspec.json.encode(_About(format=FORMAT, application_id=application_id)))
    making.rename(path / _ABOUT)


def whose(path: Path) -> str:
    """Return the application id whose state a data folder or checkpoint holds.

    Raises:
        ConfigError: it is no such folder, damaged, or one of another release.

    """
    found = _about(path)
    if found is None:
        raise ConfigError(f"{path} is no data folder and no checkpoint: it has no {_ABOUT}")
    return found.application_id


def _about(path: Path) -> _About | None:
    about = path / _ABOUT
    try:
        found = msgspec.json.decode(about.read_bytes(), type=_About)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{about} is damaged ({error}): use another --data") from None
    if found.format != FORMAT:
        raise ConfigError(
            f"{path} has format {found.format}, this release uses {FORMAT}: use the"
            " release that made it, or an empty --data (the state comes from the changelogs)"
        )
    return found


def _closed_to_others(path: Path) -> bool:
    """Take the folder's rights from everybody but its owner; False: that is somebody else."""
    if path.stat().st_mode & 0o077:
        try:
            path.chmod(_OWNER_ALONE)
        except PermissionError:
            return False
    return True


class DataFolder:
    """One worker's folder, locked until it is closed.

    Methods may be called from several threads, for different partitions.

    Args:
        path: made when it is not there.
        application_id: whose state it holds.

    Raises:
        ConfigError: another worker uses it, it belongs to another application id, it is no data
            folder or one of another release, or it cannot be made.

    """

    def __init__(self, path: Path, application_id: str) -> None:
        self.path = path
        self.exposed = False
        """Whether others can read it, and its mode cannot be changed."""
        self.damaged: list[tuple[Path, StateError]] = []
        """Stores that were put aside, under the names that they were given, and why."""
        self._kept: Collection[PartitionId] | None = None  # those that are worked with or followed
        self._tidying = Lock()
        self._memory = RocksMemory(_CACHE_BYTES, _WRITE_BYTES)
        self._open: dict[PartitionId, RocksStore] = {}
        try:
            path.mkdir(mode=_OWNER_ALONE, parents=True, exist_ok=True)
            self.exposed = not _closed_to_others(path)
            self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{path} cannot be made: {error.strerror}") from None
        try:
            self._claim(application_id)
        except BaseException:
            os.close(self._lock)
            raise
        self.tidy()

    def store(self, place: PartitionId) -> RocksStore:
        """Open the store of a partition, or return the open one.

        A damaged one is set aside, and an empty one takes its place.

        Raises:
            StateError: it cannot be opened.

        """
        found = self._open.get(place)
        if found is None:
            folder = self._folder(place)
            try:
                found = RocksStore(folder, memory=self._memory)
            except DamagedStateError as error:
                self.set_aside(place, error)
                found = RocksStore(folder, memory=self._memory)
            self._open[place] = found
        return found

    def set_aside(self, place: PartitionId, error: StateError) -> None:
        """Put the damaged store of a partition aside, in the place of one that was before.

        Raises:
            StateError: it cannot be put aside.

        """
        self.close(place)
        folder = self._folder(place)
        before = self._set_aside(folder.name)
        aside = self.path / f"damaged-{folder.name}-{time.time_ns()}"
        if not folder.exists():
            return
        _rename(folder, aside)
        self.damaged.append((aside, error))
        for old in before:
            shutil.rmtree(old, ignore_errors=True)

    @property
    def damaged_stores(self) -> int:
        """How many damaged stores are kept."""
        return len(self._set_aside())

    def tidy(self) -> None:
        """Remove what has been kept for long enough; to be called now and then."""
        for folder in self._set_aside():
            since_ns = folder.name.rpartition("-")[2]
            if time.time_ns() - int(since_ns) > ASIDE_MS * 1_000_000:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self.path.glob("removed-*"):  # of a process that was killed on the way
            shutil.rmtree(folder, ignore_errors=True)
        with self._tidying:
            self._remove_old()

    def stores(self) -> dict[PartitionId, RocksStore]:
        """Return the stores that are open."""
        return dict(self._open)

    @property
    def cache_bytes(self) -> int:
        """How much of the cache of all stores is in use."""
        return int(self._memory.cache.get_usage())

    def renew(self, place: PartitionId) -> RocksStore:
        """Throw the store of a partition away; return an empty one.

        Raises:
            StateError: it cannot be thrown away.

        """
        self.close(place)
        self._remove(self._folder(place))
        return self.store(place)

    def close(self, place: PartitionId) -> None:
        """Close the store of a partition, if it is open."""
        found = self._open.pop(place, None)
        if found is not None:
            found.close()

    def keep_only(self, places: Collection[PartitionId]) -> None:
        """Close all other stores, and remove those that are too old to be brought up.

        A copy of a partition that went elsewhere would else be kept for ever, with everybody who
        was forgotten since.
        """
        with self._tidying:
            self._kept = places
            for place in self._open.keys() - places:
                self.close(place)
            self._remove_old()

    def release(self) -> None:
        """Close all stores and let another worker have the folder."""
        try:
            for place in list(self._open):
                self.close(place)
        finally:
            os.close(self._lock)

    def _remove_old(self) -> None:
        if self._kept is None:
            return  # nothing has been assigned yet
        for place in set(partition_ids_in(self.path)).difference(self._kept):
            folder = self._folder(place)
            newest_s = max((path.stat().st_mtime for path in folder.iterdir()), default=0.0)
            if time.time() - newest_s > TOO_OLD_MS / 1000:
                self._remove(folder)

    def _set_aside(self, name: str = "*") -> list[Path]:
        found = self.path.glob(f"damaged-{name}-*")
        return [folder for folder in found if folder.name.rpartition("-")[2].isdecimal()]

    def _remove(self, folder: Path) -> None:
        """Remove a store; under another name first, so that it is gone or still whole."""
        gone = self.path / f"removed-{folder.name}-{time.time_ns()}"
        if folder.exists():
            _rename(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _folder(self, place: PartitionId) -> Path:
        return self.path / name_of(place)

    def _claim(self, application_id: str) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"{self.path} is in use by another worker: each needs a --data of its own"
            ) from None
        found = _about(self.path)
        if found is None:
            if any(self.path.glob("job-*")) or any(self.path.glob("member-*")):
                raise ConfigError(
                    f"{self.path} holds the state of a release without changelogs: start over with"
                    " an empty --data under another --app-id"
                )
            say_whose(self.path, application_id)
        elif found.application_id != application_id:
            raise ConfigError(
                f"{self.path} belongs to application id {found.application_id}, not"
                f" {application_id}: name another --data"
            )


def _rename(folder: Path, name: Path) -> None:
    try:
        folder.rename(name)
    except OSError as error:
        raise StateError(f"{folder} cannot be removed: {error.strerror}") from None


class Checkpointed(msgspec.Struct, frozen=True):
    """What a checkpoint holds."""

    stores: int
    size_bytes: int


class CheckpointFolder:
    """A data folder as it was at a moment, copied while its worker goes on. All methods block.

    Each store is copied between two of its writes, so it holds whole units of work and says how
    much of its changelog they are: a worker that is started on it brings it up to the end. It is
    under another name until it is whole.

    Args:
        out: the folder; not there yet.
        application_id: whose state it is.

    Raises:
        ConfigError: it is there, or cannot be made.

    """

    def __init__(self, out: Path, application_id: str) -> None:
        self._out = out
        self._making = out.with_name(f"{out.name}.part-{time.time_ns()}")  # nobody else's
        self._stores = 0
        if out.exists():
            raise ConfigError(f"{out} is there already: name another folder")
        try:
            self._making.mkdir(mode=_OWNER_ALONE, parents=True)
            say_whose(self._making, application_id)
        except OSError as error:
            raise ConfigError(f"{out} cannot be made: {error.strerror}") from None

    def add(self, place: PartitionId, store: RocksStore) -> None:
        """Copy a partition's store as it is now.

        Raises:
            StateError: it cannot be written.

        """
        store.checkpoint(self._making / name_of(place))
        self._stores += 1

    def finish(self) -> Checkpointed:
        """Give it its name.

        Raises:
            ConfigError: that is taken by now.

        """
        size = sum(path.stat().st_size for path in self._making.rglob("*") if path.is_file())
        try:
            self._making.rename(self._out)
        except OSError as error:
            raise ConfigError(f"{self._out} cannot be made: {error.strerror}") from None
        return Checkpointed(self._stores, size)

    def abandon(self) -> None:
        """Remove what there is of it."""
        shutil.rmtree(self._making, ignore_errors=True)
