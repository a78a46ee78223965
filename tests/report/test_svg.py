"""Plots are well-formed, their ticks round, their words apart."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.report import document
from stream.report.svg import Plot, numbers, places

SVG = "{http://www.w3.org/2000/svg}"
FLOATS = st.floats(-1e6, 1e6)


def parsed(plot: Plot) -> ET.Element:
    """Read the element as any XML reader does."""
    return ET.fromstring(plot.svg())


def texts(root: ET.Element, kind: str) -> list[ET.Element]:
    """All texts of a class."""
    return [one for one in root.iter(f"{SVG}text") if kind in one.get("class", "").split()]


@example(values=[0.0, 9.2e-65])
@example(values=[1e6, 1e6 + 1e-9])
@given(values=st.lists(FLOATS, min_size=1, max_size=20))
def test_a_scale_holds_its_values_on_round_ticks(values: list[float]) -> None:
    """Every value lies between 0 and 1 of the scale, which has a few ticks at equal distances."""
    scale = numbers(values)
    assert all(-1e-6 <= scale.at(value) <= 1 + 1e-6 for value in values)
    at = [value for value, _ in scale.ticks]
    assert 2 <= len(at) <= 9
    steps = [after - before for before, after in itertools.pairwise(at)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-6) for step in steps)


@pytest.mark.parametrize("values", [[], [0.3], [0.3, 0.3], [math.nan, 0.1], [0.0, 1e-12]])
def test_hardly_any_values_still_give_a_scale(values: list[float]) -> None:
    """No value, one, equal ones and unknown ones have a scale."""
    scale = numbers(values)
    assert scale.high > scale.low
    assert scale.ticks


def test_given_ends_are_kept() -> None:
    """A scale that must begin at 0 begins there, and its ticks lie within."""
    scale = numbers([0.2, 0.9], "{:.0%}", low=0.0, high=1.04)
    assert (scale.low, scale.high) == (0.0, 1.04)
    assert [text for _, text in scale.ticks] == ["0%", "50%", "100%"]


def test_words_are_escaped() -> None:
    """Names with angle brackets and quotes stay words."""
    plot = Plot(places(["<b>"]), numbers([0, 1]), title='a "<script>" & more')
    plot.line([(0.0, 0.5)], "s0", "</svg>")
    root = parsed(plot)
    assert root.find(f"{SVG}title").text == 'a "<script>" & more'  # type: ignore[union-attr]
    assert any(text.text == "<b>" for text in texts(root, "tick"))
    assert "<script" not in plot.svg()


def test_unknown_points_break_the_line() -> None:
    """A line with a gap is two lines."""
    plot = Plot(numbers([0, 4]), numbers([0, 1]), title="gap")
    plot.line([(0, 0.1), (1, 0.2), (2, math.nan), (3, 0.3), (4, 0.2)], "s0", dots=False)
    assert len(list(parsed(plot).iter(f"{SVG}polyline"))) == 2
    assert "nan" not in plot.svg()


def test_labels_do_not_lie_upon_each_other() -> None:
    """Labels of lines that end at one height are moved apart, and none below the plot."""
    plot = Plot(numbers([0, 1]), numbers([0, 1]), title="ends", right=90)
    plot.labels([((1.0, 0.01), name, "s0") for name in ("one", "two", "three")])
    heights = sorted(float(one.get("y", "")) for one in texts(parsed(plot), "end"))
    assert all(below - above >= 14 for above, below in itertools.pairwise(heights))
    assert heights[-1] < 270 - 20


def test_higher_values_are_drawn_higher() -> None:
    """Numbers grow upwards; rows of words go downwards."""
    plot = Plot(numbers([0, 1]), numbers([0, 1]), title="up")
    plot.whisker((0.5, 0.9), (0.4, 0.9), (0.6, 0.9), "s0")
    plot.whisker((0.5, 0.1), (0.4, 0.1), (0.6, 0.1), "s0")
    circles = [float(one.get("cy", "")) for one in parsed(plot).iter(f"{SVG}circle")]
    assert circles[0] < circles[1]
    rows = Plot(numbers([0, 1]), places(["first", "second"]), title="rows", rows=True)
    first, second = (float(one.get("y", "")) for one in texts(parsed(rows), "row"))
    assert first < second


def test_the_picture_of_aging_is_drawn_by_the_product() -> None:
    """The docs show the default curve and steps, as ``make docs`` draws them."""
    assert (Path(__file__).parents[2] / document.PICTURE).read_text() == document.aging()
