"""A log boiled down to what the effects see of it, to be learned again with other settings.

Labels do not depend on scores, nor on the effects' settings: so one replay records in which order
applications are scored and labels learned, and every further setting costs only the learning
itself. ``hearback tune`` and the benchmarks stand on this; a rehearsal with the settings of the
recording gives the replay's scores (tested).

Everything is held in memory: about 3 kB for each application, and the posteriors while one setting
is rehearsed. Shapes: n applications in order of their first sight.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.events.structs import Application, Coefficients, DeadLetter, Label
from stream.features.blocks import FeatureSpace
from stream.labels.changes import Scores
from stream.logs.files import LogLine
from stream.model.linear import NO_MODEL, GlobalModel
from stream.policy import Policy
from stream.replay.run_folder import RunMetrics
from stream.replay.single import replay
from stream.state.store import MemoryStore, Store
from stream.updaters.effect import Effect, EffectName
from stream.updaters.posterior import Posterior

BOTH: tuple[EffectName, ...] = ("per_member", "per_job")

Modes = dict[str, bytes]
"""Coefficients by entity: float64 bytes of shape (d,)."""

_Floats = NDArray[np.float64]


class Asked(NamedTuple):
    """An application as the effects see it when it must be scored."""

    member_id: str
    job_id: str
    event_time_ms: int
    per_member: bytes
    per_job: bytes
    global_: bytes | None


class Step(NamedTuple):
    """Application ``number`` is scored (no label), or this label of it is learned."""

    number: int
    label: Label | None


class Rehearsal:
    """What was recorded.

    Attributes:
        applications: in order of their first sight, n of them.
        steps: scoring and learning, in the replay's order.
        global_scores: log-odds (n,); others may be put in their place.
        recorded: the full scores of the recording replay (n,).
        targets: 0/1, the last label of each (n,); NaN where none came.
        times_ms: application times (n,).
        sizes: d of each effect's features.

    """

    def __init__(self, recorder: Recorder, space: FeatureSpace) -> None:
        self.applications = recorder.applications
        self.steps = recorder.steps
        scores = np.array([(one.global_, one.member, one.job) for one in recorder.scores])
        scores = scores.reshape(len(self.applications), 3)
        self.global_scores: _Floats = scores[:, 0]
        self.recorded: _Floats = scores.sum(axis=1)
        self.targets: _Floats = np.full(len(self.applications), np.nan)
        for number, label in self.steps:
            if label is not None:
                self.targets[number] = label.label
        self.times_ms = np.array([app.event_time_ms for app in self.applications], dtype=np.int64)
        self.sizes: dict[EffectName, int] = {
            "per_member": space.per_member.size,
            "per_job": space.per_job.size,
        }

    def scores(self, rehearsed: Rehearsed) -> _Floats:
        """Full scores (n,) in log-odds: global, member and job."""
        return self.global_scores + rehearsed.member + rehearsed.job


class Rehearsed(NamedTuple):
    """Scores of the effects (n,), 0 for an effect that was left out, and the effects themselves."""

    member: _Floats
    job: _Floats
    effects: dict[EffectName, Effect]


def record(
    lines: Iterable[LogLine],
    policy: Policy,
    model: GlobalModel | None,
    space: FeatureSpace,
    progress: Callable[[int], None] = lambda _: None,
) -> Rehearsal:
    """Replay a log to its end, every window closed, and keep what the effects saw."""
    recorder = Recorder()
    replay(lines, recorder, policy, model, space, close=True, progress=progress)
    return Rehearsal(recorder, space)


def rehearse(
    rehearsal: Rehearsal,
    policy: Policy,
    effects: tuple[EffectName, ...] = BOTH,
    until: int | None = None,
    steps: Sequence[Step] | None = None,
    pauses: Container[int] = (),
    on_pause: Callable[[int, dict[EffectName, Modes]], None] = lambda _number, _modes: None,
) -> Rehearsed:
    """Score and learn everything anew, prequentially, with other settings of the effects.

    Args:
        rehearsal: from :func:`record`.
        policy: only the effects' settings are used: the labels are as recorded.
        effects: one that is left out scores 0 and learns nothing.
        until: only so many steps; None: all.
        steps: in place of the recorded ones, for who wants labels later, or others.
        pauses: numbers of the applications before whose scoring ``on_pause`` is called, with the
            application's number and the coefficients of then.
        on_pause: see ``pauses``.

    """
    n = len(rehearsal.applications)
    settings = policy.effects
    made: dict[EffectName, Effect] = {}
    books: dict[EffectName, _Book] = {name: _Book() for name in effects}
    for name, book in books.items():
        size = rehearsal.sizes[name]
        made[name] = Effect(name, size, settings[name].fitted(size), NO_MODEL, book)
    by_member, by_job = made.get("per_member"), made.get("per_job")
    fixed, member, job = rehearsal.global_scores, np.zeros(n), np.zeros(n)
    for number, label in (rehearsal.steps if steps is None else steps)[:until]:
        if label is None:
            if number in pauses:
                for effect in made.values():
                    effect.flush()
                on_pause(number, {name: book.modes() for name, book in books.items()})
            asked = rehearsal.applications[number]
            if by_member is not None:
                member[number] = by_member.score(asked.member_id, asked.per_member)
            if by_job is not None:
                job[number] = by_job.score(asked.job_id, asked.per_job)
            continue
        lesson = msgspec.structs.replace(
            label,
            global_score=float(fixed[number]),
            member_score=float(member[number]),
            job_score=float(job[number]),
        )
        if by_job is not None:
            by_job.learn(lesson)
        if by_member is not None:
            by_member.learn(lesson)
    for effect in made.values():
        effect.flush()
    return Rehearsed(member, job, made)


class Recorder:
    """A replay's sink (:class:`stream.replay.run_folder.RunSink`): keeps what the effects see."""

    def __init__(self) -> None:
        self.store: Store = MemoryStore()
        self.applications: list[Asked] = []
        self.scores: list[Scores] = []
        self.steps: list[Step] = []
        self._numbers: dict[tuple[str, str], int] = {}

    def scored(self, app: Application, scores: Scores) -> None:
        """Keep an application and that it was scored now."""
        number = len(self.applications)
        self._numbers[app.job_id, app.application_id] = number
        features = app.features
        self.applications.append(
            Asked(
                app.member_id,
                app.job_id,
                app.event_time_ms,
                features.per_member,
                features.per_job,
                features.global_,
            )
        )
        self.scores.append(scores)
        self.steps.append(Step(number, None))

    def label(self, label: Label) -> None:
        """Keep that a label was learned now."""
        number = self._numbers[label.job_id, label.application_id]
        self.steps.append(Step(number, label))

    def coefficients(self, coefficients: Coefficients) -> None:
        """Not kept."""

    def dead_letter(self, letter: DeadLetter) -> None:
        """Not kept."""

    def metrics(self, metrics: RunMetrics) -> None:
        """Not kept."""


class _Book:
    """Posteriors in memory, as they are (:class:`stream.updaters.effect.PosteriorBook`)."""

    def __init__(self) -> None:
        self._posteriors: dict[str, Posterior] = {}

    def load(self, entity_id: str) -> Posterior | None:
        return self._posteriors.get(entity_id)

    def save(self, entity_id: str, posterior: Posterior) -> None:
        self._posteriors[entity_id] = posterior

    def modes(self) -> Modes:
        return {entity_id: posterior.mode for entity_id, posterior in self._posteriors.items()}

    def remove(self, entity_id: str) -> None:
        self._posteriors.pop(entity_id, None)
