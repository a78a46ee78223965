"""How commands talk to a person: text, tables, and :mod:`stream.progress`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from stream.progress import ERR, PlainConsole, bar, doing, load_kernel, reading, steps

if TYPE_CHECKING:
    from rich.console import Console

    from stream.backtest.rehearsal import LeftOut
    from stream.quality.prequential import Summary
    from stream.quality.ranking import RankingQuality
    from stream.quality.tally import Quality
    from stream.replay.run_folder import RunMetrics

__all__ = [
    "ERR",
    "OUT",
    "bar",
    "doing",
    "key_values",
    "left_out",
    "load_kernel",
    "numbers",
    "quality_table",
    "rankings_table",
    "reading",
    "run_summary",
    "steps",
    "tell",
    "tell_left_out",
    "whole",
]

_WIDE = 10_000  # columns where there is no terminal

OUT = PlainConsole()
"""Results."""


def tell(text: str, console: Console = OUT) -> None:
    """Print text as it is, a line at a time however wide the terminal is."""
    console.print(text, soft_wrap=True)


def whole(table: Table, *ids: int) -> None:
    """Print a table; the columns ``ids`` in full: folded on a terminal, elsewhere on a line."""
    for column in ids:
        table.columns[column].overflow = "fold"
    if OUT.is_terminal or "COLUMNS" in os.environ:
        OUT.print(table)
    else:
        PlainConsole(width=_WIDE).print(table)


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


def left_out(metrics: RunMetrics | LeftOut) -> list[tuple[str, dict[str, int]]]:
    """What a replay could not use, or ignored, and why."""
    # An orphan is counted when it begins to wait; what became of it is in the other counts.
    ignored = {reason: count for reason, count in metrics.ignored.items() if reason != "orphans"}
    return [("dead letters", metrics.dead_letters), ("ignored", ignored)]


def tell_left_out(metrics: RunMetrics | LeftOut) -> None:
    """Print the same, a line for each reason."""
    for title, values in left_out(metrics):
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
