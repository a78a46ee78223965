"""What travels: events, labels and coefficients, as frozen structs.

Times are milliseconds since 1970 (``*_ms``). Scores are log-odds. A feature block is held as the
little-endian float32 bytes of its vector: the rounding to float32 happens once, on entry
(:mod:`stream.features.blocks`), so that learning and scoring see the same numbers, and bytes
compare, hash and store at no cost. :mod:`stream.events.wire` turns these structs into messages and
back: a struct with a ``type`` tag is its message, field by field, and its constraints are checked
when it is decoded (not when it is made).

Small structs that come by the million are made with ``gc=False``: they hold no cycles, and the
collector's walks over them were a sixth of the label stage's time.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stream.errors import EventError
from stream.histories.history import Summary
from stream.histories.preferences import Preferred, Terms
from stream.units import MAX_TIME_MS

MAX_ID_CHARS = 256

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]
Name = Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARS)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]
PartitionNumber = Annotated[int, msgspec.Meta(ge=0)]
FurtherScores = dict[str, float]
"""Scores (log-odds) by effect, of those that have no field of their own; no dictionary for none."""


class Scored:
    """What carries the scores of an application's first sight, in log-odds."""

    __slots__ = ()
    global_score: float
    member_score: float
    job_score: float
    further_scores: FurtherScores | None

    @property
    def full_score(self) -> float:
        """All that is known: the global score and that of every effect."""
        score = self.global_score + self.member_score + self.job_score
        return score + sum(self.further_scores.values()) if self.further_scores else score


class Features(msgspec.Struct, frozen=True, gc=False):
    """The three feature blocks of an application, each float32 bytes of shape (d,).

    ``global_`` is None when the producer sent a ``global_score`` instead.
    """

    global_: bytes | None
    per_member: bytes
    per_job: bytes


class Application(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="application"):
    """A member applied for a job; what travels is a :class:`stream.events.wire.RawApplication`.

    ``attributes`` fingerprints those that were sent with it, 8 bytes; None: none were.
    """

    application_id: str
    member_id: str
    job_id: str
    event_time_ms: int
    features: Features
    global_score: float | None = None
    channel: str | None = None
    terms: Terms | None = None
    attributes: bytes | None = None


class ScoredApplication(msgspec.Struct, frozen=True, gc=False):
    """An application on its way to the per-job stage.

    ``member_score`` is the member's score as of the reading in the per-member stage;
    ``partition`` the input partition it was read from, to which its labels go back;
    ``watermark_ms`` that partition's watermark after this record (None: not known yet);
    ``history`` the member's part of the history, float32 bytes of shape (12,).
    """

    application: Application
    member_score: float
    partition: int
    watermark_ms: int | None
    further_scores: FurtherScores | None = None
    history: bytes | None = None


class Engagement(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="engagement"):
    """A recruiter acted on an application."""

    engagement_id: Id
    application_id: Id
    member_id: Id
    job_id: Id
    event_time_ms: TimeMs
    action: Id
    channel: Name | None = None


class JobEvent(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="job"):
    """Something happened to a job as a whole (so far: it was closed)."""

    job_event_id: Id
    job_id: Id
    event_time_ms: TimeMs
    action: Id


class Clock(
    msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag="clock"
):
    """Nothing earlier than ``event_time_ms`` will follow in this topic and partition.

    ``sure``: it may lie far ahead of all that was read, as where a log is played or ends. Only
    ``hearback produce`` says so, under a name that no producer has for a field of its own.
    """

    event_time_ms: TimeMs
    sure: bool = msgspec.field(default=False, name="hearback_sure")


class Forget(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    omit_defaults=True,
    tag_field="type",
    tag="forget",
):
    """What was learned of a member, or of a job, is to be forgotten; one of both is None.

    Of its applications up to ``event_time_ms`` nothing is to be learned again.
    """

    member_id: Id | None = None
    job_id: Id | None = None
    event_time_ms: TimeMs


class Watermark(
    msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag="watermark"
):
    """The bare watermark of one ``applications`` partition, sent to a job partition.

    ``sure``: it lies far ahead of what the job partition was told, and needs no confirmation there:
    its member partition has confirmed it.
    """

    partition: PartitionNumber
    watermark_ms: int | None
    idle: bool
    sure: bool = False


