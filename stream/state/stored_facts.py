"""The fact book in a store (:class:`stream.labels.facts.FactBook`).

What was read or written lately is kept decoded; application records and what is settled are encoded
only when the overlay is drained, so that what changes several times between two flushes is written
once. Both caches are bounded and go with a discard.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

from stream.labels.facts import (
    ApplicationRecord,
    Deadline,
    EngagementRecord,
    JobEventFact,
)
from stream.labels.settled import NOTHING, Settled
from stream.state import codec, keys
from stream.state.census import Census
from stream.state.deadlines import DeadlineQueue
from stream.state.overlay import Overlay
from stream.state.pending import PendingApplications

_K = TypeVar("_K")
_T = TypeVar("_T")

_NOTHING = b""
_RECORDS = 1 << 14  # application records kept at least, about 1 kB each; twice as many at most
_JOBS = 1 << 13  # jobs likewise, of which what is settled is kept


class StoredFacts:
    """Facts of the jobs of one partition, read and written through an overlay."""

    def __init__(self, overlay: Overlay, census: Census | None = None) -> None:
        self._overlay = overlay
        self._census = census or Census(overlay)
        self._deadlines = DeadlineQueue(overlay)
        self._pending = PendingApplications(overlay)
        self._records: dict[tuple[str, str], ApplicationRecord] = {}
        self._new_records: dict[tuple[str, str], ApplicationRecord | None] = {}
        self._settled: dict[str, Settled] = {}
        self._changed_settled: dict[str, None] = {}
        overlay.attach(self)

    def application(self, job_id: str, application_id: str) -> ApplicationRecord | None:
        """Return what is known of an application."""
        ids = job_id, application_id
        if ids in self._new_records:
            return self._new_records[ids]
        known = self._records.get(ids)
        if known is not None:
            return known
        value = self._overlay.get(keys.application(job_id, application_id))
        if value is None:
            return None
        record = self._records[ids] = codec.decode_application(value)
        return record

    def put_application(self, job_id: str, application_id: str, record: ApplicationRecord) -> None:
        """Replace what is known of an application."""
        self._new_records[job_id, application_id] = record

    def forget_application(self, job_id: str, application_id: str) -> None:
        """Forget an application altogether."""
        self._new_records[job_id, application_id] = None

    def add_pending(self, job_id: str, event_time_ms: int, application_id: str) -> None:
        """Enter an application that has no label yet."""
        self._pending.add(job_id, event_time_ms, application_id)
        self._census.pending(1)

    def remove_pending(self, job_id: str, event_time_ms: int, application_id: str) -> None:
        """Strike an application that has a label now."""
        self._pending.remove(job_id, event_time_ms, application_id)
        self._census.pending(-1)

    def pending_between(self, job_id: str, first_ms: int, last_ms: int) -> Iterable[str]:
        """Ids of the pending applications submitted in the range, by (time, id).

        The caller may strike what it was given, and flush, before it asks for the next.
        """
        return self._pending.between(job_id, first_ms, last_ms)

    def engagement(self, job_id: str, engagement_id: str) -> EngagementRecord | None:
        """Return an engagement read before."""
        value = self._overlay.get(keys.engagement(job_id, engagement_id))
        return None if value is None else codec.decode_engagement(value)

    def put_engagement(self, job_id: str, engagement_id: str, record: EngagementRecord) -> None:
        """Remember an engagement."""
        self._overlay.put(keys.engagement(job_id, engagement_id), codec.encode_engagement(record))

    def forget_engagement(self, job_id: str, engagement_id: str) -> None:
        """Forget an engagement."""
        self._overlay.delete(keys.engagement(job_id, engagement_id))

    def index_engagement(self, job_id: str, application_id: str, engagement_id: str) -> None:
        """Make an engagement known by its application's id."""
        prefix = keys.engagements_of(job_id, application_id)
        self._overlay.change(prefix, prefix + engagement_id.encode(), _NOTHING)

    def indexed_engagements(
        self, job_id: str, application_id: str, most: int | None = None
    ) -> list[str]:
        """Ids of an application's indexed engagements, sorted; the first ``most`` of them."""
        prefix = keys.engagements_of(job_id, application_id)
        return [
            key[len(prefix) :].decode()
            for key, _ in islice(self._overlay.scan(prefix, prefix, keys.after(prefix)), most)
        ]

    def unindex_engagement(self, job_id: str, application_id: str, engagement_id: str) -> None:
        """Take an engagement out of the index."""
        prefix = keys.engagements_of(job_id, application_id)
        self._overlay.change(prefix, prefix + engagement_id.encode(), None)

    def count_orphans(self, change: int) -> None:
        """Engagements have begun to wait for their application, or have stopped."""
        self._census.orphans(change)

    def settled(self, job_id: str) -> Settled:
        """Return what a job's evidence has settled."""
        if job_id in self._settled:
            return self._settled[job_id]
        value = self._overlay.get(keys.settled(job_id))
        settled = NOTHING if value is None else codec.decode_settled(value)
        self._settled[job_id] = settled
        return settled

    def put_settled(self, job_id: str, settled: Settled) -> None:
        """Replace what a job's evidence has settled; nothing is forgotten."""
        self._settled[job_id] = settled
        self._changed_settled[job_id] = None

    def job_event(self, job_id: str, job_event_id: str) -> JobEventFact | None:
        """Return a job event read before."""
        value = self._overlay.get(keys.job_event(job_id, job_event_id))
        return None if value is None else codec.decode_job_event(value)

    def put_job_event(self, job_id: str, job_event_id: str, fact: JobEventFact) -> None:
        """Remember a job event."""
        self._overlay.put(keys.job_event(job_id, job_event_id), codec.encode_job_event(fact))

    def forget_job_event(self, job_id: str, job_event_id: str) -> None:
        """Forget a job event."""
        self._overlay.delete(keys.job_event(job_id, job_event_id))

    def add_deadline(self, deadline: Deadline) -> None:
        """Enter a deadline, not before one that was taken out."""
        self._deadlines.add(deadline)

    def due(self, watermark_ms: int) -> Iterable[Deadline]:
        """Take the deadlines strictly before the watermark out, in order, one by one."""
        return self._deadlines.due(watermark_ms)

    def write_out(self) -> None:
        """Encode what changed, and let the caches shrink."""
        overlay, records, settled = self._overlay, self._records, self._settled
        for ids, record in self._new_records.items():
            key = keys.application(*ids)
            if record is None:
                records.pop(ids, None)
                overlay.delete(key)
            else:
                records[ids] = record
                overlay.put(key, codec.encode_application(record))
        self._new_records.clear()
        for job_id in self._changed_settled:
            if settled[job_id]:
                overlay.put(keys.settled(job_id), codec.encode_settled(settled[job_id]))
            else:
                overlay.delete(keys.settled(job_id))
        self._changed_settled.clear()
        self._records = _shrunk(records, _RECORDS)
        self._settled = _shrunk(settled, _JOBS)

    def throw_away(self) -> None:
        """Forget everything: the store is the truth."""
        self._records.clear()
        self._new_records.clear()
        self._settled.clear()
        self._changed_settled.clear()


def _shrunk(cache: dict[_K, _T], least: int) -> dict[_K, _T]:
    """Keep the newest entries once there are twice as many as must be kept."""
    if len(cache) < 2 * least:
        return cache
    return dict(islice(cache.items(), len(cache) - least, None))
