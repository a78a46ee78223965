"""How much was written to a topic: asked again and again, whatever goes wrong."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stream.errors import BrokerError
from stream.events.records import TopicNames
from stream.kafka.embedded import EmbeddedBroker
from stream.policy import DAY_MS
from stream.worker.ends import Asked, topics_grown
from stream.worker.settings import WorkerSettings
from stream.worker.topics import plans


@pytest.mark.parametrize("error", [BrokerError("away"), RuntimeError("odd"), KeyError("topic")])
def test_whatever_goes_wrong_is_told_once_and_asked_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is known meanwhile; the next answer counts, and stopping waits for nothing else."""
    asked = 0

    def ask() -> int:
        nonlocal asked
        asked += 1
        if asked in {2, 3}:
            raise error
        return asked

    async def scenario() -> list[int | None]:
        counts: list[int | None] = []
        with ThreadPoolExecutor(1) as threads:
            ends = Asked(ask, threads, 0.0, ("how many", "until then none"))
            for _ in range(4):
                ends.tick()
                await ends.stop()
                counts.append(ends.answer)
        return counts

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(scenario()) == [1, None, None, 4]
    assert len(caplog.records) == 1
    assert type(error).__name__ in caplog.text


@pytest.mark.parametrize("count", [2, 3])
def test_topics_that_have_other_partitions_now_are_named(
    embedded_broker: EmbeddedBroker, tmp_path: Path, count: int
) -> None:
    """By what Kafka calls them; nothing is said of those that are as they were."""
    embedded_broker.create_topics({plan.name: 2 for plan in plans("test", DAY_MS)})
    embedded_broker.create_topics({"id-labels": count, "id-applications-by-job": 2})
    embedded_broker.create_topics({"id-coefficients": 2})
    settings = WorkerSettings(
        broker=embedded_broker.bootstrap_servers,
        application_id="test",
        data_dir=tmp_path,
        names=TopicNames.own("id"),
        partitions=2,
    )

    async def scenario() -> str | None:
        with ThreadPoolExecutor(1) as threads:
            grown = topics_grown(settings, threads)
            grown.tick()
            await grown.stop()
        return grown.answer

    said = asyncio.run(scenario())
    if count == 2:
        assert said == ""
    else:
        assert said is not None
        assert said.startswith("the topics had 2 partitions, now there are: id-labels 3; keys move")


def test_threads_that_are_gone_do_not_keep_a_worker_from_stopping() -> None:
    """A question that cannot even be put is one that goes wrong."""

    async def scenario() -> None:
        threads = ThreadPoolExecutor(1)
        threads.shutdown()
        ends = Asked(lambda: 1, threads, 0.0, ("how many", "until then none"))
        ends.tick()
        await ends.stop()
        assert ends.answer is None

    asyncio.run(scenario())
