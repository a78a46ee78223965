"""Candidates with attributes: the service makes the features that the worker makes of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest

from stream.events.applications import RawApplication, entered
from stream.events.wire import decode_raw, numbers
from stream.features.spec import parse_spec
from stream.logs.files import LogLine
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel, new_model
from stream.model.spec_fitting import fit_spec
from stream.policy import DAY_MS
from tests.kit import model
from tests.serving.asking import NOW_MS, Asked

SPEC = """
[features.years]
kind = "number"
of = "member.years"
blocks = ["global", "per_job"]
[features.skills]
kind = "terms"
of = "member.skills"
[features.posted]
kind = "date"
of = "job.posted"
blocks = ["global", "per_member"]
"""
SKILLS = ["sql", "go", "python"]


def sent(number: int) -> dict[str, Any]:
    """Return an application with attributes."""
    return {
        "type": "application",
        "application_id": f"a{number}",
        "member_id": f"m{number}",
        "job_id": "j",
        "event_time_ms": NOW_MS - (number % 5) * DAY_MS,
        "member": {"years": number % 7, "skills": SKILLS[number % 3 :]},
        "job": {"posted": "2023-11-01"},
        "context": {},
    }


@cache
def of_attributes() -> GlobalModel:
    """Return a model that makes its features."""
    lines = [LogLine("log", n, msgspec.json.encode(sent(n))) for n in range(60)]
    maker = fit_spec(parse_spec(SPEC), lines, NOW_MS + 60 * DAY_MS, lambda _: None)
    return new_model(
        Linear(np.linspace(-1.0, 1.0, len(maker.names["global"]))),
        maker.names,
        trained_from_ms=0,
        trained_until_ms=0,
        applications=60,
        positives=1,
        spec=maker.fitted,
    )


def candidate(number: int, *without: str) -> dict[str, Any]:
    """Return the same application as a candidate."""
    found = sent(number)
    names = {"member_id", "member", "job", "context"} - set(without)
    return {name: found[name] for name in names} | {"application_time_ms": found["event_time_ms"]}


def test_features_are_those_that_the_worker_makes() -> None:
    """Also of attributes that stand once, for all; features that were sent are not looked at."""
    asked = Asked(of_attributes())
    wanted = []
    for number in range(12):
        raw = decode_raw(msgspec.json.encode(sent(number)))
        assert isinstance(raw, RawApplication)
        features = entered(raw, asked.service._scorer.space).features
        assert features.global_ is not None
        wanted.append(of_attributes().score(features.global_))
    assert len(set(wanted)) > 5
    given = [candidate(number) | {"features": {"per_job": [5.0]}} for number in range(12)]
    found = asked.score(job_id="j", candidates=given, explain=True)
    assert not found["errors"]
    scores = [each["parts"]["global"] for each in found["candidates"]]
    assert scores == pytest.approx(wanted, abs=1e-9)
    assert {"years", "constant"} < set(found["candidates"][0]["explanation"]["global"])
    shared = [candidate(number, "job", "context") for number in range(12)]
    again = asked.score(job_id="j", candidates=shared, job=sent(0)["job"], explain=True)
    assert again["candidates"] == found["candidates"]


def test_blocks_may_be_sent_in_place_of_attributes() -> None:
    """A model with a spec takes them by its names; one without a spec knows no attributes."""
    asked = Asked(of_attributes())
    raw = decode_raw(msgspec.json.encode(sent(3)))
    assert isinstance(raw, RawApplication)
    made = entered(raw, asked.service._scorer.space).features
    features = {
        "global": numbers(made.global_ or b""),
        "per_member": numbers(made.per_member),
        "per_job": numbers(made.per_job),
    }
    (by_blocks,) = asked.score(job_id="j", candidates=[{"member_id": "m3", "features": features}])[
        "candidates"
    ]
    (by_attributes,) = asked.score(job_id="j", candidates=[candidate(3)])["candidates"]
    assert by_blocks["parts"] == by_attributes["parts"]
    found = Asked(model()).score(job_id="j", candidates=[candidate(3)])
    assert [error["reason"] for error in found["errors"]] == ["invalid_features"]
