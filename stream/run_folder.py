"""SHELL: the files of a replay's folder.

===========================  ==================================================================
``labels.jsonl``             every label message, in order
``scores.jsonl``             one line per application: its scores before anything is learned
``coefficients.jsonl``       final coefficients of every entity, sorted by key
``dead_letters.jsonl``       what could not be used, and why
``metrics.json``             counts and quality
``state/``                   the RocksDB state, for ``hearback inspect``
===========================  ==================================================================
"""

from __future__ import annotations

import base64
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from stream.errors import ConfigError, StateError
from stream.evaluation import Summary
from stream.events import Application, Coefficients, DeadLetter, Label
from stream.labels.changes import Scores
from stream.state.store import RocksStore, Store
from stream.wire import encode_coefficients, encode_label

LABELS = "labels.jsonl"
SCORES = "scores.jsonl"
COEFFICIENTS = "coefficients.jsonl"
DEAD_LETTERS = "dead_letters.jsonl"
METRICS = "metrics.json"
STATE = "state"
FILES = (LABELS, SCORES, COEFFICIENTS, DEAD_LETTERS, METRICS)

_encode = msgspec.json.Encoder().encode


class ScoreLine(msgspec.Struct, frozen=True):
    """A line of ``scores.jsonl``; log-odds."""

    application_id: str
    event_time_ms: int
    global_score: float
    member_score: float
    job_score: float
    score: float


class DeadLetterLine(msgspec.Struct, frozen=True):
    """A line of ``dead_letters.jsonl``: the value as text, or base64 where it is not UTF-8."""

    reason: str
    message: str
    source: str
    line: int
    size: int
    truncated: bool
    value: str | None
    value_base64: str | None


class RunMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """``metrics.json``: nothing in it depends on the clock or the machine."""

    model_version: str
    events: dict[str, int]
    ignored: dict[str, int]
    dead_letters: dict[str, int]
    labels: dict[str, int]
    flips: dict[str, int]
    first_label_within: dict[str, float | None]
    positives_within: dict[str, float | None]
    applications: int
    closed: int
    entities: dict[str, int]
    refits: dict[str, int]
    score_from_ms: int
    newest_event_ms: int = 0
    watermark_ms: int | None = None
    """How far event time came: where workers go on (``hearback bootstrap``)."""
    quality: Summary


def load_metrics(run: Path) -> RunMetrics:
    """Read ``metrics.json`` of a run, which only a finished one has.

    Raises:
        ConfigError: it is no run, or did not come to its end. StateError: it is damaged.

    """
    path = run / METRICS
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunMetrics)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{run} is no replay's folder, or the replay did not come to its end: there is no"
            f" {METRICS}"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(f"{path} is damaged: {error}") from None


def states_of(run: Path) -> list[Path]:
    """Return the folders of a run's states: one, or one of each of its processes.

    Raises:
        StateError: there are none.

    """
    whole = run / STATE
    if (whole / "CURRENT").exists():
        return [whole]
    shares = sorted(path.parent for path in whole.glob("[0-9]*/CURRENT"))
    if not shares:
        raise StateError(f"{run} holds no state: replay again")
    return shares


class RunSink(Protocol):
    """Where a replay's results go: a :class:`RunFolder`, or memory."""

    @property
    def store(self) -> Store:
        """Where the replay keeps its state."""

    def score(self, app: Application, scores: Scores) -> None:
        """Take an application's scores, as of before anything of it is learned."""

    def label(self, label: Label) -> None:
        """Take a label, after both effects learned it."""

    def coefficients(self, coefficients: Coefficients) -> None:
        """Take an entity's final coefficients."""

    def dead_letter(self, letter: DeadLetter) -> None:
        """Take what could not be used."""

    def metrics(self, metrics: RunMetrics) -> None:
        """Take the counts and the quality, last of all."""


class RunFolder:
    """Writes a run. Use as a context manager; it makes the folder and closes the files.

    Raises:
        ConfigError: the folder is there already and not empty, or cannot be made.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"{path} is there already: name another folder or remove it")

    def __enter__(self) -> Self:
        """Make the folder, the files and the state."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be made: {error.strerror}") from None
        with ExitStack() as stack:
            self._labels = stack.enter_context((self.path / LABELS).open("wb"))
            self._scores = stack.enter_context((self.path / SCORES).open("wb"))
            self._coefficients = stack.enter_context((self.path / COEFFICIENTS).open("wb"))
            self._dead_letters = stack.enter_context((self.path / DEAD_LETTERS).open("wb"))
            self.store: Store = RocksStore(self.path / STATE)
            stack.callback(self.store.close)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close what is open; after an error the files hold what was written so far."""
        self._open.close()

    def label(self, label: Label) -> None:
        """Write a label message."""
        self._labels.write(encode_label(label) + b"\n")

    def score(self, app: Application, scores: Scores) -> None:
        """Write an application's scores."""
        line = ScoreLine(
            app.application_id,
            app.event_time_ms,
            scores.global_,
            scores.member,
            scores.job,
            scores.global_ + scores.member + scores.job,
        )
        self._scores.write(_encode(line) + b"\n")

    def coefficients(self, coefficients: Coefficients) -> None:
        """Write an entity's coefficients."""
        self._coefficients.write(encode_coefficients(coefficients) + b"\n")

    def dead_letter(self, letter: DeadLetter) -> None:
        """Write a dead letter."""
        source = letter.source
        text: str | None
        encoded: str | None = None
        try:
            text = source.raw.decode()
        except UnicodeDecodeError:
            text, encoded = None, base64.b64encode(source.raw).decode()
        line = DeadLetterLine(
            reason=letter.reason,
            message=letter.message,
            source=source.topic,
            line=source.offset,
            size=source.size,
            truncated=len(source.raw) < source.size,
            value=text,
            value_base64=encoded,
        )
        self._dead_letters.write(_encode(line) + b"\n")

    def metrics(self, metrics: RunMetrics) -> None:
        """Write ``metrics.json``; the last thing that a finished run writes."""
        (self.path / METRICS).write_bytes(msgspec.json.format(_encode(metrics)) + b"\n")
