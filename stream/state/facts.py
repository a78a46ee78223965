"""What is remembered of a job's applications (:mod:`stream.state.stored_facts` keeps it).

A fact is forgotten when a deadline passes (:class:`Deadline`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

import msgspec

from stream.events.ladder import Kind
from stream.events.structs import FurtherScores, PartitionNumber, Scored, Source, TimeMs
from stream.histories.preferences import Preferred, Terms

AGE = "age"
"""The rule of labels inferred from silence alone, as it is stored and sent."""

MOST_LISTED = 32
"""Engagements that an application's facts list by id; further ones are found by their index."""


KindNumber = Annotated[int, msgspec.Meta(ge=0, le=int(Kind.POSITIVE))]
Count = Annotated[int, msgspec.Meta(ge=0)]
"""A number of things, or of an offset: where it is stored, it is checked when it is read."""


class Facts(msgspec.Struct, Scored, frozen=True, gc=False, kw_only=True, array_like=True, tag="f"):
    """An application whose window is open.

    ``digest`` fingerprints the producer's content (a repeat has the same); ``kind`` is the label
    so far (:class:`~stream.events.ladder.Kind`), ``rule`` what inferred it, ``weight`` what it
    counts; ``engagements`` are the ids of those read, so that closing can forget them: the first
    :data:`MOST_LISTED`, further ones (``more``) are indexed; ``history`` and
    ``preferences`` are those of first sight; ``model`` is the number of the global model that
    scored it, 0 for the one that the state began with; ``global_``: what it scored.
    """

    member_id: str
    event_time_ms: TimeMs
    digest: bytes
    partition: PartitionNumber
    per_member: bytes
    per_job: bytes
    global_score: float
    member_score: float
    job_score: float
    channel: str | None
    terms: Terms | None
    kind: KindNumber = 0
    rule: str | None = None
    engagements: tuple[str, ...] = ()
    more: bool = False
    further_scores: FurtherScores | None = None
    weight: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    history: bytes | None = None
    preferences: Preferred | None = None
    model: Count = 0
    global_: bytes | None = None

    @property
    def unsettled(self) -> bool:
        """Whether nothing is known of it but, perhaps, its age."""
        return self.kind == 0 or self.rule == AGE


class Marker(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="m"):
    """An application whose window has closed: what tells a late engagement from an orphan."""

    member_id: str
    event_time_ms: TimeMs


class Waiting(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="w"):
    """No application yet, but ``orphans`` engagements that wait for it.

    ``listed`` are the ids of at most :data:`MOST_LISTED` of them; the others are indexed (all were,
    in states of earlier releases).
    """

    orphans: Count
    listed: tuple[str, ...] = ()


class Applied(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="a"):
    """An engagement that was applied to its application: only a repeat may still come."""

    digest: bytes


class Orphan(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="o"):
    """An engagement that waits for its application, and all that applying it later takes.

    ``source`` is kept because it may have to go to the dead letters.
    """

    engagement_id: str
    application_id: str
    member_id: str
    event_time_ms: TimeMs
    action: str
    digest: bytes
    source: Source


class JobEventFact(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A job event read before."""

    event_time_ms: TimeMs
    digest: bytes


class Stretch(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Submission times (ms, closed range) settled by a ``rule``; ``evidence_ms``: by what."""

    first_ms: int
    last_ms: int
    evidence_ms: int
    rule: str


Settled = tuple[Stretch, ...]
"""Disjoint stretches, sorted."""

NOTHING: Settled = ()


class DeadlineKind(IntEnum):
    """What ends at a deadline. The numbers are stored and order what ends at one instant."""

    WINDOW = 1
    ORPHAN = 2
    SETTLED = 3
    CLOSING = 4
    MARKER = 5
    ENGAGEMENTS = 6
    AGE = 7


class Deadline(msgspec.Struct, frozen=True, gc=False, array_like=True, order=True):
    """Something ends once the watermark is *strictly* past ``at_ms``.

    ``subject`` is the application's or job event's id; ``detail`` the engagement that is an orphan,
    or the last of a closed application's that was forgotten, or the member of a marker.
    """

    at_ms: int
    kind: Annotated[int, msgspec.Meta(ge=1, le=int(DeadlineKind.AGE))]
    job_id: str
    subject: str = ""
    detail: str = ""


ApplicationRecord = Facts | Marker | Waiting
EngagementRecord = Applied | Orphan
