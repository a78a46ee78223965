"""Engagements that were read before their application.

They wait until it comes, or until the watermark is past their time plus ``orphan_ttl``; then they
are dead letters ``unmatched``. One that names another member than its application does turns out
to be a ``mismatch`` when that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stream.errors import EventError, MismatchError, UnmatchedError
from stream.events.structs import Application, DeadLetter, Engagement, Source
from stream.labels.facts import (
    MOST_LISTED,
    Applied,
    Deadline,
    DeadlineKind,
    FactBook,
    Orphan,
    Waiting,
)


class Orphans:
    """The orphans of all jobs of one partition.

    Args:
        ttl_ms: how long they wait.
        book: where they are kept.
        dead_letter: called with those that expire or turn out mismatched.

    """

    def __init__(
        self, ttl_ms: int, book: FactBook, dead_letter: Callable[[DeadLetter], None]
    ) -> None:
        self._ttl_ms = ttl_ms
        self._book = book
        self._dead_letter = dead_letter

    def wait(
        self,
        event: Engagement,
        digest: bytes,
        source: Source,
        waiting: Waiting | None,
        watermark_ms: int | None,
    ) -> None:
        """Let an engagement wait beside those that do already.

        Raises:
            UnmatchedError: its time to wait is over before it began.

        """
        job_id, application_id = event.job_id, event.application_id
        expires_ms = event.event_time_ms + self._ttl_ms
        if watermark_ms is not None and watermark_ms > expires_ms:
            raise _unmatched(job_id, event)
        book = self._book
        listed = () if waiting is None else waiting.listed
        if len(listed) < MOST_LISTED:
            listed = (*listed, event.engagement_id)
        else:
            book.index_engagement(job_id, application_id, event.engagement_id)
        count = 1 if waiting is None else waiting.orphans + 1
        book.put_application(job_id, application_id, Waiting(count, listed))
        orphan = Orphan(
            event.engagement_id,
            application_id,
            event.member_id,
            event.event_time_ms,
            event.action,
            digest,
            source,
        )
        book.put_engagement(job_id, event.engagement_id, orphan)
        book.count_orphans(1)
        book.add_deadline(
            Deadline(expires_ms, DeadlineKind.ORPHAN, job_id, application_id, event.engagement_id)
        )

    def of(self, app: Application) -> list[Orphan]:
        """Return the engagements that wait for an application, by id, changing nothing."""
        job_id = app.job_id
        waiting = self._waiting(app)
        ids = list(waiting.listed)
        if waiting.orphans > len(ids):
            ids += self._book.indexed_engagements(job_id, app.application_id)
        found = []
        for engagement_id in sorted(ids):
            record = self._book.engagement(job_id, engagement_id)
            if isinstance(record, Orphan):
                found.append(record)
        return found

    def adopt(self, app: Application, orphans: Iterable[Orphan]) -> list[str]:
        """End the waiting: return the ids of those that are applied; mismatched ones go."""
        applied = []
        listed = self._waiting(app).listed
        for orphan in orphans:
            if orphan.engagement_id not in listed:
                self._book.unindex_engagement(app.job_id, app.application_id, orphan.engagement_id)
            if orphan.member_id != app.member_id:
                self._set_aside(app.job_id, orphan, mismatch(app.job_id, orphan, app.member_id))
                continue
            self._book.put_engagement(app.job_id, orphan.engagement_id, Applied(orphan.digest))
            self._book.count_orphans(-1)
            applied.append(orphan.engagement_id)
        return applied

    def too_late(self, app: Application) -> int:
        """End the waiting for an application that came too late; return how many were its own."""
        own = self.adopt(app, self.of(app))
        for engagement_id in own:
            self._book.forget_engagement(app.job_id, engagement_id)
        return len(own)

    def expire(self, deadline: Deadline) -> None:
        """No application came: a dead letter. A deadline of an adopted orphan is void."""
        job_id, application_id = deadline.job_id, deadline.subject
        orphan = self._book.engagement(job_id, deadline.engagement_id)
        record = self._book.application(job_id, application_id)
        if not isinstance(orphan, Orphan) or not isinstance(record, Waiting):
            return
        if orphan.application_id != application_id:
            return  # it was a mismatch there, and came again for another application
        listed = tuple(one for one in record.listed if one != orphan.engagement_id)
        if len(listed) == len(record.listed):
            self._book.unindex_engagement(job_id, application_id, orphan.engagement_id)
        self._set_aside(job_id, orphan, _unmatched(job_id, orphan))
        if record.orphans > 1:
            self._book.put_application(job_id, application_id, Waiting(record.orphans - 1, listed))
        else:
            self._book.forget_application(job_id, application_id)

    def _waiting(self, app: Application) -> Waiting:
        record = self._book.application(app.job_id, app.application_id)
        return record if isinstance(record, Waiting) else Waiting(0)

    def _set_aside(self, job_id: str, orphan: Orphan, error: EventError) -> None:
        self._book.forget_engagement(job_id, orphan.engagement_id)
        self._book.count_orphans(-1)
        self._dead_letter(DeadLetter(error.reason, str(error), orphan.source))


def mismatch(job_id: str, fact: Engagement | Orphan, member_id: str) -> MismatchError:
    """Refusal of an engagement that names another member than its application's."""
    return MismatchError(
        f"engagement {fact.engagement_id} names member {fact.member_id}, application"
        f" {fact.application_id} of job {job_id} is of {member_id}"
    )


def _unmatched(job_id: str, fact: Engagement | Orphan) -> UnmatchedError:
    return UnmatchedError(
        f"engagement {fact.engagement_id}: no application {fact.application_id} of job {job_id}"
        " came within orphan_ttl"
    )
