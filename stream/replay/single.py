"""A replay in one process.

The log is one input with one watermark. Every record is applied in full (scored, labelled, learned
by job and member) before the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter

from stream.events.structs import Application, DeadLetter, Event, Forget, ScoredApplication
from stream.features.blocks import FeatureSpace
from stream.labels import driver
from stream.labels.changes import Entered
from stream.logs.files import LogLine
from stream.model.folder import GlobalModel
from stream.policy import Policy
from stream.replay.reader import Read, Reader
from stream.replay.run_folder import RunFolder, RunMetrics, RunSink, run_metrics
from stream.replay.savepoint import (
    DEFAULTS,
    LOOK_EVERY,
    Checkpoints,
    Options,
    Savepoint,
    Share,
    load_rows,
    save_rows,
)
from stream.replay.stages import Stages
from stream.stages.job import Labelled, Steps
from stream.state.entities import all_posteriors
from stream.updaters.effect import Effect


def replay(
    lines: Iterable[LogLine],
    sink: RunSink,
    policy: Policy,
    model: GlobalModel | None,
    space: FeatureSpace,
    options: Options = DEFAULTS,
    *,
    progress: Callable[[int], None] = lambda _: None,
    checkpoints: Checkpoints | None = None,
    resumed: Savepoint | None = None,
) -> RunMetrics:
    """Replay a log into an opened run folder, or into another sink.

    Args:
        lines: the log, in order of arrival.
        sink: where the results go.
        policy: label policy and effects.
        model: the frozen global model; None when every application brings its ``global_score``.
        space: the feature blocks, from :func:`stream.replay.first_look`.
        options: the rest; of one worker.
        progress: called with the number of lines read, now and then.
        checkpoints: of the sink, which must be a run folder then; None: make none.
        resumed: what ``checkpoints`` found to go on from.

    """
    run = _Run(sink, policy, model, space, options)
    rest = iter(lines)
    if checkpoints is not None and resumed is not None:
        run.restore(rest, checkpoints, resumed)
    reader = run.reader
    for line in rest:
        run.line(line)
        if reader.lines % LOOK_EVERY:
            continue
        progress(reader.lines)
        if reader.lines % options.flush_every == 0 or run.stages.is_full:
            run.flush()
            if checkpoints is not None and checkpoints.due(reader.lines):
                run.save(checkpoints)
    run.end_of_log()
    if options.close:
        run.close()
    run.flush()
    progress(reader.lines)
    metrics = run.finish()
    sink.metrics(metrics)
    return metrics


class _Run:
    """The state of a replay: a reader, two stages, the tallies."""

    def __init__(
        self,
        sink: RunSink,
        policy: Policy,
        model: GlobalModel | None,
        space: FeatureSpace,
        options: Options,
    ) -> None:
        self._flush_every = options.flush_every
        self.reader = Reader(
            space, policy, scored=model is not None, max_jump_ms=options.max_jump_ms
        )
        self._sink = sink
        self._score_from_ms = options.score_from_ms
        self._rolls = options.roll_names
        self.stages = Stages(
            sink.store, policy, model, space, options.score_from_ms, rolls=options.rolls, alone=True
        )
        self._judged = 0  # rows that the last checkpoint has

    def line(self, line: LogLine) -> None:
        """Read one line; apply what may be applied now."""
        self._apply(self.reader.line(line))

    def end_of_log(self) -> None:
        """Apply what still waits; set aside the jumps of time that nothing confirmed."""
        self._apply(self.reader.end())

    def close(self) -> None:
        """Move event time past every window."""
        closed_ms = self.reader.time.close()
        self._emit(self.stages.jobs.close_due(closed_ms))
        self.stages.expire(closed_ms, self._flush_every)

    def flush(self) -> None:
        """Write everything to the store."""
        self.stages.flush()

    def save(self, checkpoints: Checkpoints) -> None:
        """Make a checkpoint of what was flushed; from here on, memory is as if resumed."""
        self.stages.drop_cached()
        folder = self._folder()
        (state,) = checkpoints.make(self.reader.lines)
        folder.checkpoint_state(state)
        rows = self.stages.prequential
        self._judged = save_rows(checkpoints.judged(0), rows, self._judged)
        share = Share(self.stages.counts(), self._judged)
        checkpoints.finish(
            Savepoint(reader=self.reader.state(), lengths=folder.lengths(), shares=[share])
        )

    def restore(
        self, lines: Iterator[LogLine], checkpoints: Checkpoints, progress: Savepoint
    ) -> None:
        """Go on from a checkpoint, past the lines that were read."""
        self.reader.skip(lines, progress.reader)
        (share,) = progress.shares
        rows = load_rows(checkpoints.judged(0), share.judged)
        self.stages.restore(share.counts, rows)
        self._judged = share.judged

    def finish(self) -> RunMetrics:
        """Write the coefficients, sorted by key, and sum up."""
        self.stages.drop_cached()  # summing up takes memory too
        entities: dict[str, int] = {
            effect.name: self._write_coefficients(effect)
            for effect in sorted(self.stages.effects, key=attrgetter("name"))
        }
        return run_metrics(
            [self.stages.counts()],
            self.stages.prequential,
            self.reader,
            entities=entities,
            model_version=self.stages.model_version,
            rolls=self._rolls,
            score_from_ms=self._score_from_ms,
        )

    def _folder(self) -> RunFolder:
        if not isinstance(self._sink, RunFolder):
            raise TypeError("only a run folder has checkpoints")
        return self._sink

    def _apply(self, ready: Iterator[Read | DeadLetter]) -> None:
        for read in ready:
            if isinstance(read, DeadLetter):
                self._emit(iter((read,)))
            else:
                self._read(read)

    def _read(self, read: Read) -> None:
        """Apply an event in full, then move the watermark."""
        event: ScoredApplication | Event = read.event
        if isinstance(event, Forget):
            if event.member_id is not None:
                self.stages.members.entities.forget(event.member_id, event.event_time_ms)
                self.stages.jobs.forget_member(event.member_id, event.event_time_ms)
            if event.job_id is not None:
                self.stages.jobs.entities.forget(event.job_id, event.event_time_ms)
            return
        if isinstance(event, Application):
            event = self.stages.members.score(event, 0, read.watermark_ms)
        steps = driver.read(self.stages.jobs, event, read.source, read.watermark_ms, read.after_ms)
        self._emit(steps)
        if read.after_ms is not None and read.after_ms != read.watermark_ms:
            self.stages.expire(read.after_ms, self._flush_every)

    def _emit(self, steps: Steps) -> None:
        """Count and write what comes of something, and let members learn it."""
        for count, step in enumerate(steps, 1):
            self.stages.observe(step)
            match step:
                case Labelled(_, label) if label is not None:
                    self.stages.members.learn(label)
                    self._sink.label(label)
                case Entered(app, scores):
                    self._sink.scored(app, scores)
                case DeadLetter():
                    self._sink.dead_letter(step)
            if count % self._flush_every == 0:
                self.flush()  # one line may settle or close a million applications

    def _write_coefficients(self, effect: Effect) -> int:
        count = 0
        for entity_id, posterior in all_posteriors(self._sink.store, effect.name):
            described = effect.describe({entity_id: posterior})[entity_id]
            self._sink.coefficients(self.stages.published(described))
            count += 1
        return count
