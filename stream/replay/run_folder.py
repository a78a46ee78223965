"""SHELL: the files of a replay's folder.

===========================  ==================================================================
``labels.jsonl``             every label message, in order
``scores.jsonl``             one line per application: its scores before anything is learned
``coefficients.jsonl``       final coefficients of every entity, sorted by key
``dead_letters.jsonl``       what could not be used, and why
``metrics.json``             counts and quality
``state/``                   the RocksDB state, for ``hearback inspect``; of a replay with N
                             workers a state in each of ``state/0`` … ``state/N-1``
``checkpoint/``              while the replay goes on: what ``--resume`` goes on from
===========================  ==================================================================

With ``--format parquet`` the first three become ``.parquet`` when the replay is over
(:mod:`stream.replay.tables`). All of it is people's data: its owner alone may read it.
"""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import msgspec

from stream.errors import ConfigError, StateError
from stream.events.partitioner import partition_of
from stream.events.structs import Application, Coefficients, DeadLetter, FurtherScores, Label
from stream.events.wire import digits, encode, encode_label
from stream.histories.preferences import Preferred
from stream.labels.changes import Scores
from stream.labels.timeliness import shares
from stream.quality.matches import MatchCounts, MatchQuality
from stream.quality.prequential import Prequential, Summary
from stream.quality.ranking import Decisions, RankingQuality
from stream.replay.reader import Reader
from stream.stages.decisions import FIRST_SIGHT
from stream.state.store import RocksStore, Store
from stream.text import new_folder

LABELS = "labels.jsonl"
SCORES = "scores.jsonl"
COEFFICIENTS = "coefficients.jsonl"
DEAD_LETTERS = "dead_letters.jsonl"
METRICS = "metrics.json"
STATE = "state"
CHECKPOINT = "checkpoint"
_WRITTEN = (LABELS, SCORES, COEFFICIENTS, DEAD_LETTERS)
FILES = (LABELS, SCORES, COEFFICIENTS, DEAD_LETTERS, METRICS)

_BUFFER_BYTES = 1 << 18

_encode = msgspec.json.Encoder().encode


class ScoreLine(msgspec.Struct, frozen=True):
    """A line of ``scores.jsonl``; log-odds, history and preferences of first sight."""

    application_id: str
    event_time_ms: int
    global_score: float
    member_score: float
    job_score: float
    score: float
    further_scores: FurtherScores | msgspec.UnsetType = msgspec.UNSET
    history: list[float] | None = None
    preferences: Preferred | msgspec.UnsetType = msgspec.UNSET


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


Counted = dict[str, int]


class RunCounts(msgspec.Struct, frozen=True, kw_only=True):
    """All that one share of a replay has counted; shares add up."""

    dead_letters: Counted = {}
    ignored: Counted = {}
    labels: Counted = {}
    flips: Counted = {}
    first_within: Counted = {}
    positives_within: Counted = {}
    refits: Counted = {}
    applications: int = 0
    closed: int = 0
    decisions: Decisions = msgspec.field(default_factory=Decisions)
    member_decisions: Decisions = msgspec.field(default_factory=Decisions)
    matches: MatchCounts = msgspec.field(default_factory=MatchCounts)

    def __add__(self, other: RunCounts) -> RunCounts:
        """Return the counts of both."""
        theirs = msgspec.structs.asdict(other)
        both: dict[str, Any] = {
            name: _sum(mine, theirs[name]) if isinstance(mine, dict) else mine + theirs[name]
            for name, mine in msgspec.structs.asdict(self).items()
        }
        return RunCounts(**both)


class RunMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """``metrics.json``: nothing in it depends on the clock or the machine.

    ``rolls``: models that followed the first, and from which application time (ms) on.
    """

    model_version: str
    rolls: list[tuple[str, int]] | msgspec.UnsetType = msgspec.UNSET
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
    window_ms: int | None = None
    """Of the labels; None in runs of earlier releases."""
    quality: Summary
    rankings: RankingQuality | None = None
    """Within jobs, at the moment of decision; None where there was no choice."""
    member_rankings: RankingQuality | None = None
    """Within members; None, too, where there were several processes."""
    matches: MatchQuality | None = None
    """Of applications since ``score_from_ms``; None where none was told."""


def run_metrics(
    counts: Iterable[RunCounts],
    prequential: Prequential,
    reader: Reader,
    *,
    entities: Mapping[str, int],
    model_version: str,
    rolls: list[tuple[str, int]],
    score_from_ms: int,
) -> RunMetrics:
    """Sum up a run of one or several shares."""
    total = sum(counts, RunCounts())
    return RunMetrics(
        model_version=model_version,
        rolls=rolls or msgspec.UNSET,
        events=_sorted(reader.events),
        ignored=_sorted(total.ignored),
        dead_letters=_sorted(total.dead_letters),
        labels=_sorted(total.labels),
        flips=_sorted(total.flips),
        first_label_within=shares(Counter(total.first_within)),
        positives_within=shares(Counter(total.positives_within)),
        applications=total.applications,
        closed=total.closed,
        entities=_sorted(entities),
        refits=_sorted(total.refits),
        score_from_ms=score_from_ms,
        newest_event_ms=reader.time.largest_ms,
        watermark_ms=reader.time.watermark_ms,
        window_ms=reader.time.window_ms,
        quality=prequential.summary(),
        rankings=total.decisions.quality(FIRST_SIGHT["job"]),
        member_rankings=total.member_decisions.quality(FIRST_SIGHT["member"], "member"),
        matches=total.matches.quality(),
    )


