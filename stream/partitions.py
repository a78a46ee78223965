"""The two stages as the worker runs them: records of one partition in, messages out.

Decoding, routing, positions, channels and dead letters around :mod:`stream.stages`. Still core:
no Kafka client, no clock (``now_ms`` is passed in), no disk but through the overlay.

``process`` and ``tick`` are generators of *units of work*: after each one the caller must make the
messages safe, then flush the overlay, then go on. A unit holds everything or nothing of each
record, positions included. What raises unexpectedly is rolled back and redone record by record,
so that one poisonous record becomes a dead letter and the rest is unharmed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

from stream.errors import (
    EventError,
    HearbackError,
    InvalidTimeError,
    PoisonError,
    StateError,
    UnknownTypeError,
)
from stream.evaluation import Timeliness
from stream.events import (
    Application,
    Clock,
    DeadLetter,
    Engagement,
    Event,
    JobEvent,
    ScoredApplication,
    Watermark,
)
from stream.features import FeatureSpace
from stream.global_model import GlobalModel
from stream.labels.machine import Change
from stream.labels.watermark import Channels
from stream.partitioner import partition_of
from stream.policy import DAY_MS, Policy
from stream.records import (
    APPLICATIONS,
    APPLICATIONS_BY_JOB,
    COEFFICIENTS,
    ENGAGEMENTS,
    LABELS,
    Message,
    Record,
    Routing,
    dead_letter_message,
    source_of,
)
from stream.stages import JobStage, MemberStage
from stream.state.overlay import Overlay
from stream.state.partition_state import (
    Progress,
    load_identity,
    load_progress,
    save_identity,
    save_progress,
)
from stream.updaters.effect import Effect
from stream.wire import (
    coefficients_key,
    decode_by_job,
    decode_event,
    decode_label,
    encode_by_job,
    encode_coefficients,
    encode_label,
    encode_watermark,
)

Unit = list[Message]

_BARE_EVERY_MS = 1000  # a job partition that was not written to for so long gets a bare watermark


class Partition(ABC):
    """What the partitions of both stages have in common.

    Args:
        number: of this partition; ``partitions`` how many there are.
        overlay: its state.
        space: feature names of the model.
        policy: labels and effects.
        model_version: of the frozen global model.
        channels: how many watermark channels it merges.
        idle_timeout_ms: wall time at the end of an input after which it counts as idle.

    Attributes:
        events: records applied, by type. dead_letters: by reason.

    """

    stage: ClassVar[str]
    topics: ClassVar[tuple[str, ...]]
    input_topic: ClassVar[str]

    def __init__(
        self,
        number: int,
        partitions: int,
        overlay: Overlay,
        space: FeatureSpace,
        policy: Policy,
        model_version: str,
        channels: int,
        idle_timeout_ms: int,
    ) -> None:
        self.number = number
        self.partitions = partitions
        self.events: Counter[str] = Counter()
        self.dead_letters: Counter[str] = Counter()
        self._overlay = overlay
        self._space = space
        self._policy = policy
        self._idle_timeout_ms = idle_timeout_ms
        self._routing = Routing(self.input_topic, number, partitions)
        self._at_end_since_ms: int | None = None
        self._cause_ms: dict[str, int] = {}  # entity → timestamp of the event that changed it
        self._check_identity(model_version)
        self._restore(channels)

    # -- what the shell calls ----------------------------------------------------------------

    def position(self, topic: str) -> int | None:
        """Next offset to read of a topic; None before the first record."""
        return self._progress.positions.get(topic)

    @property
    def watermark_ms(self) -> int | None:
        """How far event time has come here."""
        return self._progress.channels.watermark_ms

    def process(
        self, topic: str, records: Sequence[Record], end: int, now_ms: int
    ) -> Iterator[Unit]:
        """Apply one batch of records of one topic.

        Args:
            topic: one of ``topics``.
            records: in order of offset; those below the position were applied before and are
                skipped.
            end: offset at which the fetch ended, past anything that is not a record.
            now_ms: wall clock.

        Raises:
            HearbackError: something that is not the fault of one record.

        """
        position = self._progress.positions.get(topic, 0)
        fresh = [record for record in records if record.offset >= position]
        try:
            unit = self._unit(topic, fresh, max(end, position), now_ms)
        except HearbackError:
            raise
        except Exception:  # noqa: BLE001 - which record it was is found below
            self._rollback()
        else:
            yield unit
            return
        for at, record in enumerate(fresh):
            after = max(end, position) if at == len(fresh) - 1 else record.offset + 1
            try:
                unit = self._unit(topic, [record], after, now_ms)
            except HearbackError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the stream goes on
                self._rollback()
                unit = self._poison(topic, record, after, error)
            yield unit

    def observe_end(self, at_end: bool, now_ms: int) -> None:
        """Take note whether the input topic's position equals its end."""
        if not at_end:
            self._at_end_since_ms = None
        elif self._at_end_since_ms is None:
            self._at_end_since_ms = now_ms

    @abstractmethod
    def tick(self, now_ms: int) -> Iterator[Unit]:
        """Do what is due by the wall clock."""

    # -- units of work -----------------------------------------------------------------------

    def _unit(self, topic: str, records: Sequence[Record], after: int, now_ms: int) -> Unit:
        messages: Unit = []
        for record in records:
            source = source_of(topic, self.number, record)
            try:
                self._record(topic, record, now_ms, messages)
            except EventError as error:
                letter = DeadLetter(error.reason, str(error), source)
                self._dead_letter(letter, record.timestamp_ms, messages)
        self._progress.positions[topic] = after
        return self._finish(messages)

    def _finish(self, messages: Unit) -> Unit:
        """Refit, publish what changed, and put the progress into the overlay."""
        effect = self.effect
        for entity_id in effect.flush():
            coefficients = effect.coefficients(entity_id)
            if coefficients is not None:
                messages.append(
                    Message(
                        COEFFICIENTS,
                        coefficients_key(effect.name, entity_id),
                        encode_coefficients(coefficients),
                        None,
                        self._cause_ms[entity_id],
                    )
                )
        self._cause_ms.clear()
        save_progress(self._overlay, self._progress)
        return messages

    def _poison(self, topic: str, record: Record, after: int, error: Exception) -> Unit:
        poison = PoisonError(f"{type(error).__name__}: {str(error)[:200]}")
        letter = DeadLetter(poison.reason, str(poison), source_of(topic, self.number, record))
        messages: Unit = []
        self._dead_letter(letter, record.timestamp_ms, messages)
        self._progress.positions[topic] = after
        return self._finish(messages)

    def _rollback(self) -> None:
        self._overlay.discard()
        self.effect.discard()
        self._cause_ms.clear()
        self._restore(len(self._progress.channels.marks))

    def _dead_letter(self, letter: DeadLetter, timestamp_ms: int, messages: Unit) -> None:
        self.dead_letters[letter.reason] += 1
        messages.append(dead_letter_message(letter, timestamp_ms))

    def _idle(self, now_ms: int) -> bool:
        since_ms = self._at_end_since_ms
        return since_ms is not None and now_ms - since_ms >= self._idle_timeout_ms

    # -- what the stages add -----------------------------------------------------------------

    @property
    @abstractmethod
    def effect(self) -> Effect:
        """The effect that learns here."""

    @abstractmethod
    def _record(self, topic: str, record: Record, now_ms: int, messages: Unit) -> None:
        """Apply one record; append what it causes."""

    # -- state -------------------------------------------------------------------------------

    def _restore(self, channels: int) -> None:
        self._progress = load_progress(self._overlay.store) or Progress(
            positions={}, channels=Channels.of(channels)
        )
        # Whether the own input is idle now is to be seen anew; the last channel is its own.
        self._progress.channels.idle[-1] = False

    def _check_identity(self, model_version: str) -> None:
        """Refuse a state that was learned with another model or partition count."""
        identity = load_identity(self._overlay.store)
        save_identity(self._overlay, model_version, self._space, self._policy, self.partitions)
        if identity is None:
            return
        if identity.model_version != model_version:
            raise StateError(
                f"the state was learned with model {identity.model_version}, this is"
                f" {model_version}: start with that model, or in an empty data folder"
            )
        if identity.partitions != self.partitions:
            raise StateError(
                f"the state was made with {identity.partitions} partitions, the topics have"
                f" {self.partitions}: start in an empty data folder"
            )

    def _check_time(self, time_ms: int, now_ms: int) -> int:
        """Return the time by which the event moves the watermark; at most now.

        Raises:
            InvalidTimeError: more than a day ahead.

        """
        if time_ms > now_ms + DAY_MS:
            raise InvalidTimeError(f"event_time_ms {time_ms} is more than a day ahead")
        return min(time_ms, now_ms)


