"""A global model rolled in under running partitions: as a replay with the same rolls."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from stream.errors import ConfigError, EventError, StateError
from stream.events.records import COEFFICIENTS
from stream.events.structs import ModelSince
from stream.events.wire import decode_coefficients
from stream.features.blocks import FeatureSpace
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel, new_model, with_prior
from stream.partitions.commands import (
    RollCommand,
    check_roll,
    command_key,
    decode_command,
    encode_command,
)
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.stages.succession import Rolled, StoredModel, check_fits
from stream.state.entities import all_posteriors
from stream.state.store import MemoryStore, Store
from tests.bootstrap.test_split import Sink, taken_over
from tests.kit import Market, TestEvent, application, engagement, parse_policy
from tests.partitions.test_controls import records
from tests.replay.test_single import lines_of

POLICY = parse_policy('[labels]\nwindow = "100ms"\nallowed_lateness = "0ms"\n[effects.per_job]\n')
POLICY = parse_policy(
    "[features]\nhistories = false\n[effects.per_member]\ncoupled = false\n"
    "[effects.per_job]\ncoupled = false\n",
    POLICY,
)
"""Nothing depends on the order in which partitions learn of each other."""

TIME = 500


def made(beta: float) -> GlobalModel:
    """Return a model of the kit's features."""
    return new_model(
        Linear(np.array([beta])),
        {"global": ["g"], "per_member": ["m0", "m1"], "per_job": ["j0"]},
        trained_from_ms=0,
        trained_until_ms=0,
        applications=0,
        positives=0,
    )


OLD, NEW, NEWEST = made(-1.0), made(0.5), made(2.0)


def events(begin: int, end: int, seed: int = 0) -> list[TestEvent]:
    """Return applications without a score between two times, some of them answered or declined."""
    rng = Random(seed)
    found: list[TestEvent] = []
    for time_ms in range(begin, end, 5):
        name, job = f"a{time_ms}", f"j{rng.randrange(4)}"
        member = f"m{rng.randrange(6)}"
        found.append(application(name, time_ms, job=job, member=member, score=None))
        if rng.random() < 0.6:
            action = rng.choice(["message", "reject"])
            at = time_ms + rng.randrange(60)
            found.append(engagement(f"e{time_ms}", name, at, action, job=job, member=member))
    return sorted(found, key=lambda event: event.event_time_ms)


def command(model: GlobalModel, from_ms: int, issued_ms: int) -> RollCommand:
    """Return a command as workers read it."""
    found = decode_command(encode_command(RollCommand(from_ms, issued_ms, StoredModel.of(model))))
    assert isinstance(found, RollCommand)
    return found


def told(market: Market, commands: list[Any], stages: tuple[str, ...] = ("member", "job")) -> None:
    """Let all partitions of some stages obey."""
    for (stage, number), partition in market.partitions.items():
        if stage in stages:
            market.deliver(stage, number, partition.obey(commands, market.now_ms))


def replayed(log: list[TestEvent], *rolls: Rolled) -> Sink:
    """Replay a log with rolls."""
    sink = Sink()
    space = FeatureSpace(("g",), ("m0", "m1"), ("j0",))
    replay(lines_of(log), sink, POLICY, OLD, space, Options(close=True, rolls=rolls))
    return sink


def said(labels: Any) -> set[tuple[Any, ...]]:
    """Return what of labels does not depend on when they were sent."""
    return {
        (
            each.job_id,
            each.application_id,
            each.kind,
            each.model_version,
            each.first_model,
            each.global_score,
        )
        for each in labels
        if each.final or each.kind == "negative_explicit"
    }


def check_learned(market: Market, expected: Sink) -> None:
    """Fail unless all entities have the same examples, and modes to the fit's tolerance."""
    ours, theirs = learned(list(market.stores.values())), learned([expected.store])
    assert ours.keys() == theirs.keys()
    for entity, (mode, examples) in theirs.items():
        assert ours[entity][1] == examples
        assert ours[entity][0] == pytest.approx(mode, abs=1e-6)


def learned(stores: list[Store]) -> dict[tuple[str, str], tuple[list[float], list[Any]]]:
    """Return modes and kept examples of all entities."""
    return {
        (effect, entity_id): (
            np.frombuffer(posterior.mode).tolist(),
            sorted((each.id, each.offset, each.kind) for each in posterior.kept),
        )
        for store in stores
        for effect in ("per_member", "per_job")
        for entity_id, posterior in all_posteriors(store, effect)
    }


@pytest.mark.parametrize("restarted_with", [None, OLD, NEW])
def test_partitions_end_as_a_replay_with_the_same_rolls(restarted_with: GlobalModel | None) -> None:
    """Labels, versions, offsets and coefficients; also restarted, with the old model or the new.

    The job partitions hear of it before the member partitions, to which labels of a model come that
    they have not heard of; commands are repeated, and one comes in the wrong order.
    """
    first, rest = events(0, TIME), events(TIME, 1200, seed=1)
    expected = replayed([*first, *rest], Rolled(NEW, TIME), Rolled(NEWEST, 900), Rolled(OLD, 800))
    market = Market(POLICY, 3, global_model=OLD)
    market.produce(first)
    market.run()
    roll = command(NEW, TIME, 1000)
    told(market, [roll], ("job",))
    half = len(rest) // 3
    market.produce(rest[:half])
    market.run()
    told(market, [command(OLD, 800, 1002), roll, command(NEWEST, 900, 1001)])
    if restarted_with is not None:
        market._model = restarted_with
        for stage, number in market.partitions:
            market.restart(stage, number)
    told(market, [roll])
    market.produce(rest[half:])
    market.clock(5000)
    market.run()
    assert said(market.labels()) == said(expected.labels)
    versions = {each.model_version for each in expected.labels}
    assert versions == {OLD.version, NEW.version}
    check_learned(market, expected)
    for message in market.sent:
        if message.topic == COEFFICIENTS and message.value is not None:
            found = decode_coefficients(message.value)
            if found.effect == "per_job" and found.event_time_ms < 800:  # the jobs had heard of it
                version = OLD.version if found.event_time_ms < TIME else NEW.version
                assert found.model_version == version
    assert {dead.topic for dead in market.sent} & {"dead-letters"} == set()
    for control in records(market).values():
        assert control.models == [
            ModelSince(OLD.version, 0),
            ModelSince(NEW.version, TIME),
            ModelSince(OLD.version, 800),
        ]


