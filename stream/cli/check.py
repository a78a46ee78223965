"""Command check, and the look that other commands take at their logs before they begin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.options import ConfigFile, Logs, MaxJump, PolicyFile, configured, parsed
from stream.cli.terminal import ERR, OUT, key_values, numbers, tell
from stream.errors import LogError
from stream.policy import Policy
from stream.units import format_duration, format_time, parse_duration_ms, parse_time_ms

if TYPE_CHECKING:
    from rich.console import Console

    from stream.check.problem import Problem
    from stream.check.survey import Survey
    from stream.features.blocks import FeatureSpace

_MOST_COLUMNS = 12

Force = Annotated[
    bool,
    typer.Option("--force", help="Go on in spite of errors that a look at the logs finds."),
]


def check(
    logs: Logs,
    policy: PolicyFile = None,
    config: ConfigFile = None,
    until: Annotated[
        str | None,
        typer.Option(help="Look only at events up to this time (ISO 8601 or milliseconds)."),
    ] = None,
    max_jump: MaxJump = None,
) -> None:
    """Look through logs: what do they hold, and will it be understood?

    Shows events by type, ids, the time span and order, actions, how engagements lie to their
    applications, the scales of the features, and attributes: their kinds, how many applications
    have each, and how many different values it has (of lists: items). Then each problem in one
    line, with a file and a line, an example and what to do: times in seconds, actions that the
    policy does not list, engagements that find no application, a log that is not in order, a file
    that ends early.

    Exit code 1 if there are errors: what would make figures wrong that look right. Warnings tell
    what is ignored. `train`, `replay`, `tune`, `backtest` and `produce` take the same look first,
    and end there on an error unless they are given `--force`. Give the policy that they will have.
    """
    policies = configured(config, policy=policy).policy
    from stream.check.look import look

    survey, found = look(
        logs,
        policies,
        max_jump_ms=parsed(parse_duration_ms, max_jump),
        until_ms=parsed(parse_time_ms, until),
        attributes=True,
    )
    _report(survey)
    _tell(found, OUT)
    errors = sum(problem.level == "error" for problem in found)
    if errors:
        raise LogError(f"{_errors(errors)} in the log; each line above says what to do")
    tell("no errors" if found else "no problems")


def look_first(
    logs: Sequence[Path],
    policy: Policy,
    *,
    force: bool,
    max_jump_ms: int | None = None,
    from_ms: int | None = None,
    until_ms: int | None = None,
    whole: bool = True,
    space: FeatureSpace | None = None,
) -> None:
    """Look through logs before anything is done with them, and tell what is wrong.

    Args:
        logs: the files. policy: as the command has it. force: go on in spite of errors.
        max_jump_ms, from_ms, until_ms: as the command has them.
        whole: whether they are all that is learned from.
        space: the feature blocks that applications must have, where they are known.

    Raises:
        LogError: there are errors.

    """
    from stream.check.look import look

    _, found = look(
        logs,
        policy,
        max_jump_ms=max_jump_ms,
        from_ms=from_ms,
        until_ms=until_ms,
        whole=whole,
        space=space,
    )
    _tell(found, ERR)
    errors = sum(problem.level == "error" for problem in found)
    if errors and not force:
        raise LogError(
            f"{_errors(errors)} in the log, nothing was begun: see above; hearback check shows what"
            " the log holds, --force goes on"
        )


def _errors(count: int) -> str:
    return "1 error" if count == 1 else f"{count} errors"


def _tell(found: list[Problem], console: Console) -> None:
    for problem in found:
        tell(f"{problem.level}: {problem.text}", console)


def _report(survey: Survey) -> None:
    """Print what a log holds."""
    from stream.check.problems import about
    from stream.check.summary import counts

    for title, values in counts(survey):
        if values:
            OUT.print(key_values(title, values))
    order = survey.order
    if order.first_ms is not None:
        tell(
            f"from {format_time(order.first_ms)} to {format_time(order.largest_ms)};"
            f" {order.behind.count:,} events more than"
            f" {format_duration(survey.policy.labels.allowed_lateness_ms)} out of order,"
            f" {about(order.worst_ms)} at most"
        )
    for name, block in survey.blocks.items():
        if not block.rows:
            continue
        constant = block.constant()
        title = f"features.{name}: {len(block.columns):,} numbers, {len(constant):,} constant"
        table = numbers(title, "", "smallest", "largest", "mean", "deviation")
        widest = sorted(block.columns.items(), key=lambda item: -item[1].deviation)
        for column, one in widest[:_MOST_COLUMNS]:
            cells = (one.low, one.high, one.mean, one.deviation)
            table.add_row(column, *(f"{value:.4g}" for value in cells))
        if len(widest) > _MOST_COLUMNS:
            table.add_row(f"... and {len(widest) - _MOST_COLUMNS:,} that vary less")
        OUT.print(table)
    said = survey.said
    if said is not None and said.found:
        title = f"attributes of {said.applications:,} applications"
        table = numbers(title, "", "kind", "there", "different values")
        for name, found in sorted(said.found.items()):
            filled = f"{found.filled / said.applications:.1%}"
            table.add_row(name, found.in_words(), filled, found.different())
        if said.others:
            table.add_row(f"... and others, {said.others:,} times")
        OUT.print(table)
