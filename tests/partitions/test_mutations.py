"""Malformed, mutated and forged messages: the labels of all other events stay what they are."""

from __future__ import annotations

import random

import msgspec
import pytest

from stream.errors import EventError
from stream.events import wire
from stream.events.records import APPLICATIONS, APPLICATIONS_BY_JOB, ENGAGEMENTS
from stream.events.structs import Clock, Watermark
from stream.policy import DAY_MS, Policy
from tests import kit, oracle
from tests.kit import Market, TestEvent, application, engagement, last_labels

PARTITIONS = 3
BEGIN = kit.NOW_MS - 150 * DAY_MS
SPAN = 60 * DAY_MS
POLICY = Policy()
WINDOW = POLICY.labels.window_ms
TOPICS = (APPLICATIONS, ENGAGEMENTS, APPLICATIONS_BY_JOB)


def events_of(draw: random.Random) -> list[TestEvent]:
    """A market of two months, in order."""
    found: list[TestEvent] = []
    for number in range(80):
        job = f"j{number % 5}"
        applied = application(
            f"a{number}", BEGIN + draw.randrange(SPAN), job=job, member=f"m{number % 11}"
        )
        found.append(applied)
        if draw.random() < 0.6:
            answered_ms = applied.event_time_ms + draw.randrange(2 * WINDOW)
            found.append(
                engagement(
                    f"e{number}", f"a{number}", answered_ms, job=job, member=applied.member_id
                )
            )
    return sorted(found, key=lambda event: event.event_time_ms)


def mutated(draw: random.Random, value: bytes) -> bytes:
    """Cut, flip or replace a few bytes."""
    raw = bytearray(value)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(raw))
        match draw.randrange(3):
            case 0:
                raw[at] ^= 1 << draw.randrange(8)
            case 1:
                del raw[at:]
            case _:
                raw[at : at + draw.randrange(8)] = b"-9"[: draw.randint(0, 2)]
        if not raw:
            return b"{"
    return bytes(raw)


def is_refused(topic: str, value: bytes) -> bool:
    """Whether nobody could take it for something else that was meant."""
    try:
        if topic == APPLICATIONS_BY_JOB:
            wire.decode_by_job(value, kit.SPACE)
        else:
            wire.decode_event(value, kit.SPACE)
    except EventError:
        return True
    return False


def forged_mark(draw: random.Random) -> bytes:
    """A bare watermark that is years off, or of nobody."""
    mark = draw.choice([kit.NOW_MS, kit.NOW_MS * 2, 10**15, 0, -1, BEGIN - 900 * DAY_MS, None])
    return wire.encode(
        Watermark(draw.randrange(PARTITIONS + 2), mark, draw.random() < 0.2 and mark is not None)
    )


def moved(draw: random.Random, value: bytes) -> bytes:
    """Another member partition's, or with its mark years off: what an application was sent as."""
    message = msgspec.json.decode(value)
    if draw.random() < 0.5:
        message["partition"] = (message["partition"] + 1) % PARTITIONS
    else:
        message["watermark_ms"] = draw.choice([kit.NOW_MS, 10**14, 0, -(10**12)])
    return msgspec.json.encode(message)


def spoil(draw: random.Random, market: Market) -> None:
    """Write one thing that no well-formed event is meant by."""
    topic, number = draw.choice(TOPICS), draw.randrange(PARTITIONS)
    log = market.topics[topic, number]
    kind = draw.randrange(4)
    if topic == APPLICATIONS_BY_JOB and kind == 0:
        market.append(topic, number, None, forged_mark(draw))
        return
    if topic == APPLICATIONS_BY_JOB and kind == 1:
        sent = [each for each in market.sent if each.topic == topic and each.key is not None]
        if sent:
            message = draw.choice(sent)
            assert message.partition is not None
            value = moved(draw, message.value or b"")
            market.append(topic, message.partition, message.key, value)
        return
    if topic != APPLICATIONS_BY_JOB and kind == 0:
        far_ms = kit.NOW_MS - draw.randrange(DAY_MS)
        name = f"far{draw.random()}"
        market.produce(
            [
                application(name, far_ms, job="far")
                if topic == APPLICATIONS
                else engagement(name, name, far_ms, job=f"far{draw.randrange(9)}")
            ]
        )
        return
    record = draw.choice(log)
    value = mutated(draw, record.value or b"")
    if is_refused(topic, value):
        market.append(topic, number, record.key, value)


@pytest.mark.parametrize("seed", range(8))
def test_labels_are_those_of_the_well_formed_events(seed: int) -> None:
    """Whatever else is written into the topics between them, in whatever order it is read."""
    draw = random.Random(seed)
    events = events_of(draw)
    market = Market(POLICY, PARTITIONS)
    market.clock(BEGIN)
    market.run()
    for event in events:
        market.produce([event])
        for _ in range(draw.randrange(4)):
            spoil(draw, market)
        market.now_ms += 400
        for stage, number in market.partitions:
            if draw.random() < 0.3:
                topics = market.partitions[stage, number].topics
                market.step(stage, number, draw.choice(topics), draw.randrange(1, 9))
                market.tick(stage, number)
    while market.step("job", 0, ENGAGEMENTS, 1000) + market.step("job", 1, ENGAGEMENTS, 1000):
        pass  # these are far ahead of the others
    market.run()
    end_ms = max(event.event_time_ms for event in events) + WINDOW + DAY_MS
    for topic in (APPLICATIONS, ENGAGEMENTS):
        for number in range(PARTITIONS):
            market.append(topic, number, None, wire.encode(Clock(end_ms, sure=True)))
    market.run()
    found = {
        key: label for key, label in last_labels(market.labels()).items() if key[0][:3] != "far"
    }
    assert found == oracle.verdicts(events, window_ms=WINDOW, watermark_ms=end_ms)
    spoilt = sum(sum(each.dead_letters.values()) for each in market.partitions.values())
    assert spoilt > 40
