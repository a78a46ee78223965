"""Commands that learn one log with many settings: tune, backtest."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table

from stream.cli.check import Force, look_first
from stream.cli.options import (
    ConfigFile,
    Kind,
    Logs,
    MaxJump,
    PolicyFile,
    SpecFile,
    configured,
    parsed,
)
from stream.cli.spec import fitted_spec
from stream.cli.terminal import (
    OUT,
    numbers,
    rankings_table,
    steps,
    tell,
    tell_left_out,
)
from stream.errors import ConfigError, StoppedError
from stream.logs.files import check_logs
from stream.model.folder import load_model
from stream.text import new_folder
from stream.units import format_time, parse_duration_ms, parse_time_ms

if TYPE_CHECKING:
    from stream.backtest.result import Backtest
    from stream.backtest.tuning import Tuner
    from stream.features.blocks import FeatureSpace
    from stream.policy import Policy
    from stream.quality.tally import Quality

RESULT = "backtest.json"
REPORT = "report.html"
CURVE = "freshness.svg"


def tune(
    logs: Logs,
    until: Annotated[
        str,
        typer.Option(
            help="Use only events up to this time (a date, ISO 8601, or seconds or milliseconds"
            " since 1970); keep what follows to see what the choice is worth."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The policy file to write (TOML).")],
    kind: Kind = "linear",
    spec: SpecFile = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
    max_jump: MaxJump = None,
    force: Force = False,
) -> None:
    """Choose the effects' settings for your own log.

    Tries prior precision and half-life of each effect, capacity, coupling and priors by feature,
    one at a time, and takes what predicts better: every application is scored before anything of
    it is learned, and judged by log loss if its whole label window had passed by --until. A value
    must gain more than its standard error. Where the best is the first or last of the values
    tried, it goes on beyond. About 40 to 70 values are tried, each as long as learning the log
    once. Ctrl-C keeps the best so far.

    No --model is needed: where applications carry no global_score, global models (of --kind) are
    fitted here, each scoring only jobs that it was not fitted on. Where they carry attributes,
    --spec says what becomes of them, as it does for `train`.

    The file that it writes holds the label policy too and is ready for `--policy`. To see what the
    choice is worth, replay twice with `--score-from TIME`, with it and without.
    """
    from stream.backtest.tuned import begun

    start = configured(config, policy=policy).policy
    until_ms = parsed(parse_time_ms, until) or 0
    max_jump_ms = parsed(parse_duration_ms, max_jump)
    check_logs(logs)
    if out.exists():
        raise ConfigError(f"{out} is there already: name another file or remove it")

    def look(known: FeatureSpace | None) -> None:
        look_first(
            logs, start, force=force, max_jump_ms=max_jump_ms, until_ms=until_ms, space=known
        )

    maker = None if spec is None else fitted_spec(spec, logs, until_ms)
    tuner, left_out = begun(
        logs, start, until_ms, kind=kind, maker=maker, max_jump_ms=max_jump_ms, look=look
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with steps("trying", tuner.most) as show:
            for done, trial in enumerate(tuner.run(), 1):
                show(done, f"log loss {tuner.best.quality.log_loss:.4f}, after {trial.in_words()}")
    except KeyboardInterrupt:
        if not tuner.trials:
            raise StoppedError("interrupted before anything was tried") from None
        _write(out, tuner, until_ms)
        OUT.print(_trials(tuner))
        raise StoppedError(
            f"interrupted; the best of the {len(tuner.trials)} tried so far is in {out}"
        ) from None
    _write(out, tuner, until_ms)
    OUT.print(_trials(tuner))
    tell_left_out(left_out)
    best, first = tuner.best.quality, tuner.trials[0].quality
    for trial in tuner.trials:
        if trial.beyond and trial.taken:
            tell(f"{trial.in_words()} lies beyond the values that are usual, and is better")
    for said, trial in {"the start": tuner.trials[0], "the best": tuner.best}.items():
        rankings = tuner.rankings(trial.policy)
        if rankings is not None:
            OUT.print(rankings_table(rankings, f"{said}, "))
    tell(tuner.worth())
    tell(
        f"log loss {best.log_loss:.4f}, {first.log_loss:.4f} at the start, over"
        f" {int(tuner.judged.sum()):,} applications ({tuner.positives:,} positive) up to"
        f" {format_time(until_ms)}; the policy is in {out}"
    )


def _write(out: Path, tuner: Tuner, until_ms: int) -> None:
    from stream.backtest.tuned import policy_text

    partial = out.with_name(out.name + ".part")
    partial.write_text(policy_text(tuner, until_ms), encoding="utf-8")
    partial.replace(out)


def _trials(tuner: Tuner) -> Table:
    """What was tried, in order; what was taken, marked."""
    title = "what was tried, one after the other"
    table = numbers(title, "setting", "value", "log loss", "AUC", "")
    table.add_row("global model alone", "", *_figures(tuner.alone), "")
    for trial in tuner.trials:
        notes = ("taken" * trial.taken, "beyond the grid" * trial.beyond)
        table.add_row(
            trial.setting,
            trial.value,
            *_figures(trial.quality),
            ", ".join(note for note in notes if note),
            style="bold" if trial is tuner.best else None,
        )
    return table


def _figures(found: Quality) -> tuple[str, str]:
    """Log loss and AUC."""
    return f"{found.log_loss:.5f}", "-" if found.auc is None else f"{found.auc:.4f}"


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
    kind: Kind = "linear",
    spec: SpecFile = None,
    policy: PolicyFile = None,
    score_from: Annotated[
        str | None,
        typer.Option(
            help="Judge only applications from this time on. Unless given: from the end of the"
            " model's training, or of the log's first quarter."
        ),
    ] = None,
    retrain: Annotated[
        str | None,
        typer.Option(
            help="Compare the reference also with itself where a new global model is trained so"
            " often, and rolled in (7d)."
        ),
    ] = None,
    max_jump: MaxJump = None,
    force: Force = False,
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
    freshness.svg. The log is held in memory, about 10 kB for each application; where
    there are two cores and it is worth it, two processes learn, with the same figures.
    """
    from stream.backtest.beside import cores
    from stream.backtest.compared import compare
    from stream.report.charts import freshness
    from stream.report.page import page, picture
    from stream.report.words import sentences

    if spec is not None and model is not None:
        raise typer.BadParameter("a model has a spec of its own: give --model or --spec")
    loaded = None if model is None else load_model(model)
    settings = configured(None, policy=policy)
    score_from_ms = parsed(parse_time_ms, score_from)
    retrain_ms = parsed(parse_duration_ms, retrain)
    max_jump_ms = parsed(parse_duration_ms, max_jump)
    check_logs(logs)
    new_folder(out)

    def look(base: Policy, known: FeatureSpace | None) -> None:
        look_first(logs, base, force=force, max_jump_ms=max_jump_ms, space=known)

    found, left_out = compare(
        *(logs, settings, config, loaded),
        kind=kind,
        learn_spec=None if spec is None else partial(fitted_spec, spec, logs),
        score_from_ms=score_from_ms,
        max_jump_ms=max_jump_ms,
        retrain_ms=retrain_ms,
        look=look,
        processes=cores(),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULT).write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    (out / REPORT).write_text(page(found), encoding="utf-8")
    if found.freshness is not None and found.freshness.points:
        (out / CURVE).write_text(picture(freshness(found.freshness)), encoding="utf-8")
    OUT.print(_table(found))
    for rankings in (found.rankings, found.member_rankings):
        if rankings is not None:
            OUT.print(rankings_table(rankings))
    tell_left_out(left_out)
    tell("")
    for sentence in sentences(found):
        tell(f"- {sentence}")
    tell(f"\nto look at: {out / REPORT}; every figure: {out / RESULT}")


def _table(found: Backtest) -> Table:
    """One row for each setting; differences to the reference."""
    title = (
        f"{found.judged:,} applications from {format_time(found.score_from_ms)[:10]} to"
        f" {format_time(found.until_ms)[:10]}, {found.positives / found.judged:.1%} answered;"
        f" differences to '{found.reference}', 95 % intervals over {found.blocks}"
        f" {found.block}s"
    )
    columns = ("AUC", "difference", "log loss", "difference", "observed/expected")
    table = numbers(title, "setting", *columns)
    for one in found.settings:
        reference = one.name == found.reference
        table.add_row(
            one.name,
            f"{one.auc.value:.4f}",
            "" if reference else one.auc_difference.text("{:+.4f}"),
            f"{one.log_loss.value:.4f}",
            "" if reference else one.log_loss_difference.text("{:+.4f}"),
            f"{one.observed_over_expected.value:.3f}",
            style="bold" if reference else None,
        )
    return table
