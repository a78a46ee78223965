"""The fact book in a store (:class:`stream.labels.facts.FactBook`)."""

from __future__ import annotations

from collections.abc import Iterator

from stream.labels.facts import (
    ApplicationRecord,
    Deadline,
    EngagementFact,
    JobEventFact,
)
from stream.state import codec, keys
from stream.state.deadlines import DeadlineQueue
from stream.state.overlay import Overlay

_NOTHING = b""


class StoredFacts:
    """Facts of the jobs of one partition, read and written through an overlay."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._deadlines = DeadlineQueue(overlay)

    def application(self, job_id: str, application_id: str) -> ApplicationRecord | None:
        """Return what is known of an application."""
        value = self._overlay.get(keys.application(job_id, application_id))
        return None if value is None else codec.decode_application(value)

    def put_application(self, job_id: str, application_id: str, record: ApplicationRecord) -> None:
        """Replace what is known of an application."""
        self._overlay.put(
            keys.application(job_id, application_id), codec.encode_application(record)
        )

    def forget_application(self, job_id: str, application_id: str) -> None:
        """Forget an application altogether."""
        self._overlay.delete(keys.application(job_id, application_id))

    def add_pending(self, job_id: str, event_time_ms: int, application_id: str) -> None:
        """Enter an application that has no label yet."""
        self._overlay.put(_pending(job_id, event_time_ms, application_id), _NOTHING)

    def remove_pending(self, job_id: str, event_time_ms: int, application_id: str) -> None:
        """Strike an application that has a label now."""
        self._overlay.delete(_pending(job_id, event_time_ms, application_id))

    def pending_between(self, job_id: str, first_ms: int, last_ms: int) -> list[str]:
        """Ids of the pending applications submitted in the range, by (time, id)."""
        prefix = keys.pending(job_id)
        skip = len(prefix) + 8
        return [key[skip:].decode() for key, _ in self._range(prefix, first_ms, last_ms)]

    def engagement(self, job_id: str, engagement_id: str) -> EngagementFact | None:
        """Return an engagement read before."""
        value = self._overlay.get(keys.engagement(job_id, engagement_id))
        return None if value is None else codec.decode_engagement(value)

    def put_engagement(self, job_id: str, fact: EngagementFact) -> None:
        """Remember an engagement."""
        self._overlay.put(
            keys.engagement(job_id, fact.engagement_id), codec.encode_engagement(fact)
        )
        prefix = keys.engagements_of(job_id, fact.application_id)
        self._overlay.put(prefix + fact.engagement_id.encode(), _NOTHING)

    def engagements_of(self, job_id: str, application_id: str) -> list[EngagementFact]:
        """Return all engagements remembered of an application, by id."""
        prefix = keys.engagements_of(job_id, application_id)
        found = []
        for key, _ in list(self._overlay.scan(prefix, keys.after(prefix))):
            fact = self.engagement(job_id, key[len(prefix) :].decode())
            if fact is not None:
                found.append(fact)
        return found

    def forget_engagement(self, job_id: str, application_id: str, engagement_id: str) -> None:
        """Forget an engagement."""
        self._overlay.delete(keys.engagement(job_id, engagement_id))
        prefix = keys.engagements_of(job_id, application_id)
        self._overlay.delete(prefix + engagement_id.encode())

    def put_response(self, job_id: str, event_time_ms: int, answered_ms: int) -> None:
        """Remember that at a time an application submitted at ``answered_ms`` was responded to."""
        self._overlay.put(_response(job_id, event_time_ms, answered_ms), _NOTHING)

    def response_after(
        self, job_id: str, first_ms: int, last_ms: int, submitted_ms: int
    ) -> int | None:
        """Time of the first response in the range to an application submitted strictly later."""
        prefix = keys.responses(job_id)
        for key, _ in self._range(prefix, first_ms, last_ms):
            if keys.time_at(key, len(prefix) + 8) > submitted_ms:
                return keys.time_at(key, len(prefix))
        return None

    def forget_response(self, job_id: str, event_time_ms: int, answered_ms: int) -> None:
        """Forget a response."""
        self._overlay.delete(_response(job_id, event_time_ms, answered_ms))

    def job_event(self, job_id: str, job_event_id: str) -> JobEventFact | None:
        """Return a job event read before."""
        value = self._overlay.get(keys.job_event(job_id, job_event_id))
        return None if value is None else codec.decode_job_event(value)

    def put_closing(self, job_id: str, job_event_id: str, fact: JobEventFact) -> None:
        """Remember that a job was closed."""
        self._overlay.put(keys.job_event(job_id, job_event_id), codec.encode_job_event(fact))
        self._overlay.put(_closing(job_id, fact.event_time_ms, job_event_id), _NOTHING)

    def closing_between(self, job_id: str, first_ms: int, last_ms: int) -> int | None:
        """Time of the first closing of the job in the range."""
        prefix = keys.closings(job_id)
        for key, _ in self._range(prefix, first_ms, last_ms):
            return keys.time_at(key, len(prefix))
        return None

    def forget_closing(self, job_id: str, job_event_id: str, event_time_ms: int) -> None:
        """Forget a closing."""
        self._overlay.delete(keys.job_event(job_id, job_event_id))
        self._overlay.delete(_closing(job_id, event_time_ms, job_event_id))

    def add_deadline(self, deadline: Deadline) -> None:
        """Enter a deadline."""
        self._deadlines.add(deadline)

    def due(self, watermark_ms: int) -> Iterator[Deadline]:
        """Take the deadlines strictly before the watermark out, in order, one by one."""
        return self._deadlines.due(watermark_ms)

    def _range(self, prefix: bytes, first_ms: int, last_ms: int) -> Iterator[tuple[bytes, bytes]]:
        """Entries of a time index whose time lies in the closed range."""
        if last_ms < max(first_ms, 0):
            return iter(())
        return self._overlay.scan(
            prefix + keys.time_bytes(first_ms), prefix + keys.time_bytes(last_ms + 1)
        )


def _pending(job_id: str, event_time_ms: int, application_id: str) -> bytes:
    return keys.pending(job_id) + keys.time_bytes(event_time_ms) + application_id.encode()


def _response(job_id: str, event_time_ms: int, answered_ms: int) -> bytes:
    return keys.responses(job_id) + keys.time_bytes(event_time_ms) + keys.time_bytes(answered_ms)


def _closing(job_id: str, event_time_ms: int, job_event_id: str) -> bytes:
    return keys.closings(job_id) + keys.time_bytes(event_time_ms) + job_event_id.encode()
