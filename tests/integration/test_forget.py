"""``hearback forget`` on a real Kafka: across a kill, a wiped folder, and labels on their way."""

from __future__ import annotations

import random
import shutil
import time

import numpy as np
import pytest

from stream.events.records import COEFFICIENTS
from stream.events.wire import coefficients_key, decode_coefficients, decode_label
from stream.policy import DAY_MS
from tests.integration.workers import SEED, hearback
from tests.integration.world import EFFECTS, World


@pytest.mark.timeout(300)
def test_the_forgotten_stay_forgotten(small_world: World) -> None:
    """A member and a job go, whoever dies; all others are what the replay learned of them.

    What was applied for later is learned of them, and nothing that was applied for before.
    """
    market = small_world.market
    until_ms = market.start_ms + 12 * DAY_MS
    worker = small_world.start("a")
    small_world.produce("--until", until_ms)
    small_world.wait_for_labels(lambda last: len(last) > 500)
    gone = {stage: busiest(small_world, stage) for stage in EFFECTS}
    for stage, entity_id in gone.items():
        done = hearback(
            *("forget", stage, entity_id, "--broker", small_world.broker, "--until", until_ms)
        )
        assert done.returncode == 0, done.stderr
        assert f"{stage} {entity_id} is forgotten as soon as" in done.stdout
    time.sleep(random.Random(SEED).uniform(0.0, 0.5))
    worker.kill()
    shutil.rmtree(small_world.folder / "a")
    again = small_world.start("a")
    small_world.produce("--from", until_ms, "--close")
    labels = [decode_label(line, market.model.space) for line in small_world.wait_until_final()]
    later = {
        stage: {
            f"{len(label.job_id)}:{label.job_id}{label.application_id}"
            if stage == "member"
            else label.application_id
            for label in labels
            if label.application_time_ms > until_ms
        }
        for stage in EFFECTS
    }
    deadline = time.monotonic() + 30
    while wrong := list(differences(small_world, gone, later)):
        assert time.monotonic() < deadline, wrong[:5]
        time.sleep(0.5)
    again.stop()
    published = last_coefficients(small_world)
    for stage, entity_id in gone.items():
        found = small_world.recovered(stage).get(entity_id)
        value = published[coefficients_key(EFFECTS[stage], entity_id)]
        examples = 0 if value is None else decode_coefficients(value).examples
        assert examples == (0 if found is None else found.examples)


def busiest(world: World, stage: str) -> str:
    """The entity of which most is known in the end."""
    learned = world.market.learned[stage]
    return max(learned, key=lambda entity_id: learned[entity_id].examples)


def differences(world: World, gone: dict[str, str], later: dict[str, set[str]]) -> list[str]:
    """Tell what is not as it has to be, of those who were to be forgotten and of all others."""
    wrong = []
    for stage in EFFECTS:
        wanted, found = world.market.learned[stage], world.recovered(stage)
        for entity_id, want in wanted.items():
            have = found.get(entity_id)
            kept = [] if have is None else have.kept
            if entity_id == gone[stage]:
                wanted_kept = [example for example in want.kept if example[0] in later[stage]]
                if kept != wanted_kept:
                    difference = sorted(set(kept) ^ set(wanted_kept))
                    wrong.append(f"{stage} {entity_id} keeps {len(kept)}: {difference[:5]}")
            elif have is None or kept != want.kept:
                wrong.append(f"{stage} {entity_id} differs")
            elif np.max(np.abs(want.mean - have.mean) / want.sd) > 1e-6:
                wrong.append(f"{stage} {entity_id} has other coefficients")
    return wrong


def last_coefficients(world: World) -> dict[bytes, bytes | None]:
    """The newest record of each key, as a compacted topic keeps it."""
    found: dict[bytes, bytes | None] = {}
    silent = 0
    for messages in world.reading(COEFFICIENTS):
        found |= {message.key() or b"": message.value() for message in messages}
        silent = 0 if messages else silent + 1
        if silent > 10:
            break
    return found
