"""The dashboards: the files are what the code makes, and ask for what there is."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from deploy.dashboards import ALL
from deploy.dashboards.__main__ import FOLDER
from deploy.dashboards.board import file_name, to_json
from deploy.dashboards.panels import Board, Panel
from tests.deploy.promql import exported, selectors, unknown

PANELS = [panel for board in ALL for row in board.rows for panel in row.panels]


def test_the_four_questions_have_a_dashboard_each() -> None:
    """In the order in which somebody asks them."""
    assert [board.title for board in ALL] == [
        "Is it healthy?",
        "Is it learning?",
        "Does it help?",
        "Is it used?",
    ]


@pytest.mark.parametrize("board", ALL, ids=lambda board: board.key)
def test_the_file_is_what_the_code_makes(board: Board) -> None:
    """``make docs`` writes them; a change of the code alone is noticed."""
    assert (FOLDER / file_name(board)).read_text("utf-8") == to_json(board), "run make docs"


def test_there_are_no_other_files() -> None:
    """Each file in the folder is shown by Grafana."""
    assert {path.name for path in FOLDER.iterdir()} == {file_name(board) for board in ALL}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_queries_ask_for_what_the_catalogue_has(panel: Panel) -> None:
    """Names and labels of every query are those of the catalogue, or of every process."""
    for query in panel.queries:
        assert selectors(query.expr), query.expr
        assert not unknown(query.expr)
        grouped = "".join(re.findall(r"\b(?:by|group_left|group_right) ?\(([^)]*)\)", query.expr))
        for label in re.findall(r"{{(\w+)}}", query.legend):
            assert label in grouped or label == "instance", query.legend


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_panel_says_what_it_shows(panel: Panel) -> None:
    """A sentence for whoever is woken at night; several lines have a legend each."""
    assert panel.text.endswith(".") or panel.text.endswith("?")
    if len(panel.queries) > 1:
        assert all(query.legend for query in panel.queries)


def test_a_name_that_is_not_there_would_be_noticed() -> None:
    """The test above sees wrong names, labels and groups."""
    assert unknown("rate(hearback_flush_seconds_total[1m])") == ["hearback_flush_seconds_total"]
    assert unknown('hearback_events_total{kind="x"}') == ["hearback_events_total{kind}"]
    assert unknown("sum by (effect) (hearback_events_total)") == ["effect"]


def test_every_metric_is_on_a_dashboard() -> None:
    """What is not looked at would not have to be measured."""
    asked = {
        exported()[name].name
        for panel in PANELS
        for query in panel.queries
        for name, _ in selectors(query.expr)
        if name in exported()
    }
    assert {metric.name for metric in exported().values()} - asked == set()


@pytest.mark.parametrize("board", ALL, ids=lambda board: board.key)
def test_panels_have_ids_and_places_of_their_own(board: Board) -> None:
    """Grafana mixes panels of one id up; a row is 24 columns wide, and full."""
    panels: list[dict[str, Any]] = json.loads(to_json(board))["panels"]
    assert max(Counter(panel["id"] for panel in panels).values()) == 1
    taken: Counter[tuple[int, int]] = Counter()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        taken.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    assert max(taken.values()) == 1


def test_they_are_given_to_grafana_as_one_family() -> None:
    """Each links to the others, by their tag, and cannot be changed in Grafana."""
    for board in ALL:
        made = json.loads(Path(FOLDER / file_name(board)).read_text("utf-8"))
        assert made["tags"] == made["links"][0]["tags"]
        assert made["editable"] is False
        assert made["uid"] == f"hearback-{board.key}"
