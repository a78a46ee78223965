"""The plots that a backtest gives: each a function from the result to SVG text.

Settings keep one colour throughout: ``s0``, ``s1``, … in their order, ``global`` for the global
model alone; ``both``, ``member`` and ``job`` for the effects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from stream.backtest.freshness import Freshness
from stream.backtest.importance import Importance
from stream.backtest.judgement import CalibrationBin, Interval
from stream.backtest.result import GLOBAL_ALONE, Backtest, Gain
from stream.backtest.schedule import AtAge
from stream.labels.delays import AgeStep, DelayCurve
from stream.policy import DAY_MS
from stream.report.svg import Plot, Point, Scale, numbers, places
from stream.units import format_time

COLOURS: Final = 12
"""Settings with a colour of their own; later ones begin again."""

WAYS: Final = {
    "early": "as early as evidence allows",
    "explicit": "nothing inferred",
    "final": "when the window has passed",
}
"""What the report calls the ways of taking labels."""

_EFFECTS: Final = (("both", "both effects"), ("member", "per member"), ("job", "per job"))
_NAME_CHARS: Final = 34  # of a feature beside a plot; the table has the whole
_ROW_HEIGHT: Final = 27.0


def kinds(found: Backtest) -> dict[str, str]:
    """Give every setting its class."""
    settings = [one.name for one in found.settings if one.name != GLOBAL_ALONE]
    named = {name: f"s{at % COLOURS}" for at, name in enumerate(settings)}
    return named | {GLOBAL_ALONE: "global"}


def differences(found: Backtest) -> str:
    """Differences to the reference with their intervals, AUC and log loss side by side."""
    others = [one for one in found.settings if one.name != found.reference]
    plots = []
    for title, figure, better in (
        ("AUC, difference", "auc_difference", "better →"),
        ("Log loss, difference", "log_loss_difference", "← better"),
    ):
        intervals: list[Interval] = [getattr(one, figure) for one in others]
        values = [value for each in intervals for value in each.ends]
        x = numbers([*values, 0.0], "{:+.3g}")
        left = 150.0 if figure == "auc_difference" else 20.0
        names = [one.name if left > 100 else "" for one in others]
        plot = Plot(
            x._replace(ticks=tuple((at, "0" if at == 0 else text) for at, text in x.ticks)),
            places(names),
            title=f"{title} to “{found.reference}”",
            x_label=better,
            width=310.0 + left,
            height=84.0 + _ROW_HEIGHT * len(others),
            left=left,
            right=30.0,
            rows=True,
        )
        plot.rule(x=0.0)
        for row, (one, each) in enumerate(zip(others, intervals, strict=True)):
            low, high = each.ends
            kind = kinds(found)[one.name]
            said = f"{one.name}: {each.text('{:+.4f}')}"
            plot.whisker((each.value, row), (low, row), (high, row), kind, said)
        plots.append(plot.svg())
    return "".join(plots)


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"


def importance(found: Importance, most: int) -> str:
    """What the global model would miss most without a feature, the most important ones first."""
    shown = found.columns[:most]
    values = [value for one in shown for value in one.log_loss.ends]
    plot = Plot(
        numbers([*values, 0.0], "{:.3g}"),
        places([_cut(one.name) for one in shown]),
        title="Log loss without what the feature tells, more",
        x_label="more important →",
        width=520.0,
        height=110.0 + _ROW_HEIGHT * len(shown),
        left=230.0,
        right=30.0,
        rows=True,
    )
    plot.rule(x=0.0)
    for row, one in enumerate(shown):
        low, high = one.log_loss.ends
        said = f"{one.name}: {one.log_loss.text('{:+.5f}')}"
        plot.whisker((one.log_loss.value, row), (low, row), (high, row), "global", said)
    return plot.svg()


def over_time(found: Backtest) -> str:
    """AUC and log loss of every setting, block by block."""
    first, last = found.settings[0].over_time[0], found.settings[0].over_time[-1]
    x = _dates(first.from_ms, last.from_ms + found.block_ms)
    plots = []
    for title, figure in (("AUC", "auc"), ("Log loss", "log_loss")):
        values = [
            _number(getattr(block, figure)) for one in found.settings for block in one.over_time
        ]
        plot = Plot(x, numbers(values, "{:.2f}"), title=f"{title}, {found.block} by {found.block}")
        # The reference last, on top of the others.
        for one in sorted(found.settings, key=lambda one: one.name == found.reference):
            kind = f"setting {kinds(found)[one.name]}"
            if one.name == found.reference:
                kind += " reference"
            points = [
                (block.from_ms + found.block_ms / 2, _number(getattr(block, figure)))
                for block in one.over_time
            ]
            plot.line(points, kind, one.name, dots=False)
        plots.append(plot.svg())
    return "".join(plots)


def freshness(curve: Freshness) -> str:
    """What is left of the effects' advantage, by how long ago updates stopped."""
    days = max((point.to_days for point in curve.points), default=1.0)
    plot = Plot(
        numbers([0.0, days], low=0.0, high=days),
        numbers([0.0, 1.0], "{:.0%}", low=-0.1, high=1.12),
        title="What is left of the gain in AUC",
        x_label="days since updates stopped",
        width=520.0,
        height=320.0,
        right=96.0,
    )
    plot.rule(y=0.5)
    ends: list[tuple[Point, str, str]] = []
    for name, words in _EFFECTS:
        points = [(0.0, 1.0)]
        lower, upper = [(0.0, 1.0)], [(0.0, 1.0)]
        for point in curve.points:
            share: Interval | None = getattr(point, name).auc
            if share is None:
                continue
            low, high = share.ends
            points.append((point.mean_days, _within(share.value)))
            lower.append((point.mean_days, _within(low)))
            upper.append((point.mean_days, _within(high)))
        if len(points) > 1:
            plot.band(lower, upper, name)
            plot.line(points, name, words)
            ends.append((points[-1], words, name))
    plot.labels(ends)
    return plot.svg()


