"""What the partitions of both stages have in common: units of work, positions, dead letters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from stream import effects
from stream.errors import EventError, HearbackError, PoisonError, StateError, caused_by
from stream.events.records import (
    COEFFICIENTS,
    Message,
    Read,
    Record,
    dead_letter_message,
    source_of,
)
from stream.events.routing import Routing
from stream.events.structs import Coefficients, DeadLetter, Forget, Source
from stream.events.wire import coefficients_key, encode
from stream.model.folder import GlobalModel
from stream.partitions.clock import EventClock, EventTime
from stream.partitions.commands import Command, GateCommand, RollCommand
from stream.partitions.controls import Controls, priors_of
from stream.partitions.copies import copied
from stream.partitions.identity import check_identity
from stream.partitions.jumps import max_jump_ms
from stream.partitions.progress import (
    PROGRESS,
    Progress,
    decode_progress,
    load_progress,
    save_progress,
)
from stream.partitions.readings import Readings
from stream.policy import Policy
from stream.quality.judged import JudgedScores
from stream.stages.base import Stage
from stream.state.overlay import Overlay

Unit = list[Message]
"""Messages that belong together: all are sent before the overlay is flushed."""

_SAVE_PROGRESS_MS = 60_000
_MOST_EXPIRED = 500  # entities looked at in one unit of work

MOST_RELEASED = 200
"""Entities that were held back and are published in one unit of work at the most."""

Cuts = Iterable[None]
"""Work that says after which of its steps the unit may be ended, and another begun."""


class Partition(ABC):
    """What the partitions of both stages have in common.

    Args:
        number: of this partition; ``partitions`` how many there are.
        overlay: its state.
        model: the frozen global model.
        policy: labels and effects.
        channels: how many watermark channels it merges; the last one is its own input.
        idle_timeout_ms: wall time at the end of an input after which it counts as idle.
        topic_ids: what Kafka calls its topics, by name; empty where the broker has no ids.

    Making it may put a write into the overlay (whose the state is); the caller must make that safe
    before the first record.

    Attributes:
        clock: its event time. events: records applied, by type. dead_letters: by reason.
        removed: entities, by why: ``forget`` or ``entity_ttl``.
        redone: batches that are done again record by record: topic, first offset, and the exception
            that ended them. The caller takes them out.
        judged: what the scores are worth, and the gate. learning: the stage, over structs.
        routing: whether the input's records are where they belong.

    """

    stage: ClassVar[effects.Stage]
    topics: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    input_topic: ClassVar[str]
    learning: Stage
    counts: ClassVar[tuple[str, ...]] = ("events", "dead_letters", "removed", "routing")

    def __init__(
        self,
        number: int,
        *,
        partitions: int,
        overlay: Overlay,
        model: GlobalModel,
        policy: Policy,
        channels: int,
        idle_timeout_ms: int,
        topic_ids: Mapping[str, str] | None = None,
    ) -> None:
        self.number = number
        self.partitions = partitions
        self.events: Counter[str] = Counter()
        self.dead_letters: Counter[str] = Counter()
        self.removed: Counter[str] = Counter()
        self.redone: list[tuple[str, int, Exception]] = []
        self._overlay = overlay
        self._space = model.space
        self._policy = policy
        self.routing = Routing(self.input_topic, number, partitions)
        self._topic = self.input_topic  # read last
        self._unsaved_since_ms: int | None = None  # wall clock; the progress has moved alone
        self._marks = 0  # bare watermarks of the batch
        self._messages: Unit = []  # of the unit of work that is being done
        self._cause_ms: dict[str, int] = {}  # entity → timestamp of the event that changed it
        self._removed_now: set[str] = set()  # entities that went in this unit of work
        self._counted: dict[str, Any] = {}
        self._now_ms = 0  # the wall clock, as passed in last
        self._own = policy.of_stage(self.stage)[0]
        self.judged = JudgedScores(overlay, policy, self._own.name)
        check_identity(
            overlay,
            policy,
            self.stage,
            model=model,
            partitions=partitions,
            topic_ids=topic_ids or {},
        )
        self._progress = self._load_progress(channels)
        self.clock = EventClock(
            self._progress.event_time,
            own=channels - 1,
            allowed_lateness_ms=policy.labels.allowed_lateness_ms,
            idle_timeout_ms=idle_timeout_ms,
            max_jump_ms=max_jump_ms(policy),
        )
        self._settled_progress = PROGRESS.encode(self._progress)
        self._readings = Readings(self.stage, number)

    def position(self, topic: str) -> int | None:
        """Next offset to read of a topic; None before the first record."""
        return self._progress.positions.get(topic)

    def go_on_misrouted(self) -> None:
        """Set misrouted records aside from now on, however many they are."""
        self.routing.go_on()
        self._keep_counts()

    @property
    def cause(self) -> Source:
        """What was read last, without its bytes: what is done now is done because of it."""
        position = self._progress.positions.get(self._topic, 0)
        return Source(self._topic, self.number, max(position - 1, 0), 0, b"")

    @property
    def watermark_ms(self) -> int | None:
        """How far event time has come here."""
        return self.clock.watermark_ms

    def process(self, reads: Iterable[Read], now_ms: int) -> Iterator[Unit]:
        """Apply what was read: one unit of work, if it fits, however many topics it is of.

        Args:
            reads: of some of ``topics``, each once; records below a position were applied before.
            now_ms: wall clock.

        Raises:
            HearbackError: no record's fault; of what was not given as a unit of work nothing stays.

        """
        self._now_ms = now_ms
        fresh = [read.since(self.position(read.topic) or 0) for read in reads]
        if not self._counted:
            self._keep_counts()
        try:
            yield from self._units(fresh, now_ms)
        except Exception as error:
            self._rollback()
            if isinstance(error, HearbackError):
                raise
            first = error  # which record it was is found below
        else:
            return
        for topic, records, end in fresh:
            self.redone.append((topic, records[0].offset if records else end, first))
            for at, record in enumerate(records):
                if record.offset < self._progress.positions.get(topic, 0):
                    continue  # it was in a unit that was finished before
                passed = end if at == len(records) - 1 else record.offset + 1
                try:
                    yield from self._units([Read(topic, [record], passed)], now_ms)
                except Exception as error:
                    self._rollback()
                    if isinstance(error, HearbackError):
                        caused_by(error, first)
                        raise
                    yield self._poison(topic, record, passed, error)  # the stream goes on
            if self._progress.positions.get(topic, 0) < end:
                yield self._end_at(topic, end)

    def skip(self, topic: str, first: int) -> Iterator[Unit]:
        """Go on from a later offset; what lies before it cannot be read any more."""
        if self._progress.positions.get(topic, 0) < first:
            yield self._end_at(topic, first)

    @abstractmethod
    def tick(self, now_ms: int, monotonic_ms: int, written: int | None = None) -> Iterator[Unit]:
        """Do what is due by the clock.

        Args:
            now_ms: wall clock. monotonic_ms: a clock that nobody sets.
            written: offsets written so far to all partitions of the input topic; None: not known.

        """

    def obey(self, commands: Iterable[Command], now_ms: int) -> Iterator[Unit]:
        """Do what of all commands this partition has not done yet; ``now_ms``: wall clock."""
        self._now_ms = now_ms
        for command in sorted(commands, key=lambda each: each.issued_ms):
            if isinstance(command, RollCommand):
                obeyed = self.learning.roll(command.model, command.from_ms, command.issued_ms)
                self._controls.due |= obeyed
            else:
                obeyed = (
                    isinstance(command, GateCommand)
                    and command.concerns(self._own.name, self.number)
                    and self.judged.open_by_hand(command.issued_ms, self._judged_until_ms)
                )
            if obeyed:
                yield self._finish()

    # -- units of work -----------------------------------------------------------------------

    def _units(self, reads: Sequence[Read], now_ms: int) -> Iterator[Unit]:
        """Apply records: one unit of work, or several where records cause a lot.

        A unit that ends within a record leaves the position before it: begun again, the record
        goes on with what is left to settle. What the watermark has to close is itself part of the
        state, so a unit that ends within that leaves the position behind the record, and the
        watermark where the record moved it: closing goes on before anything else is read.
        """
        yield from (self._finish() for _ in self._closings(now_ms))
        self._marks = 0
        known = self._progress.positions.keys() >= {read.topic for read in reads}
        for topic, records, end in reads:
            self._topic = topic
            yield from self._cuts(topic, records, now_ms)
            self._progress.positions[topic] = end
        if self._marks < sum(len(read.records) for read in reads) or self._touched or not known:
            yield self._finish()
            return
        # Only transaction markers, and bare watermarks that closed nothing: a restart may read them
        # again. (The first ones are worth a unit: without, state would look as if it was lost.)
        self._save_later(now_ms)

    def _cuts(self, topic: str, records: Sequence[Record], now_ms: int) -> Iterator[Unit]:
        """Apply records of one topic; end a unit of work wherever they have caused a lot."""
        closed_ms = self.watermark_ms
        for record in records:
            try:
                for _ in self._record(topic, record, now_ms):
                    yield self._end_at(topic, record.offset)
            except EventError as error:
                source = source_of(topic, self.number, record)
                self._dead_letter(DeadLetter.of(error, source), record.timestamp_ms)
            if self.watermark_ms != closed_ms or self.learning.some_may_expire:
                closed_ms = self.watermark_ms
                for _ in self._closings(record.timestamp_ms):
                    yield self._end_at(topic, record.offset + 1)
            if self.learning.has_worked:
                yield self._end_at(topic, record.offset + 1)

    def _save_later(self, now_ms: int) -> None:
        """Leave what the progress alone says to the next unit of work, or to one of its own."""
        self._settled_progress = PROGRESS.encode(self._progress)
        self._keep_counts()
        if self._unsaved_since_ms is None:
            self._unsaved_since_ms = now_ms

    @property
    def _touched(self) -> bool:
        """Whether the unit of work that is being done has done anything yet."""
        return bool(self._messages or self._cause_ms or self._overlay.has_writes)

    def _closings(self, timestamp_ms: int) -> Cuts:
        """Do what is due. When that fails, no record is to blame, and none becomes a dead letter.

        Raises:
            StateError: the state is not what it should be.

        """
        try:
            yield from self._due(timestamp_ms)
        except HearbackError:
            raise
        except Exception as error:
            raise StateError(
                f"partition {self.number} of the {self.stage} stage cannot close what is due:"
                f" {type(error).__name__}: {error}"
            ) from error

    def _end_at(self, topic: str, position: int) -> Unit:
        """Finish the unit of work; a restart goes on from a position."""
        self._progress.positions[topic] = position
        return self._finish()

    def _finish(self) -> Unit:
        """Refit, publish what changed, and put the progress into the overlay."""
        changed = self.learning.effect.publish()
        self.judged.judge(self._judged_until_ms)
        for entity_id, coefficients in changed:
            cause_ms = self._cause_ms[entity_id]
            if coefficients is None:
                self._publish(entity_id, None, cause_ms)
                self.judged.remove(entity_id)
            elif self.judged.gate.open:
                self._publish(entity_id, coefficients, cause_ms)
            else:
                if entity_id in self._removed_now:
                    # It has come back already. What readers have of it goes all the same.
                    self._publish(entity_id, None, cause_ms)
                self.judged.hold(entity_id)
        if self._has_to_release:
            fresh = {entity_id for entity_id, _ in changed}
            for entity_id in self.judged.release(MOST_RELEASED):
                if entity_id not in fresh:
                    coefficients = self.learning.effect.coefficients(entity_id)
                    self._publish(entity_id, coefficients, self._now_ms)
        for effect in self.learning.further:
            for entity_id, coefficients in effect.publish():
                self._publish(entity_id, coefficients, self._now_ms, effect.name)
        self._controls.due |= bool(changed)
        self._messages += self._controls.take(self._now_ms, gate_open=self.judged.gate.open)
        self._messages += self._readings.take(self._progress.positions, self._now_ms)
        messages, self._messages = self._messages, []
        self._cause_ms.clear()
        self._removed_now.clear()
        self._settled_progress = PROGRESS.encode(self._progress)
        save_progress(self._overlay, self._settled_progress)
        self._unsaved_since_ms = None
        self._keep_counts()
        return messages

    def _publish(
        self,
        entity_id: str,
        coefficients: Coefficients | None,
        timestamp_ms: int,
        effect: str | None = None,
    ) -> None:
        """Send an entity's coefficients; ``timestamp_ms`` is of what changed them."""
        self._messages.append(
            Message(
                COEFFICIENTS,
                coefficients_key(effect or self._own.name, entity_id),
                None if coefficients is None else encode(self.learning.published(coefficients)),
                None,
                timestamp_ms,
            )
        )

    @cached_property
    def _controls(self) -> Controls:
        priors = priors_of(self._policy, self.stage, self._space)
        return Controls(self.number, priors, self.learning.succession, self._own.name)

    @property
    def _has_to_release(self) -> bool:
        """Whether the gate is open, and entities that it held back are still to be published."""
        return self.judged.gate.open and self.judged.held > 0

    def _poison(self, topic: str, record: Record, after: int, error: Exception) -> Unit:
        poison = PoisonError(f"{type(error).__name__}: {str(error)[:200]}")
        letter = DeadLetter.of(poison, source_of(topic, self.number, record))
        self._dead_letter(letter, record.timestamp_ms)
        return self._end_at(topic, after)

    def _keep_counts(self) -> None:
        """Copy all that is only counted, not stored: a rollback restores it."""
        self._counted = {name: copied(getattr(self, name)) for name in self.counts}

    def _rollback(self) -> None:
        """Undo all since the last unit of work, the counts too."""
        for name, value in self._counted.items():
            setattr(self, name, value)
        self._keep_counts()
        self._messages = []
        self._overlay.discard()
        for effect in self.learning.effects:
            effect.discard()
        self._cause_ms.clear()
        self._removed_now.clear()
        self._progress = decode_progress(self._settled_progress)
        self.clock.restore(self._progress.event_time)

    def _dead_letter(self, letter: DeadLetter, timestamp_ms: int) -> None:
        self.dead_letters[letter.reason] += 1
        self._messages.append(dead_letter_message(letter, timestamp_ms))

    def _progress_is_due(self, now_ms: int) -> bool:
        """Whether somebody may wait for positions that nothing has told, or event time is unsaved.

        (A position that a restart finds outside of what its topic keeps is an error besides.)
        """
        since_ms = self._unsaved_since_ms
        unsaved = since_ms is not None and now_ms - since_ms >= _SAVE_PROGRESS_MS
        return unsaved or self._readings.are_due(self._progress.positions, now_ms)

    def _expire(self, timestamp_ms: int) -> Cuts:
        """Let entities go whose time is over; a cut whenever the unit of work has got its share."""
        for entities in self.learning.learners:
            expired = entities.expire(self.watermark_ms, self._now_ms)
            for count, entity_id in enumerate(expired, 1):
                if entity_id is not None and entities is self.learning.entities:
                    self._removed(entity_id, "entity_ttl", timestamp_ms)
                if count % _MOST_EXPIRED == 0:
                    yield

    def _forget(self, entity_id: str, event: Forget, timestamp_ms: int) -> None:
        """Let an entity go because somebody asked for it."""
        self.events["forget"] += 1
        # By the wall clock: the record's own time is the event's where history is written anew.
        if self.learning.entities.forget(entity_id, event.event_time_ms, self._now_ms):
            self._removed(entity_id, "forget", timestamp_ms)
        else:
            self._cause_ms.setdefault(entity_id, timestamp_ms)

    def _removed(self, entity_id: str, why: str, timestamp_ms: int) -> None:
        self.removed[why] += 1
        self._removed_now.add(entity_id)
        self._cause_ms.setdefault(entity_id, timestamp_ms)

    # -- what the stages add -----------------------------------------------------------------

    @property
    @abstractmethod
    def _judged_until_ms(self) -> int | None:
        """Event time up to which all labels are known here; scores are judged up to it."""

    @abstractmethod
    def _record(self, topic: str, record: Record, now_ms: int) -> Cuts:
        """Apply one record, moving the watermark last; append what it causes to the messages."""

    def _due(self, timestamp_ms: int) -> Cuts:
        """Close what the watermark is past; ``timestamp_ms`` is that of what moved it."""
        return self._expire(timestamp_ms)

    # -- state -------------------------------------------------------------------------------

    def _load_progress(self, channels: int) -> Progress:
        stored = load_progress(self._overlay.store)
        return stored or Progress(positions={}, event_time=EventTime.of(channels))
