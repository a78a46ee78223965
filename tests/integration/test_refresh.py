"""A new global model every week under a running worker, by a refresher that dies meanwhile."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from producers.truth import SimulationSettings
from stream.cli import PROGRAM
from stream.events.wire import decode_label
from stream.model.folder import load_model
from stream.units import format_time
from stream.worker.control import sent_rolls
from tests.integration.test_rolls import wait_until_obeyed
from tests.integration.workers import wait_for_partitions
from tests.integration.world import Market, World

PATIENCE_S = 60.0
LONGER = SimulationSettings(seed=3, members=150, jobs=60, days=32, applications_per_member=14.0)


class Refresher:
    """`hearback model refresh` as a process, and what it said."""

    def __init__(self, world: World, folder: Path, first: Path) -> None:
        self.said = folder / f"said-{time.monotonic_ns()}.txt"
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [
                    *(*PROGRAM, "model", "refresh", "--model", str(first)),
                    *("--out", str(folder / "models"), "--margin", "1"),
                    *("--broker", world.broker, "--app-id", world.application_id),
                    *("--policy", str(world.market.policy_file)),
                ],
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, words: str) -> None:
        """Return when it has said that."""
        deadline = time.monotonic() + PATIENCE_S
        while words not in self.said.read_text():
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.2)

    def end(self) -> None:
        """Ask it to end, as an operator would: it says so, and ends well."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.said.read_text()
        assert self.said.read_text().endswith("ended; started again, it goes on where it was\n")


@pytest.fixture
def town(broker: str, tmp_path: Path) -> Iterator[World]:
    """Give a market of five weeks, whose model was trained on the first three but for a day."""
    market = Market(tmp_path / "market", LONGER, trained_days=20)
    made = World(tmp_path, broker, market, partitions=2)
    yield made
    made.end()


@pytest.mark.timeout(600)
def test_a_model_is_rolled_in_once_a_week_whoever_dies(town: World, tmp_path: Path) -> None:
    """A week has one model though its refresher was killed; who applies from then on has its score.

    The first refresher dies as it writes its model, the second goes on with that. A third one, that
    comes when weeks have passed, makes a model of the last of them.
    """
    market = town.market
    first = market.folder / "model"
    worker = town.start()
    wait_for_partitions(worker)
    one = Refresher(town, tmp_path, first)
    one.wait_for("every 7d")
    town.produce("--until", "2024-01-23")
    deadline = time.monotonic() + PATIENCE_S
    while not (tmp_path / "models" / "2024-01-22").exists():
        assert time.monotonic() < deadline, one.said.read_text()
        time.sleep(0.01)
    one.process.kill()
    one.process.wait()
    two = Refresher(town, tmp_path, first)
    while not sent_rolls(town.broker, town.application_id):
        assert time.monotonic() < deadline, two.said.read_text()
    wait_until_obeyed(town)
    two.end()
    (roll,) = sent_rolls(town.broker, town.application_id)
    second = load_model(tmp_path / "models" / "2024-01-22").version
    assert roll.model.manifest.model_version == second
    town.produce("--from", "2024-01-23", "--close")
    labels = town.wait_until_final()
    three = Refresher(town, tmp_path, first)
    three.wait_for("scores applications from")
    three.end()
    ends = [
        format_time(roll.model.manifest.trained_until_ms)
        for roll in sent_rolls(town.broker, town.application_id)
    ]
    assert ends[0] == "2024-01-22T00:00:00Z"
    assert len(ends) == 2
    assert ends[1] > "2024-02-05"
    scored = {market.model.version: 0, second: 0}
    for line in labels:
        label = decode_label(line, market.model.space)
        later = label.application_time_ms >= roll.from_ms
        assert label.model_version == (second if later else market.model.version)
        scored[label.model_version] += 1
    assert min(scored.values()) > 100
