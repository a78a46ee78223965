"""What the topic says arrives in the store: at the start, afterwards, and after a restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from stream.events.applicants import applicants_key
from stream.events.records import APPLICANTS, COEFFICIENTS, LABELS, PREFERENCES
from stream.events.structs import Coefficients
from stream.events.wire import coefficients_key, encode
from stream.kafka.embedded import EmbeddedBroker
from stream.policy import Policy
from stream.serving import follower as follower_module
from stream.serving.applicants import Applicants, Records
from stream.serving.embedded import EmbeddedStore
from stream.serving.follower import Follower
from tests.kit import model
from tests.serving.asking import NOW_MS
from tests.serving.test_applicants import HELD, Message, applicant, label, published
from tests.serving.test_embedded import (
    coefficients,
    preferences,
    record,
    store,
    with_histories,
    with_preferences,
)
from tests.serving.test_models import named

PARTITIONS = 3
_PATIENCE_S = 30.0


class Noting(EmbeddedStore):
    """A store that notes what it was given."""

    given: int = 0

    def apply(self, records: Records) -> None:
        """Count the records and take them."""
        self.given += len(records)
        super().apply(records)


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """Return a broker with the topic."""
    with EmbeddedBroker() as running:
        running.create_topics({COEFFICIENTS: PARTITIONS})
        yield running


def send(broker: EmbeddedBroker, *found: Coefficients | tuple[str, str]) -> None:
    """Publish coefficients; a pair of effect and id is a tombstone."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    for each in found:
        if isinstance(each, Coefficients):
            key, value = record(each)
        else:
            key, value = coefficients_key(*each), None
        producer.produce(COEFFICIENTS, value, key)
    assert producer.flush(10) == 0


