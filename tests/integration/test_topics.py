"""``hearback topics create`` on a real Kafka, and what a worker refuses to start on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but in no __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    OffsetSpec,
)

from stream.errors import ConfigError
from stream.events.records import APPLICATIONS, ENGAGEMENTS, LABELS, PLAIN
from stream.policy import DAY_MS
from stream.worker.topics import check_topics, create_topics
from tests.integration.workers import wait_for, wait_for_partitions
from tests.integration.world import World, remove_topics

WINDOW_MS = 14 * DAY_MS


@pytest.fixture
def client(broker: str) -> AdminClient:
    """An empty broker's."""
    remove_topics(broker)
    return AdminClient({"bootstrap.servers": broker, "log_level": 0})


def done(futures: dict[Any, Future[Any]]) -> None:
    """Wait for an admin call."""
    for future in futures.values():
        future.result(10)


def settings(client: AdminClient, topic: str) -> Callable[[str], str]:
    """Look a topic's settings up."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    found = client.describe_configs([resource])[resource].result(10)
    return lambda name: str(found[name].value)


def test_topics_are_as_they_have_to_be(client: AdminClient, broker: str) -> None:
    """Made once, with counts, retention and compaction; a second time nothing is made."""
    made = create_topics(broker, "app", WINDOW_MS)
    assert set(made.values()) == {True}
    assert len(made) == 12
    assert set(create_topics(broker, "app", WINDOW_MS).values()) == {False}
    assert check_topics(broker, "app", WINDOW_MS) == (12, False, PLAIN)
    labels = settings(client, LABELS)
    assert labels("cleanup.policy") == "delete"
    assert int(labels("retention.ms")) == 28 * DAY_MS
    changelog = settings(client, "app-job-changelog")
    assert changelog("cleanup.policy") == "compact"
    assert int(changelog("delete.retention.ms")) == 7 * DAY_MS
    other = create_topics(broker, "other", WINDOW_MS)
    assert {name for name, new in other.items() if new} == {
        "other-control",
        "other-member-changelog",
        "other-job-changelog",
    }


def test_another_partition_count_is_refused(client: AdminClient, broker: str) -> None:
    """A count that was asked for, or that a topic got later, has to be that of all."""
    create_topics(broker, "app", WINDOW_MS, partitions=3)
    with pytest.raises(ConfigError, match=r"have 3 partitions, not 4: their number cannot"):
        create_topics(broker, "app", WINDOW_MS, partitions=4)
    done(client.create_partitions([NewPartitions(APPLICATIONS, 4)]))
    wait_for(lambda: len(client.list_topics(timeout=10).topics[APPLICATIONS].partitions) == 4)
    for check in (create_topics, check_topics):
        with pytest.raises(ConfigError, match=r"applications 4, .*added later move keys away"):
            check(broker, "app", WINDOW_MS)


def test_short_retention_is_refused(client: AdminClient, broker: str) -> None:
    """What keeps its records too short is named with the command that mends it."""
    create_topics(broker, "app", WINDOW_MS, partitions=3)
    resource = ConfigResource(ConfigResource.Type.TOPIC, APPLICATIONS)
    resource.add_incremental_config(
        ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)
    )
    done(client.incremental_alter_configs([resource]))
    wait_for(lambda: settings(client, APPLICATIONS)("retention.ms") == "3600000")
    with pytest.raises(ConfigError, match=r"--add-config retention\.ms=2419200000"):
        check_topics(broker, "app", WINDOW_MS)


def test_missing_topics_are_named(client: AdminClient, broker: str) -> None:
    """A worker does not start without topics, and says how to make them."""
    with pytest.raises(ConfigError, match=r"there is no topic applications, .* topics create"):
        check_topics(broker, "app", WINDOW_MS)


@pytest.mark.timeout(180)
def test_records_that_were_deleted_unread(small_world: World) -> None:
    """A worker says what is gone; accepted, it is counted, and what was learned stays."""
    middle = str(small_world.market.start_ms + 12 * DAY_MS)
    worker = small_world.start()
    small_world.produce("--until", middle)
    wait_for(lambda: small_world.committed_share() == 1.0, worker)
    worker.stop()
    learned = {stage: small_world.recovered(stage) for stage in ("member", "job")}
    client = AdminClient({"bootstrap.servers": small_world.broker, "log_level": 0})
    places = [TopicPartition(ENGAGEMENTS, number) for number in range(small_world.partitions)]
    before = ends(client, places)
    small_world.produce("--from", middle, "--close")
    gone = {place: (before[place] + end) // 2 for place, end in ends(client, places).items()}
    done(client.delete_records([TopicPartition(*place, offset) for place, offset in gone.items()]))
    line = small_world.start().wait_for_failure()
    assert "deleted before they were read (retention). --accept-lost-records goes on" in line
    worker = small_world.start(more=("--accept-lost-records",))
    wait_for(lambda: small_world.committed_share() == 1.0, worker)
    count = sum(offset - before[place] for place, offset in gone.items())
    assert count > 100
    assert worker.metric("hearback_lost_records_total") == count
    assert "records were deleted before they were read; it goes on" in worker.said
    worker.stop()
    for stage, entities in learned.items():
        now = small_world.recovered(stage)
        assert all(now[each].examples >= known.examples for each, known in entities.items())


def ends(client: AdminClient, places: list[TopicPartition]) -> dict[tuple[str, int], int]:
    """Where partitions end."""
    latest: Any = OffsetSpec
    found = client.list_offsets({place: latest.latest() for place in places})
    return {
        (place.topic, place.partition): future.result(10).offset for place, future in found.items()
    }


@pytest.mark.timeout(180)
def test_recreated_topics_are_refused(small_world: World) -> None:
    """A topic that was deleted and made anew means other records: nobody goes on with it."""
    worker = small_world.start()
    small_world.produce()
    small_world.wait_for_labels(lambda last: len(last) > 500)
    worker.stop()
    client = AdminClient({"bootstrap.servers": small_world.broker, "log_level": 0})
    done(client.delete_topics([APPLICATIONS]))
    window_ms = small_world.market.policy.labels.window_ms
    wait_for(lambda: APPLICATIONS not in client.list_topics(timeout=10).topics)
    with pytest.raises(ConfigError, match="has state of its earlier life"):
        create_topics(small_world.broker, small_world.application_id, window_ms)
    create_topics(small_world.broker, "other", window_ms)
    again = small_world.start()
    assert "topic applications was deleted and made anew" in again.wait_for_failure()


@pytest.mark.timeout(180)
def test_folders_of_others_are_refused(small_world: World) -> None:
    """One folder is for one worker of one application id; a damaged store is made again."""
    worker = small_world.start("a")
    small_world.produce()
    wait_for_partitions(worker)
    line = small_world.start("a").wait_for_failure()
    assert "is in use by another worker" in line
    small_world.wait_for_labels(lambda last: len(last) > 500)
    worker.stop()
    for path in damage(small_world.folder / "a" / "job-0"):
        path.write_bytes(b"nonsense")
    worker = small_world.start("a")
    small_world.produce("--close")
    small_world.wait_until_final()
    assert "it was put aside as damaged-job-0-" in worker.said
    worker.stop()


def damage(folder: Path) -> list[Path]:
    """What to damage of a store."""
    return [*folder.glob("MANIFEST-*")]
