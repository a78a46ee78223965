"""The report: one file, nothing from outside, readable in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import numpy as np
import pytest

from stream.backtest.result import Backtest
from stream.quality.ranking import Decisions, row
from stream.report import charts
from stream.report.page import page, picture
from tests.kit import looked_at

LOOK = """
<script>
const found = [];
const within = (inner, outer) =>
  inner.left >= outer.left - 1 && inner.right <= outer.right + 1
  && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
for (const plot of document.querySelectorAll("svg.plot")) {
  const box = plot.getBoundingClientRect();
  if (box.width < 250 || box.height < 150) found.push("a plot of " + box.width + " pixels");
  for (const text of plot.querySelectorAll("text")) {
    if (!within(text.getBoundingClientRect(), box)) found.push("cut off: " + text.textContent);
  }
}
if (document.documentElement.scrollWidth > window.innerWidth) found.push("wider than the window");
if (performance.getEntriesByType("resource").length) found.push("something was loaded");
const hidden = [...document.querySelectorAll("svg .setting")].filter(one => one.style.display);
document.title = JSON.stringify({found, hidden: hidden.length});
</script>
"""


class Balanced(HTMLParser):
    """Counts elements; knows when one is closed that was not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open."""
        self.seen.append(tag)
        if tag not in {"meta", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Nothing stays open."""
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close."""
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(found: Backtest) -> None:
    """Every element is closed, every section there, and no address but SVG's name space."""
    text = page(found)
    reader = Balanced()
    reader.feed(text)
    assert reader.open == []
    assert reader.seen.count("section") == 9
    assert reader.seen.count("svg") == 14
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not {"img", "link", "iframe", "object"} & set(reader.seen)
    assert not re.search(r"@import|url\(|src=", text)
    assert "nan" not in re.sub(r"<[^>]+>|\s+", " ", text).lower().split()


def test_who_waits_has_a_row_for_each_age(found: Backtest) -> None:
    """Observed over expected with its interval, by delays and by the landmark that there is."""
    text = page(found)
    assert "<tr><th>age</th><th>moments</th><th>delays</th><th>landmark</th></tr>" in text
    first = "<td>1.02 (0.98 to 1.06)</td><td>0.99 (0.95 to 1.03)</td>"
    assert f"<tr><td>to 6h</td><td>1,234</td>{first}</tr>" in text
    assert "<tr><td>to 1d</td><td>567</td><td>1.55 (1.40 to 1.70)</td><td>1.07</td></tr>" in text
    alone = [
        msgspec.structs.replace(
            at, observed_over_expected={"delays": at.observed_over_expected["delays"]}
        )
        for at in found.waiting
    ]
    text = page(msgspec.structs.replace(found, waiting=alone))
    assert "<tr><th>age</th><th>moments</th><th>delays</th></tr>" in text


@pytest.mark.parametrize(
    ("order", "said"),
    [("landmark", "all three, age and answers since"), ("delays", "all three, age")],
)
def test_the_order_of_who_waits_is_a_row_of_the_rankings(
    found: Backtest, order: str, said: str
) -> None:
    """It stands beside the scores and newest first, with its interval."""
    decisions = Decisions()
    for job in range(20):
        values = np.random.default_rng(job).normal(size=(5, 7))
        decisions.add(row(job, values, sampled=False))
    rankings = decisions.quality(("global",))
    assert rankings is not None
    orders = rankings.orders | {order: rankings.orders["with_job"]}
    shown = msgspec.structs.replace(rankings, orders=orders)
    text = page(msgspec.structs.replace(found, rankings=shown))
    auc = orders[order]["auc"]
    assert auc.low is not None
    assert f"<tr><td>{said}</td><td>{auc.text('{:.3f}')}</td>" in text


def test_names_are_words_not_markup(found: Backtest) -> None:
    """A setting or a log named like an element is written, not obeyed."""
    text = page(found)
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert "&lt;log&gt;.jsonl" in text


def test_little_can_be_reported_too(found: Backtest) -> None:
    """Without a curve, groups or labels the page has the other sections."""
    bare = msgspec.structs.replace(
        found, freshness=None, by_member_examples=[], by_job_examples=[], labels=[], waiting=[],
        importance=None,
    )  # fmt: skip
    assert page(bare).count("<section") == 4
    assert "goes by" not in page(bare)


def test_what_the_global_model_goes_by_is_told(found: Backtest) -> None:
    """Of each feature, and of whole blocks; blocks only where there are several."""
    text = page(found)
    row = "<td>history.job.answers</td><td>histories</td><td>+0.01230 (+0.00800 to +0.01600)</td>"
    assert row in text
    assert "<td>global features</td><td>+0.02000 (+0.01000 to +0.03000)</td>" in text
    told = found.importance
    assert told is not None
    alone = msgspec.structs.replace(told, blocks=told.blocks[:1])
    assert "all of these at once" not in page(msgspec.structs.replace(found, importance=alone))


def test_a_picture_stands_alone(found: Backtest) -> None:
    """The curve is a valid file with its own style and paper."""
    assert found.freshness is not None
    root = ET.fromstring(picture(charts.freshness(found.freshness)))
    tags = {one.tag.rpartition("}")[2] for one in root.iter()}
    assert {"style", "rect", "polyline", "polygon"} <= tags


@pytest.mark.parametrize("width", [1100, 520])
def test_it_is_looked_at_in_a_browser(found: Backtest, tmp_path: Path, width: int) -> None:
    """In a wide and a narrow window nothing is cut off or loaded, and boxes hide their lines."""
    path = tmp_path / "report.html"
    path.write_text(page(found).replace("</body>", f"{LOOK}</body>"), encoding="utf-8")
    shown = looked_at(
        path.as_uri(), "--proxy-server=127.0.0.1:9", f"--screenshot={tmp_path / 'shot.png'}",
        "--dump-dom", size=(width, 3000), wait_ms=None,
    )  # fmt: skip
    title = re.search(r"<title>(\{.*\})</title>", shown)
    assert title is not None, shown[-500:]
    seen = msgspec.json.decode(title[1].replace("&lt;", "<").replace("&amp;", "&"))
    assert seen["found"] == []
    assert seen["hidden"] == 3  # the line of one setting: in two pieces, and in one
