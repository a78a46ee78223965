"""Progress: a line now and then where there is no terminal."""

from __future__ import annotations

import os
import re
import signal

import pytest

from stream.cli import terminal
from stream.logs.files import ReadProgress


def test_progress_is_said_in_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal a line says events, rate, share and time left, every half minute."""
    now = [1000.0]
    monkeypatch.setattr("stream.cli.terminal.time.monotonic", lambda: now[0])
    read = ReadProgress()
    read.total_bytes = 1000
    with terminal.reading("replaying", read) as advance:
        for step in range(1, 8):
            now[0] += 10.0
            read.done_bytes = 100 * step
            advance(20_000 * step)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "replaying: 60,000 events, 2,000/s, 30%, 0:01:10 left",
        "replaying: 120,000 events, 2,000/s, 60%, 0:00:40 left",
    ]


def test_steps_are_said_in_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal a line says which step of how many is being done, every half minute."""
    now = [1000.0]
    monkeypatch.setattr("stream.cli.terminal.time.monotonic", lambda: now[0])
    with terminal.steps("learning", 8) as show:
        for step in range(8):
            show(step, f"setting {step}")
            now[0] += 12.0
    assert capsys.readouterr().err.splitlines() == [
        "learning: 3 of 8 done, now setting 3",
        "learning: 6 of 8 done, now setting 6",
    ]


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """What takes less than half a minute says nothing."""
    with terminal.reading("replaying", ReadProgress()) as advance:
        advance(2048)
    assert not re.search("replaying", capsys.readouterr().err)


def test_ctrl_c_while_the_kernel_loads_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt that comes while compiled code is loaded takes effect right after it."""
    loaded = []

    def interrupted() -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        loaded.append(True)
        return True

    monkeypatch.setattr("stream.updaters.newton.warm_up", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        terminal.load_kernel()
    assert loaded == [True]
    assert signal.getsignal(signal.SIGINT) is before
