"""Worker and service on a real Kafka: what was committed is served, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer

from stream.events.applicants import decode_applicant
from stream.events.partitioner import partition_of
from stream.events.records import APPLICATIONS, COEFFICIENTS, ENGAGEMENTS, LABELS
from stream.events.structs import Coefficients
from stream.events.wire import coefficients_key, decode_coefficients, encode
from stream.logs.files import merge
from stream.policy import DAY_MS
from stream.serving import (
    Candidate,
    CandidateFeatures,
    Client,
    RankQuestion,
    ScoreQuestion,
    ServiceError,
    position_of,
)
from stream.serving.belief import Belief, mean_score
from stream.serving.messages import Parts
from tests.integration.services import Service, wait
from tests.integration.workers import hearback
from tests.integration.world import PARTITIONS, Market, World

_T = TypeVar("_T")


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
    third.process.kill()  # its snapshot is older than the tombstone
    third.process.wait()
    with Client(start_service("fourth").url) as client:
        assert client.entity(true.effect, true.entity_id) is None
        others = {each: value for each, value in known.items() if each != key}
        assert not differences(client, others, world.market)


Ranked = list[tuple[str, float]]
"""Applications and log-odds, the best first."""


def ranked_by_topics(world: World, as_of_ms: dict[str, int]) -> dict[str, Ranked]:
    """Rank the open applicants of jobs by what three topics say; ``as_of_ms`` by job."""
    window_ms = world.market.policy.labels.window_ms
    known = {
        key: decode_coefficients(value)
        for key, value in world.published().items()
        if value is not None
    }
    labels = [msgspec.json.decode(message.value() or b"") for message in world.all_of(LABELS)]
    decided = {
        (label["job_id"], label["application_id"])
        for label in labels
        if label["kind"] in {"positive", "negative_explicit"}
    }
    found: dict[str, list[tuple[float, str, str]]] = {job_id: [] for job_id in as_of_ms}
    for ids, values in world.applicants().items():
        job_id, name = ids
        value = values[-1]
        if job_id not in found or value is None or ids in decided:
            continue
        app = decode_applicant(value)
        if app.application_time_ms < as_of_ms[job_id] - window_ms:
            continue
        score = mean_score(
            app.global_score,
            *(
                (Belief.of(known.get(coefficients_key(effect, entity)), len(z), 3.0), z)
                for effect, entity, z in (
                    ("per_member", app.member_id, app.features.per_member),
                    ("per_job", job_id, app.features.per_job),
                )
            ),
        )
        found[job_id].append((-score, app.member_id, name))
    return {
        job_id: [(name, -score) for score, _, name in sorted(each)]
        for job_id, each in found.items()
    }


def test_open_applicants_are_ranked_as_the_topics_have_them(
    small_world: World, start_service: Callable[[str], Service]
) -> None:
    """Through kill -9 of worker and service, and from a snapshot; the forgotten are in no list."""
    world = small_world
    worker = world.start("a")
    world.produce("--until", world.market.start_ms + 12 * DAY_MS)
    worker.kill()
    world.start("a")
    wait(lambda: world.committed_share() == 1.0)
    service = start_service("before")

    def differ(client: Client, job_ids: list[str]) -> list[str]:
        told = {job_id: client.applicants(job_id, top=1000) for job_id in job_ids}
        wanted = ranked_by_topics(world, {job_id: each.as_of_ms for job_id, each in told.items()})
        return [
            job_id
            for job_id, answer in told.items()
            if [each.application_id for each in answer.applicants]
            != [name for name, _ in wanted[job_id]]
            or any(
                abs(each.log_odds - score) > 1e-9
                for each, (_, score) in zip(answer.applicants, wanted[job_id], strict=True)
            )
        ]

    with Client(service.url) as client:
        jobs = [each.job_id for each in client.jobs(limit=2).jobs]
        wait(lambda: not differ(client, jobs))
        first = client.applicants(jobs[0]).applicants[0]
        done = hearback("forget", "member", first.member_id, "--broker", world.broker)
        assert done.returncode == 0, done.stderr
        wait(lambda: client.applicant(jobs[0], first.application_id) is None)
    service.process.kill()
    service.process.wait()
    for name in ("again", "from a snapshot"):
        service = start_service(name)
        with Client(service.url) as client:
            wait(lambda: not differ(client, jobs))
            assert client.applicant(jobs[0], first.application_id) is None
            assert client.applicants(jobs[0]).of > 3
        service.process.terminate()
        assert service.process.wait(30) == 0


def test_a_recruiter_who_rejects_somebody_sees_the_list_change(
    small_world: World, start_service: Callable[[str], Service]
) -> None:
    """Whoever asks with the position of what he has written gets a list that has it.

    The list changes with the first answer, whenever that is asked for, and so it has an application
    that was written; a position that is not written yet is not waited for longer than a second, and
    one that cannot be not at all.
    """
    world = small_world
    world.start("a")
    world.produce(log=world.market.parts(2)[0])
    service = start_service("service")
    lines = [msgspec.json.decode(line.raw) for line in merge([world.market.log])]
    like = next(line for line in lines if line["type"] == "application")
    time_ms = max(line["event_time_ms"] for line in lines)
    like |= {"member_id": "m-rejected", "job_id": "j-picky"}
    for name in ("a1", "a2"):
        written(world, "m-rejected", like | {"application_id": name, "event_time_ms": time_ms})
    about = {"type": "engagement", "member_id": "m-rejected", "job_id": "j-picky"}
    about |= {"event_time_ms": time_ms + 1000}
    answer = about | {"engagement_id": "e2", "application_id": "a2", "action": "message"}
    first = written(world, "j-picky", answer)
    wait(lambda: known_label(world, b'"a2"'))  # then "a1", which was sent before it, is known too
    question = RankQuestion(
        job_id="j-picky",
        candidates=[Candidate("m-rejected", features=CandidateFeatures(**blocks(like)))],
    )
    with Client(service.url, timeout_s=30.0) as client:
        before = answered(client, question, first)
        reject = about | {"engagement_id": "e1", "application_id": "a1", "action": "reject"}
        position = written(world, "j-picky", reject)
        parts = answered(client, question, position)
        assert parts.job < before.job
        assert parts.member < before.member
        for transactional in (False, True):
            name = f"a-{transactional}"
            new = like | {"application_id": name, "event_time_ms": time_ms}
            position = written(world, "m-rejected", new, transactional=transactional)
            assert client.applicant("j-picky", name) is None
            listed = asked(lambda after: client.applicants("j-picky", after=after), position)
            assert name in {each.application_id for each in listed.applicants}
            reject |= {"engagement_id": f"e-{name}", "application_id": name}
            both = f"{written(world, 'j-picky', reject)},{position}"
            listed = asked(lambda after: client.applicants("j-picky", after=after), both)
            assert name not in {each.application_id for each in listed.applicants}
        topic, _, offset = position.rpartition(":")
        for after, status, why in (
            (f"{topic}:{int(offset) + 1000}", 412, "not_yet"),
            (f"applications/{world.partitions}:0", 422, "no applications"),
        ):
            with pytest.raises(ServiceError, match=why) as refused:
                client.rank(question, after=after)
            assert refused.value.status == status


def blocks(application: dict[str, Any]) -> dict[str, Any]:
    """Features of an application, by the names that candidates have."""
    features = application["features"]
    return {"global_" if name == "global" else name: row for name, row in features.items()}


def asked(ask: Callable[[str], _T], after: str) -> _T:
    """Ask until the answer has what was written."""
    deadline = time.monotonic() + 60.0
    while True:
        try:
            return ask(after)
        except ServiceError as error:
            if error.problem != "not_yet" or time.monotonic() > deadline:
                raise


def answered(client: Client, question: RankQuestion, after: str) -> Parts:
    """Ask for the one candidate's score until it has what was written."""
    answer = asked(lambda after: client.rank(question, after=after), after)
    assert isinstance(answer.candidates, list)
    return answer.candidates[0].parts


def known_label(world: World, text: bytes) -> bool:
    """Whether a label has been written that has a text in it."""
    for messages in world.reading(LABELS):
        if not messages:
            return False
        if any(text in (message.value() or b"") for message in messages):
            return True
    return False


def written(world: World, key: str, event: dict[str, Any], *, transactional: bool = False) -> str:
    """Write an event, maybe in a transaction; return its position."""
    positions: list[str] = []
    producer = Producer(
        {"bootstrap.servers": world.broker}
        | ({"transactional.id": "writes"} if transactional else {})
    )
    if transactional:
        producer.init_transactions(30)
        producer.begin_transaction()
    topic = APPLICATIONS if event["type"] == "application" else ENGAGEMENTS
    producer.produce(
        topic,
        msgspec.json.encode(event),
        key.encode(),
        partition_of(key.encode(), world.partitions),
        on_delivery=lambda _, message: positions.append(position_of(message)),
    )
    assert producer.flush(30) == 0
    if transactional:
        producer.commit_transaction(30)
    return positions[0]


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
