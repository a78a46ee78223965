"""SHELL: a process beside this one that learns some of a backtest's settings.

It is sent the recording once, without what the effects do not look at, and then one setting after
the other, each when it is through with the last; it answers with the scores of all applications,
which are those that this process would have found, to the digit. The messages are MessagePack,
never pickles. It is started anew rather than forked: a fork would copy threads' locks.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.backtest.comparison import Setting
from stream.backtest.rehearsal import Recorder, Rehearsal, Step, rehearse
from stream.backtest.schedule import schedule
from stream.errors import HearbackError, WorkerDiedError
from stream.events.structs import Application, Features, Label
from stream.features.blocks import FeatureSpace
from stream.labels.changes import Scores
from stream.model.folder import NO_MODEL
from stream.replay.process import seldom_collecting
from stream.updaters.newton import warm_up

WORTH: Final = 1_000_000
"""Steps to be learned in all from which on a second process pays: its start takes seconds."""

_SPAWN: Final = get_context("spawn")

_Floats = NDArray[np.float64]


class _Known(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A label, without what its application says of it."""

    number: int
    label: int
    kind: str
    previous: str | None
    rule: str | None
    final: bool
    weight: float
    evidence_time_ms: int | None
    label_time_ms: int
    previous_weight: float | None


class _Recorded(msgspec.Struct, frozen=True, array_like=True):
    """A recording: applications (n), the number of one where it is scored, their scores (8n)."""

    applications: list[Application]
    steps: list[int | _Known]
    global_scores: bytes
    per_member: list[str]
    per_job: list[str]
    score_from_ms: int


class _Failed(msgspec.Struct, frozen=True, array_like=True):
    """It cannot go on, and why."""

    message: str


_encode: Final = msgspec.msgpack.Encoder().encode
_recorded: Final = msgspec.msgpack.Decoder(_Recorded)
_setting: Final = msgspec.msgpack.Decoder(Setting)
_answer: Final = msgspec.msgpack.Decoder(bytes | _Failed)


def learn(rehearsal: Rehearsal, setting: Setting, score_from_ms: int) -> _Floats:
    """Learn a recording with a setting; return the full scores (n,)."""
    if not setting.use:
        return rehearsal.global_scores
    window_ms = setting.policy.labels.window_ms
    steps = schedule(rehearsal, setting.refresh_ms, setting.learn, score_from_ms, window_ms)
    return rehearsal.scores(rehearse(rehearsal, setting.policy, setting.use, steps=steps))


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Beside:
    """The other process; a context manager that ends it, whatever it is doing.

    Args:
        rehearsal: the recording. score_from_ms: what "never" stands for.
        take: gives the next setting to learn; None: there is no more. Called by a thread.
        found: is told the scores (n,) of one. Called by the same thread.

    """

    def __init__(
        self,
        rehearsal: Rehearsal,
        score_from_ms: int,
        take: Callable[[], Setting | None],
        found: Callable[[Setting, _Floats], None],
    ) -> None:
        self._message = _encode(_stripped(rehearsal, score_from_ms))
        self._take, self._found = take, found
        self._why: WorkerDiedError | None = None
        # Within the caller's context: it says whether progress is shown.
        self._thread = threading.Thread(target=copy_context().run, args=(self._give,), daemon=True)

    def __enter__(self) -> Self:
        """Start it."""
        self._mine, its = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=main, args=(its,), name="backtest", daemon=True)
        self._process.start()
        its.close()  # an end that stayed open here would hide that the process is gone
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.terminate()
        self._process.join()
        self._thread.join()
        self._mine.close()

    def check(self) -> None:
        """Say so if it could not go on.

        Raises:
            WorkerDiedError: it ended, or could not go on.

        """
        if self._why is not None:
            raise self._why

    def join(self) -> None:
        """Wait until it has learned all that it took; errors as of :meth:`check`."""
        self._thread.join()
        self.check()

    def _give(self) -> None:
        """Send it one setting after the other."""
        setting: Setting | None = None
        try:
            self._mine.send_bytes(self._message)
            self._message = b""
            while (setting := self._take()) is not None:
                self._mine.send_bytes(_encode(setting))
                answer = _answer.decode(self._mine.recv_bytes())
                if isinstance(answer, _Failed):
                    self._why = WorkerDiedError(f"setting {setting.name!r}: {answer.message}")
                    return
                self._found(setting, np.frombuffer(answer))
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            what = "the settings" if setting is None else f"setting {setting.name!r}"
            self._why = WorkerDiedError(
                f"the process that learned {what} ended unexpectedly ({how}): is there enough"
                " memory? compare fewer settings at a time"
            )


