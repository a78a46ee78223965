"""SHELL: fits the frozen global model on a log (``hearback train``).

Which applications it is fitted on, and what they count: :mod:`stream.model.rows`. What is judged is
judged by final labels, of a model fitted on what was known before.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError, EventError, InvalidFeaturesError, ModelError, TimeJumpError
from stream.events.ladder import Kind
from stream.events.structs import Application, DeadLetter, Event, Features, Forget, Source
from stream.events.wire import RawApplication, decode_raw, to_event
from stream.features.blocks import FeatureSpace, RawBlock, check_size
from stream.labels import driver
from stream.labels.changes import Change, Entered, Ignored, Step
from stream.labels.delays import DelayCurve, curve_of
from stream.labels.machine import LabelMachine
from stream.logs.files import LogLine
from stream.logs.jumps import JumpFilter
from stream.model.boosting import fit_boosted
from stream.model.coefficients import Linear
from stream.model.folder import (
    HISTORY_COLUMNS,
    GlobalModel,
    HeldOut,
    Manifest,
    new_model,
    save_model,
)
from stream.model.held_out import Judgement, Unjudged, hold_out
from stream.model.kind import ModelKind
from stream.model.logistic import Chosen, fit_logistic
from stream.model.rows import NEVER, POSITIVES_PER_FEATURE, Outcomes, Rows
from stream.model.scorer import Scorer
from stream.policy import Policy
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from stream.state.stored_facts import StoredFacts

_NOWHERE = Source("", 0, 0, 0, b"")


class BlockNames:
    """Learns the names of one block from the events themselves, or holds those given.

    ``limit``: of each number's size.
    """

    def __init__(self, label: str, given: list[str] | None, limit: float) -> None:
        self.label = label
        self._limit = limit
        self._given = given
        self._size: int | None = None if given is None else len(given)
        self.index: dict[str, int] = {name: i for i, name in enumerate(given or [])}
        self._as_lists = False

    def check(self, block: RawBlock) -> None:
        """Check a block, changing nothing.

        Raises:
            InvalidFeaturesError: its size, a name or a number contradicts those before or given.

        """
        values = block.values() if isinstance(block, dict) else block
        check_size(f"features.{self.label}", values, self._limit)
        if isinstance(block, dict):
            if self._given is None and not self._as_lists:
                return
            for name in block:
                if name not in self.index:
                    raise InvalidFeaturesError(
                        f"features.{self.label} has an unknown name: {name[:64]!r}"
                    )
            return
        if self._given is None and self.index:
            raise InvalidFeaturesError(f"features.{self.label} is a list, an object before")
        if self._size is not None and len(block) != self._size:
            raise InvalidFeaturesError(
                f"features.{self.label} has {len(block)} numbers, {self._size} before"
            )

    def adopt(self, block: RawBlock) -> None:
        """Take the size or the names of a checked block over."""
        if isinstance(block, dict):
            for name in block:
                self.index.setdefault(name, len(self.index))
        elif self._size is None:
            self._size = len(block)
            self._as_lists = True

    def names(self) -> list[str]:
        """Names in the model's order: as given, sorted, or numbered."""
        if self._given is not None:
            return self._given
        if self._as_lists:
            return [f"{self.label}[{i}]" for i in range(self._size or 0)]
        return sorted(self.index)


class _Row(msgspec.Struct):
    """The global block and history of an application, and when its label became what it is."""

    columns: list[int] | None
    values: list[float]
    answered_ms: int = NEVER
    settled_ms: int = NEVER
    history: bytes | None = None


