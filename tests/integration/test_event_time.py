"""Event time on a real Kafka: whatever comes after a silence is read in full."""

from __future__ import annotations

import time

from stream.policy import DAY_MS
from tests.integration.workers import wait_for_partitions
from tests.integration.world import World

IDLE = ("--idle-timeout", "1s")
SILENCE_S = 6.0


def test_a_backlog_after_a_silence_is_read_in_full(small_world: World) -> None:
    """A worker waits at fresh topics for several idle timeouts, then a month is written."""
    worker = small_world.start(more=IDLE)
    wait_for_partitions(worker)
    time.sleep(SILENCE_S)
    late = small_world.market.start_ms + 18 * DAY_MS
    small_world.produce("--no-clocks", "--until", late)
    small_world.produce("--no-clocks", "--from", late, "--close")
    small_world.wait_until_final()
    small_world.check()
    worker.stop()


def test_a_backlog_that_is_written_while_an_idle_worker_is_stopped(small_world: World) -> None:
    """What it knew of idleness when it stopped is not believed when it starts."""
    middle = small_world.market.start_ms + 8 * DAY_MS
    first = small_world.start(more=IDLE)
    small_world.produce("--no-clocks", "--until", middle)
    small_world.wait_for_labels(lambda last: len(last) > 100)
    time.sleep(SILENCE_S)
    first.stop()
    late = small_world.market.start_ms + 18 * DAY_MS
    small_world.produce("--no-clocks", "--from", middle, "--until", late)
    second = small_world.start(more=IDLE)
    wait_for_partitions(second)
    small_world.produce("--no-clocks", "--from", late, "--close")
    small_world.wait_until_final()
    small_world.check()
    second.stop()


def test_an_outage_upstream_loses_nothing(small_world: World) -> None:
    """For several idle timeouts nothing is written; then three days come at once."""
    begin = small_world.market.start_ms + 8 * DAY_MS
    worker = small_world.start(more=IDLE)
    small_world.produce("--no-clocks", "--until", begin)
    small_world.wait_for_labels(lambda last: len(last) > 100)
    time.sleep(SILENCE_S)
    small_world.produce("--no-clocks", "--from", begin, "--until", begin + 3 * DAY_MS)
    time.sleep(SILENCE_S)
    small_world.produce("--from", begin + 3 * DAY_MS, "--close")
    small_world.wait_until_final()
    small_world.check()
    worker.stop()


def test_an_idle_worker_commits_nothing(small_world: World) -> None:
    """Once what was read is told and stored, offsets stand still while nothing comes."""
    worker = small_world.start(more=("--idle-timeout", "1h"))
    small_world.produce("--no-clocks")
    small_world.wait_for_labels(lambda last: len(last) > 1000)
    flushes = 0.0
    for _ in range(20):
        before, flushes = flushes, worker.metric("hearback_flush_seconds_count")
        if flushes == before:
            break
        time.sleep(12.0)
    time.sleep(10.0)
    assert worker.metric("hearback_flush_seconds_count") - flushes <= 12  # progress, once a minute
    worker.stop()
