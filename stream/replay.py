"""SHELL: history through the same stages as the worker's, without a broker.

The log is one input: one watermark, the largest event time read less the allowed lateness. Every
record is applied in full (scored, labelled, learned by job and member) before the next one. What
comes out depends on the log, the model and the policy alone, never on the clock, so that running
twice gives the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from producers.logs import LogLine
from stream.errors import EventError, InvalidFeaturesError, ModelError, TimeJumpError
from stream.evaluation import Prequential, Timeliness
from stream.events import (
    Application,
    Clock,
    DeadLetter,
    Engagement,
    Event,
    Forget,
    JobEvent,
    ScoredApplication,
    Source,
)
from stream.features import FeatureSpace, names_of
from stream.global_model import GlobalModel
from stream.labels.jump import CONFIRMATIONS, JumpFilter
from stream.labels.watermark import Channels
from stream.policy import Policy
from stream.records import MAX_DEAD_LETTER_BYTES
from stream.run_folder import RunMetrics, RunSink
from stream.stages import JobStage, MemberStage, Steps
from stream.state.overlay import Overlay
from stream.state.partition_state import save_identity
from stream.state.posteriors import all_posteriors
from stream.updaters.effect import Effect
from stream.wire import RawApplication, decode_event, decode_raw, to_event

FLUSH_EVERY = 2048
"""Lines, or labels of one line, between two flushes to RocksDB."""

_LOOK_AHEAD = 10_000  # lines
_FEW = 10  # applications
_LOG = 0  # the log is the one channel


def replay(
    lines: Iterable[LogLine],
    sink: RunSink,
    policy: Policy,
    model: GlobalModel | None,
    space: FeatureSpace,
    *,
    score_from_ms: int = 0,
    close: bool = False,
    max_jump_ms: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> RunMetrics:
    """Replay a log into an opened run folder, or into another sink.

    Args:
        lines: the log, in order of arrival.
        sink: where the results go.
        policy: label policy and effects.
        model: the frozen global model; None when every application brings its ``global_score``.
        space: the feature blocks, from :func:`first_look`.
        score_from_ms: applications before it are left out of the quality in ``metrics.json``.
        close: move event time past every window at the end.
        max_jump_ms: hold an event further ahead back until others confirm it; None: never.
        progress: called with the number of lines read, now and then.

    """
    run = _Run(sink, policy, model, space, score_from_ms, max_jump_ms)
    count = 0
    for count, line in enumerate(lines, 1):
        run.line(line)
        if count % FLUSH_EVERY == 0:
            run.flush()
            progress(count)
    run.end_of_log()
    if close:
        run.close()
    run.flush()
    progress(count)
    metrics = run.finish()
    sink.metrics(metrics)
    return metrics


class _Run:
    """The state of a replay: two stages, one watermark, the tallies."""

    def __init__(
        self,
        sink: RunSink,
        policy: Policy,
        model: GlobalModel | None,
        space: FeatureSpace,
        score_from_ms: int,
        max_jump_ms: int | None,
    ) -> None:
        self._sink = sink
        self._policy = policy.labels
        self._space = space
        self._score_from_ms = score_from_ms
        self._overlay = Overlay(sink.store)
        self._jobs = JobStage(self._overlay, space.per_job.size, policy, model)
        self._version = self._jobs.model_version
        self._members = MemberStage(self._overlay, space.per_member.size, policy, self._version)
        self._channels = Channels.of(1)
        self._jumps: JumpFilter[tuple[Event, Source]] = JumpFilter(max_jump_ms)
        self._largest_ms = 0
        self._events: Counter[str] = Counter()
        self._dead: Counter[str] = Counter()
        self._applications = 0
        self._prequential = Prequential(score_from_ms)
        self._timeliness = Timeliness()
        save_identity(self._overlay, self._version, space, policy)

    def line(self, line: LogLine) -> None:
        """Read one line; apply what may be applied now."""
        source = Source(
            line.source, 0, line.number, len(line.raw), line.raw[:MAX_DEAD_LETTER_BYTES]
        )
        try:
            if line.damaged is not None:
                raise EventError(line.damaged)
            event = decode_event(line.raw, self._space)
        except EventError as error:
            self._dead_letter(DeadLetter(error.reason, str(error), source))
            return
        if isinstance(event, Forget):
            self._forget(event)  # may lie anywhere in time, and moves nothing
            return
        for ready, read_from in self._jumps.take(event.event_time_ms, (event, source)):
            self._event(ready, read_from)

    def end_of_log(self) -> None:
        """Set aside the jumps of time that nothing confirmed."""
        for event, source in self._jumps.rest():
            error = TimeJumpError(
                f"event_time_ms {event.event_time_ms} lies more than --max-jump ahead, and fewer"
                f" than {CONFIRMATIONS} further events followed it there"
            )
            self._dead_letter(DeadLetter(error.reason, str(error), source))

    def _forget(self, event: Forget) -> None:
        self._events["forget"] += 1
        if event.member_id is not None:
            self._members.entities.forget(event.member_id, event.event_time_ms)
        if event.job_id is not None:
            self._jobs.entities.forget(event.job_id, event.event_time_ms)

    def _event(self, event: Event, source: Source) -> None:
        """Apply an event in full, then move the watermark. A dead letter moves nothing."""
        try:
            self._apply(event, source)
        except EventError as error:
            self._dead_letter(DeadLetter(error.reason, str(error), source))
            return
        if isinstance(event, Clock):
            self._advance(event.event_time_ms)
        else:
            self._largest_ms = max(self._largest_ms, event.event_time_ms)
            self._advance(self._largest_ms - self._policy.allowed_lateness_ms)

    def close(self) -> None:
        """Move event time past every window."""
        self._advance(self._policy.past_everything_ms(self._largest_ms))

    def flush(self) -> None:
        """Refit what is stale and write everything to the store."""
        self._jobs.effect.flush()
        self._members.effect.flush()
        self._overlay.flush()

    def finish(self) -> RunMetrics:
        """Write the coefficients, sorted by key, and sum up."""
        entities: dict[str, int] = {
            effect.name: self._write_coefficients(effect)
            for effect in sorted(
                (self._members.effect, self._jobs.effect), key=lambda effect: effect.name
            )
        }
        return RunMetrics(
            model_version=self._version,
            events=_sorted(self._events),
            ignored=_sorted(self._jobs.tally),
            dead_letters=_sorted(self._dead),
            labels=_sorted(self._timeliness.labels),
            flips=_sorted(self._timeliness.flips),
            first_label_within=self._timeliness.first_label_within(),
            positives_within=self._timeliness.positives_within(),
            applications=self._applications,
            closed=self._timeliness.closed,
            entities=entities,
            refits={
                "per_job": self._jobs.effect.refits,
                "per_member": self._members.effect.refits,
            },
            score_from_ms=self._score_from_ms,
            newest_event_ms=self._largest_ms,
            watermark_ms=self._channels.watermark_ms,
            quality=self._prequential.summary(),
        )

    def _apply(self, event: Event, source: Source) -> None:
        watermark_ms = self._channels.watermark_ms
        match event:
            case Application():
                self._events["application"] += 1
                self._application(event, watermark_ms)
            case Engagement():
                self._events["engagement"] += 1
                self._emit(self._jobs.engagement(event, source, watermark_ms))
            case JobEvent():
                self._events["job"] += 1
                self._emit(self._jobs.job_event(event, watermark_ms))
            case Clock():
                self._events["clock"] += 1

    def _application(self, app: Application, watermark_ms: int | None) -> None:
        scored = ScoredApplication(app, self._members.score(app), 0, None)
        scores, steps = self._jobs.application(scored, watermark_ms)
        if scores is not None:
            self._applications += 1
            self._sink.score(app, scores)
        self._emit(steps)

    def _advance(self, mark_ms: int) -> None:
        self._channels.advance(_LOG, mark_ms)
        watermark_ms = self._channels.watermark_ms
        self._emit(self._jobs.close_due(watermark_ms))
        for entities in (self._jobs.entities, self._members.entities):
            for count, _ in enumerate(entities.leave(watermark_ms), 1):
                if count % FLUSH_EVERY == 0:
                    self.flush()
        if self._jobs.dead_letters:
            self._take_dead_letters()

    def _emit(self, steps: Steps) -> None:
        for count, step in enumerate(steps, 1):
            if step is not None:
                self._timeliness.observe(step.change)
                self._prequential.observe(step.change)
                if step.label is not None:
                    self._members.learn(step.label)
                    self._sink.label(step.label)
            if count % FLUSH_EVERY == 0:
                self.flush()  # one line may settle or close a million applications
        if self._jobs.dead_letters:
            self._take_dead_letters()

    def _take_dead_letters(self) -> None:
        for letter in self._jobs.dead_letters:
            self._dead_letter(letter)
        self._jobs.dead_letters.clear()

    def _dead_letter(self, letter: DeadLetter) -> None:
        self._dead[letter.reason] += 1
        self._sink.dead_letter(letter)

    def _write_coefficients(self, effect: Effect) -> int:
        count = 0
        for entity_id, posterior in all_posteriors(self._sink.store, effect.name):
            self._sink.coefficients(effect.describe(entity_id, posterior))
            count += 1
        return count


def first_look(
    lines: Iterable[LogLine], model: GlobalModel | None
) -> tuple[Iterator[LogLine], FeatureSpace]:
    """Check the first applications against the model, before anything is written.

    A log of which none of the first ten readable applications fits is another model's; a single
    misfit is a dead letter like any other. Without a model, block sizes are those of the first
    application, which must bring its score.

    Returns:
        The lines, all of them again, and the feature blocks.

    Raises:
        ModelError: no application fits the model, or there is none and no global score.

    """
    rest = iter(lines)
    seen: list[LogLine] = []
    misfit: ModelError | None = None
    misfits = 0
    for line in islice(rest, _LOOK_AHEAD):
        seen.append(line)
        try:
            raw = decode_raw(line.raw)
        except EventError:
            continue
        if isinstance(raw, RawApplication):
            try:
                return chain(seen, rest), _space_of(raw, f"{line.source}:{line.number}", model)
            except ModelError as error:
                misfit = misfit or error
            misfits += 1
            if misfits == _FEW:
                break
    if misfit is not None:
        raise misfit
    return chain(seen, rest), FeatureSpace(None, (), ()) if model is None else model.space


def _space_of(raw: RawApplication, where: str, model: GlobalModel | None) -> FeatureSpace:
    if model is not None:
        try:
            to_event(raw, model.space)
        except InvalidFeaturesError as error:
            raise ModelError(
                f"the log does not fit model {model.version}: {error} ({where})"
            ) from None
        return model.space
    if raw.global_score is None:
        raise ModelError(
            f"{where} carries no global_score: pass a model with --model (hearback train makes one)"
        )
    return FeatureSpace(
        None,
        names_of(raw.features.per_member, "per_member"),
        names_of(raw.features.per_job, "per_job"),
    )


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
