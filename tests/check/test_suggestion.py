"""A first spec of what a log holds: what it takes, what it leaves out, and what it is worth."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from producers.simulate import SimulationSettings, draw_truth, simulate
from stream.check.attributes import Sample, Tokens, auc_alone
from stream.check.suggestion import Suggestion, suggest
from stream.events.applications import RawApplication
from stream.events.structs import Application, Engagement
from stream.events.wire import decode_event, decode_raw
from stream.features.fitting import SpecFitter
from stream.features.making import Maker
from stream.features.spec import Match, Spec, parse_spec
from stream.logs.files import LogLine
from stream.model.spec_fitting import fit_spec
from stream.model.training import Trainer
from stream.policy import DAY_MS, Policy

START_MS = 1_491_021_494_000
POLICY = Policy()
ATTRIBUTES = st.dictionaries(
    st.text(max_size=3),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e300, 1e300)
        | st.text(max_size=3) | st.sampled_from(["2024-01-31", "a b c d e"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
        max_leaves=3,
    ),
    max_size=2,
)  # fmt: skip


def quiet(_: int) -> None:
    """Show no progress."""


def suggested(lines: list[bytes]) -> Suggestion:
    """Suggest a spec for a log."""
    sample = Sample(POLICY.labels)
    sample.read((LogLine("log", number, line) for number, line in enumerate(lines, 1)), quiet)
    return suggest(sample)


def market(
    say: Callable[[int, bool, Random], tuple[dict[str, Any], dict[str, Any], dict[str, Any]]],
    applications: int = 400,
) -> list[bytes]:
    """Write a log whose applications say what a function of their number and outcome gives."""
    rng = Random(1)
    lines = []
    for number in range(applications):
        answered = rng.random() < 0.4
        member, job, context = say(number, answered, rng)
        time_ms = START_MS + number * DAY_MS // 4
        ids = {
            "application_id": f"a{number}",
            "member_id": f"m{number % 90}",
            "job_id": f"j{number % 30}",
        }
        lines.append(
            (
                time_ms,
                {
                    "type": "application",
                    **ids,
                    "event_time_ms": time_ms,
                    "member": member,
                    "job": job,
                    "context": context,
                },
            )
        )
        if answered:
            at_ms = time_ms + rng.randrange(13) * DAY_MS
            lines.append(
                (
                    at_ms,
                    {
                        "type": "engagement",
                        "engagement_id": f"e{number}",
                        **ids,
                        "event_time_ms": at_ms,
                        "action": "message",
                    },
                )
            )
    lines.sort(key=lambda line: line[0])
    return [msgspec.json.encode(line) for _, line in lines]


def ordinary(number: int, answered: bool, rng: Random) -> tuple[Any, Any, Any]:
    """Say something of every kind, and what was written afterwards."""
    member = {
        "title": rng.choice(["analyst", "nurse", "driver"]),
        "skills": rng.sample(["sql", "python", "care", "cad"], 2),
        "years": rng.randrange(30),
        "joined": START_MS - rng.randrange(1000) * DAY_MS,
        "address": {"city": rng.choice(["Bonn", "Kiel"])},
        "about": " ".join(rng.choices(["good", "at", "many", "things"], k=9)),
        "name": f"name {number % 90}",
        "employee_id": number % 90,
        "species": "human",
        "mixed": rng.choice([1, "one"]),
        "dotted.name": 1,
        "badge": "gold" if number % 400 == 7 else None,
        "last_status": "invited" if answered else rng.choice(["none", "declined"]),
    }
    job = {
        "profession": rng.choice(["analyst", "nurse", "driver"]),
        "wanted": ["sql", "cad"],
        "min_years": rng.randrange(10) if rng.random() < 0.8 else None,
        "posted": "2017-04-01",
        "remote": rng.random() < 0.5,
        "pay": rng.lognormvariate(10, 1),
        "replied_by": "somebody" if answered and rng.random() < 0.3 else None,
        "reject_reason": "other" if not answered and rng.random() < 0.3 else "",
    }
    return member, job, {"device": rng.choice(["phone", "laptop"])}


@pytest.fixture(scope="module")
def found() -> Suggestion:
    """Suggest a spec for something of every kind."""
    return suggested(market(ordinary))


@pytest.fixture(scope="module")
def spec(found: Suggestion) -> Spec:
    """Read it as train does."""
    return parse_spec(found.text)


def test_each_attribute_has_the_kind_of_its_values(spec: Spec) -> None:
    """What is a number, a date, a category, a list or a text is told by most of its values."""
    assert {
        feature.paths[0]: type(feature).__name__
        for feature in spec.values()
        if not isinstance(feature, Match)
    } == {
        "member.title": "Category",
        "member.skills": "TermList",
        "member.years": "Number",
        "member.joined": "Date",
        "member.address.city": "Category",
        "member.about": "Text",
        "job.profession": "Category",
        "job.wanted": "TermList",
        "job.min_years": "Number",
        "job.posted": "Date",
        "job.remote": "Number",
        "job.pay": "Number",
        "context.device": "Category",
    }


def test_what_can_be_compared_is_compared(spec: Spec) -> None:
    """Texts that both sides say, and numbers whose names share a word."""
    matches = {feature.of: feature.by for feature in spec.values() if isinstance(feature, Match)}
    assert matches == {
        ("member.title", "job.profession"): ("equal",),
        ("member.skills", "job.wanted"): ("overlap",),
        ("member.years", "job.min_years"): ("difference",),
    }


def test_numbers_go_to_the_model_of_the_other_side(spec: Spec) -> None:
    """What describes a job is for the members' models, what describes a member for the jobs'."""
    blocks = {name: feature.blocks for name, feature in spec.items()}
    assert blocks["member_years"] == ("global", "per_job")
    assert blocks["job_pay"] == ("global", "per_member")
    assert blocks["context_device"] == blocks["member_title"] == ("global",)
    assert blocks["member_skills_job_wanted"] == ("global", "per_member", "per_job")


def test_options_follow_from_the_values(found: Suggestion) -> None:
    """Skewed numbers become logarithms, truth values stay, what is missing gets a column."""
    tables = dict(table.split("]", 1) for table in found.text.split("[features.")[1:])
    assert "log1p = true" in tables["job_pay"]
    assert "log1p" not in tables["member_years"]
    assert "standardise = false" in tables["job_remote"]
    assert "missing = true" in tables["job_min_years"]
    assert "missing" not in tables["member_years"]
    assert "82% have it; 0 to 9, half below 4" in tables["job_min_years"]


LEFT_OUT = {
    "member.last_status": "AUC of 1.00: it was written once the answer was known",
    "job.replied_by": "only where there was an answer",
    "job.reject_reason": "only where there was no answer",
    "member.name": "nearly every one is another",
    "member.employee_id": "nearly every one is another",
    "member.species": "always the same",
    "member.mixed": "several types",
    "member.badge": "only 0.2% of the applications",
}


def test_what_is_left_out_is_named(found: Suggestion) -> None:
    """What was written afterwards, names, and what tells nothing: in the file and beside it."""
    assert {path for path, _ in found.left_out} == LEFT_OUT.keys()
    for path, why in found.left_out:
        assert LEFT_OUT[path] in why
        assert f'#   "{path}": {why}' in found.text
    assert "dotted" not in found.text


def test_the_auc_of_an_attribute_is_that_of_others_with_its_value() -> None:
    """A rate of each value in one half scores the other; a value of its own tells nothing."""
    rng = Random(2)
    y = np.array([rng.random() < 0.5 for _ in range(2_000)])
    known: list[Tokens] = [
        (rng.choice("ab") if rng.random() < 0.5 else ("a" if one else "b"),) for one in y
    ]
    scores = np.zeros(len(y))
    for half in (0, 1):
        other = np.arange(len(y)) % 2 != half
        for value in "ab":
            has = np.array([token == (value,) for token in known])
            rate = (y[has & other].sum() + 5 * y[other].mean()) / ((has & other).sum() + 5)
            scores[has & ~other] = rate
    assert auc_alone(known, y) == pytest.approx(roc_auc_score(y, scores), abs=1e-12)
    assert auc_alone([(number,) for number in range(len(y))], y) < 0.56


def test_of_a_large_log_a_sample_is_looked_at(
    found: Suggestion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory does not grow with the log; the same is found, and the file says of how many."""
    lines = market(ordinary, 4_000)
    monkeypatch.setattr("stream.check.attributes.MOST_KEPT", 1_000)
    sample = Sample(POLICY.labels)
    tracemalloc.start()
    sample.read((LogLine("log", number, line) for number, line in enumerate(lines, 1)), quiet)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4_000_000
    few = suggest(sample)
    assert 400 < len(sample.times_ms) <= 1_000
    assert f"from 4,000 applications, of which {len(sample.times_ms):,} were" in few.text
    rare = {"member.badge"}  # a sample may have none
    assert {path for path, _ in few.left_out} | rare == {path for path, _ in found.left_out}
    assert parse_spec(few.text).keys() == parse_spec(found.text).keys()