def delays(curve: DelayCurve, quantiles: Sequence[float]) -> str:
    """The delay curve, and the weight of a silent application's label as it ages."""
    days = curve.window_ms / DAY_MS
    plot = Plot(
        numbers([0.0, days], low=0.0, high=days),
        numbers([0.0, 1.0], "{:.0%}", low=0.0, high=1.05),
        title="What silence is worth",
        x_label="days since the application",
        width=520.0,
        height=320.0,
        right=110.0,
    )
    points = [(0.0, 0.0)]
    points += [
        (age_ms / DAY_MS, share) for age_ms, share in zip(curve.ages_ms, curve.shares, strict=True)
    ]
    plot.line(points, "member", "answers that have come", dots=False)
    weights = [(0.0, 0.0)]
    for step in [*curve.steps(quantiles), AgeStep(curve.window_ms, 1.0)]:
        weights.append((step.age_ms / DAY_MS, weights[-1][1]))
        weights.append((step.age_ms / DAY_MS, step.weight))
    plot.line(weights, "job", "weight of the label", dots=False)
    plot.labels([((days, 1.0), "answers", "member"), ((days, weights[-2][1]), "weight", "job")])
    return plot.svg()


def ages(curve: Freshness) -> str:
    """AUC with updates, with coefficients of some age, and without effects."""
    points = curve.points
    kept = [(point.mean_days, point) for point in points]
    values = [each for p in points for each in (p.auc_live, p.auc_frozen, p.auc_global)]
    days = max((point.to_days for point in points), default=1.0)
    plot = Plot(
        numbers([0.0, days], low=0.0, high=days),
        numbers(values, "{:.2f}"),
        title="AUC on the same applications",
        x_label="days since updates stopped",
        width=420.0,
        height=320.0,
        right=72.0,
    )
    lines = [
        ("live", "updated", [(at, point.auc_live) for at, point in kept]),
        ("both", "stopped", [(at, point.auc_frozen) for at, point in kept]),
        ("global", "no effects", [(at, point.auc_global) for at, point in kept]),
    ]
    for kind, words, line in lines:
        plot.line(line, kind, words)
    plot.labels([(line[-1], words, kind) for kind, words, line in lines if line])
    return plot.svg()


