"""The tune command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from stream.cli.options import ConfigFile, Logs, PolicyFile, configured, parsed
from stream.cli.terminal import OUT, bar, numbers, reading, tell
from stream.configuration.policy_file import format_policy
from stream.errors import ConfigError, ModelError, StoppedError
from stream.logs.files import ReadProgress, check_logs, merge
from stream.policy import Policy
from stream.units import format_time, parse_time_ms

if TYPE_CHECKING:
    from stream.backtest.tuning import Trial, Tuner
    from stream.model.linear import GlobalModel


def tune(
    logs: Logs,
    until: Annotated[
        str,
        typer.Option(
            help="Use only events up to this time (ISO 8601 or milliseconds); keep what follows to"
            " see what the choice is worth."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The policy file to write (TOML).")],
    policy: PolicyFile = None,
    config: ConfigFile = None,
) -> None:
    """Choose the effects' settings for your own log.

    Tries prior precision and half-life of each effect, capacity and coupling, one at a time, and
    takes what predicts better: every application is scored before anything of it is learned, and
    judged by log loss if its whole label window had passed by --until. A value must gain more
    than its standard error. About 30 to 50 values are tried, each as long as learning the log
    once. Ctrl-C keeps the best so far.

    No --model is needed: where applications carry no global_score, global models are fitted here,
    each scoring only jobs that it was not fitted on.

    The file that it writes holds the label policy too and is ready for `--policy`. To see what the
    choice is worth, replay twice with `--score-from TIME`, with it and without.
    """
    from stream.backtest.rehearsal import record
    from stream.backtest.tuning import Tuner, before, cross_fit
    from stream.replay.reader import first_look

    start = configured(config, policy=policy).policy
    until_ms = parsed(parse_time_ms, until) or 0
    check_logs(logs)
    if out.exists():
        raise ConfigError(f"{out} is there already: name another file or remove it")
    model = fitted_model(logs, start, until_ms)
    read = ReadProgress()
    lines, space = first_look(before(merge(logs, read), until_ms), model)
    with reading("labelling", read) as progress:
        rehearsal = record(lines, start, model, space, progress)
    if model is not None:
        cross_fit(rehearsal, start, until_ms)
    tuner = Tuner(rehearsal, start, until_ms)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        _run(tuner)
    except KeyboardInterrupt:
        if not tuner.trials:
            raise StoppedError("interrupted before anything was tried") from None
        _write(out, tuner, until_ms)
        OUT.print(_table(tuner))
        raise StoppedError(
            f"interrupted; the best of the {len(tuner.trials)} tried so far is in {out}"
        ) from None
    _write(out, tuner, until_ms)
    OUT.print(_table(tuner))
    best, first = tuner.best.quality, tuner.trials[0].quality
    tell(
        f"log loss {best.log_loss:.4f}, {first.log_loss:.4f} at the start, over"
        f" {int(tuner.judged.sum()):,} applications ({tuner.positives:,} positive) up to"
        f" {format_time(until_ms)}; the policy is in {out}"
    )


def fitted_model(logs: list[Path], policy: Policy, until_ms: int) -> GlobalModel | None:
    """Fit a global model on the log up to a time; None: applications bring their global score."""
    from stream.backtest.tuning import before, train_until
    from stream.replay.reader import first_look

    try:
        first_look(before(merge(logs), until_ms), None)
    except ModelError:  # no global scores
        read = ReadProgress()
        with reading("fitting a global model", read) as progress:
            return train_until(merge(logs, read), policy, until_ms, progress)
    return None


def _run(tuner: Tuner) -> None:
    """Try everything, with a progress bar where somebody sees it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with bar(*columns) as shown:
        task = shown.add_task("trying", total=tuner.most)
        for count, trial in enumerate(tuner.run(), 1):
            shown.update(
                task,
                completed=count,
                total=max(tuner.most, count),
                description=f"log loss {tuner.best.quality.log_loss:.4f}, after {_said(trial)}",
            )


def _said(trial: Trial) -> str:
    return f"{trial.setting} = {trial.value}" if trial.value else "the start"


def _write(out: Path, tuner: Tuner, until_ms: int) -> None:
    best = tuner.best
    text = (
        f"# Chosen by hearback tune on events up to {format_time(until_ms)}: prequential log loss"
        f" {best.quality.log_loss:.4f}\n# over {int(tuner.judged.sum())} applications,"
        f" {tuner.trials[0].quality.log_loss:.4f} at the start.\n\n{format_policy(best.policy)}"
    )
    partial = out.with_name(out.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(out)


def _table(tuner: Tuner) -> Table:
    """What was tried, in order; what was taken, marked."""
    title = "what was tried, one after the other"
    table = numbers(title, "setting", "value", "log loss", "AUC", "")
    for trial in tuner.trials:
        auc = trial.quality.auc
        table.add_row(
            trial.setting,
            trial.value,
            f"{trial.quality.log_loss:.5f}",
            "-" if auc is None else f"{auc:.4f}",
            "taken" if trial.taken else "",
            style="bold" if trial is tuner.best else None,
        )
    return table