class Source(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Where a record was read, and its bytes as received (at most the first 64 KiB).

    ``topic`` is a log's file name, and ``offset`` its line, where no broker is involved.
    """

    topic: str
    partition: int
    offset: int
    size: int
    raw: bytes
    key: bytes | None = None


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A record that could not be used, and why (``reason``: a class of :mod:`stream.errors`)."""

    reason: str
    message: str
    source: Source

    @classmethod
    def of(cls, error: EventError, source: Source) -> DeadLetter:
        """Return the dead letter of a refused record."""
        return cls(error.reason, str(error), source)


Event = Application | Engagement | JobEvent | Clock | Forget


class Label(msgspec.Struct, Scored, frozen=True, gc=False):
    """A self-contained training example (spec of the ``labels`` topic).

    ``kind`` and ``previous`` are names of :class:`stream.events.ladder.Kind`. ``weight`` is 1 but
    for labels inferred from age, ``previous_weight`` goes with ``previous``. The scores are those
    of the first sight of the application and the same in all of its labels, as is ``history``,
    float32 bytes of shape (36,) in the order of :data:`stream.histories.history.NAMES`, and what
    the job had preferred of its terms. ``model_version`` is of the global model that scored it,
    ``first_model`` of the one that the state began with, where that is another. ``global_`` is what
    it scored, for who trains the next one; None: nothing, or nobody asked. ``declined_time_ms`` is
    of a decline before a positive answer, where no label of its own tells of it: the application
    was read after both.
    """

    application_id: str
    member_id: str
    job_id: str
    label: int
    kind: str
    previous: str | None
    rule: str | None
    final: bool
    weight: float
    application_time_ms: int
    evidence_time_ms: int | None
    label_time_ms: int
    model_version: str
    per_member: bytes
    per_job: bytes
    global_score: float
    member_score: float
    job_score: float
    channel: str | None
    terms: Terms | None
    further_scores: FurtherScores | None = None
    previous_weight: float | None = None
    history: bytes | None = None
    preferences: Preferred | None = None
    first_model: str | None = None
    global_: bytes | None = None
    declined_time_ms: int | None = None


class Match(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="type", tag="match"):
    """An application that the recruiter of its job should see at once.

    ``score`` is the full one of its first sight (log-odds), ``probability`` σ(score). ``rank``
    counts the job's applicants so far with a higher score, and this one; ``applicants`` counts them
    all, this one too; ``percentile``: of 100 of them, how many have no higher score. ``among`` says
    whose top share it is in: the ``job``'s, or, of the first applicants of a job, the ``market``'s.
    """

    application_id: str
    member_id: str
    job_id: str
    event_time_ms: int
    model_version: str
    score: float
    probability: float
    rank: int
    applicants: int
    percentile: float
    among: Literal["job", "market"]
    channel: str | None = None


CONTROL = "control"
"""Stands for the effect in a control record, which has the form of coefficients."""


class ModelSince(msgspec.Struct, frozen=True, gc=False):
    """A global model, and from which application time on it scores."""

    model_version: str
    from_ms: int


class Control(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What holds for all coefficients of an effect that one partition publishes.

    ``models``: in order of time; the last one that begins before an application scores it.
    ``gate``: shut while newer coefficients are held back. ``prior_precision``: λ of each (d,).
    """

    effect: str
    partition: PartitionNumber
    models: list[ModelSince]
    gate: Literal["open", "shut"]
    prior_precision: list[float]


class Coefficients(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="type", tag="coefficients"
):
    """One entity's random effect: posterior mode and marginal variances, each of length d.

    ``history`` is what its history was then. Where ``control`` or ``read`` is set it is no entity
    but a record, whose effect is :data:`CONTROL`. ``read``: up to where a partition had read what
    made it publish, as next offsets by ``topic/partition``.
    """

    effect: str
    entity_id: str
    model_version: str
    mean: list[float]
    variance: list[float]
    examples: int
    event_time_ms: int
    history: Summary | msgspec.UnsetType = msgspec.UNSET
    control: Control | msgspec.UnsetType = msgspec.UNSET
    read: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
