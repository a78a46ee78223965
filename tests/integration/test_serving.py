"""Worker and service on a real Kafka: what was committed is served, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer

from stream.events.partitioner import partition_of
from stream.events.records import COEFFICIENTS
from stream.events.structs import Coefficients
from stream.events.wire import coefficients_key, decode_coefficients, encode
from stream.serving import Candidate, CandidateFeatures, Client, ScoreQuestion
from stream.serving.belief import Belief, mean_score
from tests.integration.services import Service, wait
from tests.integration.world import PARTITIONS, Market, World


@pytest.fixture
def held() -> list[Producer]:
    """Producers that are kept: one that is collected would end its transaction."""
    return []


def differences(client: Client, known: dict[bytes, bytes | None], market: Market) -> list[str]:
    """Compare what is served of 300 pairs with what a consumer computes from the topic."""
    rng = np.random.default_rng(5)
    space = market.model.space
    newest = {key: decode_coefficients(value) for key, value in known.items() if value is not None}
    ids = {
        name: sorted(each.entity_id for each in newest.values() if each.effect == name)
        for name in ("per_member", "per_job")
    }
    candidates, wanted = [], []
    for _ in range(300):
        member, job = (str(rng.choice([*found, "nobody"])) for found in ids.values())
        z = [rng.normal(size=size).tolist() for size in (space.per_member.size, space.per_job.size)]
        features = CandidateFeatures(per_member=z[0], per_job=z[1])
        candidates.append(Candidate(member, job, features, global_score=0.25))
        beliefs = [
            Belief.of(newest.get(coefficients_key(name, entity)), len(numbers), 3.0)
            for name, entity, numbers in zip(ids, (member, job), z, strict=True)
        ]
        wanted.append(mean_score(0.25, (beliefs[0], z[0]), (beliefs[1], z[1])))
    found = client.score(ScoreQuestion(candidates=candidates)).candidates
    assert isinstance(found, list)
    return [
        f"{each.member_id} {each.job_id}: {each.log_odds}, not {score}"
        for each, score in zip(found, wanted, strict=True)
        if abs(each.log_odds - score) > 1e-9
    ]


def test_what_is_committed_is_served(
    small_world: World, start_service: Callable[[str], Service], held: list[Producer]
) -> None:
    """All of a market's coefficients, as the topic has them, through kill -9 and a restart.

    Of a transaction that is open or was aborted nothing is served; a tombstone removes.
    """
    world = small_world
    service = start_service("before")
    worker = world.start("a")
    world.produce("--close")
    world.wait_until_final()
    world.check_learned()
    assert worker.process.poll() is None
    known = world.published()
    assert len(known) > 300
    with Client(service.url) as client:
        wait(lambda: not differences(client, known, world.market))
    service.process.kill()
    service.process.wait()
    again = start_service("again")
    with Client(again.url) as client:
        assert not differences(client, known, world.market)
    again.process.terminate()
    assert again.process.wait(30) == 0
    assert (world.folder / "snapshot").stat().st_mode & 0o777 == 0o600

    key = next(iter(known))
    value = known[key]
    assert value is not None
    true = decode_coefficients(value)
    false = msgspec.structs.replace(true, mean=[99.0] * len(true.mean))
    third = start_service("third")
    with Client(third.url) as client:
        assert not differences(client, known, world.market)
        for outcome in ("open", "aborted", "committed"):
            held.append(_publish(world, key, encode(false), outcome))
            if outcome == "committed":
                wait(lambda: _mean(client, true) == false.mean)
            else:
                time.sleep(2.5)  # more than two questions for the ends of the partitions
                assert _mean(client, true) == true.mean
        held.append(_publish(world, key, None, "committed"))
        wait(lambda: client.entity(true.effect, true.entity_id) is None)
        assert client.score(ScoreQuestion(job_id="j", candidates=[])).degraded == []


def _mean(client: Client, of: Coefficients) -> list[float]:
    found = client.entity(of.effect, of.entity_id)
    assert found is not None
    return list(found.coefficients.values())


def _publish(world: World, key: bytes, value: bytes | None, outcome: str) -> Producer:
    """Write a message in a transaction that is left open, aborted, or committed.

    The next one of the same id ends one that was left open.
    """
    producer = Producer(
        {"bootstrap.servers": world.broker, "transactional.id": "foreign", "log_level": 0}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    topic = world.names.of(COEFFICIENTS)
    producer.produce(topic, value, key, partition_of(key, PARTITIONS))
    producer.flush(10)
    if outcome == "aborted":
        producer.abort_transaction(30)
    elif outcome == "committed":
        producer.commit_transaction(30)
    return producer
