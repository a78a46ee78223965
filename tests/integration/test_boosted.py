"""Boosted trees over histories on a real Kafka, through a kill: as a replay has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from stream.events.structs import Coefficients, Label
from stream.events.wire import decode_coefficients, decode_whole_label
from stream.policy import DAY_MS
from tests.integration.conftest import SMALL
from tests.integration.world import Market, World

Application = tuple[str, str]


@pytest.fixture
def boosted_world(broker: str, tmp_path: Path) -> Iterator[World]:
    """The small market under boosted trees, on the shared broker, with topics of its own."""
    made = World(tmp_path, broker, Market(tmp_path / "market", SMALL, kind="boosted"))
    yield made
    made.end()


def by_application(world: World, lines: Iterable[bytes]) -> dict[Application, Label]:
    """Return a label of each application; fail unless all of them carry the same scores."""
    found: dict[Application, Label] = {}
    for line in lines:
        label = decode_whole_label(line, world.market.model.space)
        first = found.setdefault((label.job_id, label.application_id), label)
        assert (first.history, first.global_, first.full_score) == (
            *(label.history, label.global_),
            label.full_score,
        )
    return found


def told(lines: Iterable[bytes | None]) -> dict[str, Coefficients]:
    """Return coefficients by effect and entity."""
    found = (decode_coefficients(line) for line in lines if line is not None)
    return {f"{each.effect}:{each.entity_id}": each for each in found}


def test_a_worker_scores_by_trees_over_histories_as_a_replay_does(boosted_world: World) -> None:
    """Labels are the replay's, and in the end so is every history, though the worker was killed.

    What a history says at first sight depends on what had been read by then. So each score is that
    of the features and the history that its labels carry, and near the replay's.
    """
    world, model = boosted_world, boosted_world.market.model
    assert model.takes_history
    middle = world.market.start_ms + 10 * DAY_MS
    first = world.start("a")
    world.produce("--until", middle)
    world.wait_for_labels(lambda last: len(last) > 300)
    first.kill()
    second = world.start("a")
    world.produce("--from", middle, "--close")
    labels = world.wait_until_final()
    world.check_labels(labels)

    live = by_application(world, labels)
    run = world.market.folder / "run"
    replayed = by_application(world, (run / "labels.jsonl").read_bytes().splitlines())
    assert live.keys() == replayed.keys()
    for label in live.values():
        assert label.global_ is not None
        assert label.history is not None
        asked = model.row(label.global_, label.history, label.preferences)
        assert label.global_score == pytest.approx(model.score(asked), abs=1e-9)
    scores = [[of[key].global_score for key in live] for of in (live, replayed)]
    assert len(set(scores[0])) > 1000
    assert np.asarray(np.corrcoef(scores))[0, 1] > 0.5

    world.check_learned(coefficients=False)
    found = told(world.published().values())
    wanted = told((run / "coefficients.jsonl").read_bytes().splitlines())
    assert found.keys() == wanted.keys()
    for name, each in wanted.items():
        history = found[name].history
        assert each.history
        assert history
        have, want = (
            [at or 0 for at in msgspec.structs.astuple(one)] for one in (history, each.history)
        )
        assert have == pytest.approx(want, rel=1e-9), name
    second.stop()
