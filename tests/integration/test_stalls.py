"""A worker that stands still for too long, alone: it comes back, and nothing stands twice."""

from __future__ import annotations

import time

import pytest

from tests.integration.workers import SESSION_S, owned, wait_for
from tests.integration.world import PARTITIONS, World

TRANSACTION_S = 60.0 + 10.0
"""How long Kafka lets a transaction be open, and how often it looks."""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_partitions_lost_and_regained(middle_world: World) -> None:
    """Frozen past its session with nobody else there, it gets the same partitions again.

    What it had begun under the old assignment is not written under the new one.
    """
    middle_world.produce("--close")
    worker = middle_world.start("a", "processed:20:freeze")
    for delay_s in (0.0, 0.3, 1.0):
        if not delay_s:
            wait_for(worker.is_frozen)
        else:
            wait_for(lambda: owned(worker) == 2 * PARTITIONS, worker)
            time.sleep(delay_s)
            worker.freeze()
        time.sleep(SESSION_S + 3.0)
        worker.thaw()
    middle_world.wait_until_final()
    assert owned(worker) == 2 * PARTITIONS
    middle_world.check()
    worker.stop()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_stall_past_the_transaction_while_still_the_owner(small_world: World) -> None:
    """Kafka aborts the transaction of a worker that the group still counts on: it begins again."""
    small_world.produce("--close")
    worker = small_world.start(
        "a", "sent:15:freeze", more=["--session-timeout", f"{2 * TRANSACTION_S:g}s"]
    )
    wait_for(worker.is_frozen)
    time.sleep(TRANSACTION_S + 5.0)
    worker.thaw()
    small_world.wait_until_final()
    assert worker.metric("hearback_sessions_lost_total", reason="fenced") >= 1
    assert owned(worker) == 2 * PARTITIONS
    small_world.check()
    worker.stop()
