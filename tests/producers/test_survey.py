"""Clocks of a played log: never later than anything that follows, whatever the log holds."""

from __future__ import annotations

import json
import math
import random

import pytest

from producers.survey import Survey
from stream.events.records import APPLICATIONS, ENGAGEMENTS
from stream.policy import DAY_MS, HOUR_MS, LabelPolicy
from tests.producers.test_kafka import START_MS, application, clock, engagement

LABELS = LabelPolicy()
HOUR0 = START_MS // HOUR_MS * HOUR_MS


def clocks(lines: list[tuple[bytes, int]]) -> list[int]:
    """Say the clocks that are true after each line, at the largest time so far."""
    survey = Survey(LABELS)
    for index, (raw, time_ms) in enumerate(lines):
        survey.note(index, raw, time_ms)
    survey.begin()
    largest, found = 0, []
    for index, (_, time_ms) in enumerate(lines):
        largest = max(largest, time_ms)
        found.append(survey.clock_ms(index, largest))
    return found


def events(times: list[int]) -> list[tuple[bytes, int]]:
    """Applications at these times."""
    return [(application(number, time_ms), time_ms) for number, time_ms in enumerate(times)]


def test_clocks_of_an_orderly_log_follow_it_at_the_allowed_lateness() -> None:
    """The last whole hour that was passed; at the very end, what ten events have reached."""
    times = [HOUR0 + number * HOUR_MS // 4 for number in range(400)]
    found = clocks(events(times))
    for time_ms, clock_ms in list(zip(times, found, strict=True))[:-10]:
        assert clock_ms == (time_ms - LABELS.allowed_lateness_ms) // HOUR_MS * HOUR_MS
    assert times[-1] - found[-1] < LABELS.allowed_lateness_ms + 4 * HOUR_MS


@pytest.mark.parametrize("ahead_ms", [5 * HOUR_MS, 20 * HOUR_MS, 10 * DAY_MS, 29 * DAY_MS])
@pytest.mark.parametrize("at", [0, 1, 200, 398, 399])
def test_one_wrong_time_pushes_no_clock(ahead_ms: int, at: int) -> None:
    """Wherever it stands, and however little or far it is ahead: nothing that follows is late."""
    times = [HOUR0 + number * HOUR_MS // 4 for number in range(400)]
    last = times[-1]
    times[at] += ahead_ms
    found = clocks(events(times))
    for index, clock_ms in enumerate(found):
        assert clock_ms <= min(times[index + 1 :], default=math.inf)
        assert clock_ms <= last - LABELS.allowed_lateness_ms


@pytest.mark.parametrize("seed", range(5))
def test_no_clock_runs_ahead_of_what_follows_in_any_order(seed: int) -> None:
    """Also where lines are out of order by far more than the allowed lateness."""
    draw = random.Random(seed)
    times = [
        HOUR0 + number * HOUR_MS // 3 - int(draw.random() ** 4 * 5 * DAY_MS)
        for number in range(300)
    ]
    found = clocks(events(times))
    assert found == sorted(found)
    for index, clock_ms in enumerate(found):
        assert clock_ms <= min(times[index + 1 :], default=math.inf)
    assert found[-1] > found[20]


def test_what_no_worker_takes_moves_no_clock_and_binds_no_topic() -> None:
    """Unknown types and actions, missing ids and features; a forget lies anywhere in time."""
    far = HOUR0 + 20 * DAY_MS
    times = [HOUR0 + number * HOUR_MS // 4 for number in range(400)]
    lines = events(times)
    whole = json.loads(engagement(1, far))
    bad = [
        b'{"type":"applause","event_time_ms":%d}' % far,
        b'{"type":"forget","member_id":"m1","event_time_ms":%d}' % far,
        json.dumps(whole | {"action": "sing"}).encode(),
        json.dumps(whole | {"engagement_id": None}).encode(),
        json.dumps({**json.loads(application(1, far)), "features": {"per_job": [1]}}).encode(),
        json.dumps({**json.loads(application(1, far)), "features": {"per_job": "x"}}).encode(),
    ]
    for place in (399, 300, 50):
        lines[place:place] = [(raw, far) for raw in bad * 3]
    found = clocks(lines)
    assert max(found) <= times[-1] - LABELS.allowed_lateness_ms
    survey = Survey(LABELS)
    for index, (raw, time_ms) in enumerate(lines):
        survey.note(index, raw, time_ms)
    assert survey.topics == {APPLICATIONS}
    assert survey.latest_ms == times[-1]
    survey.note(0, clock(far), far)
    survey.note(0, engagement(1, HOUR0), HOUR0)
    assert survey.topics == {APPLICATIONS, ENGAGEMENTS}
    assert (survey.latest_ms, survey.latest_clock_ms) == (times[-1], far)
