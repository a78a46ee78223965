"""Read records: up to where a partition has read what it learns of."""

from __future__ import annotations

from stream.events.records import COEFFICIENTS, ENGAGEMENTS, LABELS
from stream.events.wire import decode_coefficients
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


def test_each_unit_that_moves_the_position_tells_it() -> None:
    """Also where nothing was learned; applications alone tell nothing, and a restart tells it anew.

    A job partition tells of engagements, a member partition of labels.
    """
    market = Market(Policy(), 1)
    market.produce([application("a", 10), application("b", 20)])
    market.run()
    assert told(market) == {}
    market.produce([engagement("e1", "a", 30, "what"), engagement("e2", "a", 31, "message")])
    market.step("job", 0, ENGAGEMENTS, 1)
    assert told(market) == {"read:job:0": {"engagements/0": 1}}
    market.step("job", 0, ENGAGEMENTS, 1)
    assert told(market) == {"read:job:0": {"engagements/0": 2}}
    market.step("member", 0, LABELS, 9)
    assert told(market)["read:member:0"] == {"labels/0": 1}
    sent = len(market.sent)
    market.restart("job", 0)
    market.produce([application("c", 40)])
    market.run()
    again = {message.key for message in market.sent[sent:] if message.topic == COEFFICIENTS}
    assert again == {b"control:read:job:0"}