class MemberPartition(Partition):
    """The per-member stage of one partition.

    ``applications`` → score → ``applications-by-job``, with this partition's watermark;
    ``labels`` → learn → ``coefficients``.
    """

    stage = "member"
    topics = (APPLICATIONS, LABELS)
    input_topic = APPLICATIONS

    def __init__(
        self,
        number: int,
        partitions: int,
        overlay: Overlay,
        space: FeatureSpace,
        policy: Policy,
        model_version: str,
        idle_timeout_ms: int,
    ) -> None:
        super().__init__(
            number, partitions, overlay, space, policy, model_version, 1, idle_timeout_ms
        )
        self._stage = MemberStage(overlay, space.per_member.size, policy, model_version)
        # What each job partition was told last, and when; nothing after a restart.
        self._told: list[tuple[int | None, bool] | None] = [None] * partitions
        self._told_ms = [0] * partitions

    def tick(self, now_ms: int) -> Iterator[Unit]:
        """Tell the job partitions not written to lately how far this one is, if they don't know."""
        channels = self._progress.channels
        idle = self._idle(now_ms)
        if idle:
            channels.set_idle(0)
        known = (channels.marks[0], idle)
        messages: Unit = []
        for job_partition, told in enumerate(self._told):
            if told != known and now_ms - self._told_ms[job_partition] >= _BARE_EVERY_MS:
                mark = Watermark(self.number, known[0], idle)
                messages.append(
                    Message(
                        APPLICATIONS_BY_JOB, None, encode_watermark(mark), job_partition, now_ms
                    )
                )
                self._told[job_partition] = known
                self._told_ms[job_partition] = now_ms
        if messages:
            yield self._finish(messages)

    @property
    def effect(self) -> Effect:
        """The effect that learns here."""
        return self._stage.effect

    def _rollback(self) -> None:
        super()._rollback()
        self._told = [None] * self.partitions

    def _record(self, topic: str, record: Record, now_ms: int, messages: Unit) -> None:
        value = record.value or b""
        if topic == LABELS:
            label = decode_label(value, self._space)
            self.events["label"] += 1
            self._cause_ms.setdefault(label.member_id, record.timestamp_ms)
            self._stage.learn(label)
            return
        event = decode_event(value, self._space)
        channels = self._progress.channels
        match event:
            case Application():
                mark_ms = self._check_time(event.event_time_ms, now_ms)
                self._routing.check(record.key, event.member_id)
                self.events["application"] += 1
                member_score = self._stage.score(event)
                channels.advance(0, mark_ms - self._policy.labels.allowed_lateness_ms)
                self._send(event, member_score, record.timestamp_ms, now_ms, messages)
            case Clock():
                channels.advance(0, self._check_time(event.event_time_ms, now_ms))
                self.events["clock"] += 1
            case _:
                raise UnknownTypeError(f"{type(event).__name__} does not belong into {topic}")

    def _send(
        self,
        app: Application,
        member_score: float,
        timestamp_ms: int,
        now_ms: int,
        messages: Unit,
    ) -> None:
        mark_ms = self._progress.channels.marks[0]
        scored = ScoredApplication(app, member_score, self.number, mark_ms)
        key = app.job_id.encode()
        job_partition = partition_of(key, self.partitions)
        messages.append(
            Message(APPLICATIONS_BY_JOB, key, encode_by_job(scored), job_partition, timestamp_ms)
        )
        self._told[job_partition] = (mark_ms, False)
        self._told_ms[job_partition] = now_ms