class Trainer:
    """Reads a log, collects labels and when they came, fits.

    Args:
        policy: the label policy.
        until_ms: events after it are not used; None for the whole log.
        names: feature names per block where events carry lists; None: from the events.
        max_jump_ms: hold an event further ahead back until others confirm it; None: never.
        kind: of model that is fitted.
        first_sights: makes what gives labels, with the history of each application in its scores
            (:class:`stream.stages.first_sights.FirstSights`): it is fitted on these, too. None: a
            machine without.

    Attributes:
        refused: lines left out, by reason, as a replay counts its dead letters.
        chosen: how strong the regularisation is of the linear model that was fitted.
        ignored: events that changed no label, by reason, as a replay counts them.

    """

    def __init__(
        self,
        policy: Policy,
        until_ms: int | None,
        names: dict[str, list[str]] | None,
        max_jump_ms: int | None = None,
        kind: ModelKind = "linear",
        first_sights: Callable[[Overlay, Policy], driver.Labels[Event, Step]] | None = None,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._refusals: dict[str, str] = {}  # the first message of each reason
        self.chosen: Chosen | None = None
        self._kind = kind
        self.ignored: Counter[str] = Counter()
        self._policy = policy
        self._until_ms = until_ms
        self._limit = policy.features.max_feature
        blocks = ("global", "per_member", "per_job")
        if names is not None and set(names) != set(blocks):
            raise ConfigError(f"the names file must have exactly the keys {', '.join(blocks)}")
        self._names = {
            block: BlockNames(block, None if names is None else names[block], self._limit)
            for block in blocks
        }
        self._overlay = Overlay(MemoryStore())
        self._with_history = first_sights is not None
        self._machine: driver.Labels[Event, Step] = (
            LabelMachine(policy.labels, StoredFacts(self._overlay))
            if first_sights is None
            else first_sights(self._overlay, policy)
        )
        self._time = driver.LogTime(policy.labels)
        self._jumps: JumpFilter[tuple[Event, _Row | None]] = JumpFilter(max_jump_ms)
        self._open: dict[tuple[str, str], _Row] = {}
        self._rows: list[_Row] = []
        self._times = array("q")
        self._jobs = array("q")  # numbered as their windows close
        self._numbers: dict[str, int] = {}
        self._from_ms: int | None = None
        self._space = FeatureSpace((), (), ())

    def read(self, lines: Iterable[LogLine], progress: Callable[[int], None]) -> None:
        """Take a whole log in; ``progress`` is called with the number of lines now and then."""
        count = 0
        for count, line in enumerate(lines, 1):
            try:
                event, row = self._event(line)
            except EventError as error:
                self._refuse(error.reason, str(error))
            else:
                if isinstance(event, Forget):
                    self._apply(event, row)  # may lie anywhere in time
                elif event is not None:
                    for ready in self._jumps.take(event.event_time_ms, (event, row)):
                        self._apply(*ready)
            if count % 2048 == 0:
                self._overlay.flush()
                progress(count)
        progress(count)
        for ready in self._jumps.end():
            self._apply(*ready)
        if self._jumps.held:
            self.refused[TimeJumpError.reason] += len(self._jumps.held)
        self._take(self._machine.close_due(self._time.close()))

    def hold_out(
        self,
        than: GlobalModel | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Judgement | Unjudged:
        """Judge a model fitted without the newest applications on these.

        Args:
            than: a model to compare it with, on those of them that it has not seen.
            progress: is told what is being done.

        Raises:
            ModelError: that model has features that this log has not, or has seen all of them.

        """
        final = self.rows(self.end_ms, aged=False)

        def fit(known: Rows) -> Scorer:
            return self._fitted(known, progress)

        return hold_out(final, self._policy.labels.window_ms, self._columns(), self.rows, fit, than)

    def fit(self, out: Path) -> Manifest:
        """Fit on what was read and write the model folder; errors as of :meth:`model`."""
        return save_model(out, self.model())

    def model(
        self,
        held_out: HeldOut | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> GlobalModel:
        """Fit on what was read.

        Args:
            held_out: what :meth:`hold_out` has found, for the manifest.
            progress: is told what is being done.

        Raises:
            ModelError: nothing to fit on, or one class only.

        """
        rows = self.rows(self.end_ms)
        count, positives = len(rows.y), int(rows.y.sum())
        if not rows.of_both_kinds:
            whose = "were known" if rows.aged else "have their whole window"
            raise ModelError(
                f"{count} applications {whose} before the end of training, {positives} of them"
                f" positive: both kinds are needed; {self._advice(count)}"
            )
        scorer = self._fitted(rows, progress)
        return new_model(
            scorer,
            self.features(),
            trained_from_ms=self._from_ms or 0,
            trained_until_ms=self.end_ms,
            rows="aged" if rows.aged else "closed",
            applications=count,
            positives=positives,
            regularisation=None if self.chosen is None else self.chosen.C,
            held_out=held_out,
            delays=self.delays(),
            choice=None if self.chosen is None else self.chosen.choice,
            inputs=("global", "history") if self._with_history else ("global",),
        )

    def features(self) -> dict[str, list[str]]:
        """Return the feature names of each block, as given or as the log has them."""
        blocks = {block: names.names() for block, names in self._names.items()}
        return blocks | {"history": HISTORY_COLUMNS} if self._with_history else blocks

    def _columns(self) -> list[str]:
        """Return the names of what a model is fitted on."""
        return self._names["global"].names() + (HISTORY_COLUMNS if self._with_history else [])

    def delays(self) -> DelayCurve | None:
        """Return how long answers take; None where there are too few to tell."""
        return self._outcomes().delays(self.end_ms)

    def newest(self, most: int) -> int:
        """Time of the first of the ``most`` newest applications whose windows have closed."""
        outcomes = self._outcomes()
        times_ms = np.sort(outcomes.times_ms[outcomes.closed(self.end_ms)])
        return int(times_ms[-most:].min(initial=self.end_ms))

    @property
    def end_ms(self) -> int:
        """End of what may be known."""
        return self._time.largest_ms if self._until_ms is None else self._until_ms

    def rows(self, at_ms: int, *, aged: bool | None = None) -> Rows:
        """Return what a model is fitted on that is trained at a time.

        Args:
            at_ms: the time; :attr:`end_ms` at most.
            aged: aged rows or closed ones; None: aged ones for trees, and where the closed ones are
                too few for a linear model. With ``aging`` off there are closed ones only.

        """
        outcomes = self._outcomes()
        closed = outcomes.closed(at_ms)
        if aged is None:
            positives = int((outcomes.answered_ms[closed] != NEVER).sum())
            few = positives < POSITIVES_PER_FEATURE * len(self.features()["global"])
            aged = few or self._kind == "boosted"
        aged = aged and bool(self._policy.labels.aging)
        curve = curve_of(self._policy.labels, outcomes.delays(at_ms))
        y, weights = outcomes.known(at_ms, curve)
        used = np.flatnonzero(weights > 0.0 if aged else closed)
        return Rows(
            self._matrix([self._rows[at] for at in used]),
            y[used],
            weights[used],
            outcomes.times_ms[used],
            np.array(self._jobs, dtype=np.int64)[used],
            aged,
        )

    def _fitted(self, rows: Rows, progress: Callable[[str], None]) -> Scorer:
        if self._kind == "boosted":
            return fit_boosted(rows.X, rows.y, rows.weights)
        coefficients, self.chosen = fit_logistic(rows, progress)
        return Linear(coefficients)

    def _outcomes(self) -> Outcomes:
        return Outcomes(
            np.array(self._times, dtype=np.int64),
            np.array([row.answered_ms for row in self._rows], dtype=np.int64),
            np.array([row.settled_ms for row in self._rows], dtype=np.int64),
            self._policy.labels.window_ms,
        )

    def _event(self, line: LogLine) -> tuple[Event | None, _Row | None]:
        """Read a line: its event, with the global block of an application; None: not used."""
        if line.damaged is not None:
            raise EventError(line.damaged)
        raw = decode_raw(line.raw)
        if self._until_ms is not None and raw.event_time_ms > self._until_ms:
            return None, None
        if not isinstance(raw, RawApplication):
            return to_event(raw, self._space), None
        block = raw.features.global_
        if block is None:
            raise InvalidFeaturesError("no features.global to train on")
        if raw.global_score is not None:
            check_size("global_score", (raw.global_score,), self._limit)
        blocks = {
            "global": block,
            "per_member": raw.features.per_member,
            "per_job": raw.features.per_job,
        }
        for name, values in blocks.items():
            self._names[name].check(values)
        for name, values in blocks.items():
            self._names[name].adopt(values)
        app = Application(
            application_id=raw.application_id,
            member_id=raw.member_id,
            job_id=raw.job_id,
            event_time_ms=raw.event_time_ms,
            features=Features(None, b"", b""),
        )
        if not isinstance(block, dict):
            return app, _Row(None, block)
        index = self._names["global"].index
        return app, _Row([index[name] for name in block], list(block.values()))

    def _refuse(self, reason: str, message: str) -> None:
        self.refused[reason] += 1
        self._refusals.setdefault(reason, message)

    def _advice(self, used: int) -> str:
        """Say why there is nothing to fit on: most often what was refused, else too short a log."""
        for reason, count in self.refused.most_common(1):
            if count > used:
                first = self._refusals.get(reason, "their time lies more than --max-jump ahead")
                return f"{count:,} lines were left out as {reason}, the first: {first}"
        return "take a longer log, a later --until or a shorter window"

    def _apply(self, event: Event, row: _Row | None) -> None:
        before_ms = self._time.watermark_ms
        self._time.move(event)
        after_ms = self._time.watermark_ms
        self._take(driver.read(self._machine, event, _NOWHERE, before_ms, after_ms), row)

    def _take(self, steps: Iterable[Step], row: _Row | None = None) -> None:
        """Keep the rows of applications, and their labels once their windows have closed."""
        for step in steps:
            match step:
                case Change():
                    self._learn(step)
                case Entered(app, scores) if row is not None:
                    row.history = scores.history
                    self._open[app.job_id, app.application_id] = row
                    if self._from_ms is None or app.event_time_ms < self._from_ms:
                        self._from_ms = app.event_time_ms
                case DeadLetter(reason, message):
                    self._refuse(reason, message)
                case Ignored(reason) if reason != "orphans":  # counted when it ends
                    self.ignored[reason] += 1

    def _learn(self, change: Change) -> None:
        """Note when an application's label became what it is; end it when its window closes."""
        key = change.job_id, change.application_id
        row, evidence_ms = self._open[key], change.evidence_time_ms
        if change.kind is Kind.POSITIVE:
            if evidence_ms is not None:
                row.answered_ms = evidence_ms
        elif evidence_ms is not None:
            row.settled_ms = min(row.settled_ms, evidence_ms)
        if change.closed:
            self._rows.append(self._open.pop(key))
            self._times.append(change.facts.event_time_ms)
            self._jobs.append(self._numbers.setdefault(change.job_id, len(self._numbers)))

    def _matrix(self, rows: list[_Row]) -> NDArray[np.float64]:
        """Rows → float64 (n, d), each number rounded to float32 as scoring will see it."""
        block = self._names["global"]
        names = block.names()
        X = np.zeros((len(rows), len(names)), dtype=np.float32)
        first_seen = {at: names.index(name) for name, at in block.index.items()}
        for at, row in enumerate(rows):
            if row.columns is None:
                X[at] = row.values
            else:
                X[at, [first_seen[column] for column in row.columns]] = row.values
        if self._with_history:
            histories = b"".join(row.history or b"" for row in rows)
            own = np.frombuffer(histories, "<f4").reshape(len(rows), len(HISTORY_COLUMNS))
            X = np.concatenate([X, own], axis=1)
        return X.astype(np.float64)
