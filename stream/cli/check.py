"""Command check, and the look that other commands take at their logs before they begin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
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
_MOST_ACTIONS = 20

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
    applications, and the scales of the features. Then each problem in one line, with a file and a
    line, an example and what to do: times in seconds, actions that the policy does not list,
    engagements that find no application, a log that is not in order, a file that ends early.

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

    for title, values in _counts(survey):
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


def _counts(survey: Survey) -> Iterator[tuple[str, dict[str, int]]]:
    joins = survey.joins
    yield "events", {name: times.events for name, times in survey.times.items() if times.events}
    ids = {"members": survey.members, "jobs": survey.jobs}
    yield (
        "different ids",
        {name if one.exact else f"{name}, about": one.count for name, one in ids.items()},
    )
    labels = survey.policy.labels
    meanings = {
        **dict.fromkeys(labels.positive_actions, "answered"),
        **dict.fromkeys(labels.negative_actions, "declined"),
        **dict.fromkeys(labels.neutral_actions, "no evidence"),
    }
    yield (
        "actions",
        {
            f"{name} ({meanings.get(name, 'not in the policy')})": count
            for name, count in survey.actions.most_common(_MOST_ACTIONS)
        },
    )
    yield "actions of jobs", dict(survey.job_actions.most_common(_MOST_ACTIONS))
    found = {
        "joined, in time": joins.joined
        - joins.early.count
        - joins.after.count
        - joins.late_engagements.count
        - joins.expired.count,
        "before their application": joins.early.count,
        "... within clock_skew": joins.skewed.count,
        "after the window": joins.after.count,
        "of another member": joins.mismatched.count,
        "without an application": joins.unmatched.count,
        "too late by the order": joins.late_engagements.count + joins.expired.count,
    }
    sample = f", 1 of {joins.share} ids" if joins.share > 1 else ""
    if joins.engagements:
        yield f"engagements{sample}", found
    others = Counter(
        {
            "different ones": joins.applications,
            "answered": joins.answered,
            "too late by the order": joins.late_applications.count,
            "with a global score": survey.scored,
        }
    )
    if joins.applications:
        yield f"applications{sample}", dict(others)
    refused = dict(sorted(survey.refused_by_reason().items()))
    refused["repeats"] = joins.repeats.count
    refused["conflict"] = sum(tally.count for tally in joins.conflicts.values())
    refused["outside of the times asked for"] = survey.left_out
    yield "lines left out", {name: count for name, count in refused.items() if count}
