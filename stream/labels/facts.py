"""What is remembered of a job's applications, and the book it is kept in.

The machine reads and writes facts through :class:`FactBook`; :mod:`stream.state.facts` keeps them
in the store. A fact is forgotten when a deadline passes (:class:`Deadline`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Protocol

import msgspec

from stream.events import Source, Terms


class Facts(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """An application whose window is open.

    ``digest`` fingerprints the producer's content (a repeat has the same); ``kind`` is the label
    so far (:class:`~stream.labels.ladder.Kind`), ``rule`` what inferred it; ``engagements`` how
    many distinct ones were read, so that closing knows whether to look for them.
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
    engagements: int = 0


class Marker(msgspec.Struct, frozen=True, array_like=True, tag="m"):
    """An application whose window has closed: what tells a late engagement from an orphan."""

    member_id: str
    event_time_ms: int


class Waiting(msgspec.Struct, frozen=True, array_like=True, tag="w"):
    """No application yet, but ``orphans`` engagements that wait for it."""

    orphans: int


class EngagementFact(msgspec.Struct, frozen=True, array_like=True):
    """An engagement read before: its identity, and all that evaluating it later takes.

    ``source`` is kept while it waits for its application: it may have to go to the dead letters.
    """

    engagement_id: str
    application_id: str
    member_id: str
    event_time_ms: int
    action: str
    digest: bytes
    source: Source | None = None


class JobEventFact(msgspec.Struct, frozen=True, array_like=True):
    """A job event read before."""

    event_time_ms: int
    digest: bytes


class DeadlineKind(IntEnum):
    """What ends at a deadline. The numbers are stored and order what ends at one instant."""

    WINDOW = 1
    ORPHAN = 2
    RESPONSE = 3
    CLOSING = 4
    MARKER = 5


class Deadline(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Something ends once the watermark is *strictly* past ``at_ms``.

    ``subject`` is the application's or job event's id; ``engagement_id`` an orphan's; ``time_ms``
    the time of a response or closing, ``answered_ms`` the submission of a response's application.
    """

    at_ms: int
    kind: int
    job_id: str
    subject: str = ""
    engagement_id: str = ""
    time_ms: int = 0
    answered_ms: int = 0


ApplicationRecord = Facts | Marker | Waiting


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

    def pending_between(self, job_id: str, first_ms: int, last_ms: int) -> list[str]:
        """Ids of the pending applications submitted in the range, by (time, id)."""

    def engagement(self, job_id: str, engagement_id: str) -> EngagementFact | None:
        """Return an engagement read before."""

    def put_engagement(self, job_id: str, fact: EngagementFact) -> None:
        """Remember an engagement."""

    def engagements_of(self, job_id: str, application_id: str) -> list[EngagementFact]:
        """Return all engagements remembered of an application, by id."""

    def forget_engagement(self, job_id: str, application_id: str, engagement_id: str) -> None:
        """Forget an engagement."""

    def put_response(self, job_id: str, event_time_ms: int, answered_ms: int) -> None:
        """Remember that at a time an application submitted at ``answered_ms`` was responded to."""

    def response_after(
        self, job_id: str, first_ms: int, last_ms: int, submitted_ms: int
    ) -> int | None:
        """Time of the first response in the range to an application submitted strictly later."""

    def forget_response(self, job_id: str, event_time_ms: int, answered_ms: int) -> None:
        """Forget a response."""

    def job_event(self, job_id: str, job_event_id: str) -> JobEventFact | None:
        """Return a job event read before."""

    def put_closing(self, job_id: str, job_event_id: str, fact: JobEventFact) -> None:
        """Remember that a job was closed."""

    def closing_between(self, job_id: str, first_ms: int, last_ms: int) -> int | None:
        """Time of the first closing of the job in the range."""

    def forget_closing(self, job_id: str, job_event_id: str, event_time_ms: int) -> None:
        """Forget a closing."""

    def add_deadline(self, deadline: Deadline) -> None:
        """Enter a deadline."""

    def due(self, watermark_ms: int) -> Iterable[Deadline]:
        """Take the deadlines strictly before the watermark out, in order, one by one.

        What is added while the caller iterates, and is due too, comes in its turn.
        """
