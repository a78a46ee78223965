"""Served scores are those that the worker's stages give."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from stream.errors import QuestionError
from stream.events.structs import Application, Coefficients, Features, Label
from stream.events.wire import coefficients_key, encode, numbers
from stream.model.coefficients import Linear
from stream.model.columns import preference_columns
from stream.model.folder import GlobalModel
from stream.model.trees import NODE, Trees
from stream.policy import DAY_MS, HOUR_MS, EffectSettings, Policy
from stream.serving.answers import score
from stream.serving.client import columns_of
from stream.serving.messages import ScoreQuestion
from stream.serving.scorer import Scorer
from stream.serving.waiting import Waiting
from tests.kit import Market, engagement, model
from tests.serving.asking import NOW_MS, Asked
from tests.serving.test_embedded import with_histories

CLOSED_MS = 25 * DAY_MS
COUNT = 24
_RNG = np.random.default_rng(7)


def boosted() -> GlobalModel:
    """Two trees: one asks a member's applications, the other the job's positives, then ``g``."""
    table = np.zeros(8, NODE)
    table["tree"] = [0, 0, 0, 1, 1, 1, 1, 1]
    table["feature"] = [1, -1, -1, 15, -1, 0, -1, -1]
    table["threshold"] = [1.5, 0, 0, 0.5, 0, 0.25, 0, 0]
    table["left"] = [1, -1, -1, 4, -1, 6, -1, -1]
    table["right"] = [2, -1, -1, 5, -1, 7, -1, -1]
    table["value"] = [0.0, 0.5, -0.75, 0.0, 0.125, 0.0, -1.0, 2.0]
    manifest = msgspec.structs.replace(with_histories().manifest, kind="boosted")
    return GlobalModel(manifest, Trees(table, 37))


def with_preferences() -> GlobalModel:
    """Return the kit's model, taking histories and preferences, of a type that nobody has too."""
    base = with_histories().manifest
    names = preference_columns(["other", "skill", "title"])
    manifest = msgspec.structs.replace(
        base,
        features=base.features | {"preferences": names},
        inputs=("global", "history", "preferences"),
    )
    return GlobalModel(manifest, Linear(np.linspace(-0.1, 0.1, 37 + len(names))))


def applied(number: int, time_ms: int, member: str, job: str) -> Application:
    """An application with features of its own."""
    blocks = [_RNG.normal(size=size).astype("<f4").tobytes() for size in (1, 2, 1)]
    return Application(
        application_id=f"a{number}",
        member_id=member,
        job_id=job,
        event_time_ms=time_ms,
        features=Features(*blocks),
        channel=(None, "search", "invited")[number % 3],
        terms={"skill": [f"s{number % 4}", f"s{number % 5}"], "title": [f"t{number % 3}"]},
    )


def a_market(global_model: GlobalModel, policy: Policy = Policy()) -> Market:  # noqa: B008 - frozen
    """A market in which all windows have closed, and much was learned."""
    market = Market(policy, 2, global_model=global_model)
    events: list[Any] = []
    for number in range(160):
        app = applied(
            number, number * HOUR_MS, f"m{number % COUNT}", f"j{number * 7 % (COUNT - 1)}"
        )
        events.append(app)
        if number % 3 == 0:
            action = "reject" if number % 2 else "message"
            events.append(
                engagement(
                    f"e{number}",
                    app.application_id,
                    app.event_time_ms + HOUR_MS,
                    action,
                    job=app.job_id,
                    member=app.member_id,
                )
            )
    market.produce(sorted(events, key=lambda event: event.event_time_ms))
    market.run()
    market.clock(CLOSED_MS)
    market.run()
    return market


def new_ones(at_ms: int) -> list[Application]:
    """Applications of different members and jobs that never met; the last ones are not known.

    Each only once: the next one would be scored with a history that has it.
    """
    met = {(number % COUNT, number * 7 % (COUNT - 1)) for number in range(160)}
    left = list(range(1, COUNT - 1))
    found = []
    for member in range(COUNT - 6):
        job = next(job for job in left if (member, job) not in met)
        left.remove(job)
        found.append(applied(1000 + member, at_ms, f"m{member}", f"j{job}"))
    found.append(applied(1900, at_ms, "m-new", "j0"))
    return [*found, applied(1901, at_ms, f"m{COUNT - 1}", "j-new")]


