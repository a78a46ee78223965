"""DuckDB as it is used here: within a limit of memory, with a folder for what does not fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from stream.errors import ConfigError, LogError

_MEMORY: Final = "400MB"
"""DuckDB's own; Python, its libraries and buffers that DuckDB does not count come on top of it."""

_THREADS: Final = 4  # more of them would not fit into that
_LOOK_EVERY_S: Final = 0.2

Progress = Callable[[str, float], None]
"""Told what is being done, and the share of it that is done, in percent."""


class Database:
    """A connection, the folder that its files are in, and the root of its errors."""

    def __init__(self, connection: Any, folder: Path, progress: Progress) -> None:
        self.connection = connection
        self.folder = folder
        self.errors: type[Exception] = import_module("duckdb").Error
        self._progress = progress

    def rows(self, sql: str, what: str = "counting") -> list[Any]:
        """Run a query, with progress; Ctrl-C ends it."""
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(lambda: self.connection.execute(sql).fetchall())
            try:
                while not running.done():
                    self._progress(what, max(self.connection.query_progress(), 0.0))
                    try:
                        running.result(_LOOK_EVERY_S)
                    except TimeoutError:
                        continue
            except KeyboardInterrupt:
                self.connection.interrupt()
                raise
            found: list[Any] = running.result()
            return found

    def row(self, sql: str) -> Any:
        """Run a query that has one row."""
        return self.rows(sql)[0]


@contextmanager
def database(beside: Path, progress: Progress) -> Iterator[Database]:
    """Open an empty database in a folder of its own, which goes when it is closed.

    Args:
        beside: a file; the folder is made where it is. progress: told of each query.

    Raises:
        ConfigError: DuckDB or pyarrow is not installed.
        LogError: a query failed that nobody has put into words, such as where the disk is full.

    """
    try:
        duckdb = import_module("duckdb")
        import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"reading tables needs {error.name}: pip install 'hearback-stream[tables]'"
        ) from None
    with TemporaryDirectory(prefix=".hearback-import-", dir=beside.parent) as name:
        folder = Path(name)
        connection = duckdb.connect(
            folder / "tables.duckdb",
            config={
                "memory_limit": _MEMORY,
                "threads": min(os.cpu_count() or 1, _THREADS),
                "temp_directory": str(folder / "spilled"),
                "autoinstall_known_extensions": "false",  # nothing is fetched from anywhere
                "autoload_known_extensions": "false",
            },
        )
        try:
            connection.execute("SET timezone = 'UTC'")
            connection.execute("SET enable_progress_bar = true")
            connection.execute("SET enable_progress_bar_print = false")
            yield Database(connection, folder, progress)
        except duckdb.Error as error:
            why = " ".join(str(error).split())[:300]
            raise LogError(f"the tables cannot be joined: {why}") from None
        finally:
            connection.close()
