"""Killed at every named crash point and at random moments, a worker still learns the same."""

from __future__ import annotations

import os
import random
import shutil
import time

import pytest

from stream.worker.crashpoints import POINTS
from tests.integration.workers import SEED, wait_for, wait_for_partitions
from tests.integration.world import World

KILLS = int(os.environ.get("HEARBACK_TEST_KILLS", "5"))
"""Random kills; ``make test-kafka`` asks for 20."""

ONCE = {"assigned", "fenced", "swept", "recovering", "recovered", "opened"}
"""Points on the way to the first batch: the worker dies the first time it comes there."""

LAST = {"recovering", "revoked"}
"""Points that take a changelog of some length, or a second worker."""

READ = 0.9
"""A changelog is long enough to be recovered in parts when so much of the log is in it."""

PARTS_A_LIFE = 4
"""Into how many parts the second half of the log is cut for each of the worker's lives."""


@pytest.mark.timeout(1200)
def test_every_crash_point_and_random_kills(world: World) -> None:
    """Whatever it was about to do when it died, nothing is lost, and nothing stands twice.

    Half of the log is there from the start, so that windows close in later lives. Each life gets a
    part of the rest, and further ones until it dies, so that there is something to die of.
    """
    dice = random.Random(SEED)
    deaths: list[str | None] = [point for point in POINTS if point not in LAST]
    deaths += [None] * KILLS
    dice.shuffle(deaths)
    parts = world.market.parts(2 * PARTS_A_LIFE * len(deaths))
    half = len(parts) // 2
    world.produce(*parts[1:half], log=parts[0])
    rest = parts[half:]
    for point in deaths:
        if point is None:
            world.produce(log=rest.pop(0))
            worker = world.start()
            wait_for_partitions(worker)
            time.sleep(dice.uniform(0.0, 2.0))
            worker.kill()
            continue
        times = 1 if point in ONCE else dice.randint(1, 40)
        worker = world.start("a", f"{point}:{times}")
        for _ in range(2 * PARTS_A_LIFE):
            assert len(rest) > 2, f"the log ends before {point}:{times}"
            world.produce(log=rest.pop(0))
            if worker.has_crashed_within(5.0):
                break
        else:
            raise AssertionError(f"does not come to {point}:{times}: {worker.said}")
    *others, last = rest
    world.produce(*others[1:], log=others[0])
    worker = world.start()
    wait_for(lambda: world.committed_share() > READ, worker)
    worker.kill()
    shutil.rmtree(world.folder / "a")
    world.start("a", "recovering").wait_for_crash()
    world.produce("--close", log=last)
    # In the middle of a rebalance: a second worker joins.
    first = world.start("a", "revoked")
    wait_for_partitions(first)
    second = world.start("b")
    first.wait_for_crash()
    third = world.start("a")
    world.wait_until_final()
    world.check()
    world.check_matches()
    world.check_applicants()
    third.stop()
    second.stop()
