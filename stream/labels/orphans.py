"""Engagements that were read before their application.

They wait until it comes, or until the watermark is past their time plus ``orphan_ttl``; then they
are dead letters ``unmatched``. One that names another member than its application does turns out
to be a ``mismatch`` when that is read.
"""

from __future__ import annotations

from collections.abc import Generator

from stream.errors import EventError, MismatchError, UnmatchedError
from stream.events.structs import Application, DeadLetter, Engagement, Source
from stream.state.facts import (
    MOST_LISTED,
    Applied,
    Deadline,
    DeadlineKind,
    Orphan,
    Waiting,
)
from stream.state.stored_facts import StoredFacts


class Orphans:
    """The orphans of all jobs of one partition.

    Args:
        ttl_ms: how long they wait.
        book: where they are kept.

    """

    def __init__(self, ttl_ms: int, book: StoredFacts) -> None:
        self._ttl_ms = ttl_ms
        self._book = book

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
        book.census.orphans(1)
        book.deadlines.add(
            Deadline(expires_ms, DeadlineKind.ORPHAN, job_id, application_id, event.engagement_id)
        )

    def claim(self, app: Application) -> Generator[DeadLetter, None, list[Orphan]]:
        """Give the dead letters of those that name another member; return the others, by id.

        The others are left as they are, so that the caller may begin again.
        """
        job_id = app.job_id
        waiting = self._book.application(job_id, app.application_id)
        if not isinstance(waiting, Waiting):
            return []
        ids = list(waiting.listed)
        if waiting.orphans > len(ids):
            ids += self._book.indexed_engagements(job_id, app.application_id)
        own = []
        for engagement_id in sorted(ids):
            orphan = self._book.engagement(job_id, engagement_id)
            if not isinstance(orphan, Orphan):
                continue
            if orphan.member_id == app.member_id:
                own.append(orphan)
                continue
            self._unindex(app, orphan)
            yield self._set_aside(job_id, orphan, mismatch(job_id, orphan, app.member_id))
        return own

    def adopt(self, app: Application, orphans: list[Orphan]) -> None:
        """Apply engagements to their application: they wait no longer."""
        for orphan in orphans:
            self._unindex(app, orphan)
            self._book.put_engagement(app.job_id, orphan.engagement_id, Applied(orphan.digest))
            self._book.census.orphans(-1)

    def expire(self, deadline: Deadline) -> DeadLetter | None:
        """No application came: a dead letter. A deadline of an adopted orphan is void."""
        job_id, application_id = deadline.job_id, deadline.subject
        orphan = self._book.engagement(job_id, deadline.detail)
        record = self._book.application(job_id, application_id)
        if not isinstance(orphan, Orphan) or not isinstance(record, Waiting):
            return None
        if orphan.application_id != application_id:
            return None  # it was a mismatch there, and came again for another application
        listed = tuple(one for one in record.listed if one != orphan.engagement_id)
        if len(listed) == len(record.listed):
            self._book.index_engagement(job_id, application_id, orphan.engagement_id, indexed=False)
        letter = self._set_aside(job_id, orphan, _unmatched(job_id, orphan))
        if record.orphans > 1:
            self._book.put_application(job_id, application_id, Waiting(record.orphans - 1, listed))
        else:
            self._book.put_application(job_id, application_id, None)
        return letter

    def _unindex(self, app: Application, orphan: Orphan) -> None:
        waiting = self._book.application(app.job_id, app.application_id)
        if not isinstance(waiting, Waiting) or orphan.engagement_id not in waiting.listed:
            self._book.index_engagement(
                app.job_id, app.application_id, orphan.engagement_id, indexed=False
            )

    def _set_aside(self, job_id: str, orphan: Orphan, error: EventError) -> DeadLetter:
        self._book.put_engagement(job_id, orphan.engagement_id, None)
        self._book.census.orphans(-1)
        return DeadLetter.of(error, orphan.source)


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
