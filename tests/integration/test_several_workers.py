"""Several workers of one application id: they share, take over, freeze, and learn the same."""

from __future__ import annotations

import random
import time

import pytest

from stream.state.store import RocksStore
from tests.integration.workers import SEED, Worker, owned, wait_for, wait_for_partitions
from tests.integration.world import EFFECTS, PARTITIONS, Learned, World


@pytest.mark.timeout(600)
def test_two_then_three_then_one(middle_world: World) -> None:
    """Workers join and leave, gracefully and not, while events are played."""
    producer = middle_world.produce("--close", wait=False)
    a, b = middle_world.start("a"), middle_world.start("b")
    wait_until_shared(a, b)
    c = middle_world.start("c")
    wait_until_shared(a, b, c)
    assert producer.wait(300) == 0
    a.stop()
    c.kill()
    middle_world.wait_until_final()
    wait_until_shared(b)
    middle_world.check()
    b.stop()


@pytest.mark.timeout(600)
def test_a_zombie_writes_nothing(middle_world: World) -> None:
    """A worker frozen past its session in the middle of its work is fenced when it thaws.

    Meanwhile the other goes on; the frozen one comes back as a member like any other. A third
    worker with an empty folder then finds in the changelogs what the replay knows.
    """
    middle_world.produce("--close")
    a, b = middle_world.start("a", "sent:15:freeze"), middle_world.start("b")
    wait_for(a.is_frozen)
    wait_until_shared(b)
    time.sleep(1.0)
    a.thaw()
    wait_until_shared(a, b)
    assert a.metric("hearback_sessions_lost_total", reason="fenced") >= 1
    time.sleep(random.Random(SEED).uniform(0.0, 1.0))
    b.freeze()
    wait_until_shared(a)
    b.thaw()
    wait_until_shared(a, b)
    middle_world.wait_until_final()
    middle_world.check()
    a.stop()
    b.stop()
    c = middle_world.start("c")
    wait_for(lambda: owned(c) == 2 * PARTITIONS, c)
    c.stop()
    for stage in EFFECTS:
        found: dict[str, Learned] = {}
        for number in range(PARTITIONS):
            store = RocksStore(middle_world.folder / "c" / f"{stage}-{number}", read_only=True)
            found |= middle_world.market.learned_in(store, stage)
            store.close()
        wanted = middle_world.market.learned[stage]
        assert found.keys() == wanted.keys()
        assert all(found[key].kept == wanted[key].kept for key in wanted)


@pytest.mark.timeout(300)
def test_a_standby_takes_over_without_a_full_recovery(small_world: World) -> None:
    """Each of two workers keeps copies of what the other owns, and reads on from there."""
    small_world.produce("--close")
    a, b = small_world.start("a"), small_world.start("b")
    wait_until_shared(a, b)
    small_world.wait_until_final()
    copies = "hearback_standby_partitions"
    wait_for(lambda: a.metric(copies) == owned(b) and b.metric(copies) == owned(a), a, b)
    wait_for(lambda: a.metric(f"{copies}_behind") + b.metric(f"{copies}_behind") == 0, a, b)
    before = b.metric("hearback_recovered_records_total")
    a.kill()
    wait_for(lambda: owned(b) == 2 * PARTITIONS, b)
    # The records that the new sessions themselves wrote to find the end, no more than a few each.
    assert b.metric("hearback_recovered_records_total") - before <= 3 * PARTITIONS
    small_world.check()
    b.stop()


@pytest.mark.timeout(300)
def test_a_fenced_owner_comes_back(small_world: World) -> None:
    """A worker whose partitions were fenced though the group counts on it takes them up again."""
    worker = small_world.start()
    wait_for_partitions(worker)
    for stage in EFFECTS:
        for number in range(PARTITIONS):
            small_world.fence(stage, number)
    small_world.produce("--close")
    small_world.wait_until_final()
    assert worker.metric("hearback_sessions_lost_total", reason="fenced") >= PARTITIONS
    assert owned(worker) == 2 * PARTITIONS
    small_world.check()
    worker.stop()


def wait_until_shared(*workers: Worker) -> None:
    """Wait until these workers have all partitions among them, and each has some."""
    wait_for(
        lambda: (
            sum(map(owned, workers)) == 2 * PARTITIONS
            and all(owned(worker) > 0 for worker in workers)
        ),
        *workers,
    )
