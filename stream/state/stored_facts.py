"""What the label machine remembers (:mod:`stream.state.facts`), in the store.

What was read or written lately is kept decoded; application records and what is settled are encoded
only when the overlay is drained, so that what changes several times between two flushes is written
once. Both caches are bounded and go with a discard.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TypeVar

from stream.state import codec, keys
from stream.state.census import Census
from stream.state.deadlines import DeadlineQueue
from stream.state.facts import (
    NOTHING,
    ApplicationRecord,
    EngagementRecord,
    Facts,
    JobEventFact,
    Settled,
    Waiting,
)
from stream.state.overlay import Overlay
from stream.state.pending import PendingApplications
from stream.state.waiting import Candidates, Waits, follow

_K = TypeVar("_K")
_T = TypeVar("_T")

_STEPS = keys.own("aging")
_RECORDS = 1 << 14  # application records kept at least, about 1 kB each; twice as many at most
_JOBS = 1 << 13  # jobs likewise, of which what is settled is kept, or in which nobody waits


class StoredFacts:
    """Facts of the jobs of one partition, read and written through an overlay.

    Attributes:
        census: counts pending applications and orphans. deadlines: what ends, and when.
        pending: the applications of which nothing but, perhaps, their age is known, by time.
        steps: ages (ms) and weights by which every open application has its next step.

    """

    def __init__(self, overlay: Overlay, census: Census | None = None) -> None:
        self._overlay = overlay
        self.census = census or Census(overlay)
        self.deadlines = DeadlineQueue(overlay)
        self.pending = PendingApplications(overlay, self.census)
        self._records: dict[tuple[str, str], ApplicationRecord] = {}
        self._new_records: dict[str, dict[str, ApplicationRecord | None]] = {}  # by job
        self._waiting: dict[str, Candidates[Waits]] = {}
        self._settled: dict[str, Settled] = {}
        self._changed_settled: dict[str, None] = {}
        self.steps = self._stored_steps()
        overlay.attach(self.throw_away, self.write_out)

    def application(self, job_id: str, application_id: str) -> ApplicationRecord | None:
        """Return what is known of an application."""
        new = self._new_records.get(job_id)
        if new is not None and application_id in new:
            return new[application_id]
        ids = job_id, application_id
        known = self._records.get(ids)
        if known is not None:
            return known
        value = self._overlay.get(keys.key(keys.APPLICATION, job_id, application_id))
        if value is None:
            return None
        record = self._records[ids] = codec.APPLICATION.decode(value)
        return record

    def put_application(
        self, job_id: str, application_id: str, record: ApplicationRecord | None
    ) -> None:
        """Replace what is known of an application; None: forget it."""
        new = self._new_records.get(job_id)
        if new is None:
            self._new_records[job_id] = {application_id: record}
        else:
            new[application_id] = record
        if job_id in self._waiting:
            follow(self._waiting[job_id], application_id, record)

    def waiting(self, job_id: str) -> Candidates[Waits]:
        """Return who waits for an answer in a job; from now on its records are followed."""
        waiting = self._waiting.get(job_id)
        if waiting is None:
            waiting = self._waiting[job_id] = Candidates(job_id)
            prefix = keys.prefix(keys.APPLICATION, job_id)
            # What the store has not is new here: records are written out as the overlay is flushed.
            for key, value in self._overlay.store.scan(prefix, keys.after(prefix)):
                follow(waiting, key[len(prefix) :].decode(), codec.APPLICATION.decode(value))
            for application_id, record in self._new_records.get(job_id, {}).items():
                follow(waiting, application_id, record)
        return waiting

    def stop_following(self, jobs: Callable[[str], bool]) -> None:
        """Follow the records of some jobs no longer."""
        self._waiting = {job: each for job, each in self._waiting.items() if not jobs(job)}

    def members(self, job_id: str) -> set[str]:
        """Members whose applications for a job are known, maybe some that are not any more."""
        prefix = keys.prefix(keys.APPLICATION, job_id)
        stored = self._overlay.store.scan(prefix, keys.after(prefix))
        records = [codec.APPLICATION.decode(value) for _, value in stored]
        new = self._new_records.get(job_id, {}).values()
        records += [record for record in new if record is not None]
        return {record.member_id for record in records if not isinstance(record, Waiting)}

    def open(self, job_id: str) -> list[tuple[str, Facts]]:
        """Return a job's applications whose windows are open, by id."""
        prefix = keys.prefix(keys.APPLICATION, job_id)
        stored = self._overlay.store.scan(prefix, keys.after(prefix))
        names = dict.fromkeys(key[len(prefix) :].decode() for key, _ in stored)
        names |= dict.fromkeys(self._new_records.get(job_id, {}))
        found = ((name, self.application(job_id, name)) for name in names)
        return [(name, record) for name, record in found if isinstance(record, Facts)]

    def engagement(self, job_id: str, engagement_id: str) -> EngagementRecord | None:
        """Return an engagement read before."""
        value = self._overlay.get(keys.key(keys.ENGAGEMENT, job_id, engagement_id))
        return None if value is None else codec.ENGAGEMENT.decode(value)

    def put_engagement(
        self, job_id: str, engagement_id: str, record: EngagementRecord | None
    ) -> None:
        """Remember an engagement; None: forget it."""
        value = None if record is None else codec.ENGAGEMENT.encode(record)
        self._overlay.put(keys.key(keys.ENGAGEMENT, job_id, engagement_id), value)

    def index_engagement(
        self, job_id: str, application_id: str, engagement_id: str, *, indexed: bool = True
    ) -> None:
        """Make an engagement known by its application's id, or no longer."""
        prefix = keys.engagements_of(job_id, application_id)
        self._overlay.change(prefix, prefix + engagement_id.encode(), b"" if indexed else None)

    def indexed_engagements(
        self, job_id: str, application_id: str, most: int | None = None
    ) -> list[str]:
        """Ids of an application's indexed engagements, sorted; the first ``most`` of them."""
        prefix = keys.engagements_of(job_id, application_id)
        return [
            key[len(prefix) :].decode()
            for key, _ in islice(self._overlay.scan(prefix, prefix, keys.after(prefix)), most)
        ]

    def settled(self, job_id: str) -> Settled:
        """Return what a job's evidence has settled."""
        if job_id in self._settled:
            return self._settled[job_id]
        value = self._overlay.get(keys.SETTLED + job_id.encode())
        settled = NOTHING if value is None else codec.SETTLED.decode(value)
        self._settled[job_id] = settled
        return settled

    def put_settled(self, job_id: str, settled: Settled) -> None:
        """Replace what a job's evidence has settled; nothing is forgotten."""
        self._settled[job_id] = settled
        self._changed_settled[job_id] = None

    def job_event(self, job_id: str, job_event_id: str) -> JobEventFact | None:
        """Return a job event read before."""
        value = self._overlay.get(keys.key(keys.JOB_EVENT, job_id, job_event_id))
        return None if value is None else codec.JOB_EVENT.decode(value)

    def put_job_event(self, job_id: str, job_event_id: str, fact: JobEventFact | None) -> None:
        """Remember a job event; None: forget it."""
        value = None if fact is None else codec.JOB_EVENT.encode(fact)
        prefix = keys.prefix(keys.JOB_EVENT, job_id)
        self._overlay.change(prefix, prefix + job_event_id.encode(), value)

    def closings(self, job_id: str) -> list[JobEventFact]:
        """Return the events of a job that are remembered: all of them closed it."""
        prefix = keys.prefix(keys.JOB_EVENT, job_id)
        entries = self._overlay.scan(prefix, prefix, keys.after(prefix))
        return [codec.JOB_EVENT.decode(value) for _, value in entries]

    def put_steps(self, steps: tuple[tuple[int, float], ...]) -> None:
        """Remember the steps that every open application has a deadline by now."""
        self.steps = steps
        self._overlay.put(_STEPS, codec.STEPS.encode(steps))

    def write_out(self) -> None:
        """Encode what changed, and let the caches shrink."""
        overlay, records, settled = self._overlay, self._records, self._settled
        for job_id, new in self._new_records.items():
            for application_id, record in new.items():
                ids = job_id, application_id
                key = keys.key(keys.APPLICATION, *ids)
                if record is None:
                    records.pop(ids, None)
                    overlay.put(key, None)
                else:
                    records[ids] = record
                    overlay.put(key, codec.APPLICATION.encode(record))
        self._new_records.clear()
        for job_id in self._changed_settled:
            value = codec.SETTLED.encode(settled[job_id]) if settled[job_id] else None
            overlay.put(keys.SETTLED + job_id.encode(), value)
        self._changed_settled.clear()
        self._records = shrunk(records, _RECORDS)
        self._settled = shrunk(settled, _JOBS)
        if len(self._waiting) > 2 * _JOBS:
            self.stop_following(lambda job_id: not self._waiting[job_id])

    def throw_away(self) -> None:
        """Forget everything: the store is the truth."""
        self._records.clear()
        self._new_records.clear()
        self._waiting.clear()
        self._settled.clear()
        self._changed_settled.clear()
        self.steps = self._stored_steps()

    def _stored_steps(self) -> tuple[tuple[int, float], ...]:
        value = self._overlay.get(_STEPS)
        return () if value is None else codec.STEPS.decode(value)


def shrunk(cache: dict[_K, _T], least: int) -> dict[_K, _T]:
    """Keep the newest entries once there are twice as many as must be kept."""
    if len(cache) < 2 * least:
        return cache
    return dict(islice(cache.items(), len(cache) - least, None))
