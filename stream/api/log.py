"""Event logs for the Python API: files as they are, frames as files of a temporary folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from stream.api import html
from stream.check.look import look
from stream.check.problem import Problem
from stream.errors import ConfigError, LogError
from stream.features.blocks import FeatureSpace
from stream.logs.files import merge
from stream.policy import Policy


@runtime_checkable
class Frame(Protocol):
    """A frame: pandas from 2.2 on, Polars, Arrow and others have Arrow's stream interface."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Give the frame's rows as Arrow has them."""


Source = str | os.PathLike[str] | Frame
"""A log file, or a frame with a row for each event."""


class LogWarning(UserWarning):
    """What is odd about a log, and what to do."""


class Log:
    """An event log; :func:`read` makes one.

    Attributes:
        paths: of its files, merged by event time.

    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __repr__(self) -> str:
        """Name the files."""
        return f"Log({', '.join(path.name for path in self.paths)})"

    def _repr_html_(self) -> str:
        rows = [(path.name, f"{path.stat().st_size / 1e6:,.1f} MB") for path in self.paths]
        return html.table(("event log", "size"), rows)


def read(*sources: Source) -> Log:
    """Take event logs; nothing is read but what tells that they can be.

    Args:
        sources: files (JSON Lines or an array, plain, gzip or zstd, or Parquet), or frames of
            pandas, Polars or Arrow; several are merged by ``event_time_ms``. A frame has a row for
            each event, in order of arrival, and the fields of events as columns, ``type`` and
            ``event_time_ms`` among them; what an event does not have is null. It is kept in a
            temporary folder of the owner's alone, as long as the log is.

    Raises:
        LogError: a file cannot be opened, or a frame lacks what every event has.
        ConfigError: a frame is given, and pyarrow is not installed.

    """
    paths: list[Path] = []
    folder: Path | None = None
    for number, source in enumerate(sources, 1):
        if isinstance(source, str | os.PathLike):
            paths.append(Path(source))
            continue
        if not isinstance(source, Frame):
            raise LogError(
                f"a {type(source).__name__} is no log: give a file's path, or a frame of pandas,"
                " Polars or Arrow"
            )
        folder = folder or Path(tempfile.mkdtemp(prefix="hearback-log-"))
        paths.append(folder / f"frame-{number}.parquet")
        try:
            _write(source, paths[-1])
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    log = Log(paths)
    if folder is not None:
        weakref.finalize(log, shutil.rmtree, folder, ignore_errors=True)
    merge(paths)  # opens them
    return log


def as_log(given: Log | Source) -> Log:
    """Return a log; one file or frame is one, too."""
    return given if isinstance(given, Log) else read(given)


def look_first(
    log: Log,
    policy: Policy,
    *,
    force: bool,
    max_jump_ms: int | None = None,
    until_ms: int | None = None,
    space: FeatureSpace | None = None,
) -> None:
    """Look through a log before anything is done with it; warn of what is odd.

    Raises:
        LogError: there are errors, and ``force`` is not given.

    """
    _, found = look(log.paths, policy, max_jump_ms=max_jump_ms, until_ms=until_ms, space=space)
    errors = [one.text for one in found if one.level == "error"]
    if errors and not force:
        raise LogError(f"{'; '.join(errors)} (force=True goes on)")
    for problem in found:
        _warn(problem)


def _warn(problem: Problem) -> None:
    warnings.warn(f"{problem.level}: {problem.text}", LogWarning, stacklevel=4)


def _write(frame: Frame, path: Path) -> None:
    """Write a frame as Parquet; :mod:`stream.logs.parquet` says what of it is read."""
    try:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise ConfigError("frames need pyarrow: pip install 'hearback-stream[frames]'") from None
    try:
        table = arrow.table(frame)
    except arrow.ArrowException as error:
        raise LogError(f"a frame cannot be read: {str(error).splitlines()[0]}") from None
    with path.open("xb") as file:
        parquet.write_table(table, file)