def first_sights(market: Market, new: list[Application]) -> list[Label]:
    """What the stages score new applications with."""
    before = len(market.labels())
    market.produce(new)
    market.clock(CLOSED_MS + 20 * DAY_MS)
    market.run()
    found = {label.application_id: label for label in market.labels()[before:]}
    return [found[app.application_id] for app in new]


def candidate(app: Application) -> dict[str, object]:
    """An application as it is asked for."""
    features = app.features
    return {
        "member_id": app.member_id,
        "job_id": app.job_id,
        "features": {
            "global": numbers(features.global_ or b""),
            "per_member": numbers(features.per_member),
            "per_job": dict(zip(["j0"], numbers(features.per_job), strict=True)),
        },
        "application_time_ms": app.event_time_ms,
        "terms": app.terms,
        "channel": app.channel,
    }


@pytest.mark.parametrize("make", [model, with_histories, boosted, with_preferences])
def test_served_scores_are_the_stages(make: Any) -> None:
    """The global score and both parts, to 1e-9: linear, with all it may take, and boosted."""
    global_model = make()
    market = a_market(global_model)
    asked = Asked(global_model)
    asked.hear(market.sent)
    new = new_ones(CLOSED_MS + DAY_MS)
    found = asked.score(candidates=[candidate(app) for app in new])["candidates"]
    for each, label in zip(found, first_sights(market, new), strict=True):
        parts = each["parts"]
        assert parts["global"] == pytest.approx(label.global_score, abs=1e-9)
        assert parts["member"] == pytest.approx(label.member_score, abs=1e-9)
        assert parts["job"] == pytest.approx(label.job_score, abs=1e-9)
        assert each["log_odds"] == pytest.approx(label.full_score, abs=1e-9)
        assert each["probability"] == pytest.approx(1 / (1 + math.exp(-label.full_score)))
        assert each["member_known"] == (each["member_id"] != "m-new")
        assert each["job_known"] == (each["job_id"] != "j-new")
    assert any(abs(each["parts"]["member"]) > 0.01 for each in found)


def test_every_form_of_a_question_has_the_same_answer() -> None:
    """One by one, JSON columns, MessagePack columns, and the blocks of both as bytes."""
    global_model = with_preferences()
    asked = Asked(global_model)
    asked.hear(a_market(global_model).sent)
    new = new_ones(CLOSED_MS)
    one_by_one = asked.score(candidates=[candidate(app) for app in new], at_ms=CLOSED_MS + 5)
    rows = {
        name: np.array([numbers(getattr(app.features, attribute) or b"") for app in new])
        for name, attribute in (
            *(("global", "global_"), ("per_member", "per_member"), ("per_job", "per_job")),
        )
    }
    columns = {
        "member_id": [app.member_id for app in new],
        "job_id": [app.job_id for app in new],
        "application_time_ms": [app.event_time_ms for app in new],
        "terms": [app.terms for app in new],
        "channel": [app.channel for app in new],
    }
    lists = columns | {name: array.tolist() for name, array in rows.items()}
    in_json = asked.score(columns=lists, at_ms=CLOSED_MS + 5)["columns"]
    packed = msgspec.to_builtins(
        columns_of(
            global_=rows["global"],
            per_member=rows["per_member"],
            per_job=rows["per_job"],
            member_id=[app.member_id for app in new],
            job_id=[app.job_id for app in new],
            application_time_ms=[app.event_time_ms for app in new],
            terms=[app.terms for app in new],
            channel=[app.channel for app in new],
        ),
        builtin_types=(bytes,),
    )
    question = {"columns": packed, "at_ms": CLOSED_MS + 5}
    reply = asked.ask("/v1/score", question, kind="application/msgpack")
    assert reply.headers["content-type"] == "application/msgpack"
    in_bytes = msgspec.msgpack.decode(reply.body)["columns"]
    for name in ("log_odds", "probability", "probability_now", "standard_deviation"):
        wanted = [each[name] for each in one_by_one["candidates"]]
        assert in_json[name] == pytest.approx(wanted, abs=1e-12)
        assert np.frombuffer(in_bytes[name], "<f8").tolist() == in_json[name]
    for name in ("global", "member", "job"):
        wanted = [each["parts"][name] for each in one_by_one["candidates"]]
        assert in_json[name] == pytest.approx(wanted, abs=1e-12)
    base64 = asked.score(columns=msgspec.to_builtins(packed), at_ms=CLOSED_MS + 5)["columns"]
    assert base64 == in_json
    accept = {"accept": "application/json"}
    reply = asked.ask("/v1/score", question, kind="application/msgpack", headers=accept)
    assert reply.headers["content-type"] == "application/json"


