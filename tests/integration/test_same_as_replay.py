"""One worker on a real Kafka learns what a replay learns; a lost folder is made again."""

from __future__ import annotations

import shutil

from stream.policy import DAY_MS
from tests.integration.world import World


def test_a_worker_learns_what_a_replay_learns(small_world: World) -> None:
    """Labels, examples and coefficients equal those of the replay; nothing stands twice."""
    worker = small_world.start()
    small_world.produce("--close")
    small_world.wait_until_final()
    small_world.check()
    worker.stop()


def test_a_wiped_folder_is_made_again(small_world: World) -> None:
    """A worker that finds no folder takes its state from the changelogs and goes on."""
    middle = small_world.market.start_ms + 12 * DAY_MS
    first = small_world.start("a")
    small_world.produce("--until", middle)
    small_world.wait_for_labels(lambda last: len(last) > 500)
    first.kill()
    shutil.rmtree(small_world.folder / "a")
    second = small_world.start("a")
    small_world.produce("--from", middle, "--close")
    small_world.wait_until_final()
    small_world.check()
    second.stop()
