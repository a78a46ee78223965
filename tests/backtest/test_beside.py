"""A second process learns settings as the first one would."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.backtest import runner
from stream.backtest.beside import Beside, learn
from stream.backtest.comparison import Comparison, Setting, parse_comparison
from stream.backtest.rehearsal import Rehearsal
from stream.backtest.runner import Runner
from stream.configuration.settings import parse_toml
from stream.errors import WorkerDiedError
from stream.logs.files import LogLine
from stream.policy import EffectSettings, Policy
from tests.backtest.test_runner import runner as runner_of

COMPARED = """
reference = "weekly"
[[setting]]
name = "as it comes"
[[setting]]
name = "weekly"
refresh = "weekly"
[[setting]]
name = "explicit"
learn = "explicit"
[[setting]]
name = "short window"
policy.labels.window = "5d"
[[setting]]
name = "wait"
learn = "final"
policy.effects.per_job.half_life = "7d"
"""


def parsed() -> Comparison:
    """What is compared."""
    return parse_comparison(parse_toml(COMPARED), Policy())


@pytest.fixture(scope="module")
def compared(log: list[LogLine]) -> Runner:
    """A comparison that is recorded, and not yet learned."""
    return runner_of(log, parsed())


@pytest.fixture(autouse=True)
def _worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small log has a second process, too."""
    monkeypatch.setattr(runner, "WORTH", 0)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Beside]:
    """All that are started."""
    seen: list[Beside] = []
    entered = Beside.__enter__

    def enter(self: Beside) -> Beside:
        seen.append(self)
        return entered(self)

    monkeypatch.setattr(Beside, "__enter__", enter)
    return seen


def test_two_processes_find_what_one_finds(compared: Runner, started: list[Beside]) -> None:
    """All figures are equal to the digit, and every setting is told of once."""
    told: list[str] = []
    alone = compared.run(told.append)
    assert not started
    both = compared.run(told.append, processes=2)
    assert len(started) == 1
    assert both == alone
    names = [one.name for one in alone.settings[:-1]]
    assert sorted(told) == sorted([*names, *names])


def test_it_has_all_that_learning_takes(rehearsal: Rehearsal, stop_ms: int) -> None:
    """Whatever is sent, each setting's scores are those of this process; then an error is told.

    In one line, in its own words, with the name of the setting.
    """
    settings = [one for one in parsed().settings if one.name != "short window"]
    odd = Policy(effects={"per_job": EffectSettings(prior_precision={"no such": 2.0})})
    rest = iter([*settings, Setting(name="odd", policy=odd)])
    found: dict[str, NDArray[np.float64]] = {}

    def keep(setting: Setting, scores: NDArray[np.float64]) -> None:
        found[setting.name] = scores

    with (
        Beside(rehearsal, stop_ms, lambda: next(rest, None), keep) as other,
        pytest.raises(WorkerDiedError, match=r"^setting 'odd': .*no such.*$") as raised,
    ):
        other.join()
    assert "\n" not in str(raised.value)
    assert [*found] == [one.name for one in settings]
    for one in settings:
        assert (found[one.name] == learn(rehearsal, one, stop_ms)).all()


def test_a_killed_process_ends_the_comparison(
    compared: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what was learned, how it ended, and what helps."""
    entered = Beside.__enter__

    def enter(self: Beside) -> Beside:
        entered(self)
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        return self

    monkeypatch.setattr(Beside, "__enter__", enter)
    with pytest.raises(WorkerDiedError, match=r"^the process .*\(SIGKILL\).*memory.*$"):
        compared.run(processes=2)


def test_no_process_is_left_behind(compared: Runner, started: list[Beside]) -> None:
    """After Ctrl-C the other process is gone at once, and so is the thread that feeds it."""

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compared.run(interrupt, processes=2)
    (other,) = started
    assert not other._process.is_alive()
    assert not other._thread.is_alive()
