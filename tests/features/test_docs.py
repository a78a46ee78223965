"""docs/features.md says what a spec can say, and its example is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np

from producers.simulate import SimulationSettings, simulate
from stream.events.applications import RawApplication
from stream.events.wire import decode_raw
from stream.features.making import Maker
from stream.features.spec import DatePart, Feature, MatchBy, parse_spec
from stream.logs.files import LogLine
from stream.model.spec_fitting import fit_spec

PAGE = Path("docs/features.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """Return the page's first block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)


def example() -> Maker:
    """Learn the example of a simulated log."""
    market = SimulationSettings(
        members=60, jobs=30, days=8, applications_per_member=6, attributes=True
    )
    lines = [LogLine("log", number, line) for number, line in enumerate(simulate(market), 1)]
    return fit_spec(parse_spec(block("toml")), lines, None, lambda _: None)


def test_the_example_is_learned_from_a_simulated_log() -> None:
    """It has a feature of every kind, and each finds what it is made of."""
    maker = example()
    kinds = {type(one.feature) for one in maker.fitted.features}
    assert kinds == set(get_args(Feature))
    assert [one.name for one in maker.fitted.features if one.rows and one.missing == one.rows] == []
    assert {"intercept", "years", "years.missing", "day.monday", "city.other"} < {
        *maker.names["global"]
    }


def test_the_example_makes_features_of_the_application_on_the_page() -> None:
    """The page's application has all that the page's spec takes."""
    maker = example()
    raw = decode_raw(block("json").replace("\n", "").encode())
    assert isinstance(raw, RawApplication)
    blocks = maker.blocks(raw.member or {}, raw.job or {}, raw.context or {}, raw.event_time_ms)
    found = dict(zip(maker.names["global"], np.frombuffer(blocks.global_, "<f4"), strict=True))
    assert found["city=Berlin"] == found["skills=sql"] == found["day.monday"] == 1.0
    assert found["years"] != 0.0 != found["posted.age"]
    assert found["years.missing"] == found["city.other"] == 0.0
    assert maker.terms(raw.member or {}) == {"skills": ["python", "sql"]}


def test_the_page_has_every_kind_and_option() -> None:
    """Kinds, their options with their defaults, and what a date and a match can be."""
    for kind in get_args(Feature):
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{kind_of(kind)}` |"))
        if kind_of(kind) == "date":
            row += next(line for line in PAGE.splitlines() if line.startswith("| `number` |"))
        for field in msgspec.structs.fields(kind):
            if field.name in {"of", "blocks", "parts"}:
                continue
            default = str(field.default).lower().replace("nodefault", "")
            assert f"`{field.name}" in row
            if default.isdigit() or default in {"true", "false"}:
                assert re.search(rf"`{field.name}` \({default}\)", row), (kind, field.name)
    for word in (*get_args(DatePart), *get_args(MatchBy)):
        assert word in PAGE


def kind_of(kind: type) -> str:
    """Return the name of a kind in a spec."""
    return str(kind.__struct_config__.tag)  # type: ignore[attr-defined]
