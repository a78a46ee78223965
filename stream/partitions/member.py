"""One partition of the per-member stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stream.errors import InvalidIdError, OtherModelError, TooLargeError, UnknownTypeError
from stream.events.partitioner import partition_of
from stream.events.records import (
    APPLICATIONS,
    APPLICATIONS_BY_JOB,
    COEFFICIENTS,
    DEAD_LETTERS,
    ENGAGEMENTS,
    LABELS,
    MAX_OUTPUT_BYTES,
    Message,
    Record,
)
from stream.events.structs import (
    Application,
    Clock,
    Forget,
    ScoredApplication,
    Watermark,
)
from stream.events.wire import (
    decode_event,
    decode_label,
    encode,
    encode_by_job,
)
from stream.model.folder import GlobalModel
from stream.partitions.announcements import Announcements
from stream.partitions.base import Cuts, Partition, Unit
from stream.partitions.jumps import max_jump_ms
from stream.policy import Policy
from stream.stages.member import MemberStage
from stream.state.overlay import Overlay

_NUMBER_BYTES = 25  # the longest float in JSON, and a comma
_SCORES_BYTES = 4096  # what the stages add to an application, generously


class MemberPartition(Partition):
    """The per-member stage of one partition.

    ``applications`` → score → ``applications-by-job``, with this partition's watermark;
    ``labels`` → learn → ``coefficients``.
    """

    stage = "member"
    topics = (APPLICATIONS, LABELS)
    outputs = (APPLICATIONS_BY_JOB, COEFFICIENTS, DEAD_LETTERS)
    input_topic = APPLICATIONS

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
            channels=1,
            idle_timeout_ms=idle_timeout_ms,
            topic_ids=topic_ids,
        )
        self._entrance = model.space.limited(policy.features.max_feature)
        self._labelled_ms: int | None = None  # the largest label time read
        self._stage = MemberStage(
            overlay, space=model.space, policy=policy, model_version=model.version
        )
        self.learning = self._stage
        self._announcements = Announcements(
            partitions, policy.labels.window_ms, max_jump_ms(policy), self.clock.own_mark_ms
        )

    def tick(self, now_ms: int, monotonic_ms: int, written: int | None = None) -> Iterator[Unit]:
        """Tell the job partitions how far this one is, if they don't know."""
        del written  # a member partition follows nobody
        self._now_ms = now_ms
        clock, announcements = self.clock, self._announcements
        if clock.idle_once_more(monotonic_ms):
            announcements.was_idle()
        mark_ms, settled = clock.own_mark_ms, clock.is_settled(monotonic_ms)
        due = announcements.take(mark_ms, monotonic_ms, settled=settled)
        for job_partition, idle, sure in due:
            value = encode(Watermark(self.number, mark_ms, idle, sure))
            self._messages.append(Message(APPLICATIONS_BY_JOB, None, value, job_partition, now_ms))
        if self._messages or self._has_to_release or self._progress_is_due(now_ms):
            yield self._finish()

    @property
    def _judged_until_ms(self) -> int | None:
        # Labels come from job partitions, each at its own pace: the fastest is waited after by a
        # bucket. What comes later still counts as soon as it comes.
        labelled_ms = self._labelled_ms
        return None if labelled_ms is None else labelled_ms - self._policy.gate.bucket_ms

    def _rollback(self) -> None:
        super()._rollback()
        self._announcements.reset()

    def _record(self, topic: str, record: Record, now_ms: int) -> Cuts:
        value = record.value or b""
        if topic == LABELS:
            label = decode_label(value, self._space)
            first = self._stage.succession.versions[0]
            if (label.first_model or label.model_version) != first:
                raise OtherModelError(
                    f"a label made with model {label.model_version}, this is {first}"
                )
            self.events["label"] += 1
            self._cause_ms.setdefault(label.member_id, record.timestamp_ms)
            self._stage.learn(label)
            self.judged.observe(label)
            self._labelled_ms = max(self._labelled_ms or 0, label.label_time_ms)
            return ()
        event = decode_event(value, self._entrance)
        match event:
            case Application():
                self.clock.check(event.event_time_ms, now_ms)
                self.routing.check(record.key, event.member_id)
                self._check_size(event, len(value))
                self.events["application"] += 1
                self.clock.read_event(event.event_time_ms, now_ms)
                scored = self._stage.score(event, self.number, self.clock.own_mark_ms)
                self._send(scored, record.timestamp_ms)
            case Forget():
                member_id = event.member_id
                if member_id is None:
                    raise InvalidIdError(f"to forget a job belongs into {ENGAGEMENTS}")
                self.clock.check(event.event_time_ms, now_ms)
                self.routing.check(record.key, member_id)
                self._forget(member_id, event, record.timestamp_ms)
                self._forget_pairs(event, record.timestamp_ms)
            case Clock():
                self.clock.check(event.event_time_ms, now_ms)
                self.clock.read_clock(event.event_time_ms, now_ms, sure=event.sure)
                self.events["clock"] += 1
            case _:
                raise UnknownTypeError(f"{type(event).__name__} does not belong into {topic}")
        return ()

    def _forget_pairs(self, event: Forget, timestamp_ms: int) -> None:
        """Tell all job partitions that a member is to be forgotten: any may have pairs of it."""
        if self._policy.features.histories:
            value = encode(event)
            self._messages += [
                Message(APPLICATIONS_BY_JOB, None, value, number, timestamp_ms)
                for number in range(self.partitions)
            ]

    def _check_size(self, app: Application, size: int) -> None:
        """Refuse an application that grows too large on its way: numbers get more digits.

        Before it moves anything. Its labels are smaller: they lack the global block.
        """
        blocks = app.features
        packed = len(blocks.global_ or b"") + len(blocks.per_member) + len(blocks.per_job)
        if size + packed // 4 * _NUMBER_BYTES + _SCORES_BYTES <= MAX_OUTPUT_BYTES:
            return
        size = len(encode_by_job(ScoredApplication(app, 0.0, self.number, None))) + _SCORES_BYTES
        if size > MAX_OUTPUT_BYTES:
            raise TooLargeError(
                f"{size} bytes on its way to the job, Kafka's limit is {MAX_OUTPUT_BYTES}"
            )

    def _send(self, scored: ScoredApplication, timestamp_ms: int) -> None:
        key = scored.application.job_id.encode()
        job_partition = partition_of(key, self.partitions)
        value = encode_by_job(scored)
        self._messages.append(Message(APPLICATIONS_BY_JOB, key, value, job_partition, timestamp_ms))
        self._announcements.told(job_partition, scored.watermark_ms)
