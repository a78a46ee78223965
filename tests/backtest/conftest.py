"""A recorded market that the tests of the backtest share."""

from __future__ import annotations

import pytest

from producers.simulate import SimulationSettings, lively, simulate
from stream.backtest.rehearsal import Rehearsal, record
from stream.logs.files import LogLine
from stream.policy import DAY_MS, Policy
from stream.replay.reader import first_look

SETTINGS = lively(members=150, jobs=60, days=60, global_score=True, seed=3)


def lines_of(settings: SimulationSettings) -> list[LogLine]:
    """A simulated log."""
    return [LogLine("log", number, line) for number, line in enumerate(simulate(settings), 1)]


@pytest.fixture(scope="session")
def log() -> list[LogLine]:
    """Lines of a market of some seven thousand events."""
    return lines_of(SETTINGS)


@pytest.fixture(scope="session")
def rehearsal(log: list[LogLine]) -> Rehearsal:
    """Its recording, with the default policy."""
    lines, space = first_look(log, None)
    return record(lines, Policy(), None, space)


@pytest.fixture(scope="session")
def stop_ms() -> int:
    """Return a time in the middle of it."""
    return SETTINGS.start_ms + 30 * DAY_MS
