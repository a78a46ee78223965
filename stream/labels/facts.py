"""What is remembered of a job's applications, and the book it is kept in.

The machine reads and writes facts through :class:`FactBook`; :mod:`stream.state.stored_facts` keeps
them in the store. A fact is forgotten when a deadline passes (:class:`Deadline`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Protocol

import msgspec

from stream.events.structs import FurtherScores, Scored, Source, Terms
from stream.labels.settled import Settled

MOST_LISTED = 32
"""Engagements that an application's facts list by id; further ones are found by their index."""


class Facts(msgspec.Struct, Scored, frozen=True, gc=False, kw_only=True, array_like=True, tag="f"):
    """An application whose window is open.

    ``digest`` fingerprints the producer's content (a repeat has the same); ``kind`` is the label
    so far (:class:`~stream.labels.ladder.Kind`), ``rule`` what inferred it; ``engagements`` are the
    ids of those read, so that closing can forget them: the first :data:`MOST_LISTED`, further ones
    (``more``) are indexed.
    """

    member_id: str
    event_time_ms: int
    digest: bytes
    partition: int
    per_member: bytes
    per_job: bytes
    global_score: float
    member_score: float
    job_score: float
    channel: str | None
    terms: Terms | None
    kind: int = 0
    rule: str | None = None
    engagements: tuple[str, ...] = ()
    more: bool = False
    further_scores: FurtherScores | None = None


class Marker(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="m"):
    """An application whose window has closed: what tells a late engagement from an orphan."""

    member_id: str
    event_time_ms: int


class Waiting(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="w"):
    """No application yet, but ``orphans`` engagements that wait for it.

    ``listed`` are the ids of at most :data:`MOST_LISTED` of them; the others are indexed (all were,
    in states of earlier releases).
    """

    orphans: int
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
    event_time_ms: int
    action: str
    digest: bytes
    source: Source


class JobEventFact(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A job event read before."""

    event_time_ms: int
    digest: bytes


class DeadlineKind(IntEnum):
    """What ends at a deadline. The numbers are stored and order what ends at one instant."""

    WINDOW = 1
    ORPHAN = 2
    SETTLED = 3
    CLOSING = 4
    MARKER = 5
    ENGAGEMENTS = 6


class Deadline(msgspec.Struct, frozen=True, gc=False, array_like=True, order=True):
    """Something ends once the watermark is *strictly* past ``at_ms``.

    ``subject`` is the application's or job event's id; ``engagement_id`` an orphan's, or the last
    of a closed application's engagements that was forgotten.
    """

    at_ms: int
    kind: int
    job_id: str
    subject: str = ""
    engagement_id: str = ""


ApplicationRecord = Facts | Marker | Waiting
EngagementRecord = Applied | Orphan


class FactBook(Protocol):
    """All facts of one job partition. Times in milliseconds; ranges are closed on both ends."""

    def application(self, job_id: str, application_id: str) -> ApplicationRecord | None:
        """Return what is known of an application."""

    def put_application(self, job_id: str, application_id: str, record: ApplicationRecord) -> None:
        """Replace what is known of an application."""

    def forget_application(self, job_id: str, application_id: str) -> None:
        """Forget an application altogether."""

    def add_pending(self, job_id: str, event_time_ms: int, application_id: str) -> None:
        """Enter an application that has no label yet."""

    def remove_pending(self, job_id: str, event_time_ms: int, application_id: str) -> None:
        """Strike an application that has a label now."""

    def pending_between(self, job_id: str, first_ms: int, last_ms: int) -> Iterable[str]:
        """Ids of the pending applications submitted in the range, by (time, id).

        The caller may strike what it was given, and flush, before it asks for the next.
        """

    def engagement(self, job_id: str, engagement_id: str) -> EngagementRecord | None:
        """Return an engagement read before."""

    def put_engagement(self, job_id: str, engagement_id: str, record: EngagementRecord) -> None:
        """Remember an engagement."""

    def forget_engagement(self, job_id: str, engagement_id: str) -> None:
        """Forget an engagement."""

    def index_engagement(self, job_id: str, application_id: str, engagement_id: str) -> None:
        """Make an engagement known by its application's id."""

    def indexed_engagements(
        self, job_id: str, application_id: str, most: int | None = None
    ) -> list[str]:
        """Ids of an application's indexed engagements, sorted; the first ``most`` of them."""

    def unindex_engagement(self, job_id: str, application_id: str, engagement_id: str) -> None:
        """Take an engagement out of the index."""

    def count_orphans(self, change: int) -> None:
        """Engagements have begun to wait for their application, or have stopped."""

    def settled(self, job_id: str) -> Settled:
        """Return what a job's evidence has settled."""

    def put_settled(self, job_id: str, settled: Settled) -> None:
        """Replace what a job's evidence has settled; nothing is forgotten."""

    def job_event(self, job_id: str, job_event_id: str) -> JobEventFact | None:
        """Return a job event read before."""

    def put_job_event(self, job_id: str, job_event_id: str, fact: JobEventFact) -> None:
        """Remember a job event."""

    def forget_job_event(self, job_id: str, job_event_id: str) -> None:
        """Forget a job event."""

    def add_deadline(self, deadline: Deadline) -> None:
        """Enter a deadline, not before one that was taken out."""

    def due(self, watermark_ms: int) -> Iterable[Deadline]:
        """Take the deadlines strictly before the watermark out, in order, one by one.

        What is added while the caller iterates, and is due too, comes in its turn. Where nothing
        is due, the result is empty and false.
        """
