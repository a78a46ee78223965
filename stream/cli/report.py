"""What a run came to, as tables a person reads."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from stream.cli.terminal import numbers
from stream.quality.prequential import Summary
from stream.quality.tally import Quality
from stream.replay.run_folder import RunMetrics


def run_summary(metrics: RunMetrics) -> Group:
    """Counts and quality of a replay."""
    counts = key_values("events", {**metrics.events})
    labels = key_values("labels", metrics.labels)
    parts = [counts, labels]
    if metrics.dead_letters:
        parts.append(key_values("dead letters", metrics.dead_letters))
    parts.append(quality_table(metrics.quality))
    return Group(*parts)


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


def _cells(quality: Quality | None) -> tuple[str, str, str]:
    if quality is None:
        return ("-", "-", "-")
    auc = "-" if quality.auc is None else f"{quality.auc:.4f}"
    return auc, f"{quality.log_loss:.4f}", f"{quality.observed_over_expected:.3f}"
