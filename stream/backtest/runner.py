"""SHELL: one recording of the log, one pass of learning for each setting, one judge for all.

A second process may learn some of the settings (:mod:`stream.backtest.beside`).

The truth is the final label under the base policy: a setting may wait for other labels, but all are
judged by the same. Applications count from ``score_from_ms`` on if their whole window lies in the
log; those after it would be called negative too early.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.backtest.beside import WORTH, Beside, learn
from stream.backtest.comparison import Comparison, Setting
from stream.backtest.decisions import Watch
from stream.backtest.freshness import Freezer, Freshness
from stream.backtest.importance import Importance, importance
from stream.backtest.judgement import Blocks, Judge
from stream.backtest.matches import match_quality
from stream.backtest.rehearsal import LeftOut, Rehearsal, Step, record_labels, rehearse
from stream.backtest.result import (
    GLOBAL_ALONE,
    Backtest,
    Gain,
    LabelTiming,
    known,
    setting_result,
)
from stream.backtest.retraining import check_retraining, could_train, retrained
from stream.backtest.schedule import schedule, timeliness
from stream.backtest.waiting import AgeBracket, WaitingWatch
from stream.errors import ConfigError
from stream.labels.delays import curve_of
from stream.logs.files import LogLine, read_head
from stream.logs.jumps import JumpFilter
from stream.model.folder import NO_MODEL, GlobalModel
from stream.model.kind import ModelKind
from stream.policy import LabelPolicy, Policy
from stream.replay.reader import first_look

_FEWEST_IN_A_GROUP = 50
_EXAMPLE_EDGES: Final = (0, 1, 3, 6, 11, 21, 51)

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]
_Key = tuple[str, str]
_Trained = tuple[int | None, ModelKind | None, tuple[str, ...], LabelPolicy]


class Span(NamedTuple):
    """What a look through the log found: events, and times of applications and of the last event.

    Times are None where there was none.
    """

    events: int
    first_ms: int | None
    last_application_ms: int | None
    last_ms: int | None

    def quarter_ms(self) -> int:
        """End of the first quarter of the applications' time: a global model is fitted on that.

        Raises:
            ConfigError: the log has no application.

        """
        if self.first_ms is None or self.last_application_ms is None:
            raise ConfigError("the log has no application with a time")
        return self.first_ms + (self.last_application_ms - self.first_ms) // 4


def look_through(
    lines: Iterable[LogLine],
    progress: Callable[[int], None] = lambda _: None,
    max_jump_ms: int | None = None,
) -> Span:
    """Read only when things happened, but for the jumps of time that a replay would set aside."""
    count, times = 0, _Times()
    jumps: JumpFilter[tuple[str, int]] = JumpFilter(max_jump_ms)
    for count, line in enumerate(lines, 1):
        if count % 10_000 == 0:
            progress(count)
        head = read_head(line.raw)
        time_ms = None if head is None or not head.is_dated() else head.time_ms()
        if head is None or time_ms is None:
            continue
        for kind, ready_ms in jumps.take(time_ms, (head.type, time_ms)):
            times.add(kind, ready_ms)
    for kind, ready_ms in jumps.end():
        times.add(kind, ready_ms)
    return Span(count, times.first_ms, times.last_application_ms, times.last_ms)


class _Times:
    """The times of a span, as they are read."""

    def __init__(self) -> None:
        self.first_ms: int | None = None
        self.last_application_ms: int | None = None
        self.last_ms: int | None = None

    def add(self, kind: str, time_ms: int) -> None:
        self.last_ms = max(self.last_ms or 0, time_ms)
        if kind == "application":
            self.first_ms = time_ms if self.first_ms is None else min(self.first_ms, time_ms)
            self.last_application_ms = max(self.last_application_ms or 0, time_ms)


class Runner:
    """Runs a comparison.

    Args:
        read: gives the log's lines from the start, each time that it is called.
        progress: is told how many lines were read.
        names: of the log's files.
        span: from :func:`look_through`.
        comparison: what is compared.
        policy: the base policy: its labels are the truth.
        model: the global model; None where applications bring their score.
        score_from_ms: from when on applications are judged.
        max_jump_ms: hold an event further ahead back until others confirm it; None: never.
        simpler: compare simpler global models, too, where it is more than a linear one.

    Attributes:
        comparison: what is compared.

    Raises:
        ConfigError: too little to judge by. ModelError: the model does not fit the log.

    """

    def __init__(
        self,
        *,
        read: Callable[[], Iterable[LogLine]],
        progress: Callable[[int], None] = lambda _: None,
        names: list[str],
        span: Span,
        comparison: Comparison,
        policy: Policy,
        model: GlobalModel | None,
        score_from_ms: int,
        max_jump_ms: int | None = None,
        simpler: bool = False,
    ) -> None:
        self._max_jump_ms = max_jump_ms
        self._read, self._progress = read, progress
        self._names, self._span = names, span
        self._policy, self._model = policy, model
        self._score_from_ms = score_from_ms
        self._truth = self._record(policy.labels)
        if simpler and model is not None and could_train(self._truth, policy, model):
            comparison = comparison.with_models(model.manifest.kind, model.manifest.inputs)
        check_retraining(comparison.settings, self._truth, model)
        self.comparison = comparison
        self._retrained: dict[_Trained, _Floats] = {}
        self._keys = _keys(self._truth)
        self._judged = self._truth.to_judge(
            score_from_ms, span.last_ms or 0, policy.labels.window_ms, "an earlier --score-from"
        )
        self._targets = self._truth.targets[self._judged]
        self._blocks = Blocks.cut(self._truth.times_ms[self._judged], score_from_ms)
        self._judge = Judge(self._targets, self._blocks.of, len(self._blocks.from_ms))

    @property
    def left_out(self) -> LeftOut:
        """What could not be used, or was ignored, under the base policy."""
        return self._truth.left_out

    def run(
        self, on_setting: Callable[[str], None] = lambda _: None, processes: int = 1
    ) -> Backtest:
        """Learn with every setting and judge it.

        Args:
            on_setting: is called with the name of a setting before it is learned.
            processes: with more than 1 a second process learns, too, where it is worth it.

        """
        comparison, truth = self.comparison, self._truth
        alone = truth.global_scores[self._judged]
        scores: dict[str, _Floats] = {}
        timings: dict[tuple[LabelPolicy, str], LabelTiming] = {}
        waiting: list[AgeBracket] = []
        reference = comparison.settings[comparison.reference]
        same: deque[Setting] = deque()
        others: list[Setting] = []
        for setting in comparison.settings:
            labelled = setting.policy.labels == self._policy.labels
            if labelled:
                self._time(timings, setting)
            if setting is not reference:
                (same if labelled and not setting.trains else others).append(setting)

        def take() -> Setting | None:
            with suppress(IndexError):
                setting = same.popleft()
                on_setting(setting.name)
                return setting
            return None

        def found(setting: Setting, full: _Floats) -> None:
            scores[setting.name] = full[self._judged]

        worth = len(truth.steps) * (len(same) + 1) >= WORTH
        with ExitStack() as stack:
            beside = None
            if processes > 1 and len(same) > 1 and worth:
                beside = stack.enter_context(Beside(truth, self._score_from_ms, take, found))
            on_setting(reference.name)
            scored = self._scored(truth, reference)
            steps = self._steps(truth, reference)
            watch = self._watch(scored, steps)
            everyone, freshness = self._with_freshness(scored, reference, steps, watch)
            found(reference, everyone)
            for setting, full in self._recorded_anew(others, on_setting):
                scores[setting.name] = full
            while (following := take()) is not None:
                if beside is not None:
                    beside.check()
                found(following, learn(truth, following, self._score_from_ms))
            if beside is not None:
                beside.join()
        if isinstance(watch, WaitingWatch):
            waiting = watch.by_age(self._blocks_of_all(), len(self._blocks.from_ms))
        members, jobs = _examples_before(truth, steps)
        learned = scores[reference.name]
        matches = match_quality(
            truth.applications, everyone, truth.targets, self._judged, self._policy.matches
        )
        scores[GLOBAL_ALONE] = alone
        sums = {name: self._judge.sums(one) for name, one in scores.items()}
        said = {setting.name: setting.in_words() for setting in comparison.settings}
        return Backtest(
            logs=self._names,
            model_version=NO_MODEL if self._model is None else self._model.version,
            events=self._span.events,
            applications=len(truth.applications),
            from_ms=int(truth.times_ms.min()),
            until_ms=int(truth.times_ms[self._judged].max()),
            score_from_ms=self._score_from_ms,
            window_ms=self._policy.labels.window_ms,
            judged=len(self._targets),
            positives=int(self._targets.sum()),
            blocks=len(self._blocks.from_ms),
            block_ms=self._blocks.length_ms,
            reference=reference.name,
            settings=[
                setting_result(
                    *(self._judge, self._blocks, name, said.get(name, "no effects")),
                    *(scores[name], sums[name], sums[reference.name]),
                )
                for name in [*said, GLOBAL_ALONE]
            ],
            labels=list(timings.values()),
            freshness=freshness,
            by_member_examples=self._gains(members[self._judged], alone, learned),
            by_job_examples=self._gains(jobs[self._judged], alone, learned),
            rankings=watch.rankings(),
            member_rankings=watch.rankings("member"),
            waiting=waiting,
            matches=matches,
            matches_a_day=self._policy.matches.per_day,
            importance=self._importance(),
        )

    def _importance(self) -> Importance | None:
        """Tell what the global model goes by; None: there is none."""
        if self._model is None:
            return None
        count = len(self._blocks.from_ms)
        return importance(self._truth, self._model, self._judged, self._blocks_of_all(), count)

    def _record(self, labels: LabelPolicy) -> Rehearsal:
        lines, space = first_look(self._read(), self._model)
        policy = Policy(features=self._policy.features, labels=labels)
        return record_labels(
            *(lines, policy, self._model, space, self._max_jump_ms),
            scored=True,
            progress=self._progress,
        )

    def _steps(self, rehearsal: Rehearsal, setting: Setting) -> list[Step]:
        """Put what was recorded into the order of a setting."""
        window_ms = setting.policy.labels.window_ms
        stop_ms = self._score_from_ms
        return schedule(rehearsal, setting.refresh_ms, setting.learn, stop_ms, window_ms)

    def _recorded_anew(
        self, settings: list[Setting], on_setting: Callable[[str], None]
    ) -> Iterator[tuple[Setting, _Floats]]:
        """Learn with settings of other labels or global scores; give the scores that are judged."""
        recorded, labels = self._truth, self._policy.labels
        for setting in settings:
            on_setting(setting.name)
            if setting.policy.labels != labels:
                recorded = self._truth  # one recording beside the truth at a time
                labels = setting.policy.labels
                if labels != self._policy.labels:
                    recorded = self._record(labels)
            full = learn(self._scored(recorded, setting), setting, self._score_from_ms)
            yield setting, self._aligned(recorded, full)

    def _scored(self, rehearsal: Rehearsal, setting: Setting) -> Rehearsal:
        """Put the global scores of a setting into a recording of its labels."""
        if not setting.trains or self._model is None:
            return rehearsal
        key = setting.retrain_ms, setting.model, setting.inputs, setting.policy.labels
        if key not in self._retrained:
            self._retrained[key] = retrained(rehearsal, setting, self._model)
        return rehearsal.with_global_scores(self._retrained[key])

    def _watch(self, scored: Rehearsal, steps: list[Step]) -> Watch:
        """Watch the reference; for who waits only where labels take effect as they are known."""
        labels = self._policy.labels
        if steps is not scored.steps:
            return Watch(scored, labels.window_ms, self._score_from_ms)
        told = None if self._model is None else self._model.manifest
        curve = curve_of(labels, None if told is None else told.delays)
        landmark = None if told is None or told.delays != curve else told.landmark
        return WaitingWatch(
            scored, labels.window_ms, self._score_from_ms, self._judged, curve, landmark
        )

    def _blocks_of_all(self) -> _Ints:
        """Tell the block of time of every application (n,); 0 where it is not judged."""
        blocks = np.zeros(len(self._judged), dtype=np.int64)
        blocks[self._judged] = self._blocks.of
        return blocks

    def _with_freshness(
        self, scored: Rehearsal, setting: Setting, steps: list[Step], watch: Watch
    ) -> tuple[_Floats, Freshness | None]:
        """Learn with the reference; freeze it now and then, and watch for decisions.

        Returns the scores of all applications (n,), and what is lost where learning stops.
        """
        judged = self._judged
        until_ms = int(scored.times_ms[judged].max()) + 1
        freezer = Freezer(scored, judged, self._score_from_ms, until_ms)
        rehearsed = rehearse(
            scored, setting.policy, setting.use,
            steps=steps, pauses=freezer.pauses, on_pause=freezer.freeze, watch=watch,
        )  # fmt: skip
        freshness = None
        if setting.use:
            freshness = freezer.curve(
                scored.targets,
                scored.global_scores,
                member=rehearsed.member,
                job=rehearsed.job,
                blocks=self._blocks_of_all(),
            )
        return scored.scores(rehearsed), freshness

    def _aligned(self, rehearsal: Rehearsal, scores: _Floats) -> _Floats:
        """Bring the scores of another recording into the truth's order; unknown ones: global."""
        found = dict(zip(_keys(rehearsal), scores.tolist(), strict=True))
        alone = self._truth.global_scores
        aligned = [
            found.get(self._keys[number], alone[number]) for number in np.flatnonzero(self._judged)
        ]
        return np.array(aligned)

    def _time(self, timings: dict[tuple[LabelPolicy, str], LabelTiming], setting: Setting) -> None:
        """Tell how early a setting knows its labels, once for all that take the same ones."""
        key = setting.policy.labels, setting.learn
        if not setting.use:
            return
        if key in timings:
            timings[key].settings.append(setting.name)
        else:
            truth, window_ms = self._truth, setting.policy.labels.window_ms
            ages = timeliness(truth.steps, setting.learn, truth.targets, self._judged, window_ms)
            timings[key] = LabelTiming(learn=setting.learn, settings=[setting.name], ages=ages)

    def _gains(self, examples: _Ints, alone: _Floats, full: _Floats) -> list[Gain]:
        """Judge by how many examples there were before (n judged,)."""
        gains = []
        count = len(self._blocks.from_ms)
        edges = [*_EXAMPLE_EDGES, np.iinfo(np.int64).max]
        for low, high in itertools.pairwise(edges):
            within = (examples >= low) & (examples < high)
            if within.sum() < _FEWEST_IN_A_GROUP:
                continue
            judge = Judge(self._targets[within], self._blocks.of[within], count)
            before, after = judge.sums(alone[within]), judge.sums(full[within])
            text = str(low) if high == low + 1 else f"{low}-{high - 1}"
            gains.append(
                Gain(
                    examples=f"over {low - 1}" if high == edges[-1] else text,
                    applications=int(within.sum()),
                    auc_global=known(before.auc(judge.whole)[0]),
                    auc=known(after.auc(judge.whole)[0]),
                    log_loss_global=float(before.log_loss(judge.whole)[0]),
                    log_loss=float(after.log_loss(judge.whole)[0]),
                    log_loss_gained=judge.figure(before.log_loss, after.log_loss),
                )
            )
        return gains


def _keys(rehearsal: Rehearsal) -> list[_Key]:
    """Name the applications as the log does: job and application id; every one has a label."""
    keys: list[_Key] = [("", "")] * len(rehearsal.applications)
    for number, label in rehearsal.steps:
        if label is not None:
            keys[number] = label.job_id, label.application_id
    return keys


def _examples_before(rehearsal: Rehearsal, steps: list[Step]) -> tuple[_Ints, _Ints]:
    """Count the applications learned of each one's member and job before it was scored (n,)."""
    n = len(rehearsal.applications)
    members, jobs = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    learned = np.zeros(n, dtype=bool)
    of_member: Counter[str] = Counter()
    of_job: Counter[str] = Counter()
    for number, label in steps:
        asked = rehearsal.applications[number]
        if label is None:
            members[number], jobs[number] = of_member[asked.member_id], of_job[asked.job_id]
        elif not learned[number]:
            learned[number] = True
            of_member[asked.member_id] += 1
            of_job[asked.job_id] += 1
    return members, jobs
