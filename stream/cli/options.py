"""Options that several commands share, and how they talk to a person."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from stream.configuration.load import load_config
from stream.configuration.sections import Config
from stream.configuration.settings import table
from stream.errors import ConfigError
from stream.kafka.connection import Broker
from stream.logs.files import ReadProgress

_T = TypeVar("_T")

_SAID_EVERY_S = 30.0

OUT = Console()
"""Results."""

ERR = Console(stderr=True)
"""Progress and notes: never in the way of a pipe."""

_SETTINGS = {row.name: row for row in table(Config())}


def setting(name: str, *flags: str, **more: Any) -> Any:
    """Option that stands above a setting, which explains it; goes to :func:`configured`."""
    row = _SETTINGS[name]
    default = f"[{row.section}] {row.key}" + (f", {row.text}" if row.written else "")
    text = f"{row.help[0].upper()}{row.help[1:]}. Default: {default}."
    return typer.Option(*flags, help=text, **more)


Logs = Annotated[
    list[Path],
    typer.Argument(
        metavar="LOG...",
        help="Event logs: JSON Lines, plain, .gz or .zst, or Parquet. Several are merged by event"
        " time.",
    ),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        help="TOML file with labels ([labels]), effects ([effects.*]) and [gate] alone; stands"
        " above --config.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="HEARBACK_CONFIG",
        help="TOML file with all settings (hearback.example.toml lists them).",
    ),
]
BrokerAddress = Annotated[str | None, setting("kafka.broker", "--broker", envvar="HEARBACK_BROKER")]
ApplicationId = Annotated[str | None, setting("worker.application_id", "--app-id")]
DataFolder = Annotated[Path | None, setting("worker.data", "--data")]


class _Rate(ProgressColumn):
    """Events, or what else there is, per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Render a task's rate."""
        events = task.fields.get("events", 0)
        rate = events / task.elapsed if task.elapsed else 0.0
        return Text(f"{events:,} {self._unit}, {rate:,.0f}/s")


def parsed(parse: Callable[[str], _T], text: str | None) -> _T | None:
    """Read an option's text; what cannot be read is bad usage (exit code 2)."""
    if text is None:
        return None
    try:
        return parse(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


def configured(
    config: Path | None,
    *,
    policy: Path | None = None,
    broker: str | None = None,
    app_id: str | None = None,
    options: Mapping[str, object] | None = None,
) -> Config:
    """Read the configuration; options stand above it: those given, by the setting's name.

    Raises:
        BadParameter: an option cannot be.

    """
    given = {"kafka.broker": broker, "worker.application_id": app_id, **(options or {})}
    values = {
        name: parsed(partial(_SETTINGS[name].read, text=True), str(value))
        for name, value in given.items()
        if value is not None
    }
    return load_config(config, os.environ, policy, values)


def connected(config: Config) -> Broker:
    """Return the broker, which has to be named.

    Raises:
        BadParameter: it is not.

    """
    if not config.broker:
        raise typer.BadParameter(
            "no broker is named: give --broker, HEARBACK_BROKER, or [kafka] broker in --config"
        )
    return config.broker


@contextmanager
def doing(what: str) -> Iterator[Callable[[str], None]]:
    """Say what is being done while it takes; give the callback that changes it."""
    if not ERR.is_terminal:
        yield lambda _: None
        return
    with ERR.status(what) as status:
        yield status.update


def load_kernel() -> None:
    """Load the compiled kernel before anything is read; Ctrl-C takes effect after it.

    LLVM calls back into Python while it loads code, and drops what is raised there: a Ctrl-C in
    that moment, in the midst of a run, would be lost.
    """
    from stream.updaters.newton import warm_up

    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        with doing("loading the kernel"):
            warm_up()
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


@contextmanager
def reading(what: str, read: ReadProgress, unit: str = "events") -> Iterator[Callable[[int], None]]:
    """Show how far the logs were read, how fast, and the time left; give the callback for events.

    In a terminal a bar; elsewhere (a log file, a pipe) a line every :data:`_SAID_EVERY_S`.
    """
    if not ERR.is_terminal:
        yield _Said(what, read, unit).advance
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=ERR, transient=True) as bar:
        task = bar.add_task(what, total=None, events=0)

        def advance(events: int) -> None:
            bar.update(
                task, total=read.total_bytes or None, completed=read.done_bytes, events=events
            )

        yield advance


class _Said:
    """Progress as plain lines, now and then."""

    def __init__(self, what: str, read: ReadProgress, unit: str) -> None:
        self._what, self._read, self._unit = what, read, unit
        self._began_s = self._said_s = time.monotonic()

    def advance(self, events: int) -> None:
        """Say how far it is, if nothing was said for a while."""
        now_s = time.monotonic()
        if now_s - self._said_s < _SAID_EVERY_S:
            return
        self._said_s = now_s
        share = self._read.done_bytes / max(self._read.total_bytes, 1)
        passed_s = now_s - self._began_s
        left = ""
        if share > 0:
            left = f", {timedelta(seconds=round(passed_s * (1 - share) / share))} left"
        ERR.print(
            f"{self._what}: {events:,} {self._unit}, {events / passed_s:,.0f}/s, {share:.0%}{left}",
            soft_wrap=True,
            highlight=False,
        )
