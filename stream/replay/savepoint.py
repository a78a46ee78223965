"""What an interrupted replay goes on from.

``RUN/checkpoint/`` is there while a replay goes on:

==================  =============================================================================
``settings.json``   which log, model and settings the replay has: it goes on with no other
``judged-K``        scores whose truth is known, of share K, appended at each checkpoint
``N/``              the newest checkpoint: ``progress.json`` and, for each share, ``state-K``
==================  =============================================================================

A checkpoint is made under another name and gets its own when it is whole; then the one before it
goes. Its states are RocksDB checkpoints, which share their files with the live state (hard links).
To go on is to put the states back, to cut the written files where they ended, and to pass the lines
that were read. What has been done since is done again, and gives the same bytes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TypeVar

import msgspec

from stream.errors import ConfigError, StateError
from stream.quality.prequential import ROW_BYTES, Prequential
from stream.replay.reader import ReaderState
from stream.replay.run_folder import CHECKPOINT, METRICS, STATE, RunCounts
from stream.stages.succession import Rolled
from stream.units import MS_PER_UNIT

FORMAT = 3
MOST_WORKERS = 64

SYNC_MS = 10 * MS_PER_UNIT["m"]
"""Event time between two barriers unless told otherwise: labels reach the members of other workers
this late at the most."""

FLUSH_EVERY = 1 << 13
"""Lines, or labels of one line, between two flushes to RocksDB; fewer where an effect has twice
``MOST_HELD`` in memory. An entity is refitted and written once for all its labels between two."""

LOOK_EVERY = 1 << 10
"""Lines after which ``progress`` is called, and memory looked at; ``flush_every`` is a multiple."""

EVERY_LINES = 250_000
"""Lines between two checkpoints: some ten seconds of work, of which a checkpoint takes a tenth of
one (RocksDB writes what it has in memory to a file)."""

_SETTINGS = "settings.json"
_PROGRESS = "progress.json"
_T = TypeVar("_T")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to replay; all of it is part of what is replayed.

    ``score_from_ms``: applications before it are left out of the quality in ``metrics.json``.
    ``close``: move event time past every window at the end. ``max_jump_ms``: hold an event further
    ahead back until others confirm it; None: never. ``flush_every``: lines, for each worker,
    between two flushes of the state; ``checkpoint_every``: lines between two checkpoints, at which
    memory is let go of. ``rolls``: models that follow the global model, in the order in which they
    were rolled in (:mod:`stream.stages.succession`).
    """

    score_from_ms: int = 0
    close: bool = False
    max_jump_ms: int | None = None
    workers: int = 1
    sync_ms: int = SYNC_MS
    flush_every: int = FLUSH_EVERY
    checkpoint_every: int = EVERY_LINES
    rolls: tuple[Rolled, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not 1 <= self.workers <= MOST_WORKERS:
            raise ConfigError(f"--workers must lie between 1 and {MOST_WORKERS}")
        if self.sync_ms < 1:
            raise ConfigError("--sync must be longer than zero")
        if self.flush_every < 1 or self.flush_every % LOOK_EVERY:
            raise ConfigError(f"flush_every must be a multiple of {LOOK_EVERY}")

    @property
    def roll_names(self) -> list[tuple[str, int]]:
        """Versions of ``rolls``, and from when on (ms)."""
        return [(rolled.model.version, rolled.from_ms) for rolled in self.rolls]


DEFAULTS = Options()


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the files of a replay depend on. Logs are (name, bytes)."""

    format: int = FORMAT
    logs: list[tuple[str, int]]
    model: str
    rolls: list[tuple[str, int]] = []
    policy: str
    score_from_ms: int
    close: bool
    max_jump_ms: int | None
    workers: int
    sync_ms: int | None
    flush_every: int
    every_lines: int


_SAID = {
    "format": "release",
    "logs": "log",
    "model": "--model",
    "rolls": "--roll",
    "policy": "--policy",
    "score_from_ms": "--score-from",
    "close": "--close",
    "max_jump_ms": "--max-jump",
    "workers": "--workers",
    "sync_ms": "--sync",
    "flush_every": "release",
    "every_lines": "release",
}


class Share(msgspec.Struct, frozen=True):
    """What one share of the members and jobs has counted; ``judged`` rows are in its file."""

    counts: RunCounts
    judged: int


class Savepoint(msgspec.Struct, frozen=True, kw_only=True):
    """How far a replay was: what it read, its files in bytes, its shares.

    ``dead_letters`` are those that belong to no share.
    """

    reader: ReaderState
    lengths: dict[str, int]
    shares: list[Share]
    dead_letters: dict[str, int] = {}


class Checkpoints:
    """The checkpoints of one run's folder.

    Args:
        run: the folder.
        settings: of the replay.

    """

    def __init__(self, run: Path, settings: RunSettings) -> None:
        self._run = run
        self._settings = settings
        self._folder = run / CHECKPOINT
        self._removed = self._folder.with_suffix(".removed")
        self._last_lines = 0
        self._number = 0

    def begin(self) -> None:
        """Say what the replay is, in the folder of a new run."""
        self._folder.mkdir(parents=True)
        _write(self._folder / _SETTINGS, self._settings)

    def resume(self) -> Savepoint | None:
        """Find what to go on from, and put the states back; None: nothing yet, begin anew.

        Raises:
            ConfigError: there is nothing to go on with, or it was another replay.
            StateError: it is damaged.

        """
        shutil.rmtree(self._removed, ignore_errors=True)
        if not self._folder.is_dir():
            done = (self._run / METRICS).exists()
            raise ConfigError(
                f"{self._run} is complete: there is nothing to resume"
                if done
                else f"{self._run} holds no interrupted replay: leave --resume out to begin one"
            )
        before = self._folder / _SETTINGS
        if not before.exists():
            shutil.rmtree(self._run / STATE, ignore_errors=True)  # it had hardly begun
            _write(before, self._settings)
            return None
        self._check(_read(before, RunSettings))
        numbers = [int(path.name) for path in self._folder.glob("[0-9]*") if path.name.isdigit()]
        state = self._run / STATE
        shutil.rmtree(state, ignore_errors=True)
        if not numbers:
            return None
        self._number = max(numbers)
        newest = self._folder / str(self._number)
        progress = _read(newest / _PROGRESS, Savepoint)
        for share in range(len(progress.shares)):
            _copy_state(newest / f"state-{share}", share_folder(self._run, share, self.shares))
        self._last_lines = progress.reader.lines
        return progress

    @property
    def shares(self) -> int:
        """How many shares the state has."""
        return self._settings.workers

    def judged(self, share: int) -> Path:
        """Return the file for the scores of a share whose truth is known."""
        return self._folder / f"judged-{share}"

    def due(self, lines: int) -> bool:
        """Whether a checkpoint should be made, now that so many lines were read."""
        return lines - self._last_lines >= self._settings.every_lines

    def make(self, lines: int) -> list[Path]:
        """Begin one; return where the state of each share is to be put."""
        self._last_lines = lines
        self._number += 1
        making = self._making()
        shutil.rmtree(making, ignore_errors=True)  # of an attempt that was cut short
        making.mkdir()
        return [making / f"state-{share}" for share in range(self.shares)]

    def finish(self, progress: Savepoint) -> None:
        """Make it the newest, now that all states are there."""
        _write(self._making() / _PROGRESS, progress)
        self._making().rename(self._folder / str(self._number))
        shutil.rmtree(self._folder / str(self._number - 1), ignore_errors=True)

    def remove(self) -> None:
        """Remove all of it: the replay is done.

        First it gets another name: who is killed in between must not leave half of it.
        """
        self._folder.rename(self._removed)
        shutil.rmtree(self._removed, ignore_errors=True)

    def _making(self) -> Path:
        return self._folder / f"{self._number}.part"

    def _check(self, before: RunSettings) -> None:
        now = msgspec.to_builtins(self._settings)
        for name, was in msgspec.to_builtins(before).items():
            if now[name] != was:
                raise ConfigError(
                    f"{self._run} was begun with another {_SAID[name]}: resume it with the same, or"
                    " name another folder"
                )


def share_folder(run: Path, share: int, shares: int) -> Path:
    """Return the folder of the state of a share."""
    return run / STATE if shares == 1 else run / STATE / str(share)


def save_rows(path: Path, prequential: Prequential, written: int) -> int:
    """Append the rows from ``written`` on to a share's file; return how many there are then."""
    path.touch()
    with path.open("r+b") as file:
        file.seek(file.truncate(written * ROW_BYTES))
        file.write(prequential.rows(written))
    return len(prequential)


def load_rows(path: Path, count: int) -> bytes:
    """Read the first rows of a share's file."""
    with path.open("rb") as file:
        rows = file.read(count * ROW_BYTES)
    if len(rows) != count * ROW_BYTES:
        raise StateError(f"{path} is damaged: remove the folder and begin anew")
    return rows


def _copy_state(checkpoint: Path, to: Path) -> None:
    """Put a state back; the files that RocksDB never changes are shared."""
    to.mkdir(parents=True)
    for path in checkpoint.iterdir():
        if path.suffix == ".sst":
            os.link(path, to / path.name)
        else:
            shutil.copyfile(path, to / path.name)


def _write(path: Path, value: RunSettings | Savepoint) -> None:
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        file.write(msgspec.json.encode(value))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _read(path: Path, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StateError(f"{path} cannot be read: {error}") from None
