"""A market whose labels turn to noise for some days: publishing pauses, and goes on by itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from producers.simulate import simulate
from producers.truth import SimulationSettings, draw_truth
from stream.events import wire
from stream.events.records import COEFFICIENTS
from stream.logs.files import merge, write_lines
from stream.model.folder import load_model
from stream.model.training import Trainer
from stream.partitions.base import Partition
from stream.partitions.commands import GateCommand
from stream.policy import DAY_MS, EffectSettings, GateSettings, Policy
from stream.quality.judged import JudgedScores
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from tests.kit import Market

SETTINGS = SimulationSettings(
    seed=5,
    members=60,
    jobs=110,
    days=48,
    applications_per_member=55.0,
    precision_member=0.3,
    precision_job=0.5,
    reject_share=0.6,
)
NOISE_DAYS = range(20, 28)
EFFECT = EffectSettings(prior_precision=0.5)
POLICY = Policy(
    gate=GateSettings(applications=300), effects={"per_member": EFFECT, "per_job": EFFECT}
)


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """Return a market's log."""
    return list(simulate(SETTINGS))


@pytest.fixture
def market(lines: list[bytes], tmp_path: Path) -> Market:
    """One partition of either stage, with a global model of the first weeks."""
    write_lines(tmp_path / "log.jsonl", lines)
    until_ms = SETTINGS.start_ms + 24 * DAY_MS
    trainer = Trainer(POLICY, until_ms, draw_truth(SETTINGS).feature_names)
    trainer.read(merge([tmp_path / "log.jsonl"]), lambda _: None)
    trainer.fit(tmp_path / "model")
    made = Market(POLICY, 1, global_model=load_model(tmp_path / "model"))
    made.now_ms = SETTINGS.start_ms + 100 * DAY_MS
    return made


def with_noise(lines: list[bytes]) -> Iterator[tuple[int, bytes]]:
    """Give day and line; while there is noise, recruiters' actions are coins."""
    coin = random.Random(1)
    for line in lines:
        event = msgspec.json.decode(line)
        day = (event["event_time_ms"] - SETTINGS.start_ms) // DAY_MS
        if event["type"] == "engagement" and day in NOISE_DAYS:
            event["action"] = coin.choice(["message", "reject"])
            yield day, msgspec.json.encode(event)
        else:
            yield day, line


def play(market: Market, line: bytes) -> None:
    """Let an event reach everybody."""
    event = msgspec.json.decode(line)
    application = event["type"] == "application"
    topic = "applications" if application else "engagements"
    key = str(event["member_id" if application else "job_id"]).encode()
    market.append(topic, 0, key, line)
    for (stage, number), partition in market.partitions.items():
        for each in partition.topics:
            market.step(stage, number, each, 50)


def published(market: Market, effect: str) -> dict[str, bytes]:
    """Return the newest coefficients of each entity, as a reader of the topic keeps them."""
    return {
        (message.key or b"").decode(): message.value
        for message in market.sent
        if message.topic == COEFFICIENTS
        and (message.key or b"").startswith(effect.encode())
        and message.value is not None
    }


def test_noise_pauses_and_its_end_opens(market: Market, lines: list[bytes]) -> None:
    """Open while labels mean something; paused by noise; open again, and nothing is missing."""
    paused_on: dict[str, int] = {}
    opened_on: dict[str, int] = {}
    sent_while_paused = 0
    restarted = False
    for day, line in with_noise(lines):
        before = len(market.sent)
        was_paused = not market.partitions["member", 0].judged.gate.open
        play(market, line)
        for stage in ("member", "job"):
            gate = market.partitions[stage, 0].judged.gate
            if not gate.open:
                paused_on.setdefault(stage, day)
            elif stage in paused_on:
                opened_on.setdefault(stage, day)
        member = market.partitions["member", 0]
        if was_paused and not member.judged.gate.open:
            sent_while_paused += sum(
                message.topic == COEFFICIENTS and (message.key or b"").startswith(b"per_member")
                for message in market.sent[before:]
            )
            if not restarted and member.judged.held > 5:
                held, gate = member.judged.held, member.judged.gate
                market.restart("member", 0)  # the gate is part of the state
                again = market.partitions["member", 0].judged
                assert (again.held, again.gate) == (held, gate)
                restarted = True
    assert restarted
    assert sent_while_paused == 0
    assert min(paused_on.values()) > NOISE_DAYS.start
    assert set(paused_on) == {"member", "job"}
    assert NOISE_DAYS.stop < opened_on["member"]
    finish(market, market.partitions["member", 0])
    assert_published(market, "member")
    # The job's gate stays shut to the end of the log: it is opened by hand.
    job = market.partitions["job", 0]
    assert not is_open(job)
    assert job.judged.held > 0
    others = [GateCommand("per_member", None, 7), GateCommand("per_job", 5, 7)]
    market.deliver("job", 0, job.obey(others, market.now_ms))
    assert not is_open(job)
    command = GateCommand("per_job", None, 7)
    market.deliver("job", 0, job.obey([command], market.now_ms))
    assert is_open(job)
    before = len(market.sent)
    market.deliver("job", 0, job.obey([command], market.now_ms))
    assert len(market.sent) == before  # once
    finish(market, job)
    assert_published(market, "job")


def is_open(partition: Partition) -> bool:
    """Whether a partition publishes."""
    return partition.judged.gate.open


def finish(market: Market, partition: Partition) -> None:
    """Let a partition publish what was held back."""
    while partition.judged.held:
        before = partition.judged.held
        market.tick(partition.stage, partition.number)
        assert partition.judged.held < before


def assert_published(market: Market, stage: str) -> None:
    """What was published last of each entity is what the state says, with a history as of then."""
    partition = market.partitions[stage, 0]
    found = published(market, partition.learning.effect.name)
    assert len(found) > 50
    for key, value in found.items():
        entity_id = key.split(":", 1)[1]
        coefficients = partition.learning.effect.coefficients(entity_id)
        assert coefficients is not None
        told = wire.decode_coefficients(value)
        assert told.history
        told = msgspec.structs.replace(told, history=msgspec.UNSET)
        assert wire.encode(told) == wire.encode(coefficients)


@pytest.mark.parametrize("enabled", [True, False])
def test_switched_off_it_never_pauses(market: Market, lines: list[bytes], *, enabled: bool) -> None:
    """``enabled = false``: quality is judged, everything is published whatever it is."""
    policy = Policy(gate=GateSettings(applications=300, enabled=enabled))
    judged = JudgedScores(Overlay(MemoryStore()), policy, "per_member")
    for line in lines[:1500]:
        play(market, line)
    coin = random.Random(2)
    for label in market.labels():
        judged.observe(msgspec.structs.replace(label, member_score=coin.gauss(0.0, 3.0)))
    judged.judge(SETTINGS.start_ms + 25 * DAY_MS)
    assert judged.newest("early").applications >= 300
    assert judged.gate.open is not enabled