def test_one_row_of_a_block_stands_for_all() -> None:
    """What describes the one job need not be said of each candidate; an error of it is everybody's.

    So for blocks of effects and of the global model, with histories too.
    """
    global_model = with_histories()
    asked = Asked(global_model)
    asked.hear(a_market(global_model).sent)
    ids = ["m1", "m2", "nobody"]
    rows = {"global": [0.5], "per_member": [1.0, -2.0], "per_job": [3.0]}
    long = {name: [row] * 3 for name, row in rows.items()} | {"member_id": ids}
    wanted = asked.score(job_id="j3", columns=long, explain=True)
    for shared in (["per_member"], ["global"], ["per_job", "global"], list(rows)):
        short = long | {name: [rows[name]] for name in shared}
        found = asked.score(job_id="j3", columns=short, explain=True)
        for name, column in wanted["columns"].items():
            if name in {"explanation", "member_known", "job_known"}:
                assert found["columns"][name] == column
            else:
                assert found["columns"][name] == pytest.approx(column, abs=1e-12)
    wrong = long | {"per_member": [{"m9": 1.0}]}
    reply = asked.ask("/v1/score", {"job_id": "j3", "columns": wrong})
    assert reply.status == 422
    assert "unknown to the model" in reply.json()["message"]
    drawn = [
        asked.rank(job_id="j3", columns=columns, explore={"seed": 3})["columns"]["drawn"]
        for columns in (long, long | {"per_member": [rows["per_member"]]})
    ]
    assert drawn[0] == pytest.approx(drawn[1])


def test_terms_of_all_stand_in_the_question() -> None:
    """Of whoever has none; no terms, and a job that nobody knows, are columns of 0."""
    global_model = with_preferences()
    asked = Asked(global_model)
    asked.hear(a_market(global_model).sent)
    app = new_ones(CLOSED_MS)[3]
    own, other = candidate(app), candidate(app) | {"terms": {"skill": ["s1"]}, "channel": "x"}
    bare = {name: own[name] for name in own if name not in {"terms", "channel"}}
    shared = {"terms": app.terms, "channel": app.channel}
    wanted = asked.score(candidates=[own, other])["candidates"]
    assert wanted[0]["log_odds"] != wanted[1]["log_odds"]
    assert asked.score(candidates=[bare, other], **shared)["candidates"] == wanted
    blocks: Any = bare.pop("features")
    columns = {name: [value] * 2 for name, value in (bare | blocks).items()}
    columns |= {"terms": [None, other["terms"]], "channel": [None, "x"]}
    found = asked.score(columns=columns, **shared)["columns"]["log_odds"]
    assert found == pytest.approx([each["log_odds"] for each in wanted])
    nothing = [bare | {"features": blocks}, own | {"job_id": "nobody's"}]
    for each in asked.score(candidates=nothing, explain=True)["candidates"]:
        added = each["explanation"]["global"]
        assert {x for name, x in added.items() if name.startswith("preferences")} == {0.0}


def known(asked: Asked, effect: str, entity_id: str, mean: list[float], variance: float) -> None:
    """Let the store know an entity."""
    found = Coefficients(
        effect=effect,
        entity_id=entity_id,
        model_version="test-model",
        mean=mean,
        variance=[variance] * len(mean),
        examples=2,
        event_time_ms=3,
    )
    asked.store.apply([(coefficients_key(effect, entity_id), encode(found))])


