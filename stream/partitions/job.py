"""One partition of the per-job stage."""

from __future__ import annotations

from collections.abc import Iterator

from stream.errors import (
    EventError,
    UnknownTypeError,
)
from stream.evaluation import Timeliness
from stream.events import (
    Application,
    Clock,
    Engagement,
    Event,
    JobEvent,
    ScoredApplication,
    Watermark,
)
from stream.global_model import GlobalModel
from stream.labels.changes import Change
from stream.partitions.base import Counted, Partition, Unit
from stream.policy import Policy
from stream.records import (
    APPLICATIONS_BY_JOB,
    ENGAGEMENTS,
    LABELS,
    Message,
    Record,
    source_of,
)
from stream.stages import JobStage
from stream.state.overlay import Overlay
from stream.updaters.effect import Effect
from stream.wire import (
    decode_by_job,
    decode_event,
    encode_label,
)


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
    counts = (*Partition.counts, "tally", "timeliness")

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
            refusal: EventError | None = None
            if isinstance(message, ScoredApplication):
                try:
                    self._application(message, record, messages)
                except EventError as error:
                    refusal = error
            # The mark is the member partition's, not the event's: it holds for a refused one too.
            channels.advance(message.partition, message.watermark_ms)
            if isinstance(message, Watermark) and message.idle:
                channels.set_idle(message.partition)
            if refusal is not None:
                self._close_due(record.timestamp_ms, messages)
                raise refusal
        self._close_due(record.timestamp_ms, messages)

    def _application(self, scored: ScoredApplication, record: Record, messages: Unit) -> None:
        self.events["application"] += 1
        _, changes = self._stage.application(scored, self.watermark_ms)
        self._emit(changes, record.timestamp_ms, messages)

    def _rollback(self, counted: Counted) -> None:
        super()._rollback(counted)
        self._stage.tally = self.tally
        self._stage.dead_letters.clear()

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
