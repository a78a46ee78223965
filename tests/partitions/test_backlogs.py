"""Whole partitions over random markets: after outages, stops, backlogs, labels are the oracle's."""

from __future__ import annotations

import random

import pytest

from stream.events import wire
from stream.events.partitioner import partition_of
from stream.events.records import APPLICATIONS, ENGAGEMENTS
from stream.events.structs import Clock
from stream.policy import LabelPolicy, Policy
from tests import kit, oracle
from tests.kit import TestEvent, application, engagement, last_labels
from tests.partitions.test_event_time import (
    BEGIN,
    DAY,
    IDLE_TIMEOUT,
    LATENESS,
    MINUTE,
    ORPHAN_TTL,
    SPAN,
    WINDOW,
    Event,
    random_market,
)

POLICY = Policy(
    labels=LabelPolicy(
        window_ms=WINDOW,
        allowed_lateness_ms=LATENESS,
        orphan_ttl_ms=ORPHAN_TTL,
    )
)
LOOK = 20 * MINUTE
JOBS = 7


class World(kit.Market):
    """Partitions that read a market as it is written."""

    def __init__(self, count: int) -> None:
        super().__init__(POLICY, count, idle_timeout_ms=IDLE_TIMEOUT)
        self.now_ms = BEGIN
        self.written = 0
        self.events: list[TestEvent] = []
        self.members: list[str] = []
        number = 0
        while len(self.members) < count:
            number += 1
            if partition_of(f"m{number}".encode(), count) == len(self.members):
                self.members.append(f"m{number}")

    def write(self, event: Event, member: str, *, answer: bool) -> None:
        """Write an application, or its engagement."""
        name, job = f"a{event.id}", f"j{event.id % JOBS}"
        made: TestEvent
        if answer:
            made = engagement(f"e{event.id}", name, event.time_ms, job=job, member=member)
            self.written += 1
        else:
            made = application(name, event.time_ms, job=job, member=member)
        self.events.append(made)
        self.produce([made])

    def tick(self, stage: str, number: int) -> None:
        """Look at a partition that has read everything."""
        partition = self.partitions[stage, number]
        partition.clock.observe_end(self.now_ms, at_end=True, written=self.written)
        self.deliver(stage, number, partition.tick(self.now_ms, self.now_ms, self.written))

    def look(self, away: set[int]) -> None:
        """Read what is there; ``away``: member partitions that nobody works on."""
        for (stage, number), partition in self.partitions.items():
            if stage == "member" and number in away:
                partition.clock.observe_end(self.now_ms, at_end=None, written=None)
                continue
            for topic in partition.topics:
                while self.step(stage, number, topic, 1000):
                    pass
            self.tick(stage, number)


@pytest.mark.parametrize("seed", range(2))
def test_labels_are_the_oracle_s_whatever_stopped_meanwhile(seed: int) -> None:
    """Sparse and unused partitions, outages, stops, no owner, backlogs: nothing is lost."""
    draw = random.Random(5000 + seed)
    market = random_market(draw)
    while market.partitions > 3 or len(market.applications) > 300:
        market = random_market(draw)
    world = World(market.partitions)
    members = {event.id: world.members[event.partition] for event in market.applications}
    waiting = sorted(
        [(event, False) for event in market.applications]
        + [(event, True) for event in market.engagements],
        key=lambda pair: pair[0].written_ms,
    )
    last_ms = max(waiting[-1][0].written_ms, BEGIN + SPAN) + DAY // 4
    at = 0
    stopped = False
    for now_ms in range(BEGIN, last_ms, LOOK):
        world.now_ms = now_ms
        while at < len(waiting) and waiting[at][0].written_ms <= now_ms:
            event, answer = waiting[at]
            world.write(event, members[event.id], answer=answer)
            at += 1
        if any(begin <= now_ms < end for begin, end in market.stops):
            stopped = True
            continue
        if stopped:
            stopped = False
            for stage, number in list(world.partitions):
                world.restart(stage, number)
        world.look({n for n, (begin, end) in market.orphaned.items() if begin <= now_ms < end})
    end_ms = max(event.event_time_ms for event in world.events) + WINDOW + DAY
    world.now_ms = end_ms + DAY
    for topic in (APPLICATIONS, ENGAGEMENTS):
        for number in range(world.count):
            world.append(topic, number, None, wire.encode(Clock(end_ms, sure=True)))
    world.run()
    assert at == len(waiting)
    wanted = oracle.verdicts(world.events, window_ms=WINDOW, watermark_ms=end_ms)
    assert last_labels(world.labels()) == wanted
    for partition in world.partitions.values():
        assert not partition.dead_letters