def wait(true: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + _PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def noting() -> Noting:
    """Return an empty store."""
    return Noting(with_histories(), Policy())


def test_the_store_is_ready_once_all_that_was_there_is_read(broker: EmbeddedBroker) -> None:
    """Then it follows: what is published later arrives, tombstones too."""
    send(broker, *(coefficients("per_member", f"m{n}", n) for n in range(500)))
    held = store()
    assert not held.standing().ready
    assert held.standing().age_s(10**15) is None
    follower = Follower(broker.bootstrap_servers, "hearback", held)
    follower.start()
    try:
        wait(lambda: held.standing().ready)
        assert held.standing().entities == {"per_member": 500, "per_job": 0}
        send(broker, coefficients("per_job", "j1", 7), ("per_member", "m7"))
        wait(lambda: held.standing().entities == {"per_member": 499, "per_job": 1})
        assert held.entity("per_member", "m7") is None
        assert held.entity("per_job", "j1") == coefficients("per_job", "j1", 7)
        first_ms = held.standing().current_ms or 0
        wait(lambda: (held.standing().current_ms or 0) > first_ms)
    finally:
        follower.stop()
    assert follower.failed is None


def test_a_restart_reads_only_what_followed_the_snapshot(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """Unless the snapshot is so old that a tombstone may be gone, or is damaged."""
    path = tmp_path / "snapshot"
    send(broker, *(coefficients("per_member", f"m{n}", n) for n in range(300)))

    def run(hours_later: float = 0.0, entities: int = 300) -> Noting:
        held = noting()
        follower = Follower(
            broker.bootstrap_servers,
            "hearback",
            held,
            snapshot=path,
            now_ms=lambda: int((time.time() + 3600 * hours_later) * 1000),
        )
        follower.start()
        wait(lambda: held.standing().why_not is None)
        follower.stop()
        assert follower.failed is None
        assert held.standing().entities["per_member"] == entities
        return held

    assert run().given == 300
    assert run().given == 0
    send(broker, coefficients("per_member", "m0", 9), coefficients("per_member", "new", 2))
    again = run(entities=301)
    assert again.given == 2
    assert again.entity("per_member", "m0") == coefficients("per_member", "m0", 9)
    assert run(11.0, entities=301).given == 0
    assert run(30.0, entities=301).given == 302
    path.write_bytes(path.read_bytes()[:-1])
    assert run(30.0, entities=301).given == 302


def test_a_restart_is_ready_once_what_followed_the_snapshot_is_read(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """Nobody is told of an entity that was removed meanwhile."""
    path = tmp_path / "snapshot"
    send(broker, *(coefficients("per_member", f"m{n}", n) for n in range(300)))
    for removed in ("nobody", "m7"):
        send(broker, ("per_member", removed))
        held = store()
        follower = Follower(broker.bootstrap_servers, "hearback", held, snapshot=path)
        follower.start()
        wait(lambda held=held: held.standing().ready)  # type: ignore[misc]
        assert (held.entity("per_member", "m7") is None) == (removed == "m7")
        follower.stop()
        assert follower.failed is None


def test_preferences_are_followed_beside_coefficients(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """For a model that takes them: ready once both topics are read, and each goes on by itself.

    A snapshot has both. Without the topic it is said how to make it.
    """
    path = tmp_path / "snapshot"
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})

    def publish(*numbers: int) -> None:
        for number in numbers:
            value = None if number < 0 else encode(preferences(f"j{number}", number))
            producer.produce(PREFERENCES, value, f"j{abs(number)}".encode())
        assert producer.flush(10) == 0

    def start() -> tuple[EmbeddedStore, Follower]:
        held = with_preferences()
        follower = Follower(broker.bootstrap_servers, "hearback", held, snapshot=path)
        follower.start()
        wait(lambda: held.standing().why_not is None or follower.failed is not None)
        return held, follower

    _, follower = start()
    assert "there is no topic preferences" in str(follower.failed)
    follower.stop()
    broker.create_topics({PREFERENCES: PARTITIONS})
    send(broker, coefficients("per_job", "j1", 3))
    publish(*range(1, 200))
    held, follower = start()
    assert held.entity("per_job", "j1") is not None
    assert sorted(held.preferences) == sorted(f"j{number}" for number in range(1, 200))
    publish(200, -7)
    wait(lambda: "j200" in held.preferences and "j7" not in held.preferences)
    follower.stop()
    publish(-8)
    held, follower = start()
    assert len(held.preferences) == 198
    assert held.preferences_of("j9") == preferences("j9", 9).counts()
    follower.stop()


def test_a_model_that_is_rolled_in_may_take_preferences(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """From then on they are followed, from the start; coefficients go on. So after a restart."""
    path = tmp_path / "snapshot"
    broker.create_topics({PREFERENCES: PARTITIONS})
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    producer.produce(PREFERENCES, encode(preferences("j1", 5)), b"j1")
    assert producer.flush(10) == 0
    send(broker, *(coefficients("per_job", f"j{n}", n) for n in range(100)))
    new = named("new", with_preferences().models.given)

    def follow(*, again: bool) -> None:
        held = noting()
        follower = Follower(broker.bootstrap_servers, "hearback", held, snapshot=path)
        follower.start()
        wait(lambda: held.standing().why_not is None)
        assert held.given == (0 if again else 100)
        assert ("j1" in held.preferences) == again
        held.models.take(new)
        wait(lambda: "j1" in held.preferences)
        send(broker, coefficients("per_job", "later", 3))
        wait(lambda: held.given == (1 if again else 101))
        follower.stop()
        assert follower.failed is None

    follow(again=False)
    follow(again=True)


def test_applicants_and_what_labels_say_of_them_are_followed(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """Whichever comes first, and over restarts; a snapshot of another policy is left aside."""
    broker.create_topics({APPLICANTS: PARTITIONS, LABELS: PARTITIONS})
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    path = tmp_path / "snapshot"

    def tell(topic: str, *messages: Message) -> None:
        for key, value in messages:
            producer.produce(topic, value, key)
        assert producer.flush(10) == 0

    def run(policy: Policy, *states: int) -> EmbeddedStore:
        held = EmbeddedStore(model(), policy)
        follower = Follower(broker.bootstrap_servers, "hearback", held, snapshot=path)
        follower.start()
        wait(lambda: held.standing().why_not is None)
        follower.stop()
        assert follower.failed is None
        if held.applicants is not None:
            found = held.applicants.of_job("j")
            assert sorted([] if found is None else found.states.tolist()) == list(states)
        return held

    tell(LABELS, label("b", "positive"))
    tell(APPLICANTS, *published(*(applicant(name, NOW_MS) for name in "abc")))
    run(HELD, 0, 0, 2)
    tell(APPLICANTS, *published(applicant("late", NOW_MS)), (applicants_key("j", "c"), None))
    tell(LABELS, label("late", "negative_explicit"))
    assert path.stat().st_mode & 0o777 == 0o600
    again = run(HELD, 0, 1, 2)
    assert again.applicants is not None
    assert again.applicants.newest_ms == NOW_MS
    run(Policy())
    run(HELD, 0, 1, 2)


def test_labels_of_nobody_who_is_held_are_not_kept(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic has labels of all who ever applied: at the start applicants are read before them.

    Those of an applicant who is held count all the same.
    """
    kept = 0
    decide = Applicants.decide

    def noting_decide(held: Applicants, records: Records, now_ms: int) -> None:
        nonlocal kept
        decide(held, records, now_ms)
        kept = max(kept, sum(not row.member_id for row in held.rows()))

    monkeypatch.setattr(Applicants, "decide", noting_decide)
    broker.create_topics({APPLICANTS: PARTITIONS, LABELS: PARTITIONS})
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    for number in range(3000):
        key, value = label(f"a{number}", "positive")
        producer.produce(LABELS, value, f"m{number}".encode())
    for number in (5, 700, 2999, 5000):
        ((key, value),) = published(applicant(f"a{number}", NOW_MS))
        producer.produce(APPLICANTS, value, key)
    assert producer.flush(10) == 0
    held = EmbeddedStore(model(), HELD)
    follower = Follower(broker.bootstrap_servers, "hearback", held)
    follower.start()
    wait(lambda: held.standing().ready)
    assert held.applicants is not None
    found = held.applicants.of_job("j")
    assert found is not None
    states = dict(zip(found.application_ids, found.states.tolist(), strict=True))
    assert states == {"a5": 2, "a700": 2, "a2999": 2, "a5000": 0}
    assert kept == 0
    follower.stop()
    assert follower.failed is None


def test_without_a_broker_the_snapshot_is_served_and_its_age_told(
    broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is away is asked again; nothing that is known is given up."""
    monkeypatch.setattr(follower_module, "_ANSWER_S", 0.5)
    path = tmp_path / "snapshot"
    send(broker, coefficients("per_job", "j1", 4))
    held = store()
    follower = Follower(broker.bootstrap_servers, "hearback", held, snapshot=path)
    follower.start()
    wait(lambda: held.standing().ready)
    broker.close()
    wait(lambda: held.standing().why_not is not None)
    known_ms = held.standing().current_ms or 0
    follower.stop()
    assert held.standing().ready

    held = store()
    follower = Follower("127.0.0.1:1", "hearback", held, snapshot=path)
    follower.start()
    wait(lambda: held.standing().ready)
    assert held.entity("per_job", "j1") == coefficients("per_job", "j1", 4)
    assert held.standing().current_ms == known_ms
    assert held.standing().age_s(known_ms + 90_000) == 90.0
    wait(lambda: "no Kafka broker" in (held.standing().why_not or ""))
    follower.stop()
    assert follower.failed is None


def test_a_topic_that_is_not_there_is_said(broker: EmbeddedBroker) -> None:
    """It is no matter of waiting."""
    with EmbeddedBroker() as other:
        held = store()
        follower = Follower(other.bootstrap_servers, "hearback", held)
        follower.start()
        wait(lambda: follower.failed is not None)
        assert "hearback topics create" in str(follower.failed)
        follower.stop()
