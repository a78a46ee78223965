"""A gate that is shut holds back coefficients, never their end."""

from __future__ import annotations

import msgspec

from stream.events import wire
from stream.events.records import APPLICATIONS, COEFFICIENTS, ENGAGEMENTS
from stream.events.structs import Forget
from stream.partitions.commands import GateCommand
from stream.policy import EffectSettings, LabelPolicy, Policy
from stream.state import keys
from tests.kit import Market, TestEvent, application, engagement

W = 1_000
TTL = 4 * W
LABELS = LabelPolicy(window_ms=W, clock_skew_ms=0, allowed_lateness_ms=0, orphan_ttl_ms=W)
KEEPING = Policy(labels=LABELS)
LEAVING = Policy(
    labels=LABELS,
    effects={
        "per_member": EffectSettings(entity_ttl_ms=TTL),
        "per_job": EffectSettings(entity_ttl_ms=TTL),
    },
)


def shut(market: Market, stage: str = "member") -> None:
    """Shut a gate, as a worker finds it in its state."""
    judged = msgspec.msgpack.encode([{}, ["final", 0, 0, -1, 1], 0])
    market.stores[stage, 0].write({keys.own("judged"): judged})
    market.restart(stage, 0)
    assert not market.partitions[stage, 0].judged.gate.open


def answered(number: int, time_ms: int, member: str) -> list[TestEvent]:
    """Return an application of a member, and its answer."""
    name = f"a{number}"
    return [
        application(name, time_ms, member=member),
        engagement(f"e{number}", name, time_ms + 1, member=member),
    ]


def ask_to_forget(market: Market, member: str, until_ms: int) -> None:
    """Let the worker read the record that ``hearback forget`` writes."""
    record = wire.encode(Forget(member_id=member, event_time_ms=until_ms))
    market.append(APPLICATIONS, 0, member.encode(), record)


def sent(market: Market, entity_id: str) -> list[bool]:
    """Return what was published of an entity, in order: True: coefficients, False: a tombstone."""
    return [
        message.value is not None
        for message in market.sent
        if message.topic == COEFFICIENTS and (message.key or b"").endswith(f":{entity_id}".encode())
    ]


def held(market: Market) -> int:
    """How many members wait."""
    return market.partitions["member", 0].judged.held


def open_by_hand(market: Market, stage: str = "member") -> None:
    """Obey ``hearback gate open``, and publish."""
    partition = market.partitions[stage, 0]
    command = GateCommand(partition.learning.effect.name, None, 1)
    market.deliver(stage, 0, partition.obey([command], market.now_ms))
    market.run()


def test_who_is_forgotten_is_gone_though_the_gate_is_shut() -> None:
    """The tombstone goes out at once; nothing waits, nothing comes when the gate opens."""
    market = Market(KEEPING, 1)
    market.produce([*answered(1, 10_000, "m"), *answered(2, 10_100, "n")])
    market.run()
    shut(market)
    market.produce([*answered(3, 10_200, "m"), *answered(4, 10_300, "n")])
    market.run()
    assert sent(market, "m") == [True]
    assert held(market) == 2
    ask_to_forget(market, "m", 10_500)
    market.run()
    assert sent(market, "m") == [True, False]
    assert held(market) == 1
    census = market.partitions["member", 0].learning.census
    assert census.counts.entities == 1
    assert market.partitions["member", 0].removed == {"forget": 1}
    open_by_hand(market)
    assert (sent(market, "m"), sent(market, "n")) == ([True, False], [True, True])


def test_who_comes_back_at_once_is_gone_for_readers_until_the_gate_opens() -> None:
    """Forgotten and learned of again in one unit of work: the tombstone goes, what is new waits."""
    market = Market(KEEPING, 1)
    market.produce(answered(1, 10_000, "m"))
    market.run()
    shut(market, "job")
    market.produce([application("a2", 10_100, member="n")])
    market.run()
    forget = wire.encode(Forget(job_id="j", event_time_ms=10_050))
    market.append(ENGAGEMENTS, 0, b"j", forget)
    market.produce([engagement("e2", "a2", 10_101, member="n")])
    assert market.step("job", 0, ENGAGEMENTS, 10) == 2
    assert sent(market, "j") == [True, False]
    partition = market.partitions["job", 0]
    assert (partition.judged.held, partition.learning.census.counts.entities) == (1, 1)
    open_by_hand(market, "job")
    assert sent(market, "j") == [True, False, True]


def test_who_is_quiet_leaves_though_the_gate_is_shut() -> None:
    """By ``entity_ttl`` likewise; who left is no longer counted."""
    market = Market(LEAVING, 1)
    market.produce([*answered(1, 10_000, "old"), *answered(2, 12_000, "young")])
    market.run()
    shut(market)
    market.clock(10_000 + TTL + 1)
    market.run()
    partition = market.partitions["member", 0]
    assert (sent(market, "old"), sent(market, "young")) == ([True, False], [True])
    assert (held(market), partition.learning.census.counts.entities) == (0, 1)
    assert partition.removed == {"entity_ttl": 1}
    market.restart("member", 0)
    assert market.partitions["member", 0].learning.census.counts.entities == 1


def test_what_waits_is_published_beside_a_label_that_says_nothing_new() -> None:
    """A repeat in the unit of work that opens does not count as published."""
    market = Market(KEEPING, 1)
    market.produce(answered(1, 10_000, "m"))
    market.run()
    shut(market)
    market.produce(answered(2, 10_100, "m"))
    market.run()
    assert (sent(market, "m"), held(market)) == ([True], 1)
    (again,) = [record for record in market.topics["labels", 0] if b'"a1"' in (record.value or b"")]
    market.append("labels", 0, again.key, again.value)
    partition = market.partitions["member", 0]
    assert partition.judged.open_by_hand(1, None)
    market.step("member", 0, "labels", 10)
    assert sent(market, "m") == [True, True]
    assert held(market) == 0