@given(st.lists(st.tuples(ATTRIBUTES, ATTRIBUTES, ATTRIBUTES), min_size=1, max_size=3))
def test_whatever_is_said_a_spec_of_it_can_be_learned(rows: list[tuple[Any, Any, Any]]) -> None:
    """Names with quotes, brackets or line ends are no harm, nor values of any type."""
    try:
        lines = market(lambda number, _answered, _rng: rows[number % len(rows)], 24)
    except UnicodeEncodeError:
        return  # no message can say half a surrogate
    found = suggested(lines)
    if not found.features:
        return
    fitter = SpecFitter(parse_spec(found.text))
    for row in rows:
        fitter.add(*row, START_MS)
    maker = Maker(fitter.fitted())
    assert all(
        np.isfinite(np.frombuffer(block, "<f4")).all() for block in maker.blocks(*rows[0], 0)
    )


SIMULATED = SimulationSettings(
    members=600,
    jobs=200,
    days=60,
    applications_per_member=15,
    global_sd=2.5,
    precision_member=8.0,
    precision_job=8.0,
    attributes=True,
)


def test_a_model_of_the_suggested_spec_is_nearly_as_good_as_one_of_the_truth() -> None:
    """At least 95 % of what the true features gain in AUC over 0.5, on later applications."""
    until_ms = SIMULATED.start_ms + 48 * DAY_MS
    lines = [LogLine("log", number, line) for number, line in enumerate(simulate(SIMULATED), 1)]
    events = [decode_raw(line.raw) for line in lines]
    known = [line for line, e in zip(lines, events, strict=True) if e.event_time_ms <= until_ms]
    found = suggested([line.raw for line in known])
    assert not found.left_out
    maker = fit_spec(parse_spec(found.text), known, until_ms, quiet)
    positive = POLICY.labels.positive_actions
    answered = {
        e.application_id for e in events if isinstance(e, Engagement) and e.action in positive
    }
    gains = []
    for names in (draw_truth(SIMULATED).feature_names, maker):
        trainer = Trainer(POLICY, until_ms, names)
        trainer.read(known, quiet)
        model = trainer.model()
        scores, outcomes = [], []
        for line, event in zip(lines, events, strict=True):
            if isinstance(event, RawApplication) and event.event_time_ms > until_ms:
                app = decode_event(line.raw, model.space)
                assert isinstance(app, Application)
                scores.append(model.score(app.features.global_ or b""))
                outcomes.append(app.application_id in answered)
        gains.append(roc_auc_score(outcomes, scores) - 0.5)
    assert gains[0] > 0.2
    assert gains[1] >= 0.95 * gains[0]
