"""One partition of the per-job stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from stream.errors import (
    EventError,
    InvalidIdError,
    MisroutedError,
    TooLargeError,
    UnknownTypeError,
)
from stream.events.applicants import applicants_key, encode_applicant
from stream.events.ladder import Kind
from stream.events.partitioner import partition_of
from stream.events.records import (
    APPLICANTS,
    APPLICATIONS,
    APPLICATIONS_BY_JOB,
    COEFFICIENTS,
    DEAD_LETTERS,
    ENGAGEMENTS,
    LABELS,
    MATCHES,
    MAX_OUTPUT_BYTES,
    PREFERENCES,
    Message,
    Record,
    source_of,
)
from stream.events.structs import (
    Application,
    Clock,
    DeadLetter,
    Engagement,
    Event,
    Forget,
    Match,
    ScoredApplication,
    Watermark,
)
from stream.events.wire import (
    decode_by_job,
    decode_event,
    encode,
    encode_label,
)
from stream.labels.changes import Ended, Ignored
from stream.labels.delays import LiveDelays, curve_of
from stream.labels.timeliness import Timeliness
from stream.model.folder import GlobalModel
from stream.partitions.base import Cuts, Partition, Unit
from stream.policy import Policy
from stream.quality.matches import MatchCounts
from stream.stages.applicants import publish_none
from stream.stages.job import JobStage, Labelled, Steps
from stream.state.overlay import Overlay

MOST_STEPS = 1000
"""Labels changed and windows closed in one unit of work at the most. With what is learned of them
that is about a tenth of a second, so that the event loop gets its turn however many there are. Each
unit refits, encodes and sends every entity that it changed: smaller ones would do so more often."""


class JobPartition(Partition):
    """The per-job stage of one partition.

    ``engagements`` and ``applications-by-job`` → label, learn → ``labels`` and ``coefficients``.
    It has one channel for each member partition and, last, one for its own engagements.

    Attributes:
        ignored: what changed no label, by reason. timeliness: labels by kind, flips, ages.
        delays: how long answers take now; None where nothing depends on it.
        matches: told, and what became of them and of all applications.

    """

    stage = "job"
    topics = (ENGAGEMENTS, APPLICATIONS_BY_JOB)
    outputs = (LABELS, COEFFICIENTS, PREFERENCES, MATCHES, APPLICANTS, DEAD_LETTERS)
    input_topic = ENGAGEMENTS
    counts = (*Partition.counts, "ignored", "timeliness", "delays", "matches")

    def __init__(
        self,
        number: int,
        *,
        partitions: int,
        overlay: Overlay,
        model: GlobalModel,
        policy: Policy,
        idle_timeout_ms: int,
        topic_ids: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            number,
            partitions=partitions,
            overlay=overlay,
            model=model,
            policy=policy,
            channels=partitions + 1,
            idle_timeout_ms=idle_timeout_ms,
            topic_ids=topic_ids,
        )
        self.learning = self._stage = JobStage(
            overlay, space=model.space, policy=policy, model=model, publishes=True
        )
        if self._stage.applicants is None:
            publish_none(overlay)
        self._steps = 0  # of the unit of work that is being done
        self.ignored: Counter[str] = Counter()
        self.timeliness = Timeliness()
        self.matches = MatchCounts()
        self.delays: LiveDelays | None = None
        if policy.labels.aging:
            first = self._stage.models.first or model
            self.delays = LiveDelays(curve_of(policy.labels, first.manifest.delays))

    def tick(self, now_ms: int, monotonic_ms: int, written: int | None = None) -> Iterator[Unit]:
        """Let the own input's channel follow where it is idle; close what is due."""
        self._now_ms = now_ms
        something = False
        if self.clock.idle_once_more(monotonic_ms):
            self.clock.follow_members(written)
            self._save_later(now_ms)
        for _ in self._closings(now_ms):
            yield self._finish()
            something = True
        applicants = self._stage.applicants
        while applicants is not None and applicants.behind:
            applicants.catch_up(MOST_STEPS)
            yield self._finish()
        if something or self._has_to_release or self._progress_is_due(now_ms):
            yield self._finish()

    @property
    def terms_refused(self) -> int:
        """Terms that were not counted, for their job had too many."""
        return self._stage.terms_refused

    @property
    def _judged_until_ms(self) -> int | None:
        return self.watermark_ms

    def _record(self, topic: str, record: Record, now_ms: int) -> Cuts:
        value = record.value or b""
        if topic == ENGAGEMENTS:
            yield from self._engagements(decode_event(value, self._space), record, now_ms)
            return
        if len(value) > MAX_OUTPUT_BYTES:  # none of ours, and its labels could not be sent
            raise TooLargeError(f"{len(value)} bytes, the limit is {MAX_OUTPUT_BYTES}")
        message = decode_by_job(value, self._space)
        if isinstance(message, Forget):
            if message.member_id is not None:
                self._stage.forget_member(message.member_id, message.event_time_ms, now_ms)
            return
        if message.partition >= self.partitions:
            raise EventError(f"there is no member partition {message.partition}")
        refusal: EventError | None = None
        if isinstance(message, ScoredApplication):
            self._check_place(message)
            self.events["application"] += 1
            source = source_of(topic, self.number, record)
            try:
                steps = self._stage.apply(message, source, self.watermark_ms)
                yield from self._emit(steps, record.timestamp_ms)
            except EventError as error:
                refusal = error
        # The mark is the member partition's, not the event's: it holds for a refused one too.
        idle = sure = False
        if isinstance(message, Watermark):
            self._marks += 1
            idle, sure = message.idle, message.sure
        self.clock.read_mark(
            message.partition,
            message.watermark_ms,
            now_ms,
            record=isinstance(message, ScoredApplication),
            idle=idle,
            sure=sure,
        )
        if refusal is not None:
            raise refusal

    def _check_place(self, message: ScoredApplication) -> None:
        """Refuse what no member partition has sent here: its mark would be another's."""
        member_id, job_id = message.application.member_id, message.application.job_id
        if (
            partition_of(member_id.encode(), self.partitions) != message.partition
            or partition_of(job_id.encode(), self.partitions) != self.number
        ):
            raise MisroutedError(
                f"an application of member {member_id[:64]} for job {job_id[:64]} does not come"
                f" from member partition {message.partition} to job partition {self.number}"
            )

    @property
    def _touched(self) -> bool:
        return self._steps > 0 or super()._touched

    def _finish(self) -> Unit:
        self._steps = 0
        for job_id, preferences in self._stage.take_recounted():
            cause_ms = self._cause_ms.get(job_id, self._now_ms)
            value = None if preferences is None else encode(preferences)
            self._messages.append(Message(PREFERENCES, job_id.encode(), value, None, cause_ms))
        if self._stage.applicants is not None:
            for job_id, application_id, applicant in self._stage.applicants.take():
                key = applicants_key(job_id, application_id)
                value = None if applicant is None else encode_applicant(applicant)
                cause_ms = self._cause_ms.get(job_id, self._now_ms)
                self._messages.append(Message(APPLICANTS, key, value, self.number, cause_ms))
        return super()._finish()

    def _rollback(self) -> None:
        super()._rollback()
        self._steps = 0
        self._stage.begin_again()

    def _engagements(self, event: Event, record: Record, now_ms: int) -> Cuts:
        """Apply a record of the engagements topic; its channel's mark follows from its time."""
        if isinstance(event, Application):
            raise UnknownTypeError(f"Application does not belong into {ENGAGEMENTS}")
        self.clock.check(event.event_time_ms, now_ms)
        if isinstance(event, Clock):
            self.events["clock"] += 1
            self.clock.read_clock(event.event_time_ms, now_ms, sure=event.sure)
            return
        job_id = event.job_id
        if job_id is None:
            raise InvalidIdError(f"to forget a member belongs into {APPLICATIONS}")
        self.routing.check(record.key, job_id)
        if isinstance(event, Forget):
            self._forget(job_id, event, record.timestamp_ms)
            return
        self.events["engagement" if isinstance(event, Engagement) else "job"] += 1
        source = source_of(ENGAGEMENTS, self.number, record)
        steps = self._stage.apply(event, source, self.watermark_ms)
        yield from self._emit(steps, record.timestamp_ms)
        self.clock.read_event(event.event_time_ms, now_ms)

    def _due(self, timestamp_ms: int) -> Cuts:
        yield from self._emit(self._stage.close_due(self.watermark_ms), timestamp_ms)
        yield from self._expire(timestamp_ms)

    def _emit(self, steps: Steps, timestamp_ms: int) -> Cuts:
        """Send what happens; a cut whenever the unit of work has got its share."""
        for step in steps:
            match step:
                case Labelled():
                    self._send(step, timestamp_ms)
                case DeadLetter():
                    self._dead_letter(step, timestamp_ms)
                case Ignored(reason):
                    self.ignored[reason] += 1
                    continue
                case Match():
                    self._tell(step, timestamp_ms)
                    continue
                case Ended():
                    pass
                case _:
                    continue
            self._steps += 1
            if self._steps >= MOST_STEPS or self.learning.has_worked:
                yield

    def _tell(self, match: Match, timestamp_ms: int) -> None:
        self.matches.told += 1
        key, value = match.job_id.encode(), encode(match)
        self._messages.append(Message(MATCHES, key, value, None, timestamp_ms))

    def _send(self, step: Labelled, timestamp_ms: int) -> None:
        change, label = step.change, step.label
        self.timeliness.observe(change)
        if change.closed:
            self.matches.close(answered=change.kind is Kind.POSITIVE, match=step.match)
        answered_ms = change.evidence_time_ms if change.kind is Kind.POSITIVE else None
        if answered_ms is not None and self.delays is not None and self.timeliness.closed:
            self.delays.observe(answered_ms - change.facts.event_time_ms)
        if label is not None:
            self._cause_ms.setdefault(label.job_id, timestamp_ms)
            self.judged.observe(label)
            if step.decision is not None:
                self.judged.rankings.add(step.decision)
            self._messages.append(
                Message(
                    LABELS,
                    label.member_id.encode(),
                    encode_label(label),
                    change.facts.partition,
                    timestamp_ms,
                )
            )