def test_what_is_told_of_a_score() -> None:
    """By hand: parts, deviation, what is still to come, and what each feature adds."""
    policy = Policy(effects={"per_job": EffectSettings(prior_precision=4.0)})
    asked = Asked(model(), policy)
    known(asked, "per_member", "m1", [0.5, -1.0], 0.25)
    features = {"global": [2.0], "per_member": [1.0, 3.0], "per_job": [2.0]}
    found = asked.score(
        job_id="j1",
        candidates=[
            {
                "member_id": "m1",
                "features": features,
                "application_time_ms": NOW_MS - DAY_MS,
                "later": 2,
            },
            {"member_id": "m2", "features": features, "global_score": 0.5},
        ],
        explain=True,
    )
    first, second = found["candidates"]
    assert first["parts"] == {"global": -2.0, "member": -2.5, "job": 0.0}
    assert first["log_odds"] == -4.5
    assert first["standard_deviation"] == pytest.approx(math.sqrt(10 * 0.25 + 4 * 0.25))
    assert first["explanation"] == {
        "global": {"g": -2.0, "constant": 0.0},
        "per_member": {"m0": 0.5, "m1": -3.0},
        "per_job": {"j0": 0.0},
    }
    waiting = Waiting(model(), policy.labels)
    assert first["probability_now"] == pytest.approx(waiting.probability(-4.5, DAY_MS, 2))
    assert "probability_now" not in second
    assert second["log_odds"] == 0.5
    assert second["explanation"]["global"] == {"global_score": 0.5}
    assert second["standard_deviation"] == pytest.approx(math.sqrt(10 / 3 + 4 * 0.25))
    assert (first["member_known"], second["member_known"], first["job_known"]) == (
        True,
        False,
        False,
    )
    assert found["model_version"] == "test-model"
    assert (found["degraded"], found["staleness_s"], found["errors"]) == ([], 0.0, [])


def test_explanations_sum_to_the_score() -> None:
    """Of trees with histories, too."""
    global_model = boosted()
    asked = Asked(global_model)
    asked.hear(a_market(global_model).sent)
    new = [candidate(app) for app in new_ones(CLOSED_MS)]
    for each in asked.score(candidates=new, explain=True)["candidates"]:
        total = sum(sum(of_effect.values()) for of_effect in each["explanation"].values())
        assert total == pytest.approx(each["log_odds"], abs=1e-9)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"features": {"per_member": [1.0]}}, "invalid_features", "1 numbers, the model has 2"),
    ({"features": {"per_member": {"m9": 1.0}}}, "invalid_features", "unknown to the model"),
    ({"features": {"per_member": [1e7, 0.0]}}, "invalid_features", "beyond max_feature"),
    ({"features": {"global": []}, "global_score": None}, "invalid_features", "0 numbers"),
    ({"global_score": 1e9}, "invalid_features", "global_score has the number"),
    ({"member_id": ""}, "invalid_id", "0 characters"),
    ({"member_id": "x" * 257}, "invalid_id", "257 characters"),
    ({"application_time_ms": -1}, "malformed", "no time"),
    ({"application_time_ms": 10**400}, "malformed", "no time"),
    ({"application_time_ms": -(10**400)}, "malformed", "no time"),
    ({"later": -1}, "malformed", "0 or more"),
    ({"later": 10**400}, "malformed", "0 or more"),
    ({"later": 2**40}, "malformed", "0 or more"),
]


@pytest.mark.parametrize(("change", "reason", "says"), WRONG)
def test_an_error_of_one_candidate_is_its_own(
    change: dict[str, Any], reason: str, says: str
) -> None:
    """The others are scored as if it were not there; one by one, and in columns."""
    asked = Asked(model())
    right = {
        "member_id": "m1",
        "features": {"per_member": [1.0, 2.0], "per_job": [1.0]},
        "global_score": 0.5,
    }
    wrong = right | change
    if "features" in change:
        wrong["features"] = {"per_member": [0.0, 0.0], "per_job": [1.0]} | change["features"]
    alone = asked.score(job_id="j", candidates=[right])["candidates"][0]
    question = {"job_id": "j", "candidates": [right, wrong, right]}
    reply = asked.ask("/v1/score", json.dumps(question).encode(), method="POST")
    found = reply.json()
    assert [each["at"] for each in found["candidates"]] == [0, 2]
    assert found["candidates"] == [alone, alone | {"at": 2}]
    (error,) = found["errors"]
    assert (error["at"], error["reason"]) == (1, reason)
    assert says in error["message"]
    if "features" in change:
        return
    fields = {**{name: each for name, each in right.items() if name != "features"}, **change}
    columns: dict[str, Any] = {
        name: [right.get(name, 0), value, right.get(name, 0)] for name, value in fields.items()
    } | {"per_member": [[1.0, 2.0]], "per_job": [[1.0]]}
    body = json.dumps({"job_id": "j", "columns": columns}).encode()
    found = asked.ask("/v1/score", body, method="POST").json()
    assert found["columns"]["log_odds"] == [alone["log_odds"], None, alone["log_odds"]]
    (error,) = found["errors"]
    assert (error["at"], error["reason"]) == (1, reason)
    assert says in error["message"]


