"""A replay by several processes: this one reads the log, splits it, merges and writes.

Members and jobs are split over the workers by the product's partitioner. The workers wait for each
other at barriers: whenever the log's watermark enters another stretch of ``sync_ms`` of event time,
and at the latest after :data:`MOST_ITEMS` events. Lines of the files are merged by the event that
caused them, in the log's order; of one event, by the number of the worker.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

from stream.effects import EFFECT_NAMES
from stream.events.partitioner import partition_of
from stream.events.structs import Application, Clock, DeadLetter, Engagement, Forget, JobEvent
from stream.features.blocks import FeatureSpace
from stream.logs.files import LogLine
from stream.model.folder import NO_MODEL, GlobalModel
from stream.policy import Policy
from stream.quality.prequential import Prequential
from stream.replay.messages import (
    Asked,
    Batch,
    Finish,
    Finished,
    Item,
    Lines,
    Output,
    Saved,
    Setup,
)
from stream.replay.process import Workers
from stream.replay.reader import Read, Reader, ReaderState
from stream.replay.run_folder import (
    COEFFICIENTS,
    DEAD_LETTERS,
    LABELS,
    SCORES,
    RunCounts,
    RunFolder,
    RunMetrics,
    dead_letter_line,
    run_metrics,
)
from stream.replay.savepoint import (
    Checkpoints,
    Options,
    Savepoint,
    Share,
    load_rows,
    share_folder,
)

MOST_ITEMS = 8192
"""Events of a worker between two barriers, on average, at the most."""

_AHEAD = 2  # batches that workers have in hand, so that they need not wait for the reader

Numbered = tuple[list[int], list[bytes]]
"""Sequence numbers and lines."""


def replay_parallel(
    lines: Iterable[LogLine],
    folder: RunFolder,
    policy: Policy,
    model: GlobalModel | None,
    space: FeatureSpace,
    options: Options,
    *,
    progress: Callable[[int], None],
    checkpoints: Checkpoints,
    resumed: Savepoint | None,
) -> RunMetrics:
    """Replay a log with several worker processes into an opened run folder.

    Args:
        lines: the log, in order of arrival.
        folder: where the results go; without a state of its own.
        policy, model, space, progress: as in :func:`stream.replay.single.replay`.
        options: the rest; its workers are processes beside this one.
        checkpoints: of the folder.
        resumed: what ``checkpoints`` found to go on from.

    Raises:
        WorkerDiedError: a worker ended, or could not go on. What was written until the last
            checkpoint can be resumed.

    """
    reader = Reader(space, policy, scored=model is not None, max_jump_ms=options.max_jump_ms)
    setups = _setups(folder, policy, model, space, options, checkpoints, resumed)
    with Workers(setups) as team:
        run = _Parallel(reader, folder, team, checkpoints, options)
        rest = iter(lines)
        if resumed is not None:
            reader.skip(rest, resumed.reader)
            run.count_dead(resumed)
        run.read(rest, progress)
        run.end_of_log()
        progress(reader.lines)
        metrics = run.finish(NO_MODEL if model is None else model.version)
    folder.metrics(metrics)
    return metrics


class _Sent(NamedTuple):
    """A batch that the workers have, and what is to be done when they are through with it."""

    letters: Numbered
    saved: ReaderState | None


class _Parallel:
    """The reader's side of the work."""

    def __init__(
        self,
        reader: Reader,
        folder: RunFolder,
        team: Workers,
        checkpoints: Checkpoints,
        options: Options,
    ) -> None:
        self._options = options
        self._reader = reader
        self._folder = folder
        self._team = team
        self._checkpoints = checkpoints
        self._sequence = 0
        self._flushed_lines = 0
        self._dead: dict[str, int] = {}
        self._sent: deque[_Sent] = deque()
        self._begin_batch()

    def count_dead(self, progress: Savepoint) -> None:
        """Go on with the dead letters that the reader itself had made."""
        self._dead = dict(progress.dead_letters)
        self._flushed_lines = progress.reader.lines

    def read(self, lines: Iterator[LogLine], progress: Callable[[int], None]) -> None:
        """Read the log to its end; a barrier for each stretch of event time."""
        reader, most = self._reader, MOST_ITEMS * len(self._team)
        sync_ms = self._options.sync_ms
        stretch = _stretch(reader.time.watermark_ms, sync_ms)
        for line in lines:
            self._distribute(reader.line(line))
            now = _stretch(reader.time.watermark_ms, sync_ms)
            if now != stretch or self._count >= most:
                stretch = now
                self._barrier(reader.time.watermark_ms)
                progress(reader.lines)

    def end_of_log(self) -> None:
        """Set aside unconfirmed jumps of time, and let the workers end; close every window."""
        self._distribute(self._reader.end())
        time = self._reader.time
        self._barrier(time.close() if self._options.close else time.watermark_ms)
        while self._sent:
            self._collect()

    def _distribute(self, ready: Iterator[Read | DeadLetter]) -> None:
        for read in ready:
            self._sequence += 1
            if isinstance(read, DeadLetter):
                self._dead_letter(read)
            else:
                self._split(read)

    def finish(self, model_version: str) -> RunMetrics:
        """Sum up, and write the coefficients in the order of their keys."""
        self._team.send([Finish()] * len(self._team))
        finished = self._team.receive(Finished)
        prequential = Prequential(self._options.score_from_ms)
        for share in finished:
            prequential.extend(share.rows)
        entities = {name: self._write_coefficients() for name in sorted(EFFECT_NAMES)}
        return run_metrics(
            [*(share.counts for share in finished), RunCounts(dead_letters=self._dead)],
            prequential,
            self._reader,
            entities=entities,
            model_version=model_version,
            rolls=self._options.roll_names,
            score_from_ms=self._options.score_from_ms,
        )

    def _begin_batch(self) -> None:
        shares = range(len(self._team))
        self._count = 0
        self._items: list[list[Item]] = [[] for _ in shares]
        self._asked: list[list[list[Asked]]] = [[[] for _ in shares] for _ in shares]
        self._forgotten: list[tuple[str, int]] = []
        self._letters: Numbered = ([], [])

    def _share_of(self, entity_id: str) -> int:
        return partition_of(entity_id.encode(), len(self._team))

    def _split(self, read: Read) -> None:
        """Put an event into the batch of the share of its job."""
        event = read.event
        self._count += 1
        match event:
            case Application():
                share, owner = self._share_of(event.job_id), self._share_of(event.member_id)
                if owner != share:
                    asked = Asked(
                        event.member_id,
                        event.features.per_member,
                        event.job_id,
                        event.application_id,
                        event.event_time_ms,
                        read.watermark_ms,
                    )
                    self._asked[owner][share].append(asked)
            case Engagement() | JobEvent():
                share = owner = self._share_of(event.job_id)
            case Forget():
                if event.member_id is not None:
                    self._forgotten.append((event.member_id, event.event_time_ms))
                if event.job_id is None:
                    return
                share = owner = self._share_of(event.job_id)
            case Clock():
                return
        item = Item(self._sequence, read.watermark_ms, read.source, owner, event)
        self._items[share].append(item)

    def _dead_letter(self, letter: DeadLetter) -> None:
        self._dead[letter.reason] = self._dead.get(letter.reason, 0) + 1
        self._letters[0].append(self._sequence)
        self._letters[1].append(dead_letter_line(letter))

    def _barrier(self, watermark_ms: int | None) -> None:
        """Send the workers their batches; take in what they have done of an earlier one."""
        lines, shares = self._reader.lines, range(len(self._team))
        due = self._checkpoints.due(lines)
        flush = due or lines - self._flushed_lines >= self._options.flush_every * len(shares)
        if flush:
            self._flushed_lines = lines
        if due:
            while self._sent:  # one checkpoint at a time
                self._collect()
        states = [str(path) for path in self._checkpoints.make(lines)] if due else None
        self._team.send(
            [
                Batch(
                    self._items[share],
                    self._asked[share],
                    self._forgotten,
                    self._sequence,
                    watermark_ms,
                    flush,
                    states[share] if states else None,
                    str(self._checkpoints.judged(share)) if states else None,
                )
                for share in shares
            ]
        )
        self._sent.append(_Sent(self._letters, self._reader.state() if due else None))
        self._begin_batch()
        while len(self._sent) > (0 if due else _AHEAD - 1):
            self._collect()

    def _collect(self) -> None:
        """Take in what the workers have done of the oldest batch, and write it."""
        letters, saved = self._sent.popleft()
        more = True
        while more:
            outputs = self._team.receive(Output)
            more = outputs[0].more
            self._folder.write(LABELS, _merged([output.labels for output in outputs]))
            self._folder.write(SCORES, _merged([output.scores for output in outputs]))
            dead = [letters, *(output.dead_letters for output in outputs)]
            self._folder.write(DEAD_LETTERS, _merged(dead))
            letters = ([], [])
        if saved is not None:
            shares = [Share(share.counts, share.judged) for share in self._team.receive(Saved)]
            self._checkpoints.finish(
                Savepoint(
                    reader=saved,
                    lengths=self._folder.lengths(),
                    shares=shares,
                    dead_letters=dict(self._dead),
                )
            )

    def _write_coefficients(self) -> int:
        """Write the coefficients of an effect, by entity."""
        count = 0
        streams = [self._coefficients(share) for share in range(len(self._team))]
        for _, line in heapq.merge(*streams):
            self._folder.write(COEFFICIENTS, (line,))
            count += 1
        return count

    def _coefficients(self, share: int) -> Iterator[tuple[bytes, bytes]]:
        while (part := self._team.receive_from(share, Lines)).lines:
            yield from zip(part.keys, part.lines, strict=True)


