"""A log boiled down to what the effects see of it, to be learned again with other settings.

Labels do not depend on scores, nor on the effects' settings: so one replay records in which order
applications are scored and labels learned, and every further setting costs only the learning
itself. ``hearback tune`` and the benchmarks stand on this; a rehearsal with the settings of the
recording gives the replay's scores (tested).

Everything is held in memory: about 3 kB for each application, and the posteriors while one setting
is rehearsed. Shapes: n applications in order of their first sight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.effects import JOB, MEMBER
from stream.errors import ConfigError
from stream.events.structs import Application, Coefficients, DeadLetter, Event, Label, Source
from stream.features.blocks import FeatureSpace
from stream.labels import driver
from stream.labels.changes import Change, Entered, Ignored, Scores, label_of, unscored
from stream.labels.changes import Step as LabelStep
from stream.labels.machine import LabelMachine
from stream.logs.files import LogLine
from stream.model.folder import NO_MODEL, GlobalModel
from stream.policy import Policy
from stream.replay.reader import Read, Reader
from stream.replay.run_folder import RunMetrics
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.stages.first_sights import FirstSights
from stream.stages.job import no_score
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore, Store
from stream.state.stored_facts import StoredFacts
from stream.units import format_duration, format_time
from stream.updaters.effect import Effect
from stream.updaters.kept import Posterior

FEWEST: Final = 200
"""Applications to judge by, at least; and ten of each outcome."""

_FEWEST_OF_EACH: Final = 10
_FLUSH_EVERY: Final = 2048  # lines

Modes = dict[str, bytes]
"""Coefficients by entity: float64 bytes of shape (d,)."""

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]


class Step(NamedTuple):
    """Application ``number`` is scored (no label), or this label of it is learned."""

    number: int
    label: Label | None


class LeftOut(NamedTuple):
    """How many lines were refused, and how many events changed nothing, by reason."""

    dead_letters: dict[str, int]
    ignored: dict[str, int]


class Rehearsal:
    """What was recorded.

    Attributes:
        applications: in order of their first sight, n of them.
        steps: scoring and learning, in the replay's order.
        global_scores: log-odds (n,); others may be put in their place.
        recorded: the full scores of the recording replay (n,).
        rows: what a global model like the recording's scores of each, float32 bytes of its columns;
            none where it has no global features.
        targets: 0/1, the last label of each (n,); NaN where none came.
        times_ms: application times (n,).
        space: the feature blocks.
        metrics: what the recording replay counted; None: labels alone were recorded.
        left_out: what the recording could not use, or ignored.

    """

    def __init__(
        self,
        recorder: Recorder,
        space: FeatureSpace,
        metrics: RunMetrics | None = None,
        *,
        model: GlobalModel | None = None,
        left_out: LeftOut | None = None,
    ) -> None:
        self.metrics = metrics
        self.left_out = left_out or LeftOut({}, {})
        self.applications = recorder.applications
        self.rows = [app.features.global_ or b"" for app in recorder.applications]
        if model is not None and model.takes_further:
            self.rows = [
                b""
                if (x := app.features.global_) is None
                else model.row(x, one.history, one.preferences)
                for app, one in zip(recorder.applications, recorder.scores, strict=True)
            ]
        self.steps = recorder.steps
        self.global_scores: _Floats = np.array([one.global_score for one in recorder.scores])
        self.recorded: _Floats = np.array([one.full_score for one in recorder.scores])
        self.targets: _Floats = np.full(len(self.applications), np.nan)
        for number, label in self.steps:
            if label is not None:
                self.targets[number] = label.label
        self.times_ms = np.array([app.event_time_ms for app in self.applications], dtype=np.int64)
        self.space = space

    def matrix(self) -> tuple[NDArray[np.float32], _Bools]:
        """Return the columns of all (n, d), and who has them (n,): of others they are 0."""
        there = np.array([app.features.global_ is not None for app in self.applications])
        found = [np.frombuffer(self.rows[at], "<f4") for at in np.flatnonzero(there)]
        X = np.zeros((len(there), len(found[0]) if found else 0), dtype=np.float32)
        if found:
            X[there] = found
        return X, there

    def with_global_scores(self, scores: _Floats) -> Rehearsal:
        """Return the same with other global scores (n,), in log-odds."""
        other = copy(self)
        other.global_scores = scores
        return other

    def to_judge(self, from_ms: int, until_ms: int, window_ms: int, remedy: str) -> _Bools:
        """Tell which applications are judged (n,): those with their whole window in a span of time.

        Labels whose window had not passed by ``until_ms`` are not the truth yet, and taking those
        known so far would favour early answers.

        Raises:
            ConfigError: too little to judge by; ``remedy`` is what helps.

        """
        judged: _Bools = (self.times_ms >= from_ms) & ~np.isnan(self.targets)
        judged &= self.times_ms + window_ms <= until_ms
        count, positives = int(judged.sum()), int(self.targets[judged].sum())
        if count < FEWEST or not _FEWEST_OF_EACH <= positives <= count - _FEWEST_OF_EACH:
            raise ConfigError(
                f"only {count} applications since {format_time(from_ms)} have their whole window"
                f" of {format_duration(window_ms)} in the log up to {format_time(until_ms)},"
                f" {positives} of them positive: at least {FEWEST}, {_FEWEST_OF_EACH} of each"
                f" outcome, are needed; take a longer log or {remedy}"
            )
        return judged

    def scores(self, rehearsed: Rehearsed) -> _Floats:
        """Full scores (n,) in log-odds: the global one and that of every effect."""
        total = self.global_scores
        for scores in rehearsed.scores.values():
            total = total + scores
        return total


class Watch(Protocol):
    """Who follows a rehearsal (:class:`stream.backtest.decisions.Watch`)."""

    def scored(self, number: int) -> None:
        """An application was scored."""

    def label(
        self, number: int, label: Label, scores: Mapping[str, Callable[[Application], float]]
    ) -> None:
        """A label is about to be learned; ``scores`` gives the scores of now, by effect."""


class Rehearsed(NamedTuple):
    """Scores (n,) by effect, 0 for one that was left out, and the effects that were not.

    ``posteriors``: of these, by effect and entity.
    """

    scores: dict[str, _Floats]
    effects: dict[str, Effect]
    posteriors: dict[str, dict[str, Posterior]]

    @property
    def member(self) -> _Floats:
        """Scores of the members (n,)."""
        return self.scores[MEMBER.name]

    @property
    def job(self) -> _Floats:
        """Scores of the jobs (n,)."""
        return self.scores[JOB.name]


def record(
    lines: Iterable[LogLine],
    policy: Policy,
    model: GlobalModel | None,
    space: FeatureSpace,
    progress: Callable[[int], None] = lambda _: None,
    max_jump_ms: int | None = None,
) -> Rehearsal:
    """Replay a log to its end, every window closed, and keep what the effects saw."""
    recorder = Recorder()
    options = Options(close=True, max_jump_ms=max_jump_ms)
    metrics = replay(lines, recorder, policy, model, space, options, progress=progress)
    left_out = LeftOut(metrics.dead_letters, metrics.ignored)
    return Rehearsal(recorder, space, metrics, model=model, left_out=left_out)


def record_labels(
    lines: Iterable[LogLine],
    policy: Policy,
    model: GlobalModel | None,
    space: FeatureSpace,
    max_jump_ms: int | None = None,
    from_ms: int = 0,
    *,
    scored: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Rehearsal:
    """Record who applied from a time on and every label, and learn nothing: a quarter of the cost.

    Global scores are those that applications bring, else the model's where they are to be
    ``scored``, else 0: for the caller to put in place. The full scores are the same.
    """
    recorder = Recorder()
    version = NO_MODEL if model is None else model.version
    refused: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    for step in label_steps(lines, policy, model, space, max_jump_ms, progress=progress):
        match step:
            case Change(label=True, facts=facts) if facts.event_time_ms >= from_ms:
                recorder.label(label_of(step, (version,)))
            case Entered(app, seen) if app.event_time_ms >= from_ms:
                score = app.global_score
                if score is None and scored and model is not None:
                    x = app.features.global_ or b""
                    score = model.score(model.row(x, seen.history, seen.preferences))
                recorder.scored(app, msgspec.structs.replace(seen, global_score=score or 0.0))
            case DeadLetter(reason):
                refused[reason] += 1
            case Ignored(reason):
                ignored[reason] += 1
    left_out = LeftOut(dict(sorted(refused.items())), dict(sorted(ignored.items())))
    return Rehearsal(recorder, space, model=model, left_out=left_out)


def label_steps(
    lines: Iterable[LogLine],
    policy: Policy,
    model: GlobalModel | None,
    space: FeatureSpace,
    max_jump_ms: int | None = None,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[LabelStep]:
    """Read a log into labels, to its end, every window closed.

    Applications come with histories and preferences in their scores if the model takes any; without
    a model, one that brings no score is refused.
    """
    overlay, learned = Overlay(MemoryStore()), None if model is None else model.manifest.delays
    machine: driver.Labels[Event, LabelStep] = (
        FirstSights(overlay, policy, learned)
        if model is not None and model.takes_further
        else _Unlearned(LabelMachine(policy.labels, StoredFacts(overlay), learned))
    )
    reader = Reader(space, policy, scored=model is not None, max_jump_ms=max_jump_ms)

    def given(ready: Iterable[Read | DeadLetter]) -> Iterator[LabelStep]:
        for read in ready:
            if isinstance(read, DeadLetter):
                yield read
                continue
            yield from driver.read(
                machine, read.event, read.source, read.watermark_ms, read.after_ms
            )

    for count, line in enumerate(lines, 1):
        yield from given(reader.line(line))
        if count % _FLUSH_EVERY == 0:
            overlay.flush()
            progress(count)
    yield from given(reader.end())
    progress(reader.lines)
    yield from machine.close_due(reader.time.close())


def rehearse(
    rehearsal: Rehearsal,
    policy: Policy,
    effects: Collection[str] | None = None,
    *,
    steps: Sequence[Step] | None = None,
    pauses: Container[int] = (),
    on_pause: Callable[[int, dict[str, Modes]], None] = lambda _number, _modes: None,
    watch: Watch | None = None,
) -> Rehearsed:
    """Score and learn everything anew, prequentially, with other settings of the effects.

    Args:
        rehearsal: from :func:`record`.
        policy: only the effects' settings are used: the labels are as recorded.
        effects: by name; one that is left out scores 0 and learns nothing. None: all.
        steps: in place of the recorded ones, for who wants labels later, or others.
        pauses: numbers of the applications before whose scoring ``on_pause`` is called, with the
            application's number and the coefficients of then.
        on_pause: see ``pauses``.
        watch: is told of every step before it is learned.

    """
    n = len(rehearsal.applications)
    made: dict[str, Effect] = {}
    books: dict[str, _Book] = {}
    settings = rehearsal.space.fitted(policy)
    for spec in sorted(policy.declared, key=lambda spec: spec.stage):  # jobs learn first
        if effects is not None and spec.name not in effects:
            continue
        books[spec.name] = _Book()
        made[spec.name] = Effect(
            spec,
            rehearsal.space.block(spec.block).size,
            settings=settings[spec.name],
            model_version=NO_MODEL,
            book=books[spec.name],
        )
    fixed = rehearsal.global_scores
    scores = {spec.name: np.zeros(n) for spec in policy.declared}
    for number, label in rehearsal.steps if steps is None else steps:
        if label is None:
            if number in pauses:
                for effect in made.values():
                    effect.flush()
                on_pause(number, {name: book.modes() for name, book in books.items()})
            for name, effect in made.items():
                scores[name][number] = effect.score_of(rehearsal.applications[number])
            if watch is not None:
                watch.scored(number)
            continue
        if watch is not None:
            watch.label(number, label, {name: effect.score_of for name, effect in made.items()})
        now = {name: float(of_effect[number]) for name, of_effect in scores.items()}
        lesson = msgspec.structs.replace(
            label,
            global_score=float(fixed[number]),
            member_score=now.pop(MEMBER.name),
            job_score=now.pop(JOB.name),
            further_scores=now or None,
        )
        for effect in made.values():
            effect.learn(lesson)
    for effect in made.values():
        effect.flush()
    return Rehearsed(scores, made, {name: book.posteriors for name, book in books.items()})


class _Unlearned:
    """A label machine whose applications must have a score or what makes one."""

    def __init__(self, machine: LabelMachine) -> None:
        self._machine = machine
        self.close_due = machine.close_due

    def apply(self, event: Event, source: Source, watermark_ms: int | None) -> Iterable[LabelStep]:
        return self._machine.apply(event, source, watermark_ms, score=self._score)

    @staticmethod
    def _score(app: Application) -> Scores:
        if app.global_score is None and app.features.global_ is None:
            raise no_score(app)
        return unscored(app)


class Recorder:
    """A replay's sink (:class:`stream.replay.run_folder.RunSink`): keeps what the effects see."""

    def __init__(self) -> None:
        self.store: Store = MemoryStore()
        self.applications: list[Application] = []
        self.scores: list[Scores] = []
        self.steps: list[Step] = []
        self._numbers: dict[tuple[str, str], int] = {}

    def scored(self, app: Application, scores: Scores) -> None:
        """Keep an application and that it was scored now."""
        number = len(self.applications)
        self._numbers[app.job_id, app.application_id] = number
        self.applications.append(app)
        self.scores.append(scores)
        self.steps.append(Step(number, None))

    def label(self, label: Label) -> None:
        """Keep that a label was learned now."""
        number = self._numbers[label.job_id, label.application_id]
        of = self.applications[number].features
        if (label.per_member, label.per_job) == (of.per_member, of.per_job):  # held in memory once
            global_ = of.global_ if label.global_ == of.global_ else label.global_
            label = msgspec.structs.replace(
                label, per_member=of.per_member, per_job=of.per_job, global_=global_
            )
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
        self.posteriors: dict[str, Posterior] = {}

    def load(self, entity_id: str) -> Posterior | None:
        return self.posteriors.get(entity_id)

    def save(self, entity_id: str, posterior: Posterior) -> None:
        self.posteriors[entity_id] = posterior

    def modes(self) -> Modes:
        return {entity_id: posterior.mode for entity_id, posterior in self.posteriors.items()}

    def remove(self, entity_id: str) -> None:
        self.posteriors.pop(entity_id, None)