def test_an_id_that_is_empty_is_not_that_of_all() -> None:
    """It is an error of its candidate, as in a column; one that is left out is that of all."""
    asked = Asked(model())
    features = {"per_member": [1.0, 2.0], "per_job": [1.0]}
    for name in ("member_id", "job_id"):
        both = {"member_id": "m", "job_id": "j"}
        one = {"features": features, "global_score": 0.5}
        found = asked.score(**both, candidates=[one, one | {name: ""}])
        assert [each["at"] for each in found["candidates"]] == [0]
        assert [(each["at"], each["reason"]) for each in found["errors"]] == [(1, "invalid_id")]


def test_a_column_has_null_where_a_candidate_has_an_error() -> None:
    """In JSON; NaN in MessagePack. Numbers that are none count as errors, too."""
    asked = Asked(model())
    block = np.array([[1.0, 2.0], [np.nan, 0.0], [1e7, 0.0]])
    columns = {
        "member_id": ["a", "b", "c"],
        "per_member": block.astype("<f4").tobytes(),
        "per_job": np.ones((3, 1), "<f4").tobytes(),
        "global_score": np.array([0.5, 0.5, 0.5]).tobytes(),
    }
    question = {"job_id": "j", "columns": columns}
    reply = asked.ask("/v1/score", question, kind="application/msgpack")
    found = msgspec.msgpack.decode(reply.body)
    log_odds = np.frombuffer(found["columns"]["log_odds"], "<f8")
    assert log_odds[0] == 0.5
    assert np.isnan(log_odds[1:]).all()
    assert [error["at"] for error in found["errors"]] == [1, 2]
    accept = {"accept": "application/json"}
    reply = asked.ask("/v1/score", question, kind="application/msgpack", headers=accept)
    assert reply.json()["columns"]["log_odds"] == [0.5, None, None]
    assert "number that is none" in reply.json()["errors"][0]["message"]


ATTRIBUTES = ("member", "job", "context")
BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "either candidates or columns"),
    ({"candidates": [], "columns": {}}, "either candidates or columns"),
    ({"columns": {}}, "none is given"),
    ({"columns": {"member_id": ["a"], "global_score": [1.0, 2.0]}}, "same number"),
    ({"columns": {"member_id": ["a"]}}, "give job_id"),
    ({"job_id": "j", "columns": {"member_id": ["a"]}}, "give columns.global"),
    ({"job_id": "j", "columns": {"member_id": ["a"], "per_member": b"12345"}}, "5 bytes, not 8"),
    ({"job_id": "j", "columns": {"member_id": ["a"] * 10_001}}, "the most are 10000"),
    ({"candidates": [{}], "what": 1}, "unknown field"),
    *(({name: {"x": 1}, "columns": {}}, "blocks as columns") for name in ATTRIBUTES),
]


@pytest.mark.parametrize(("question", "says"), BAD)
def test_a_question_that_cannot_be_answered_is_refused(question: dict[str, Any], says: str) -> None:
    """With 422, and words."""
    reply = Asked(model()).ask("/v1/score", question, kind="application/msgpack")
    assert reply.status == 422
    assert reply.json()["reason"] == "invalid_question"
    assert says in reply.json()["message"]


def test_no_candidates_have_no_scores() -> None:
    """An empty list is a question like any other."""
    asked = Asked(model())
    assert asked.score(job_id="j", candidates=[])["candidates"] == []
    assert asked.rank(candidates=[])["candidates"] == []
    columns: dict[str, list[object]] = {
        "member_id": [],
        "global_score": [],
        "per_member": [],
        "per_job": [],
    }
    assert asked.score(job_id="j", columns=columns)["columns"]["log_odds"] == []


def test_a_scorer_is_of_use_without_a_service() -> None:
    """In a Python process of one's own, over any store."""
    asked = Asked(model())
    scorer = Scorer(model(), Policy(), asked.store)
    with pytest.raises(QuestionError):
        score(scorer, ScoreQuestion(), NOW_MS, packed=False)
    manifest = msgspec.structs.replace(
        model().manifest, features={"global": [], "per_member": [], "per_job": []}
    )
    empty = GlobalModel(manifest, Linear(np.zeros(0)))
    found = Asked(empty).score(job_id="j", columns={"member_id": ["a", "b"]})
    assert found["columns"]["log_odds"] == [0.0, 0.0]
