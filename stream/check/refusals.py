"""What of a log cannot be read, or is refused line by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from stream.check.problem import Level, Problem, level_of, share_of
from stream.check.survey import Survey


def line_problems(survey: Survey, names: Iterable[str]) -> Iterator[Problem]:
    """What cannot be read at all."""
    files = list(dict.fromkeys(names))
    for name in files:
        if name not in survey.files:
            level: Level = "error" if not survey.lines else "warning"
            yield Problem(level, f"{name} is empty")
    for where, damage in survey.damage:
        text = f"{where}: {damage}; what followed is missing: get the file anew"
        yield Problem("error", text)
    refused = sum(tally.count for tally in survey.refused.values())
    if survey.lines and not survey.usable and not survey.left_out:
        said = f"; the first: {_reason(survey)}" if refused else ""
        yield Problem(
            "error",
            f"none of {survey.lines:,} lines is an event{said}. The first line begins"
            f" {survey.first_line!r}; an event is a JSON object with type and event_time_ms",
        )
        return
    if survey.left_out and not survey.usable:
        yield Problem("error", f"all {survey.left_out:,} events lie outside of the times asked for")
    for name, file in survey.files.items():
        if len(survey.files) > 1 and not file.usable:
            yield Problem("error", f"{name}: none of its {file.lines:,} lines is an event")
    yield from _refused(survey)


def _refused(survey: Survey) -> Iterator[Problem]:
    """Judge what is refused by what it is of: a type that is lost is no small share of the log."""
    lost: Counter[str] = Counter()
    for (_, kind), tally in survey.refused.items():
        lost[kind] += tally.count
    for (reason, kind), tally in sorted(survey.refused.items()):
        total = survey.times[kind].events if kind else survey.lines
        lines = f"{kind} lines" if kind else "lines"
        yield Problem(
            level_of(lost[kind], total),
            f"{tally.where}: {share_of(tally.count, total)} {lines} are refused as {reason}, the"
            f" first: {tally.example}",
        )


def _reason(survey: Survey) -> str:
    tally = max(survey.refused.values(), key=lambda one: one.count)
    return f"{tally.where}, {tally.example}"
