"""Commands over log files: simulate, replay."""

from __future__ import annotations

from filecmp import cmp
from pathlib import Path
from typing import Annotated, Literal

import typer

from producers.drift import truth_over_time
from producers.truth import SimulationSettings, lively
from stream.cli.check import Force, look_first
from stream.cli.options import (
    ConfigFile,
    Logs,
    MaxJump,
    PolicyFile,
    configured,
    parsed,
)
from stream.cli.terminal import OUT, doing, load_kernel, reading, run_summary, tell
from stream.configuration.load import with_model
from stream.errors import ConfigError, StoppedError
from stream.logs.files import ReadProgress, merge, write_lines
from stream.model.folder import GlobalModel, load_model
from stream.replay.columns import Format
from stream.units import parse_duration_ms, parse_time_ms

_DEFAULTS = lively()


def simulate(
    out: Annotated[Path, typer.Option("--out", help="The log to write (.jsonl, .gz or .zst).")],
    truth: Annotated[
        Path | None,
        typer.Option("--truth", help="Where the true coefficients go; LOG.truth.json unless set."),
    ] = None,
    market: Annotated[
        Literal["lively", "calm"],
        typer.Option(
            help="lively: members search for weeks, jobs live for days, preferences drift and"
            " recruiters have habits. calm: nothing ever changes."
        ),
    ] = "lively",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 1,
    members: Annotated[int, typer.Option(help="How many members apply.")] = _DEFAULTS.members,
    jobs: Annotated[int, typer.Option(help="How many jobs there are.")] = _DEFAULTS.jobs,
    days: Annotated[int, typer.Option(help="How long members apply.")] = _DEFAULTS.days,
    applications_per_member: Annotated[
        float, typer.Option(help="On average, over all days.")
    ] = _DEFAULTS.applications_per_member,
    start: Annotated[str, typer.Option(help="The first day, such as 2024-01-31.")] = "2024-01-01",
    global_features: Annotated[int, typer.Option(min=1)] = _DEFAULTS.d_global,
    member_features: Annotated[int, typer.Option(min=1)] = _DEFAULTS.d_member,
    job_features: Annotated[int, typer.Option(min=1)] = _DEFAULTS.d_job,
    preferences: Annotated[
        float,
        typer.Option(
            help="How much a term of a candidate's profile matters to a job, as a standard"
            " deviation of log-odds: 0.5 is a nuance, 1 a clear preference, 2 nearly a requirement."
        ),
    ] = 0.0,
    attributes: Annotated[
        bool,
        typer.Option(
            "--attributes",
            help="Applications also carry what members and jobs say of themselves (title, skills,"
            " years, city, dates), from which the features follow.",
        ),
    ] = False,
) -> None:
    """Write a synthetic marketplace log whose true coefficients are known.

    Members apply to jobs, recruiters answer after hours or days, decline, correct themselves or
    close the job; some events arrive out of order (by less than an hour) or twice. The log is in
    order of arrival; a second file has the true coefficients: those of the last day, and of every
    week where they drift.
    """
    from producers.simulate import simulate as simulate_lines

    kind = lively if market == "lively" else SimulationSettings
    settings = kind(
        seed=seed,
        members=members,
        jobs=jobs,
        days=days,
        start_ms=parsed(parse_time_ms, start) or 0,
        applications_per_member=applications_per_member,
        d_global=global_features,
        d_member=member_features,
        d_job=job_features,
        preference_sd=preferences,
        attributes=attributes,
        terms_share=1.0 if preferences else _DEFAULTS.terms_share,
    )
    truth_path = truth or out.with_name(f"{out.name.split('.')[0]}.truth.json")
    _make_parent(out)
    _make_parent(truth_path)
    there = [path for path in (out, truth_path) if path.exists()]
    with doing("simulating a marketplace"):
        made = out.with_name(f"new-{out.name}") if there else out
        count = write_lines(made, simulate_lines(settings))
        truths = truth_over_time(settings)
        if there:  # the same again is no harm: a stack that is started again does that
            same = {out: lambda: cmp(made, out, shallow=False)}
            same[truth_path] = lambda: truth_path.read_bytes() == truths
            try:
                changed = [path for path in there if not same[path]()]
                if changed:
                    raise ConfigError(
                        f"{changed[0]} is there already: name another file or remove it"
                    )
            except BaseException:
                made.unlink()
                raise
            made.replace(out)
        truth_path.write_bytes(truths)
    tell(f"{count:,} events in {out}, the true coefficients in {truth_path}")


def replay(
    logs: Logs,
    out: Annotated[Path, typer.Option("--out", help="The run's folder; must not exist yet.")],
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder; not needed where every application has a global_score."),
    ] = None,
    roll: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL@TIME",
            help="From TIME on, applications are scored by this model, and go on being labelled and"
            " learned as before. May be given several times; the last that begins before an"
            " application scores it.",
        ),
    ] = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
    score_from: Annotated[
        str | None,
        typer.Option(help="Judge only applications from this time on (learning is not limited)."),
    ] = None,
    close: Annotated[
        bool, typer.Option("--close", help="At the end, let every label window pass.")
    ] = False,
    max_jump: MaxJump = None,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="How many processes share the work.")
    ] = 1,
    sync: Annotated[
        str,
        typer.Option(help="With several: how often, by event time, they wait for each other."),
    ] = "10m",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with RUN, which was interrupted."),
    ] = False,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="Of labels, scores and coefficients: JSON Lines, or Parquet with typed columns.",
        ),
    ] = "json",
    force: Force = False,
) -> None:
    """Run history through the whole pipeline, without a broker.

    Writes labels, scores, coefficients, dead letters and metrics to RUN, and the state that
    `hearback inspect --run RUN` reads. The same log, model and settings give the same bytes, also
    when the run was interrupted and resumed.
    """
    from stream.replay.reader import first_look
    from stream.replay.resumable import replay_into
    from stream.replay.savepoint import Options
    from stream.stages.succession import Rolled

    loaded = None if model is None else load_model(model)
    policies = with_model(configured(config, policy=policy), loaded).policy
    options = Options(
        score_from_ms=parsed(parse_time_ms, score_from) or 0,
        close=close,
        max_jump_ms=parsed(parse_duration_ms, max_jump),
        workers=workers,
        sync_ms=parsed(parse_duration_ms, sync) or 0,
        rolls=tuple(Rolled(*_rolled(text)) for text in roll or ()),
    )
    read = ReadProgress()
    lines, space = first_look(merge(logs, read), loaded)
    if not resume:  # its log was looked through when it began
        look_first(logs, policies, force=force, max_jump_ms=options.max_jump_ms, space=space)
    load_kernel(loaded)
    try:
        with reading("replaying", read) as progress:
            metrics = replay_into(
                *(out, logs, lines, policies, loaded, space, options),
                resume=resume,
                form=form,
                progress=progress,
            )
    except KeyboardInterrupt:
        raise StoppedError(
            f"interrupted: the same command with --resume goes on with {out}"
        ) from None
    OUT.print(run_summary(metrics))
    tell(f"files in {out}")


def _rolled(text: str) -> tuple[GlobalModel, int]:
    """Read a model, and from when on it scores."""
    folder, _, time = text.rpartition("@")
    if not folder:
        raise typer.BadParameter(f"--roll takes MODEL@TIME, not {text[:80]!r}")
    return load_model(Path(folder)), parsed(parse_time_ms, time) or 0


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path.parent} cannot be made: {error.strerror}") from None