def main(parent: Connection) -> None:
    """Learn what is sent until the parent is gone; called in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this one
    inbox: SimpleQueue[bytes] = SimpleQueue()
    code = 0
    try:
        threading.Thread(target=_receive, args=(parent, inbox), daemon=True).start()
        warm_up()
        rehearsal, score_from_ms = _rehearsal(_recorded.decode(inbox.get()))
        with seldom_collecting():
            while True:
                setting = _setting.decode(inbox.get())
                scores = learn(rehearsal, setting, score_from_ms)
                parent.send_bytes(_encode(scores.tobytes()))
    except HearbackError as error:
        with suppress(OSError):
            parent.send_bytes(_encode(_Failed(str(error))))
    except BaseException:  # noqa: BLE001 - the parent says that it ended; why is said here
        traceback.print_exc()
        sys.stderr.flush()
        code = 1
    os._exit(code)  # Python's own way out would wait for the thread


def _receive(parent: Connection, inbox: SimpleQueue[bytes]) -> None:
    """Hand on what the parent sends; end the process when the parent is gone."""
    try:
        while True:
            inbox.put(parent.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


def _stripped(rehearsal: Rehearsal, score_from_ms: int) -> _Recorded:
    """Leave out what global models look at, and what applications say of their labels."""
    space = rehearsal.space
    applications = []
    for app in rehearsal.applications:
        features = Features(None, app.features.per_member, app.features.per_job)
        applications.append(msgspec.structs.replace(app, features=features))
    steps: list[int | _Known] = []
    for number, label in rehearsal.steps:
        if label is None:
            steps.append(number)
            continue
        known = (label.label, label.kind, label.previous, label.rule, label.final, label.weight)
        times = (label.evidence_time_ms, label.label_time_ms)
        steps.append(_Known(number, *known, *times, label.previous_weight))
    return _Recorded(
        *(applications, steps, rehearsal.global_scores.tobytes()),
        *(list(space.per_member.names), list(space.per_job.names), score_from_ms),
    )


def _rehearsal(found: _Recorded) -> tuple[Rehearsal, int]:
    """Put a recording together again; return with it what "never" stands for."""
    recorder = Recorder()
    recorder.applications = found.applications
    recorder.scores = [Scores(score, 0.0, 0.0) for score in np.frombuffer(found.global_scores)]
    for step in found.steps:
        if isinstance(step, int):
            recorder.steps.append(Step(step, None))
        else:
            recorder.steps.append(Step(step.number, _label(step, found.applications[step.number])))
    space = FeatureSpace(None, found.per_member, found.per_job)
    return Rehearsal(recorder, space), found.score_from_ms


def _label(known: _Known, app: Application) -> Label:
    return Label(
        application_id=app.application_id,
        member_id=app.member_id,
        job_id=app.job_id,
        label=known.label,
        kind=known.kind,
        previous=known.previous,
        rule=known.rule,
        final=known.final,
        weight=known.weight,
        application_time_ms=app.event_time_ms,
        evidence_time_ms=known.evidence_time_ms,
        label_time_ms=known.label_time_ms,
        model_version=NO_MODEL,
        per_member=app.features.per_member,
        per_job=app.features.per_job,
        global_score=0.0,
        member_score=0.0,
        job_score=0.0,
        channel=app.channel,
        terms=app.terms,
        previous_weight=known.previous_weight,
    )
