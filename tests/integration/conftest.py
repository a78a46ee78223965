"""A real Kafka for the tests of this folder, and a market with its replay."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.kafka import Kafka, MissingError
from producers.truth import SimulationSettings
from stream.updaters.newton import warm_up
from tests.integration.services import Service, wait
from tests.integration.world import Market, World

SMALL = SimulationSettings(seed=3, members=300, jobs=60, days=20, applications_per_member=14.0)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Kafka: the one of ``HEARBACK_TEST_BROKER``, or one that is started now.

    Its topics are deleted, whosever they are.
    """
    warm_up()  # or each worker would compile it, for half a minute before it says anything
    given = os.environ.get("HEARBACK_TEST_BROKER")
    if given:
        yield given
        return
    kafka = new_kafka(tmp_path_factory.mktemp("kafka"))
    yield kafka.address
    kafka.kill()


def new_kafka(folder: Path) -> Kafka:
    """Start a Kafka, or skip the test in words."""
    try:
        kafka = Kafka(folder)
    except MissingError as missing:
        pytest.skip(f"no real Kafka: {missing}")
    kafka.start()
    return kafka


@pytest.fixture(scope="session")
def small_market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Some 8,000 events."""
    return Market(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="session")
def middle_market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Some 25,000 events: enough to be in the middle of for a while."""
    settings = SimulationSettings(
        seed=7, members=1000, jobs=120, days=20, applications_per_member=14.0
    )
    return Market(tmp_path_factory.mktemp("middle"), settings)


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Some 100,000 events."""
    settings = SimulationSettings(
        seed=5, members=3900, jobs=400, days=20, applications_per_member=14.0
    )
    return Market(tmp_path_factory.mktemp("market"), settings)


@pytest.fixture
def world(broker: str, market: Market, tmp_path: Path) -> Iterator[World]:
    """The large market on the shared broker, with topics of its own."""
    made = World(tmp_path, broker, market)
    yield made
    made.end()


@pytest.fixture
def middle_world(broker: str, middle_market: Market, tmp_path: Path) -> Iterator[World]:
    """The middle market on the shared broker, with topics of its own."""
    made = World(tmp_path, broker, middle_market)
    yield made
    made.end()


@pytest.fixture
def small_world(broker: str, small_market: Market, tmp_path: Path) -> Iterator[World]:
    """The small market on the shared broker, with topics of its own."""
    made = World(tmp_path, broker, small_market)
    yield made
    made.end()


@pytest.fixture
def start_service(small_world: World) -> Iterator[Callable[[str], Service]]:
    """Start a service and wait until it is ready; those that are left end with the test."""
    services: list[Service] = []

    def started(name: str) -> Service:
        services.append(Service(small_world, name))
        wait(services[-1].is_ready)
        return services[-1]

    yield started
    for service in services:
        service.process.kill()
        service.process.wait()