def _sum(one: Counted, other: Counted) -> Counted:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _sorted(counts: Mapping[str, int]) -> Counted:
    return dict(sorted(counts.items()))


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

    def scored(self, app: Application, scores: Scores) -> None:
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

    Args:
        path: the folder.
        lengths: of the files, in bytes, where an interrupted run goes on: what was written after
            them is cut off. None: a new run.
        own_state: False where others keep the state (:func:`state_of`).

    Raises:
        ConfigError: the folder of a new run is there already and not empty, or cannot be made.

    """

    def __init__(
        self, path: Path, *, lengths: Mapping[str, int] | None = None, own_state: bool = True
    ) -> None:
        self.path = path
        self._lengths = lengths
        self._own_state = own_state
        self._files: dict[str, IO[bytes]] = {}
        if lengths is None:
            new_folder(path)

    def __enter__(self) -> Self:
        """Make the folder, the files and the state."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)  # it may have been there, empty
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be made: {error.strerror}") from None
        with ExitStack() as stack:
            for name in _WRITTEN:
                path = self.path / name
                path.touch(mode=0o600)
                file = stack.enter_context(path.open("r+b", buffering=_BUFFER_BYTES))
                file.seek(file.truncate((self._lengths or {}).get(name, 0)))
                self._files[name] = file
            if self._own_state:
                self._rocks = RocksStore(self.path / STATE)
                self.store: Store = self._rocks
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
        try:
            if error is None and self._own_state:
                self._rocks.flush()
        finally:
            self._open.close()
            for file in (self.path / STATE).rglob("*"):  # RocksDB goes by the umask alone
                if file.is_file():
                    file.chmod(0o600)

    def checkpoint_state(self, path: Path) -> None:
        """Copy the state as it is (:meth:`stream.state.store.RocksStore.checkpoint`)."""
        self._rocks.flush()
        self._rocks.checkpoint(path)

    def lengths(self) -> dict[str, int]:
        """Return how long the files are, once all that was written is safe."""
        found = {}
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            found[name] = file.tell()
        return found

    def write(self, name: str, lines: Iterable[bytes]) -> None:
        """Write lines, without their ends, to one of the files."""
        self._files[name].writelines(line + b"\n" for line in lines)

    def label(self, label: Label) -> None:
        """Write a label message."""
        self._files[LABELS].write(encode_label(label) + b"\n")

    def scored(self, app: Application, scores: Scores) -> None:
        """Write an application's scores."""
        self._files[SCORES].write(score_line(app, scores) + b"\n")

    def coefficients(self, coefficients: Coefficients) -> None:
        """Write an entity's coefficients."""
        self._files[COEFFICIENTS].write(encode(coefficients) + b"\n")

    def dead_letter(self, letter: DeadLetter) -> None:
        """Write a dead letter."""
        self._files[DEAD_LETTERS].write(dead_letter_line(letter) + b"\n")

    def metrics(self, metrics: RunMetrics) -> None:
        """Write ``metrics.json``; the last thing that a finished run writes."""
        with open(self.path / METRICS, "wb", opener=private) as file:
            file.write(msgspec.json.format(_encode(metrics)) + b"\n")


def private(path: str, flags: int) -> int:
    """Open a file that only its owner may read; an ``opener`` of :func:`open`."""
    return os.open(path, flags, 0o600)


def score_line(app: Application, scores: Scores) -> bytes:
    """Return an application's line of ``scores.jsonl``."""
    return _encode(
        ScoreLine(
            app.application_id,
            app.event_time_ms,
            scores.global_score,
            scores.member_score,
            scores.job_score,
            scores.full_score,
            scores.further_scores or msgspec.UNSET,
            None if scores.history is None else digits(scores.history),
            scores.preferences or msgspec.UNSET,
        )
    )


def dead_letter_line(letter: DeadLetter) -> bytes:
    """Return a dead letter's line of ``dead_letters.jsonl``."""
    source = letter.source
    text: str | None
    encoded: str | None = None
    try:
        text = source.raw.decode()
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(source.raw).decode()
    return _encode(
        DeadLetterLine(
            reason=letter.reason,
            message=letter.message,
            source=source.topic,
            line=source.offset,
            size=source.size,
            truncated=len(source.raw) < source.size,
            value=text,
            value_base64=encoded,
        )
    )


def state_of(path: Path, entity_id: str) -> Path:
    """Return the folder of the state that knows an entity of a run."""
    shares = len(list((path / STATE).glob("[0-9]*/CURRENT")))
    if not shares:
        return path / STATE
    return path / STATE / str(partition_of(entity_id.encode(), shares))
