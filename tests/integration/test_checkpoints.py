"""Checkpoints of a running worker on a real Kafka: compared, restored, refused, as a user does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stream.policy import DAY_MS
from stream.state import keys
from stream.state.store import RocksStore
from stream.worker.changelog import DELETE_RETENTION_MS, MARKS, load_mark
from stream.worker.data_folder import partition_ids_in
from stream.worker.topics import create_topics
from tests.integration.workers import hearback, owned, wait_for
from tests.integration.world import PARTITIONS, World


@pytest.mark.timeout(300)
def test_a_checkpoint_is_verified_and_restored(small_world: World) -> None:
    """Taken while events are played, right by its changelogs, and a start for another worker."""
    middle = small_world.market.start_ms + 12 * DAY_MS
    worker = small_world.start("a")
    small_world.produce("--until", middle)
    small_world.wait_for_labels(lambda last: len(last) > 500)
    producer = small_world.produce("--from", middle, "--close", wait=False)
    copy = small_world.folder / "copy"
    taken = hearback("checkpoint", "--data", small_world.folder / "a", "--out", copy)
    assert taken.returncode == 0, taken.stderr
    assert taken.stdout.startswith(f"{2 * PARTITIONS} stores, ")
    assert producer.wait(120) == 0
    small_world.wait_until_final()
    verify = ("state", "verify", "--broker", small_world.broker, "--checkpoint")
    verified = hearback(*verify, copy)
    assert verified.returncode == 0, verified.stderr
    rows = [line.split() for line in verified.stdout.splitlines() if "-" in line]
    assert len(rows) == 2 * PARTITIONS
    assert all(row[-1] == "0" for row in rows)
    assert sum(int(row[2].replace(",", "")) for row in rows) > 0
    assert sum(int(row[3].replace(",", "")) for row in rows) > 0
    wrong = small_world.folder / "wrong"
    shutil.copytree(copy, wrong)
    spoil(wrong)
    refused = hearback(*verify, wrong)
    assert refused.returncode == 1
    assert "per_job invented is not in the changelog" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert "is no data folder and no checkpoint" in hearback(*verify, small_world.folder).stderr
    worker.kill()
    again = small_world.start("copy")
    wait_for(lambda: owned(again) == 2 * PARTITIONS, again)
    again.stop()
    small_world.check()
    stopped = hearback(*verify, copy)
    assert stopped.returncode == 0, stopped.stderr
    make_old(copy)
    assert hearback(*verify, copy).returncode == 0  # old, but nothing has come since
    make_old(wrong)
    assert "so old that deletions may have vanished" in hearback(*verify, wrong).stderr
    small_world.application_id = "another"
    window_ms = small_world.market.policy.labels.window_ms
    create_topics(small_world.broker, "another", window_ms)
    assert "belongs to application id" in small_world.start("copy").wait_for_failure()


def spoil(folder: Path) -> None:
    """Let a store have an entity that nobody has learned."""
    store = RocksStore(folder / "job-0")
    store.write({keys.key(keys.POSTERIOR, "per_job", "invented"): b"nonsense"})
    store.close()


def make_old(folder: Path) -> None:
    """Let the stores say that they have been at rest for longer than deletions are kept."""
    for stage, number in partition_ids_in(folder):
        store = RocksStore(folder / f"{stage}-{number}")
        mark = load_mark(store)
        assert mark is not None
        old = mark.at(mark.offset, mark.applied_ms - DELETE_RETENTION_MS)
        store.write({keys.own("changelog"): MARKS.encode(old)})
        store.close()
