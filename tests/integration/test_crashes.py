"""Killed at every named crash point and at random moments, a worker still learns the same."""

from __future__ import annotations

import os
import random
import shutil
import time

import pytest

from stream.worker.crashpoints import POINTS
from tests.integration.world import Worker, World

KILLS = int(os.environ.get("HEARBACK_TEST_KILLS", "5"))
"""Random kills; ``make test-kafka`` asks for 20."""

SEED = int(os.environ.get("HEARBACK_TEST_SEED", "1"))

ONCE = {"assigned", "fenced", "recovering", "recovered", "opened"}
"""Points on the way to the first batch: the worker dies the first time it comes there."""

LAST = {"recovering", "revoked"}
"""Points that take a changelog of some length, or a second worker."""


@pytest.mark.timeout(1200)
def test_every_crash_point_and_random_kills(world: World) -> None:
    """Whatever it was about to do when it died, nothing is lost, and nothing stands twice."""
    dice = random.Random(SEED)
    world.produce("--close")
    deaths: list[str | None] = [point for point in POINTS if point not in LAST]
    deaths += [None] * KILLS
    dice.shuffle(deaths)
    for point in [*deaths, "recovering"]:
        if point is None:
            worker = world.start()
            wait_for_partitions(worker)
            time.sleep(dice.uniform(0.0, 2.0))
            worker.kill()
            continue
        if point == "recovering":
            shutil.rmtree(world.folder / "a", ignore_errors=True)
        times = 1 if point in ONCE else dice.randint(1, 60)
        worker = world.start("a", f"{point}:{times}")
        worker.wait_for_crash()
    # In the middle of a rebalance: a second worker joins.
    first = world.start("a", "revoked")
    wait_for_partitions(first)
    second = world.start("b")
    first.wait_for_crash()
    third = world.start("a")
    world.wait_until_final()
    world.check()
    third.stop()
    second.stop()


def wait_for_partitions(worker: Worker) -> None:
    """Wait until a worker has been given its partitions and opened them."""
    deadline = time.monotonic() + 60
    while not worker.has_partitions():
        assert time.monotonic() < deadline, worker.said
        assert worker.process.poll() is None, worker.said
        time.sleep(0.05)
