"""SHELL: a checkpoint: a data folder as it was at a moment, copied while its worker goes on.

Each store is copied between two of its writes, so it holds whole units of work and says how much of
its changelog they are. That is all that a restart asks for: a checkpoint is a data folder, and a
worker that is started on it (or on a copy) brings each store up to its changelog's end.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec

from stream.errors import ConfigError
from stream.state.store import RocksStore
from stream.worker.batch import PartitionId
from stream.worker.data_folder import name_of, say_whose


class Checkpointed(msgspec.Struct, frozen=True):
    """What a checkpoint holds."""

    stores: int
    size_bytes: int


class CheckpointFolder:
    """A checkpoint in the making: under another name until it is whole. All methods block.

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
            self._making.mkdir(parents=True)
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
