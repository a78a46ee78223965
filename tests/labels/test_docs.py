"""docs/labels.md says what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from stream.events.ladder import Kind, rung
from stream.labels import document
from stream.labels.transitions import State, Stimulus
from stream.policy import DAY_MS, LabelPolicy, Policy
from tests.kit import application, closing, engagement, parse_policy
from tests.labels.bench import Bench

PAGE = (Path(__file__).parents[2] / "docs" / "labels.md").read_text()


def test_the_page_shows_the_machines_table() -> None:
    """The table on the page is the one that the machine decides by, as ``make docs`` writes it."""
    assert document.page(PAGE) == PAGE
    rows = [line for line in document.table().splitlines() if line.startswith("| ")]
    assert len(rows) == len(Stimulus) + 2
    assert all(row.count(" | ") == len(State) for row in rows)


def test_the_page_draws_the_ladder_in_order() -> None:
    """The kinds stand on the page in the order of their rungs."""
    drawing = PAGE.split("```text\n")[1]
    kinds = sorted((kind for kind in Kind if kind), key=lambda kind: rung(kind, final=False))
    places = [drawing.index(kind.wire) for kind in kinds]
    assert places == sorted(places)
    assert rung(Kind.NEGATIVE_EXPLICIT, final=True) == rung(Kind.NEGATIVE_CONCLUSIVE, final=True)


def test_the_settings_on_the_page_are_the_defaults() -> None:
    """The policy that the page prints equals the default policy and names every setting."""
    block = PAGE.split("```toml\n")[1].split("```")[0]
    assert parse_policy(block) == Policy()
    assert len(tomllib.loads(block)["labels"]) == len(Policy().labels.__struct_fields__)


LINE = re.compile(r"^ *([\d.]+) +(\S.*?)(?: +→ (.+))?$")


@pytest.mark.parametrize(
    "example", [part.split("```")[0] for part in PAGE.split("```timeline")[1:]]
)
def test_the_worked_examples_are_true(example: str) -> None:
    """Each line of a time line causes the labels that stand behind it, and no others."""
    heading, *lines = example.splitlines()
    policy = LabelPolicy(later_response="full" if "later_response" in heading else "auto")
    bench = Bench(policy)
    for number, line in enumerate(lines):
        match = LINE.match(line)
        assert match is not None, line
        time_ms = round((1 + float(match[1])) * DAY_MS)
        changes = []
        who, what = match[2].split(" ", 1)
        if match[2] == "job closed":
            changes += bench.apply(closing(f"x{number}", time_ms))
        elif what == "applies":
            changes += bench.apply(application(who, time_ms))
        elif match[2] != "(time passes)":
            changes += bench.apply(engagement(f"e{number}", who, time_ms, what))
        changes += bench.move(time_ms - policy.allowed_lateness_ms)
        said = [
            f"{change.application_id} {change.kind.wire}"
            + ("" if change.facts.weight == 1.0 else f" {change.facts.weight:.2f}")
            + (", final" if change.final else "")
            for change in changes
            if change.label
        ]
        assert sorted(said) == sorted(match[3].split("; ") if match[3] else []), line