def test_a_crash_anywhere_leaves_all_of_a_roll_or_nothing() -> None:
    """A partition that dies before its unit of work is flushed obeys again, once."""
    first, rest = events(0, TIME), events(TIME, 800, seed=2)
    expected = replayed([*first, *rest], Rolled(NEW, TIME))
    market = Market(POLICY, 2, global_model=OLD)
    market.produce(first)
    market.run()
    for stage, number in list(market.partitions):
        units = market.partitions[stage, number].obey([command(NEW, TIME, 7)], market.now_ms)
        market.deliver(stage, number, units, flush=False)
        market.restart(stage, number)
        assert len(market.partitions[stage, number].learning.succession.rolls) == 1
    told(market, [command(NEW, TIME, 7)])
    market.produce(rest)
    market.clock(5000)
    market.run()
    told(market, [command(NEW, TIME, 7)])
    for partition in market.partitions.values():
        assert len(partition.learning.succession.rolls) == 2
    assert said(market.labels()) == said(expected.labels)
    check_learned(market, expected)


def test_what_was_scored_before_the_command_stays() -> None:
    """A time that has passed: only what is read later is scored by the new model."""
    market = Market(POLICY, 1, global_model=OLD)
    market.produce([application("a", 600, score=None)])
    market.run()
    told(market, [command(NEW, TIME, 7)])
    market.produce([application("b", 600, score=None)])
    market.clock(5000)
    market.run()
    found = {each.application_id: each.model_version for each in market.labels()}
    assert found == {"a": OLD.version, "b": NEW.version}


def test_a_rolled_replay_goes_on_live() -> None:
    """Bootstrapped from a replay with rolls, partitions know its models, and end as one replay."""
    log = events(0, 900, seed=3)
    at = next(k for k, event in enumerate(log) if event.event_time_ms >= 550)
    expected = replayed(log, Rolled(NEW, TIME))
    history = Sink()
    space = FeatureSpace(("g",), ("m0", "m1"), ("j0",))
    options = Options(rolls=(Rolled(NEW, TIME),))
    replay(lines_of(log[:at]), history, POLICY, OLD, space, options)
    market = Market(POLICY, 3, global_model=OLD)
    for place in market.stores:
        market.stores[place] = MemoryStore()
    taken_over(history, market)
    market.produce(log[at:])
    market.clock(5000)
    market.run()
    labels = [*history.labels, *market.labels()]
    assert said(labels) == said(expected.labels)
    check_learned(market, expected)


def test_a_prior_that_a_rolled_model_brings_is_refused() -> None:
    """λ stays: a restart with the new model must not bring another one in silence."""
    market = Market(POLICY, 1, global_model=OLD)
    market.produce(events(0, 50))
    market.run()
    brings = with_prior(NEW, 30.0)
    told(market, [command(brings, TIME, 7)])
    market._model = brings
    market.restart("job", 0)  # with a policy that has the state's λ
    market.policy = parse_policy("[effects.per_job]\nprior_precision = 30\n", POLICY)
    with pytest.raises(StateError, match="brings prior_precision = 30 for per_job"):
        market.restart("job", 0)
    market._model = NEWEST
    with pytest.raises(StateError, match="was learned with model"):
        market.restart("job", 0)


def test_the_command_comes_back_and_damage_is_refused() -> None:
    """Each roll has a key of its own; damage is nobody's command; a large model is refused."""
    roll = RollCommand(TIME, 17, StoredModel.of(NEW))
    assert decode_command(encode_command(roll)) == roll
    assert command_key(roll) == b"roll:17"
    other = msgspec.structs.replace(roll, model=StoredModel(NEW.manifest, OLD_ARRAYS))
    with pytest.raises(EventError, match="its arrays have another checksum"):
        decode_command(encode_command(other))
    broken = msgspec.structs.replace(roll, model=StoredModel(NEW.manifest, b"no zlib"))
    with pytest.raises(EventError, match="is damaged"):
        decode_command(encode_command(broken))
    rng = np.random.default_rng(1)
    names = [f"g{k}" for k in range(100_000)]
    large = new_model(
        Linear(rng.normal(size=100_000)),
        {"global": names, "per_member": ["m"], "per_job": ["j"]},
        trained_from_ms=0,
        trained_until_ms=0,
        applications=0,
        positives=0,
    )
    with pytest.raises(ConfigError, match="takes a cut-over"):
        check_roll(large, large, POLICY)
    check_fits(large, large, POLICY)
    check_roll(NEW, OLD, POLICY)


OLD_ARRAYS = StoredModel.of(OLD).arrays
