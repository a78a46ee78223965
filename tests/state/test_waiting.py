"""Who waits in jobs, as rankings ask for it."""

from __future__ import annotations

import gc

import msgspec

from stream.events.ladder import Kind
from stream.state.facts import Facts
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from stream.state.stored_facts import StoredFacts
from stream.state.waiting import Candidates

JOBS = 20_000
OPEN = Facts(
    member_id="m",
    event_time_ms=5,
    digest=b"",
    partition=0,
    per_member=b"",
    per_job=b"",
    global_score=0.0,
    member_score=0.0,
    job_score=0.0,
    channel=None,
    terms=None,
)


def test_jobs_in_which_nobody_waits_take_no_memory_for_ever() -> None:
    """Of the jobs that were asked for, those that go on waiting stay; the others are bounded."""
    overlay = Overlay(MemoryStore())
    book = StoredFacts(overlay)
    answered = msgspec.structs.replace(OPEN, kind=Kind.POSITIVE)
    book.put_application("busy", "a", OPEN)
    busy = book.waiting("busy")
    for number in range(JOBS):
        job_id = f"j{number}"
        book.put_application(job_id, "a", OPEN)
        assert len(book.waiting(job_id)) == 1
        book.put_application(job_id, "a", answered)
        if number % 1000 == 0:
            overlay.flush()
    overlay.flush()
    assert book.waiting("busy") is busy
    assert sum(isinstance(one, Candidates) for one in gc.get_objects()) < JOBS // 2
    book.put_application("j0", "b", OPEN)
    assert "b" in book.waiting("j0")
