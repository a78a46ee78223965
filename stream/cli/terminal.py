"""How commands talk to a person: text, tables, progress."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console, Group
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
from rich.table import Table
from rich.text import Text

from stream.logs.files import ReadProgress

if TYPE_CHECKING:
    from stream.model.folder import GlobalModel
    from stream.quality.prequential import Summary
    from stream.quality.ranking import RankingQuality
    from stream.quality.tally import Quality
    from stream.replay.run_folder import RunMetrics

_SAID_EVERY_S = 30.0

# Names come from logs: [python] is no markup in them, and :100: no picture.
OUT = Console(markup=False, emoji=False, highlight=False)
"""Results."""

ERR = Console(stderr=True, markup=False, emoji=False, highlight=False)
"""Progress and notes: never in the way of a pipe."""


def tell(text: str, console: Console = OUT) -> None:
    """Print text as it is, a line at a time however wide the terminal is."""
    console.print(text, soft_wrap=True)


def numbers(title: str | None, first: str, *others: str) -> Table:
    """Table of a name and numbers in each row."""
    table = Table(title=title, title_justify="left", box=None)
    table.add_column(first, style="dim")
    for name in others:
        table.add_column(name, justify="right")
    return table


def run_summary(metrics: RunMetrics) -> Group:
    """Counts and quality of a replay."""
    parts = [key_values("events", metrics.events), key_values("labels", metrics.labels)]
    parts += [key_values(title, values) for title, values in left_out(metrics) if values]
    parts.append(quality_table(metrics.quality))
    parts += [
        rankings_table(found)
        for found in (metrics.rankings, metrics.member_rankings)
        if found is not None
    ]
    said = None if metrics.matches is None else metrics.matches.in_words()
    return Group(*parts, *([f"matches: {said}"] if said else []))


def left_out(metrics: RunMetrics) -> list[tuple[str, dict[str, int]]]:
    """What a replay could not use, or ignored, and why."""
    # An orphan is counted when it begins to wait; what became of it is in the other counts.
    ignored = {reason: count for reason, count in metrics.ignored.items() if reason != "orphans"}
    return [("dead letters", metrics.dead_letters), ("ignored", ignored)]


def tell_left_out(metrics: RunMetrics | None) -> None:
    """Print the same, a line for each reason; nothing where nothing was counted."""
    for title, values in () if metrics is None else left_out(metrics):
        for reason, count in values.items():
            tell(f"{title}, {reason}: {count:,}")


def key_values(title: str, values: dict[str, int]) -> Table:
    """Two columns: name and number."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, min_width=36)
    table.add_column(style="dim")
    table.add_column(justify="right")
    for name, value in values.items():
        table.add_row(name, f"{value:,}")
    return table


def quality_table(summary: Summary) -> Table:
    """AUC, log loss and calibration of the global and the full score."""
    title = (
        f"scored before learned: {summary.applications:,} applications whose window has"
        f" closed, {summary.positives:,} positive"
    )
    table = numbers(title, "score", "AUC", "log loss", "observed/expected")
    for name, quality in (("global only", summary.global_), ("full", summary.full)):
        table.add_row(name, *_cells(quality))
    return table


def rankings_table(found: RankingQuality, of: str = "") -> Table:
    """What each order was worth when somebody was answered; ``of`` begins the title."""
    title = f"{of}when one of several who waited was answered: {found.in_words()}"
    table = numbers(title, "order", "AUC", "reciprocal rank", "NDCG@10", "top 1", "top 5")
    for name, measures in found.orders.items():
        cells = [measures["auc"].text("{:.3f}")]
        for measure, form in (
            ("reciprocal_rank", "{:.3f}"), ("ndcg_at_10", "{:.3f}"), ("top_1", "{:.1%}"),
            ("top_5", "{:.1%}"),
        ):  # fmt: skip
            cells.append(form.format(measures[measure].value) if measure in measures else "-")
        table.add_row(name.replace("_", " "), *cells)
    return table


def _cells(quality: Quality | None) -> tuple[str, str, str]:
    if quality is None:
        return ("-", "-", "-")
    auc = "-" if quality.auc is None else f"{quality.auc:.4f}"
    return auc, f"{quality.log_loss:.4f}", f"{quality.observed_over_expected:.3f}"


def bar(*columns: ProgressColumn) -> Progress:
    """Progress bar, shown while somebody sees it."""
    return Progress(*columns, console=ERR, transient=True, disable=not ERR.is_terminal)


@contextmanager
def steps(what: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Show how many steps are done and the time left; give the callback for those and a text.

    In a terminal a bar; elsewhere a line, at most every :data:`_SAID_EVERY_S`.
    """
    if not ERR.is_terminal:
        said_s = time.monotonic()

        def say(done: int, description: str) -> None:
            nonlocal said_s
            if time.monotonic() - said_s >= _SAID_EVERY_S:
                said_s = time.monotonic()
                tell(f"{what}: {done} of {max(total, done)} done, now {description}", ERR)

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
    if not ERR.is_terminal:
        yield lambda _: None
        return
    with ERR.status(Text(what)) as status:
        yield lambda changed: status.update(Text(changed))


def load_kernel(model: GlobalModel | None) -> None:
    """Load the compiled kernel, and that of a model, before anything is read.

    Ctrl-C takes effect after it. LLVM calls back into Python while it loads code, and drops what is
    raised there: a Ctrl-C in that moment, in the midst of a run, would be lost.
    """
    from stream.updaters.newton import NOT_KEPT, warm_up

    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        with doing("loading the kernel"):
            kept = warm_up()
            if model is not None:
                model.warm_up()
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
    if not kept:
        tell(NOT_KEPT, ERR)


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
        tell(f"{what}: {so_far(events, now_s)}, {share:.0%}{left}", ERR)

    if not ERR.is_terminal:
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
