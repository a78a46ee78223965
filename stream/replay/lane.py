"""The stages over one share of the members and jobs, where several processes replay one log.

Between two barriers a lane does the following, each step once it has heard from all others what it
needs:

1. It forgets whom it is to forget, and gives the scores of its members that others asked for: as of
   everything learned before the barrier, which is what makes the result independent of who is
   quicker.
2. It applies the events of its jobs in the log's order. Labels of its own members are learned at
   once, others' are handed over. A lot of labels is handed over in several rounds.
3. It learns the labels of its members that others hand over, in the log's order.
4. It lets entities go whose time is over, and writes its state if it is told to.

Every event comes with the whole log's watermark, so that windows close before the same events as in
one process, and the final labels are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter, itemgetter
from struct import Struct
from typing import NamedTuple

from stream.events.partitioner import partition_of
from stream.events.structs import (
    Application,
    DeadLetter,
    Engagement,
    Forget,
    JobEvent,
    Label,
    ScoredApplication,
)
from stream.events.wire import encode, encode_label
from stream.histories.history import NUMBERS_BYTES
from stream.labels import driver
from stream.labels.changes import Entered, Ignored
from stream.replay.messages import Asked, Batch, Item, Lines, Output
from stream.replay.run_folder import dead_letter_line, score_line
from stream.replay.stages import Stages
from stream.stages.job import Labelled, Steps
from stream.state.entities import all_posteriors

MOST_STEPS = 16_384
"""Labels changed and windows closed in one round at the most: some 20 MB on their way."""

_ANSWER = Struct(f"<d?{NUMBERS_BYTES}s")  # a member's score; whether there is a history; which
_LINES = 1024  # coefficients sent at a time

Handed = tuple[list[int], list[Label]]
"""Labels for another share, with their sequence numbers."""


class Round(NamedTuple):
    """What a round has brought: lines of the files, and labels by the share of their member."""

    output: Output
    handed: list[Handed]


class Lane:
    """One share of a replay. Core: what it says to others is sent by :mod:`.process`.

    Args:
        share: of ``shares``, its number.
        stages: those of the share.

    """

    def __init__(self, share: int, shares: int, stages: Stages) -> None:
        self._share = share
        self._shares = shares
        self.stages = stages
        self._jobs, self._members = stages.jobs, stages.members
        self._steps = 0
        self._begin_round()

    def answer(self, batch: Batch) -> list[bytes]:
        """Forget whom the batch says; answers (:data:`_ANSWER`) by the share that asked."""
        for member_id, time_ms in batch.forgotten:
            if partition_of(member_id.encode(), self._shares) == self._share:
                self._members.entities.forget(member_id, time_ms)
            self._jobs.forget_member(member_id, time_ms)
        return [b"".join(map(self._answer, asked)) for asked in batch.asked]

    def work(self, batch: Batch, answers: Sequence[bytes]) -> Iterator[Round]:
        """Apply the events of a batch; the last round says that there are no more.

        Args:
            batch: the events.
            answers: by share, what this share's applications ask for, in their order.

        """
        scores = [_ANSWER.iter_unpack(answer) for answer in answers]
        for item in batch.items:
            self._sequence = item.sequence
            yield from self._emit(self._jobs.close_due(item.watermark_ms))
            yield from self._item(item, scores[item.owner])
        self._sequence = batch.sequence
        yield from self._emit(self._jobs.close_due(batch.watermark_ms))
        yield self._end_round(more=False)

    def learn(self, handed: Iterable[Handed]) -> None:
        """Learn labels from other shares, each in order: in the log's order, then the shares'."""
        labels = [pair for numbers, labels in handed for pair in zip(numbers, labels, strict=True)]
        labels.sort(key=itemgetter(0))
        for _, label in labels:
            self._members.learn(label)

    def end(self, batch: Batch) -> None:
        """Expire entities; write the state if the batch says so, or if it must be."""
        self.stages.expire(batch.watermark_ms, MOST_STEPS)
        if batch.flush or self.stages.is_full:
            self.stages.flush()
        if batch.state is not None:
            self.stages.drop_cached()

    def coefficients(self) -> Iterator[Lines]:
        """Coefficients of all effects, in order of their names; none at the end of each."""
        for effect in sorted(self.stages.effects, key=attrgetter("name")):
            keys: list[bytes] = []
            lines: list[bytes] = []
            for entity_id, posterior in all_posteriors(self.stages.store, effect.name):
                keys.append(entity_id.encode())
                described = effect.describe({entity_id: posterior})[entity_id]
                lines.append(encode(self.stages.published(described)))
                if len(lines) == _LINES:
                    yield Lines(keys, lines)
                    keys, lines = [], []
            if lines:
                yield Lines(keys, lines)
            yield Lines([], [])

    def _answer(self, one: Asked) -> bytes:
        score = self._members.effect.score(one.member_id, one.z)
        history = self._members.history(
            one.member_id, one.job_id, one.application_id, one.event_time_ms, one.watermark_ms
        )
        return _ANSWER.pack(score, history is not None, history or b"")

    def _item(self, item: Item, scores: Iterator[tuple[float, bool, bytes]]) -> Iterator[Round]:
        event: ScoredApplication | Application | Engagement | JobEvent | Forget = item.event
        now_ms = item.watermark_ms
        if isinstance(event, Forget):
            if event.job_id is not None:
                self._jobs.entities.forget(event.job_id, event.event_time_ms)
            return
        if isinstance(event, Application):
            # Where a worker has the partition of the application, a lane has its member's share.
            if item.owner == self._share:
                event = self._members.score(event, item.owner, now_ms)
            else:
                score, known, history = next(scores)
                event = ScoredApplication(
                    event, score, item.owner, now_ms, history=history if known else None
                )
        yield from self._emit(driver.read(self._jobs, event, item.source, now_ms, now_ms))

    def _emit(self, steps: Steps) -> Iterator[Round]:
        for step in steps:
            self.stages.observe(step)
            match step:
                case Labelled(change, label):
                    if label is not None:
                        self._label(label, change.facts.partition)
                case Entered(app, scores):
                    self._scored[0].append(self._sequence)
                    self._scored[1].append(score_line(app, scores))
                    continue
                case DeadLetter():
                    self._letters[0].append(self._sequence)
                    self._letters[1].append(dead_letter_line(step))
                case Ignored():
                    continue
            self._steps += 1
            if self._steps >= MOST_STEPS:
                yield self._end_round(more=True)
                self.stages.flush()

    def _label(self, label: Label, owner: int) -> None:
        self._labelled[0].append(self._sequence)
        self._labelled[1].append(encode_label(label))
        if owner == self._share:
            self._members.learn(label)
        else:
            numbers, labels = self._handed[owner]
            numbers.append(self._sequence)
            labels.append(label)

    def _begin_round(self) -> None:
        self._sequence = 0
        self._steps = 0
        self._labelled: tuple[list[int], list[bytes]] = ([], [])
        self._scored: tuple[list[int], list[bytes]] = ([], [])
        self._letters: tuple[list[int], list[bytes]] = ([], [])
        self._handed: list[Handed] = [([], []) for _ in range(self._shares)]

    def _end_round(self, *, more: bool) -> Round:
        sequence = self._sequence
        done = Round(Output(more, self._labelled, self._scored, self._letters), self._handed)
        self._begin_round()
        self._sequence = sequence
        return done
