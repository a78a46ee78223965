"""Progress: bars in a terminal, a line now and then elsewhere, nothing where it is hidden."""

from __future__ import annotations

import io
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from stream import progress
from stream.logs.files import ReadProgress
from tests.cli.test_terminal import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_progress_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A setting or a store that is named in a bar or beside a spinner is text too."""
    shown = io.StringIO()
    to = Console(file=shown, force_terminal=True, width=120, markup=False, emoji=False)
    monkeypatch.setattr(progress, "ERR", to)
    with progress.steps("learning", 2) as show:
        show(1, name)
    with progress.doing(name) as say:
        say(f"after {name}")
    assert f"learning: {name}" in shown.getvalue()
    assert f"after {name}" in shown.getvalue()


def test_progress_is_said_in_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal a line says events, rate, share and time left, every half minute."""
    now = [1000.0]
    monkeypatch.setattr("stream.progress.time.monotonic", lambda: now[0])
    read = ReadProgress()
    read.total_bytes = 1000
    with progress.reading("replaying", read) as advance:
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
    monkeypatch.setattr("stream.progress.time.monotonic", lambda: now[0])
    with progress.steps("learning", 8) as show:
        for step in range(8):
            show(step, f"setting {step}")
            now[0] += 12.0
    assert capsys.readouterr().err.splitlines() == [
        "learning: 3 of 8 done, now setting 3",
        "learning: 6 of 8 done, now setting 6",
    ]


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """What takes less than half a minute says nothing."""
    with progress.reading("replaying", ReadProgress()) as advance:
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
        progress.load_kernel(None)
    assert loaded == [True]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_kernel_loads_in_any_thread() -> None:
    """Where no signal can be caught, as in a server's thread, the kernel loads all the same."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(progress.load_kernel, None).result()


def test_hidden_progress_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within ``hidden`` there is no line and no bar; after it there is again."""
    now = [0.0]
    monkeypatch.setattr("stream.progress.time.monotonic", lambda: now[0])
    shown = io.StringIO()
    for to in (progress.ERR, Console(file=shown, force_terminal=True)):
        monkeypatch.setattr(progress, "ERR", to)
        with progress.hidden():
            with progress.reading("replaying", ReadProgress()) as advance:
                now[0] += 60.0
                advance(1)
            with progress.steps("learning", 2) as show:
                now[0] += 60.0
                show(1, "one")
            with progress.doing("fitting") as say:
                say("more")
    assert (shown.getvalue(), capsys.readouterr().err) == ("", "")
    assert not progress._HIDDEN.get()
