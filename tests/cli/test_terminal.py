"""Text and tables as they are; progress, a line now and then where there is no terminal."""

from __future__ import annotations

import io
import os
import re
import signal

import pytest
from rich.console import Console

from stream.cli import terminal
from stream.logs.files import ReadProgress

NAMES = ("skill[python]", "pay[/h]", "[bold]x", "b:x:", "a.jsonl:100:", r"\[a]")
"""As feature names, actions and files may be called; to rich some are markup."""


@pytest.mark.parametrize("console", ["OUT", "ERR"])
def test_names_are_printed_as_they_are(console: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in a table's title, head or cell, or in a line, is text and nothing else."""
    to: Console = getattr(terminal, console)
    for name in NAMES:
        table = terminal.numbers(name, name, name)
        table.add_row(name, name)
        to.print(table)
        to.print(terminal.key_values(name, {name: 1}))
        terminal.tell(name, to)
        printed = "".join(capsys.readouterr())
        assert printed.count(name) == 8
        assert printed.replace(name, "").split() == ["1"]


@pytest.mark.parametrize("name", NAMES)
def test_progress_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A setting or a store that is named in a bar or beside a spinner is text too."""
    shown = io.StringIO()
    to = Console(file=shown, force_terminal=True, width=120, markup=False, emoji=False)
    monkeypatch.setattr(terminal, "ERR", to)
    with terminal.steps("learning", 2) as show:
        show(1, name)
    with terminal.doing(name) as say:
        say(f"after {name}")
    assert f"learning: {name}" in shown.getvalue()
    assert f"after {name}" in shown.getvalue()


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
        terminal.load_kernel(None)
    assert loaded == [True]
    assert signal.getsignal(signal.SIGINT) is before
