"""Read records: up to where a partition has read its topics."""

from __future__ import annotations

from stream.events.records import (
    APPLICATIONS,
    APPLICATIONS_BY_JOB,
    COEFFICIENTS,
    ENGAGEMENTS,
    LABELS,
    Read,
)
from stream.events.structs import Watermark
from stream.events.wire import decode_coefficients, encode
from stream.partitions.readings import PAUSE_MS
from stream.policy import Policy
from tests.kit import Market, application, engagement


def told(market: Market) -> dict[str, dict[str, int]]:
    """What the newest read records say, by key."""
    found = {}
    for message in market.sent:
        if message.topic == COEFFICIENTS and (message.key or b"").startswith(b"control:read:"):
            record = decode_coefficients(message.value or b"")
            assert record.effect == "control"
            assert f"control:{record.entity_id}".encode() == message.key
            assert record.read
            found[record.entity_id] = record.read
    return found


def test_each_unit_that_moves_a_position_tells_all_positions() -> None:
    """Also where nothing was learned: of both topics of a partition."""
    market = Market(Policy(), 1)
    market.produce([application("a", 10), application("b", 20)])
    market.run()
    both = {"read:member:0": {"applications/0": 2}, "read:job:0": {"applications-by-job/0": 2}}
    assert told(market) == both
    market.produce([engagement("e1", "a", 30, "what"), engagement("e2", "a", 31, "message")])
    for count in (1, 2):
        market.step("job", 0, ENGAGEMENTS, 1)
        read = {"applications-by-job/0": 2, "engagements/0": count}
        assert told(market)["read:job:0"] == read
    market.step("member", 0, LABELS, 9)
    assert told(market)["read:member:0"] == {"applications/0": 2, "labels/0": 1}


def test_what_moves_a_position_alone_is_told_soon() -> None:
    """Bare watermarks and ends of transactions: not each of them, and the last one in any case."""
    market = Market(Policy(), 1)
    market.produce([application("a", 10)])
    market.run()
    sent = len(market.sent)
    for _ in range(4):
        market.append(APPLICATIONS_BY_JOB, 0, None, encode(Watermark(0, 10, idle=False)))
        market.step("job", 0, APPLICATIONS_BY_JOB, 1)
        market.now_ms += PAUSE_MS // 4
        market.tick("job", 0)
    assert len(market.sent) - sent == 1
    market.now_ms += PAUSE_MS
    market.tick("job", 0)
    market.tick("job", 0)
    assert len(market.sent) - sent == 2
    assert told(market)["read:job:0"] == {"applications-by-job/0": 5}
    assert not list(
        market.partitions["member", 0].process([Read(APPLICATIONS, [], 7)], market.now_ms)
    )
    market.now_ms += PAUSE_MS
    market.tick("member", 0)
    assert told(market)["read:member:0"] == {"applications/0": 7}


def test_a_partition_that_is_opened_tells_where_it_stands() -> None:
    """Once, though nothing comes: what was told before may be gone, or be of another release."""
    market = Market(Policy(), 2)
    market.produce([application("a", 10), engagement("e", "a", 30, "message")])
    market.run()
    known, sent = told(market), len(market.sent)
    for stage, number in market.partitions:
        market.restart(stage, number)
        for _ in range(3):
            market.now_ms += PAUSE_MS
            market.tick(stage, number)
    again = market.sent[sent:]
    market.sent = again
    assert told(market) == known
    assert sum(message.topic == COEFFICIENTS for message in again) == len(known)
