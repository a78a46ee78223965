"""Histories and preferences that a model is fitted on, read where nothing else is learned."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events.structs import Application, Forget
from stream.events.wire import encode
from stream.labels import driver
from stream.labels.changes import Entered, Scores
from stream.policy import EffectSettings, Policy
from stream.replay.reader import Read, Reader
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.stages.first_sights import FirstSights
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from tests.histories.test_first_sight import POLICY, SCALE, ordered
from tests.histories.test_first_sight import Seen as SeesHistories
from tests.histories.test_preferences import Seen as SeesPreferences
from tests.histories.test_preferences import with_terms
from tests.kit import SPACE, TestEvent, model
from tests.labels.bench import W, logs
from tests.replay.test_single import lines_of


class Seen(SeesHistories, SeesPreferences):
    """A replay's results, with both."""

    def scored(self, app: Application, scores: Scores) -> None:
        """Keep both."""
        SeesHistories.scored(self, app, scores)
        SeesPreferences.scored(self, app, scores)


TTL = EffectSettings(entity_ttl_ms=4 * W * SCALE)
LEAVING = Policy(labels=POLICY.labels, effects={"per_member": TTL, "per_job": TTL})


@settings(max_examples=100)
@given(logs(), st.integers(1, 3), st.sampled_from([POLICY, LEAVING]), st.data())
def test_they_are_those_of_a_replay(
    events: list[TestEvent], members: int, policy: Policy, data: st.DataObject
) -> None:
    """Of every application, whoever was forgotten or has expired in between."""
    terms = data.draw(st.one_of(st.none(), st.integers(0, 4)))
    all_of_it = ordered(events, members)
    log: list[TestEvent | bytes] = [*(all_of_it if terms is None else with_terms(all_of_it, terms))]
    for who in ({"member_id": "m0"}, {"job_id": "j"}):
        at = data.draw(st.integers(0, len(log)))
        until_ms = data.draw(st.integers(0, 3 * W)) * SCALE
        log.insert(at, encode(Forget(event_time_ms=until_ms, **who)))
    sink = Seen()
    replay(lines_of(log), sink, policy, model(), SPACE, Options())
    found = seen(log, policy, FirstSights)
    assert {key: scores.history for key, scores in found.items()} == sink.histories
    assert {key: scores.preferences for key, scores in found.items()} == sink.preferred
    found = seen(log, policy, partial(FirstSights, for_terms=True))
    assert {key: scores.preferences for key, scores in found.items()} == sink.preferred


def seen(
    log: list[TestEvent | bytes], policy: Policy, made: Callable[[Overlay, Policy], FirstSights]
) -> dict[tuple[str, str], Scores]:
    """What applications come with."""
    overlay = Overlay(MemoryStore())
    sights = made(overlay, policy)
    reader = Reader(SPACE, policy, scored=True, max_jump_ms=None)
    found = {}
    for number, line in enumerate(lines_of(log)):
        for read in reader.line(line):
            assert isinstance(read, Read)
            steps = driver.read(sights, read.event, read.source, read.watermark_ms, read.after_ms)
            for step in steps:
                if isinstance(step, Entered):
                    app = step.application
                    found[app.job_id, app.application_id] = step.scores
        if number % 5 == 0:
            overlay.flush()
    return found
