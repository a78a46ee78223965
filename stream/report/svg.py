"""Plots as SVG text. Coordinates of data go in; scales, ticks and labels are made here.

Everything is styled by classes (``chart.css``), so that a page's style sheet decides on colours.
Numbers are rounded to a tenth of a pixel: the same figures give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

Point = tuple[float, float]

_TICKS: Final = 5
_LABEL_HEIGHT: Final = 15.0


class Scale(NamedTuple):
    """A straight line from data to pixels; ticks are (value, label)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def at(self, value: float) -> float:
        """Give the place between 0 (low) and 1 (high)."""
        return (value - self.low) / (self.high - self.low)


def numbers(
    values: Sequence[float],
    form: str = "{:g}",
    *,
    low: float | None = None,
    high: float | None = None,
) -> Scale:
    """Scale over some values, widened to round ticks; ``low`` and ``high`` are kept where given."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    least = min(known) if low is None else low
    most = max(known) if high is None else high
    if most - least <= 1e-9 * max(abs(least), abs(most)):  # hardly two values
        least, most = least - 0.5, least + 0.5
    step = _round_step((most - least) / _TICKS)
    first = math.floor(least / step + 1e-9) if low is None else math.ceil(least / step - 1e-9)
    last = math.ceil(most / step - 1e-9) if high is None else math.floor(most / step + 1e-9)
    ticks = tuple((number * step, form.format(number * step)) for number in range(first, last + 1))
    return Scale(ticks[0][0] if low is None else low, ticks[-1][0] if high is None else high, ticks)


def places(labels: Sequence[str]) -> Scale:
    """Scale of places 0, 1, 2, … with a label each."""
    return Scale(
        -0.5, len(labels) - 0.5, tuple((float(at), text) for at, text in enumerate(labels))
    )


class Plot:
    """One plot.

    Args:
        x, y: scales.
        width, height: in pixels, margins included.
        title: said by screen readers and above the plot.
        x_label: below the axis.
        left, right: margins.
        rows: the y axis has words (places from top to bottom) instead of numbers.

    """

    def __init__(
        self,
        x: Scale,
        y: Scale,
        *,
        title: str,
        x_label: str = "",
        width: float = 460.0,
        height: float = 270.0,
        left: float = 46.0,
        right: float = 22.0,
        rows: bool = False,
    ) -> None:
        self._x, self._y = x, y
        self._width, self._height = width, height
        self._left, self._top = left, 34.0
        self._inner_width = width - left - right
        self._inner_height = height - self._top - (46.0 if x_label else 30.0)
        self._rows = rows
        self._parts: list[str] = []
        self._title = title
        self._axes(x_label)

    def line(
        self, points: Sequence[Point], kind: str, title: str = "", *, dots: bool = True
    ) -> None:
        """Draw a line through points; NaN breaks it."""
        for run in _runs(points):
            self._add("polyline", f"line {kind}", title, points=self._path(run))
            if dots:
                for point in run:
                    x, y = self._at(point)
                    self._add("circle", f"dot {kind}", title, cx=x, cy=y, r="2.6")

    def band(self, lower: Sequence[Point], upper: Sequence[Point], kind: str) -> None:
        """Fill between two lines."""
        path = self._path([*lower, *reversed(upper)])
        self._add("polygon", f"band {kind}", "", points=path)

    def whisker(self, point: Point, low: Point, high: Point, kind: str, title: str = "") -> None:
        """Draw a point with its interval."""
        (x, y), (x0, y0), (x1, y1) = self._at(point), self._at(low), self._at(high)
        self._add("line", f"whisker {kind}", title, x1=x0, y1=y0, x2=x1, y2=y1)
        self._add("circle", f"point {kind}", title, cx=x, cy=y, r="4.2")

    def rule(self, *, x: float | None = None, y: float | None = None, kind: str = "rule") -> None:
        """Draw a line across the plot."""
        begin = (self._x.low if x is None else x, self._y.low if y is None else y)
        end = (self._x.high if x is None else x, self._y.high if y is None else y)
        (x0, y0), (x1, y1) = self._at(begin), self._at(end)
        self._add("line", kind, "", x1=x0, y1=y0, x2=x1, y2=y1)

    def diagonal(self) -> None:
        """Draw the line on which both coordinates are equal."""
        low, high = max(self._x.low, self._y.low), min(self._x.high, self._y.high)
        (x0, y0), (x1, y1) = self._at((low, low)), self._at((high, high))
        self._add("line", "rule", "", x1=x0, y1=y0, x2=x1, y2=y1)

    def labels(self, ends: Sequence[tuple[Point, str, str]]) -> None:
        """Write what lines are called beside their right ends, moved apart: (end, words, kind)."""
        placed: list[tuple[float, float, str, str]] = []
        for point, words, kind in sorted(ends, key=lambda end: -end[0][1]):
            x, y = self._at(point)
            if placed:
                y = max(y, placed[-1][1] + _LABEL_HEIGHT)
            placed.append((x, y, words, kind))
        over = placed[-1][1] - (self._top + self._inner_height) if placed else 0.0
        for x, y, words, kind in placed:
            self._text(x + 8.0, y - max(over, 0.0) + 4.0, words, f"end {kind}", "start")

    def svg(self) -> str:
        """Give the element."""
        return (
            f'<svg class="plot" viewBox="0 0 {self._width:g} {self._height:g}" role="img"'
            f' style="--w: {self._width:g}"'
            f' xmlns="http://www.w3.org/2000/svg"><title>{escape(self._title)}</title>'
            + "".join(self._parts)
            + "</svg>"
        )

    def _axes(self, x_label: str) -> None:
        self._text(2.0, 16.0, self._title, "heading", "start")
        bottom = self._top + self._inner_height
        for value, label in self._y.ticks:
            _, y = self._at((self._x.low, value))
            if self._rows:
                self._text(self._left - 12.0, y + 4.0, label, "row", "end")
            else:
                self._text(self._left - 8.0, y + 4.0, label, "tick", "end")
            self._add(
                "line", "grid", "", x1=self._left, y1=y, x2=self._left + self._inner_width, y2=y
            )
        for value, label in self._x.ticks:
            x, _ = self._at((value, self._y.low))
            self._text(x, bottom + 16.0, label, "tick", "middle")
            if self._rows:
                self._add("line", "grid", "", x1=x, y1=self._top, x2=x, y2=bottom)
        if not self._rows:
            self.rule(y=self._y.low, kind="axis")
        if x_label:
            middle = self._left + self._inner_width / 2
            self._text(middle, bottom + 36.0, x_label, "axis-label", "middle")

    def _at(self, point: Point) -> Point:
        x, y = self._x.at(point[0]), self._y.at(point[1])
        if not self._rows:
            y = 1.0 - y
        return self._left + x * self._inner_width, self._top + y * self._inner_height

    def _path(self, points: Sequence[Point]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self._at, points))

    def _add(self, tag: str, kind: str, title: str, **attributes: float | str) -> None:
        said = "".join(
            f' {name}="{value if isinstance(value, str) else f"{value:.1f}"}"'
            for name, value in attributes.items()
        )
        inside = f"><title>{escape(title)}</title></{tag}>" if title else "/>"
        self._parts.append(f'<{tag} class="{kind}"{said}{inside}')

    def _text(self, x: float, y: float, text: str, kind: str, anchor: str) -> None:
        self._parts.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    """Cut a line where a point is unknown."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if math.isfinite(point[0]) and math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _round_step(step: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(
        power * times for times in (1.0, 2.0, 5.0, 10.0) if step <= power * times * (1 + 1e-9)
    )