def labels(found: Backtest) -> str:
    """How many labels are known at each age, and how many of these are right."""
    asked: Sequence[tuple[str, Callable[[AtAge], float | None]]] = (
        ("Applications with a label", lambda at: at.labelled),
        ("Labels that are right in the end", lambda at: at.right),
        ("Answers that are known", lambda at: at.positives_known),
    )
    plots = []
    for title, share in asked:
        x = places([at.age for at in found.labels[0].ages])
        plot = Plot(
            x,
            numbers([0.0, 1.0], "{:.0%}", low=0.0, high=1.04),
            title=title,
            x_label="age of the application",
            width=330.0,
            height=250.0,
        )
        for timing in found.labels:
            points = [(float(at), _number(share(one))) for at, one in enumerate(timing.ages)]
            plot.line(points, timing.learn, WAYS[timing.learn])
        plots.append(plot.svg())
    return "".join(plots)


def calibration(found: Backtest) -> str:
    """Expected against observed shares, by tenths of the score."""
    shown = (found.named(found.reference), found.named(GLOBAL_ALONE))
    values = [each for one in shown for bin_ in one.calibration for each in _pair(bin_)]
    scale = numbers(values, "{:.0%}", low=0.0)
    plots = []
    for one, kind in zip(shown, ("both", "global"), strict=True):
        plot = Plot(
            scale,
            scale,
            title=one.name,
            x_label="expected share of answers",
            width=380.0,
            height=330.0,
        )
        plot.diagonal()
        points = [_pair(bin_) for bin_ in one.calibration]
        plot.line(points, kind, one.name)
        plots.append(plot.svg())
    return "".join(plots)


def gains(found: Backtest) -> str:
    """What the effects take off the log loss, by how much is known of the member or job."""
    plots = []
    groups = (
        ("member", "members", found.by_member_examples),
        ("job", "jobs", found.by_job_examples),
    )
    every = [each for _, _, group in groups for gain in group for each in gain.log_loss_gained.ends]
    y = numbers([*every, 0.0], "{:.2f}")
    for kind, whose, group in groups:
        if not group:
            continue
        plot = Plot(
            places([gain.examples for gain in group]),
            y,
            title=f"Log loss gained, by the {whose}’ labelled applications",
            x_label="labelled applications before this one",
            width=460.0,
        )
        plot.rule(y=0.0)
        for at, gain in enumerate(group):
            low, high = gain.log_loss_gained.ends
            plot.whisker((at, gain.log_loss_gained.value), (at, low), (at, high), kind, _said(gain))
        plots.append(plot.svg())
    return "".join(plots)


def _dates(from_ms: int, until_ms: int) -> Scale:
    """A scale of time with about five dates."""
    days = max((until_ms - from_ms) // DAY_MS, 1)
    every = next((step for step in (1, 2, 7, 14, 28, 56, 91, 182) if days / step <= 6.5), 365)
    ticks = range(from_ms, until_ms + 1, every * DAY_MS)
    form = slice(5, 10) if days <= 300 else slice(0, 7)
    return Scale(
        float(from_ms), float(until_ms), tuple((float(at), format_time(at)[form]) for at in ticks)
    )


def _pair(bin_: CalibrationBin) -> Point:
    return bin_.expected, bin_.observed


def _within(share: float) -> float:
    return min(max(share, -0.1), 1.12)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _said(gain: Gain) -> str:
    return (
        f"{gain.examples} before: {gain.applications:,} applications, log loss"
        f" {gain.log_loss_global:.4f} → {gain.log_loss:.4f}, gained"
        f" {gain.log_loss_gained.text('{:.4f}')}"
    )
