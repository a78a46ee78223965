"""SHELL: a data folder in the making, beside the changelogs that get the same."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

from stream.errors import ConfigError, StateError
from stream.worker.changelog import Mark, apply
from stream.worker.contract import PartitionId
from stream.worker.data_folder import DataFolder

_BYTES = 8 << 20  # written at once, about


class DataCopy:
    """A data folder in the making: under another name until it is whole."""

    def __init__(self, path: Path, application_id: str) -> None:
        self._path = path
        self._making = path.with_name(f"{path.name}.part")
        shutil.rmtree(self._making, ignore_errors=True)  # of an attempt that was cut short
        self._folder: DataFolder | None = DataFolder(self._making, application_id)
        self._writes: defaultdict[PartitionId, dict[bytes, bytes | None]] = defaultdict(dict)
        self._bytes = 0

    def put(self, place: PartitionId, key: bytes, value: bytes) -> None:
        """Write an entry into a partition's store."""
        self._writes[place][key] = value
        self._bytes += len(key) + len(value)
        if self._bytes >= _BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        for place, writes in self._writes.items():
            self._stores.store(place).write(writes, logged=False)  # cut short, it is thrown away
        self._writes.clear()
        self._bytes = 0

    def finish(
        self, own: dict[PartitionId, list[tuple[bytes, bytes]]], marks: dict[PartitionId, Mark]
    ) -> None:
        """Complete all stores, and give the folder its name.

        Raises:
            ConfigError: the name is taken by now.

        """
        for place, entries in own.items():
            store = self._stores.store(place)
            apply(store, dict(entries), marks[place], logged=False)
            store.flush()
        self._stores.release()
        self._folder = None
        try:
            self._making.rename(self._path)
        except OSError as error:
            raise ConfigError(
                f"{self._path} cannot be made: {error.strerror}; all is well without it, workers"
                " recover from the changelogs"
            ) from None

    def abandon(self) -> None:
        """Remove what there is, if it is not whole."""
        if self._folder is not None:
            self._folder.release()
            self._folder = None
            shutil.rmtree(self._making, ignore_errors=True)

    @property
    def _stores(self) -> DataFolder:
        if self._folder is None:
            raise StateError("the data folder is complete")
        return self._folder
