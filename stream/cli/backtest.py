"""The backtest command."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from stream.cli.options import Logs, PolicyFile, configured, parsed
from stream.cli.terminal import OUT, bar, load_kernel, reading, tell
from stream.cli.tune import fitted_model
from stream.errors import ConfigError
from stream.logs.files import LogLine, ReadProgress, check_logs, merge
from stream.model.linear import load_model
from stream.policy import DAY_MS, Policy
from stream.units import format_time, parse_time_ms

if TYPE_CHECKING:
    from stream.backtest.judgement import Interval
    from stream.backtest.result import Backtest
    from stream.backtest.runner import Runner, Span
    from stream.model.linear import GlobalModel

RESULT = "backtest.json"
REPORT = "report.html"
CURVE = "freshness.svg"

_SHOWN_EVERY = 1000  # lines


def _print_example(asked: bool) -> None:
    if asked:
        from stream.backtest.comparison import EXAMPLE

        typer.echo(EXAMPLE, nl=False)
        raise typer.Exit


def backtest(
    logs: Logs,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the report; must be new or empty.")
    ],
    config: Annotated[
        Path | None,
        typer.Option(help="What to compare (TOML); without it, what --example prints."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Model folder. Without it, and where applications bring no global_score, one is"
            " fitted on the first quarter of the log."
        ),
    ] = None,
    policy: PolicyFile = None,
    score_from: Annotated[
        str | None,
        typer.Option(
            help="Judge only applications from this time on. Unless given: from the end of the"
            " model's training, or of the log's first quarter."
        ),
    ] = None,
    example: Annotated[  # noqa: ARG001 - the callback answers it
        bool,
        typer.Option(
            "--example",
            is_eager=True,
            callback=_print_example,
            help="Print an example of --config and end.",
        ),
    ] = False,
) -> None:
    """What would this have done for us? Compares settings over one log, and writes a report.

    Every setting sees the log as it happened: each application is scored before anything of it is
    learned, and judged by its final label. Settings differ in when labels take effect (never,
    weekly, daily, at once), in which labels are taken (early ones, explicit ones, only those of
    whole windows), in the effects and in how these learn. Intervals are of 95 %, by resampling
    weeks. `hearback backtest --example > compare.toml` is a start.

    Writes report.html (one file, to look at or to send), backtest.json with every figure, and
    freshness.svg. The log is held in memory, about 2 kB for each application.
    """
    from stream.backtest.comparison import load_comparison
    from stream.backtest.runner import Runner, look_through
    from stream.report.charts import freshness
    from stream.report.page import page, picture
    from stream.report.words import sentences

    base = configured(None, policy=policy).policy
    comparison = load_comparison(config, base)
    loaded = None if model is None else load_model(model)
    score_from_ms = parsed(parse_time_ms, score_from)
    check_logs(logs)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already: name another folder or remove it")
    read = ReadProgress()
    with reading("looking through", read) as progress:
        span = look_through(merge(logs, read), progress)
    loaded, from_ms = _model(logs, base, loaded, span)
    load_kernel()
    read = ReadProgress()
    with reading("labelling", read) as progress:
        runner = Runner(
            read=lambda: _counted(merge(logs, read), progress),
            names=[path.name for path in logs],
            span=span,
            comparison=comparison,
            policy=base,
            model=loaded,
            score_from_ms=from_ms if score_from_ms is None else score_from_ms,
        )
    found = _run(runner, len(comparison.settings))
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULT).write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    (out / REPORT).write_text(page(found), encoding="utf-8")
    if found.freshness is not None and found.freshness.points:
        (out / CURVE).write_text(picture(freshness(found.freshness)), encoding="utf-8")
    OUT.print(_table(found))
    tell("")
    for sentence in sentences(found):
        tell(f"- {sentence}")
    tell(f"\nto look at: {out / REPORT}; every figure: {out / RESULT}")


def _model(
    logs: list[Path], policy: Policy, loaded: GlobalModel | None, span: Span
) -> tuple[GlobalModel | None, int]:
    """Return the global model, fitted on the log where there is none, and from when to judge."""
    if loaded is not None:
        return loaded, loaded.manifest.trained_until_ms
    quarter_ms = span.quarter_ms()
    return fitted_model(logs, policy, quarter_ms), quarter_ms


def _counted(lines: Iterable[LogLine], progress: Callable[[int], None]) -> Iterator[LogLine]:
    """Show how far a log was read."""
    for number, line in enumerate(lines, 1):
        if number % _SHOWN_EVERY == 0:
            progress(number)
        yield line


def _run(runner: Runner, settings: int) -> Backtest:
    """Learn with every setting, with a progress bar where somebody sees it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with bar(*columns) as shown:
        task = shown.add_task("learning", total=settings)
        done = count()

        def show(name: str) -> None:
            shown.update(task, completed=next(done), description=f"learning: {name}")

        return runner.run(show)


def _table(found: Backtest) -> Table:
    """One row for each setting; differences to the reference."""
    table = Table(
        title=f"{found.judged:,} applications from {format_time(found.score_from_ms)[:10]} to"
        f" {format_time(found.until_ms)[:10]}, {found.positives / found.judged:.1%} answered;"
        f" differences to '{found.reference}', 95 % intervals over {found.blocks}"
        f" {'weeks' if found.block_ms > DAY_MS else 'days'}",
        title_justify="left",
        box=None,
    )
    table.add_column("setting")
    for name in ("AUC", "difference", "log loss", "difference", "observed/expected"):
        table.add_column(name, justify="right")
    for one in found.settings:
        reference = one.name == found.reference
        table.add_row(
            one.name,
            f"{one.auc.value:.4f}",
            "" if reference else _difference(one.auc_difference),
            f"{one.log_loss.value:.4f}",
            "" if reference else _difference(one.log_loss_difference),
            f"{one.observed_over_expected.value:.3f}",
            style="bold" if reference else None,
        )
    return table


def _difference(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:+.4f}"
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
