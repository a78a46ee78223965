"""SHELL: reads a log into what the frozen global model is fitted on (``hearback train``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import numpy as np

from stream.errors import EventError, InvalidFeaturesError, TimeJumpError
from stream.events.applications import RawApplication, entered
from stream.events.ladder import Kind
from stream.events.structs import Application, DeadLetter, Event, Features, Forget, Source
from stream.events.wire import decode_raw, to_event
from stream.features.blocks import FeatureSpace, check_size
from stream.features.making import Maker
from stream.labels import driver
from stream.labels.changes import Change, Entered, Ignored, Step
from stream.labels.machine import LabelMachine
from stream.logs.files import LogLine
from stream.logs.jumps import JumpFilter
from stream.model.kind import FURTHER, ModelKind
from stream.model.training_set import Row, TrainingSet
from stream.policy import Policy
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from stream.state.stored_facts import StoredFacts

_NOWHERE = Source("", 0, 0, 0, b"")
_NO_FEATURES = Features(None, b"", b"")  # labels are all that is wanted


class Trainer(TrainingSet):
    """Reads a log, collects labels and when they came, fits.

    Args:
        policy: the label policy.
        until_ms: events after it are not used; None for the whole log.
        names: feature names per block where events carry lists, or what makes the features of
            attributes; None: from the events.
        max_jump_ms: hold an event further ahead back until others confirm it; None: never.
        kind: of model that is fitted.
        first_sights: makes what gives labels, with histories and preferences of each application in
            its scores (:class:`stream.stages.first_sights.FirstSights`): models may be fitted on
            these, too. None: a machine without.

    """

    def __init__(
        self,
        policy: Policy,
        until_ms: int | None,
        names: dict[str, list[str]] | Maker | None,
        max_jump_ms: int | None = None,
        kind: ModelKind = "linear",
        first_sights: Callable[[Overlay, Policy], driver.Labels[Event, Step]] | None = None,
    ) -> None:
        super().__init__(policy, names, kind, () if first_sights is None else FURTHER[kind])
        self._until_ms = until_ms
        self.end_ms = until_ms or 0
        self._overlay = Overlay(MemoryStore())
        self._machine: driver.Labels[Event, Step] = (
            LabelMachine(policy.labels, StoredFacts(self._overlay))
            if first_sights is None
            else first_sights(self._overlay, policy)
        )
        self._time = driver.LogTime(policy.labels)
        self._jumps: JumpFilter[tuple[Event, Row | None]] = JumpFilter(max_jump_ms)
        self._open: dict[tuple[str, str], Row] = {}
        self._space = (
            FeatureSpace((), (), ()) if self._maker is None else FeatureSpace.made(self._maker)
        )

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
        if self._until_ms is None:
            self.end_ms = self._time.largest_ms

    def _event(self, line: LogLine) -> tuple[Event | None, Row | None]:
        """Read a line: its event, with the global block of an application; None: not used."""
        if line.damaged is not None:
            raise EventError(line.damaged)
        raw = decode_raw(line.raw)
        if self._until_ms is not None and raw.event_time_ms > self._until_ms:
            return None, None
        if not isinstance(raw, RawApplication):
            return to_event(raw, self._space), None
        if self._maker is not None:
            made = entered(raw, self._space)
            row = Row(None, np.frombuffer(made.features.global_ or b"", "<f4"))
            return msgspec.structs.replace(made, features=_NO_FEATURES), row
        features = raw.features
        if features is None or features.global_ is None:
            said = "; --spec says what becomes of attributes" if raw.member or raw.job else ""
            raise InvalidFeaturesError(f"no features.global to train on{said}")
        block = features.global_
        if raw.global_score is not None:
            check_size("global_score", (raw.global_score,), self._policy.features.max_feature)
        blocks = {
            "global": block,
            "per_member": features.per_member,
            "per_job": features.per_job,
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
            features=_NO_FEATURES,
            channel=raw.channel,
            terms=raw.terms,
        )
        if not isinstance(block, dict):
            return app, Row(None, block)
        index = self._names["global"].index
        return app, Row([index[name] for name in block], list(block.values()))

    def _apply(self, event: Event, row: Row | None) -> None:
        before_ms = self._time.watermark_ms
        self._time.move(event)
        after_ms = self._time.watermark_ms
        self._take(driver.read(self._machine, event, _NOWHERE, before_ms, after_ms), row)

    def _take(self, steps: Iterable[Step], row: Row | None = None) -> None:
        """Keep the rows of applications, and their labels once their windows have closed."""
        for step in steps:
            match step:
                case Change():
                    self._learn(step)
                case Entered(app, scores) if row is not None:
                    row.history, row.preferences = scores.history, scores.preferences
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
            self.put(self._open.pop(key), change.job_id, change.facts.event_time_ms)