def _setups(
    folder: RunFolder,
    policy: Policy,
    model: GlobalModel | None,
    space: FeatureSpace,
    options: Options,
    checkpoints: Checkpoints,
    resumed: Savepoint | None,
) -> list[Setup]:
    """What each worker is told first."""
    return [
        Setup(
            share=share,
            shares=options.workers,
            state=str(share_folder(folder.path, share, options.workers)),
            model=None if model is None else model.manifest,
            arrays=b"" if model is None else model.scorer.encoded(),
            rolls=[
                (rolled.model.manifest, rolled.model.scorer.encoded(), rolled.from_ms)
                for rolled in options.rolls
            ],
            policy=policy,
            per_member=list(space.per_member.names),
            per_job=list(space.per_job.names),
            score_from_ms=options.score_from_ms,
            counts=None if resumed is None else resumed.shares[share].counts,
            rows=b""
            if resumed is None
            else load_rows(checkpoints.judged(share), resumed.shares[share].judged),
        )
        for share in range(options.workers)
    ]


def _stretch(watermark_ms: int | None, sync_ms: int) -> int | None:
    return None if watermark_ms is None else watermark_ms // sync_ms


def _merged(parts: Iterable[Numbered]) -> list[bytes]:
    """Lines by their sequence numbers; of one number, in the order of the parts."""
    numbered = [pair for numbers, lines in parts for pair in zip(numbers, lines, strict=True)]
    numbered.sort(key=itemgetter(0))
    return [line for _, line in numbered]
