"""Served scores are the stages' whatever policy and model: one by one, and of held applicants."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from stream.events.partitioner import partition_of
from stream.events.records import APPLICATIONS
from stream.events.structs import Application, Engagement, Label
from stream.model.columns import HISTORY_COLUMNS
from stream.model.folder import GlobalModel
from stream.model.trees import NODE, Trees
from stream.policy import (
    DAY_MS,
    HOUR_MS,
    ApplicantSettings,
    EffectSettings,
    FeaturePolicy,
    GateSettings,
    MatchSettings,
    Policy,
)
from tests.kit import Market, engagement, model
from tests.serving.asking import NOW_MS, Asked
from tests.serving.test_attributes import of_attributes, sent
from tests.serving.test_embedded import with_histories
from tests.serving.test_scores import (
    CLOSED_MS,
    a_market,
    boosted,
    candidate,
    new_ones,
    with_preferences,
)

POLICIES = {
    "limited": Policy(features=FeaturePolicy(max_feature=1.5)),
    "own settings": Policy(
        effects={
            "per_member": EffectSettings(prior_precision={"m0": 10.0, "m1": 0.5}, coupled=False),
            "per_job": EffectSettings(half_life_ms=2 * DAY_MS, capacity=2),
        },
        gate=GateSettings(enabled=False),
    ),
    "all on": Policy(
        matches=MatchSettings(enabled=True, p_min=0.0),
        applicants=ApplicantSettings(enabled=True),
    ),
}
HELD = POLICIES["all on"]


def labels_of(market: Market, until_ms: int) -> dict[str, Label]:
    """All windows close; the last label of each application, with the scores of first sight."""
    market.clock(until_ms)
    market.run()
    return {label.application_id: label for label in market.labels()}


def check(parts: dict[str, float], label: Label) -> None:
    """Compare what is served with what the stages have given."""
    wanted = {
        "global": label.global_score,
        "member": label.member_score,
        "job": label.job_score,
    }
    assert parts == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("make", [model, with_histories, boosted, with_preferences])
def test_served_scores_are_the_stages_whatever_the_policy(make: Any, policy: Policy) -> None:
    """To 1e-9; what the stages refuse is an error of the candidate here, and nothing else is."""
    global_model = make()
    market = a_market(global_model, policy)
    asked = Asked(global_model, policy)
    asked.store.partitions = 2
    asked.hear(market.sent)
    new = new_ones(CLOSED_MS + DAY_MS)
    answer = asked.score(candidates=[candidate(app) for app in new])
    assert answer["degraded"] == []
    market.produce(new)
    labels = labels_of(market, CLOSED_MS + 20 * DAY_MS)
    wrong = {error["at"] for error in answer["errors"]}
    assert wrong == {at for at, app in enumerate(new) if app.application_id not in labels}
    assert bool(wrong) == (policy.features.max_feature < 2.0)
    for each in answer["candidates"]:
        check(each["parts"], labels[new[each["at"]].application_id])
    assert any(abs(each["parts"]["member"]) > 0.01 for each in answer["candidates"])


def boosted_of_attributes() -> GlobalModel:
    """Two trees: one asks the years, the other a member's applications."""
    manifest = of_attributes().manifest
    size = len(manifest.features["global"])
    table = np.zeros(6, NODE)
    table["tree"] = [0, 0, 0, 1, 1, 1]
    table["feature"] = [0, -1, -1, size, -1, -1]
    table["threshold"] = [0.25, 0, 0, 1.5, 0, 0]
    table["left"] = [1, -1, -1, 4, -1, -1]
    table["right"] = [2, -1, -1, 5, -1, -1]
    table["value"] = [0.0, 0.5, -0.75, 0.0, 0.125, 2.0]
    manifest = msgspec.structs.replace(
        manifest,
        kind="boosted",
        features=manifest.features | {"history": HISTORY_COLUMNS},
        inputs=("global", "history"),
    )
    return GlobalModel(manifest, Trees(table, size + len(HISTORY_COLUMNS)))


