"""SHELL: why a global model scores an application of a log as it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from stream.backtest.rehearsal import label_steps
from stream.errors import ConfigError, EventError
from stream.events.structs import Application
from stream.events.wire import decode_event
from stream.labels.changes import Entered
from stream.logs.files import LogLine, ReadProgress, merge
from stream.model.folder import GlobalModel
from stream.policy import Policy
from stream.progress import reading

_PROGRESS: Final = 10_000


class Part(NamedTuple):
    """What a feature adds to a score, in log-odds; ``value`` is 1 for the constant."""

    feature: str
    value: float
    adds: float


def explained(
    model: GlobalModel,
    policy: Policy,
    logs: Sequence[Path],
    application_id: str,
    job_id: str | None = None,
) -> list[Part]:
    """Say what each feature adds to an application's global score, the most first.

    The constant is the last; all together are the score.

    Args:
        model: what scores. policy: its labels make the histories that the model may take.
        logs: from their beginning.
        application_id: in them. job_id: its job; None: the first of that id.

    Raises:
        ConfigError: it is not there, or has no global features.

    """
    read = ReadProgress()
    with reading("looking for the application", read) as progress:
        x = _features(model, policy, logs, read, progress, application_id, job_id)
    values = np.frombuffer(x, "<f4").tolist()
    *parts, (_, constant) = model.contributions(np.frombuffer(x, "<f4"))
    found = [Part(name, value, adds) for (name, adds), value in zip(parts, values, strict=True)]
    found.sort(key=lambda part: -abs(part.adds))
    return [*found, Part("constant", 1.0, constant)]


def _features(
    model: GlobalModel,
    policy: Policy,
    logs: Sequence[Path],
    read: ReadProgress,
    progress: Callable[[int], None],
    application_id: str,
    job_id: str | None,
) -> bytes:
    """Find an application in logs; return the float32 bytes of the model's columns.

    Raises:
        ConfigError: it is not there, or has no global features.

    """
    for app, row in _applications(model, policy, _told(merge(logs, read), progress)):
        if app.application_id == application_id and job_id in {None, app.job_id}:
            if app.features.global_ is None:
                raise ConfigError(f"application {application_id} has no global features")
            return row
    where = "" if job_id is None else f" to job {job_id}"
    raise ConfigError(f"no application {application_id}{where} in these logs fits the model")


def _told(lines: Iterable[LogLine], progress: Callable[[int], None]) -> Iterator[LogLine]:
    for count, line in enumerate(lines):
        if count % _PROGRESS == 0:
            progress(count)
        yield line


def _applications(
    model: GlobalModel, policy: Policy, lines: Iterable[LogLine]
) -> Iterator[tuple[Application, bytes]]:
    """Give the applications that fit the model, with the bytes of the model's columns."""
    if model.takes_further:
        for step in label_steps(lines, policy, model, model.space):
            if isinstance(step, Entered):
                app, scores = step.application, step.scores
                x = app.features.global_ or b""
                yield app, model.row(x, scores.history, scores.preferences)
        return
    for line in lines:
        if line.damaged is not None:
            continue
        try:
            event = decode_event(line.raw, model.space)
        except EventError:
            continue
        if isinstance(event, Application):
            yield event, event.features.global_ or b""