class JobPartition(Partition):
    """The per-job stage of one partition.

    ``engagements`` and ``applications-by-job`` → label, learn → ``labels`` and ``coefficients``.
    It has one channel for each member partition and, last, one for its own engagements.

    Attributes:
        tally: what was ignored or late, by name. timeliness: labels by kind, flips, ages.

    """

    stage = "job"
    topics = (ENGAGEMENTS, APPLICATIONS_BY_JOB)
    input_topic = ENGAGEMENTS

    def __init__(
        self,
        number: int,
        partitions: int,
        overlay: Overlay,
        policy: Policy,
        model: GlobalModel,
        idle_timeout_ms: int,
    ) -> None:
        super().__init__(
            number,
            partitions,
            overlay,
            model.space,
            policy,
            model.version,
            partitions + 1,
            idle_timeout_ms,
        )
        self._stage = JobStage(overlay, model.space.per_job.size, policy, model)
        self._own_channel = partitions
        self._ticked_ms: int | None = None
        self.tally = self._stage.tally
        self.timeliness = Timeliness()

    def tick(self, now_ms: int) -> Iterator[Unit]:
        """Judge idleness; when all is idle, let event time pass with the wall clock."""
        channels = self._progress.channels
        was_idle = channels.all_idle
        before_ms = channels.watermark_ms
        if self._idle(now_ms) and not channels.idle[self._own_channel]:
            channels.set_idle(self._own_channel)
        if was_idle and self._ticked_ms is not None:
            channels.grow(now_ms - self._ticked_ms)
        self._ticked_ms = now_ms
        if channels.watermark_ms == before_ms:
            return
        messages: Unit = []
        self._close_due(now_ms, messages)
        yield self._finish(messages)

    @property
    def effect(self) -> Effect:
        """The effect that learns here."""
        return self._stage.effect

    def _record(self, topic: str, record: Record, now_ms: int, messages: Unit) -> None:
        value = record.value or b""
        channels = self._progress.channels
        if topic == ENGAGEMENTS:
            event = decode_event(value, self._space)
            mark_ms = self._engagements(event, record, now_ms, messages)
            channels.advance(self._own_channel, mark_ms)
        else:
            message = decode_by_job(value, self._space)
            if message.partition >= self.partitions:
                raise EventError(f"there is no member partition {message.partition}")
            if isinstance(message, ScoredApplication):
                self.events["application"] += 1
                _, changes = self._stage.application(message, channels.watermark_ms)
                self._emit(changes, record.timestamp_ms, messages)
            channels.advance(message.partition, message.watermark_ms)
            if isinstance(message, Watermark) and message.idle:
                channels.set_idle(message.partition)
        self._close_due(record.timestamp_ms, messages)

    def _engagements(self, event: Event, record: Record, now_ms: int, messages: Unit) -> int:
        """Apply a record of the engagements topic; return its channel's new mark."""
        if isinstance(event, Application):
            raise UnknownTypeError(f"Application does not belong into {ENGAGEMENTS}")
        mark_ms = self._check_time(event.event_time_ms, now_ms)
        if isinstance(event, Clock):
            self.events["clock"] += 1
            return mark_ms
        self._routing.check(record.key, event.job_id)
        watermark_ms = self.watermark_ms
        match event:
            case Engagement():
                self.events["engagement"] += 1
                source = source_of(ENGAGEMENTS, self.number, record)
                changes = self._stage.engagement(event, source, watermark_ms)
            case JobEvent():
                self.events["job"] += 1
                changes = self._stage.job_event(event, watermark_ms)
        self._emit(changes, record.timestamp_ms, messages)
        return mark_ms - self._policy.labels.allowed_lateness_ms

    def _close_due(self, timestamp_ms: int, messages: Unit) -> None:
        self._emit(self._stage.close_due(self.watermark_ms), timestamp_ms, messages)

    def _emit(self, changes: list[Change], timestamp_ms: int, messages: Unit) -> None:
        for change in changes:
            self.timeliness.observe(change)
            if change.label:
                label = self._stage.label(change)
                self._cause_ms.setdefault(label.job_id, timestamp_ms)
                messages.append(
                    Message(
                        LABELS,
                        label.member_id.encode(),
                        encode_label(label),
                        change.facts.partition,
                        timestamp_ms,
                    )
                )
        for letter in self._stage.dead_letters:
            self._dead_letter(letter, timestamp_ms, messages)
        self._stage.dead_letters.clear()
