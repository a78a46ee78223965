"""docs/labels.md says what the code does."""

from __future__ import annotations

import tomllib
from pathlib import Path

from stream.labels import machine
from stream.labels.ladder import Kind, rung
from stream.policy import Policy, parse_policy

PAGE = (Path(__file__).parents[2] / "docs" / "labels.md").read_text()


def test_the_page_shows_the_machines_table() -> None:
    """The table of transitions on the page is the one on top of the machine."""
    theory = machine.__doc__ or ""
    table = theory[theory.index("==") : theory.rindex("==") + 2]
    assert table in PAGE


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
