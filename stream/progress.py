"""SHELL: how far something is that takes its time, shown to the person who waits for it.

For commands and for the Python API alike: in a terminal a bar on stderr, elsewhere a line now and
then; within :func:`hidden` nothing.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from stream.logs.files import ReadProgress
from stream.text import printable

if TYPE_CHECKING:
    from stream.model.folder import GlobalModel

_SAID_EVERY_S = 30.0


class PlainConsole(Console):
    """Prints text as it is. Names come from logs: [python] is no markup in them, :100: no picture.

    Control characters are written out.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Take a text to print, a table's cell, head or title."""
        return super().render_str(printable(text), **options)


ERR = PlainConsole(stderr=True)
"""Progress and notes: never in the way of a pipe."""

_HIDDEN: ContextVar[bool] = ContextVar("hidden", default=False)


@contextmanager
def hidden(hide: bool = True) -> Iterator[None]:
    """Show nothing of what is done within, if ``hide``."""
    before = _HIDDEN.set(hide)
    try:
        yield
    finally:
        _HIDDEN.reset(before)


def bar(*columns: ProgressColumn) -> Progress:
    """Progress bar, shown while somebody sees it."""
    return Progress(*columns, console=ERR, transient=True, disable=not _is_bar())


@contextmanager
def steps(what: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Show how many steps are done and the time left; give the callback for those and a text.

    In a terminal a bar; elsewhere a line, at most every :data:`_SAID_EVERY_S`.
    """
    if not _is_bar():
        said_s = time.monotonic()

        def say(done: int, description: str) -> None:
            nonlocal said_s
            if time.monotonic() - said_s >= _SAID_EVERY_S:
                said_s = time.monotonic()
                _say(f"{what}: {done} of {max(total, done)} done, now {description}")

        yield say
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with bar(*columns) as shown:
        task = shown.add_task(what, total=total)

        def show(done: int, description: str) -> None:
            shown.update(
                task, completed=done, total=max(total, done), description=f"{what}: {description}"
            )

        yield show


@contextmanager
def doing(what: str) -> Iterator[Callable[[str], None]]:
    """Say what is being done while it takes; give the callback that changes it."""
    if not _is_bar():
        yield lambda _: None
        return
    with ERR.status(Text(what)) as status:
        yield lambda changed: status.update(Text(changed))


def load_kernel(model: GlobalModel | None) -> None:
    """Load the compiled kernel, and that of a model, before anything is read.

    Ctrl-C takes effect after it. LLVM calls back into Python while it loads code, and drops what is
    raised there: a Ctrl-C in that moment, in the midst of a run, would be lost.
    """
    from stream.updaters.newton import NOT_KEPT, warm_up  # noqa: PLC0415 - loads Numba

    asked: list[int] = []
    alone = threading.current_thread() is threading.main_thread()  # no other gets signals
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number)) if alone else None
    try:
        with doing("loading the kernel"):
            kept = warm_up()
            if model is not None:
                model.warm_up()
    finally:
        if alone:
            signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
    if not kept:
        _say(NOT_KEPT)


@contextmanager
def reading(what: str, read: ReadProgress, unit: str = "events") -> Iterator[Callable[[int], None]]:
    """Show how far the logs were read, how fast, and the time left; give the callback for events.

    In a terminal a bar; elsewhere (a log file, a pipe) a line every :data:`_SAID_EVERY_S`.
    """
    began_s = said_s = time.monotonic()

    def so_far(events: int, now_s: float) -> str:
        return f"{events:,} {unit}, {events / max(now_s - began_s, 1e-9):,.0f}/s"

    def say(events: int) -> None:
        nonlocal said_s
        now_s = time.monotonic()
        if now_s - said_s < _SAID_EVERY_S:
            return
        said_s = now_s
        share = read.done_bytes / max(read.total_bytes, 1)
        left = ""
        if share > 0:
            left_s = (now_s - began_s) * (1 - share) / share
            left = f", {timedelta(seconds=round(left_s))} left"
        _say(f"{what}: {so_far(events, now_s)}, {share:.0%}{left}")

    if not _is_bar():
        yield say
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[so_far]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with bar(*columns) as shown:
        task = shown.add_task(what, total=None, so_far="")

        def advance(events: int) -> None:
            shown.update(
                task,
                total=read.total_bytes or None,
                completed=read.done_bytes,
                so_far=so_far(events, time.monotonic()),
            )

        yield advance


def _say(text: str) -> None:
    if not _HIDDEN.get():
        ERR.print(text, soft_wrap=True)


def _is_bar() -> bool:
    return ERR.is_terminal and not _HIDDEN.get()