@pytest.mark.parametrize("make", [of_attributes, boosted_of_attributes])
@pytest.mark.parametrize("most", [1e6, 1.0])
def test_scores_of_attributes_are_the_stages(make: Any, most: float) -> None:
    """Raw attributes go into the topic and into the question: linear and boosted, to 1e-9."""
    global_model: GlobalModel = make()
    policy = Policy(features=FeaturePolicy(max_feature=most))
    market = Market(policy, 2, global_model=global_model)
    began_ms = NOW_MS - 60 * DAY_MS

    def apply(number: int, time_ms: int, job: str) -> dict[str, Any]:
        app = sent(number) | {"event_time_ms": time_ms, "job_id": job}
        app["member_id"] = f"m{number % 7}"
        key = app["member_id"].encode()
        value = msgspec.json.encode(app)
        market.append(APPLICATIONS, partition_of(key, 2), key, value)
        return app

    for number in range(60):
        app = apply(number, began_ms + number * HOUR_MS, f"j{number % 5}")
        if number % 3 == 0:
            ids = f"e{number}", app["application_id"], app["event_time_ms"] + HOUR_MS, "message"
            market.produce([engagement(*ids, job=app["job_id"], member=app["member_id"])])
    market.run()
    market.clock(began_ms + 25 * DAY_MS)
    market.run()
    asked = Asked(global_model, policy)
    asked.store.partitions = 2
    asked.hear(market.sent)
    new = [apply(100 + n, began_ms + 26 * DAY_MS, f"new{n}") for n in range(7)]
    question = [
        {name: app[name] for name in ("member_id", "job_id", "member", "job", "context")}
        | {"application_time_ms": app["event_time_ms"]}
        for app in new
    ]
    answer = asked.score(candidates=question)
    labels = labels_of(market, began_ms + 50 * DAY_MS)
    wrong = {error["at"] for error in answer["errors"]}
    assert wrong == {at for at, app in enumerate(new) if app["application_id"] not in labels}
    for each in answer["candidates"]:
        check(each["parts"], labels[new[each["at"]]["application_id"]])
    if most > 1.0:
        assert len(answer["candidates"]) == 7
        assert any(abs(each["parts"]["member"]) > 0.01 for each in answer["candidates"])


@pytest.mark.parametrize("make", [model, with_histories, boosted, with_preferences])
def test_held_applicants_are_scored_as_the_stages_would_now(make: Any) -> None:
    """At first sight as these scored them; after answers, as these score one that is the same.

    All three parts, then member and job: the global score stays that of first sight.
    """
    global_model = make()
    market = a_market(global_model, HELD)
    asked = Asked(global_model, HELD)
    asked.store.partitions = 2
    at_ms = CLOSED_MS + DAY_MS
    new = new_ones(at_ms)
    market.produce(new)
    market.run()
    asked.hear(market.sent)

    def parts(app: Application) -> dict[str, float]:
        path = f"/v1/jobs/{app.job_id}/applicants/{app.application_id}?at_ms={at_ms}"
        found: dict[str, float] = asked.ask(path).json()["parts"]
        return found

    before = [parts(app) for app in new]
    for stage in (again(new, "i", at_ms + HOUR_MS), answers(new, at_ms + 2 * HOUR_MS)):
        heard = len(market.sent)
        market.produce(stage)
        market.run()
        asked.hear(market.sent[heard:])
    now = [parts(app) for app in new]
    market.produce(again(new, "t", at_ms + 3 * HOUR_MS))  # of which the service does not hear
    labels = labels_of(market, CLOSED_MS + 25 * DAY_MS)
    for app, first, last in zip(new, before, now, strict=True):
        check(first, labels[app.application_id])
        same = labels[f"t{app.application_id}"]
        assert last["member"] == pytest.approx(same.member_score, abs=1e-9)
        assert last["job"] == pytest.approx(same.job_score, abs=1e-9)
        assert last["global"] == first["global"]
    for part in ("member", "job"):  # not all: of who was certain to be answered nothing is learned
        changed = [last[part] != first[part] for first, last in zip(before, now, strict=True)]
        assert sum(changed) > len(new) / 2


def again(apps: list[Application], prefix: str, time_ms: int) -> list[Application]:
    """The same members apply to the same jobs once more."""
    return [
        msgspec.structs.replace(
            app, application_id=f"{prefix}{app.application_id}", event_time_ms=time_ms
        )
        for app in apps
    ]


def answers(apps: list[Application], time_ms: int) -> list[Engagement]:
    """The applications that were made once more are answered."""
    return [
        engagement(
            *(f"e{app.application_id}", f"i{app.application_id}", time_ms, "message"),
            job=app.job_id,
            member=app.member_id,
        )
        for app in apps
    ]
