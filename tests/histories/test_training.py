"""Histories that a model is fitted on, which are read where nothing else is learned."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events.structs import Forget
from stream.events.wire import encode
from stream.labels import driver
from stream.labels.changes import Entered
from stream.policy import EffectSettings, Policy
from stream.replay.reader import Read, Reader
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.stages.first_sights import FirstSights
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from tests.histories.test_first_sight import POLICY, SCALE, Seen, ordered
from tests.kit import SPACE, TestEvent, model
from tests.labels.bench import W, logs
from tests.replay.test_single import lines_of

TTL = EffectSettings(entity_ttl_ms=4 * W * SCALE)
LEAVING = Policy(labels=POLICY.labels, effects={"per_member": TTL, "per_job": TTL})


@settings(max_examples=100)
@given(logs(), st.integers(1, 3), st.sampled_from([POLICY, LEAVING]), st.data())
def test_they_are_those_of_a_replay(
    events: list[TestEvent], members: int, policy: Policy, data: st.DataObject
) -> None:
    """Of every application, whoever was forgotten or has expired in between."""
    log: list[TestEvent | bytes] = [*ordered(events, members)]
    for who in ({"member_id": "m0"}, {"job_id": "j"}):
        at = data.draw(st.integers(0, len(log)))
        until_ms = data.draw(st.integers(0, 3 * W)) * SCALE
        log.insert(at, encode(Forget(event_time_ms=until_ms, **who)))
    sink = Seen()
    replay(lines_of(log), sink, policy, model(), SPACE, Options())
    overlay = Overlay(MemoryStore())
    sights = FirstSights(overlay, policy)
    reader = Reader(SPACE, policy, scored=True, max_jump_ms=None)
    found = {}
    for number, line in enumerate(lines_of(log)):
        for read in reader.line(line):
            assert isinstance(read, Read)
            steps = driver.read(sights, read.event, read.source, read.watermark_ms, read.after_ms)
            for step in steps:
                if isinstance(step, Entered):
                    app = step.application
                    found[app.job_id, app.application_id] = step.scores.history
        if number % 5 == 0:
            overlay.flush()
    assert found == sink.histories
