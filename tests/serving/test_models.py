"""Several global models, one rolled in after the other: who scores what, and for how long."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ConfigError, StateError
from stream.events.partitioner import partition_of
from stream.events.records import COEFFICIENTS
from stream.events.structs import Control, ModelSince
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel, new_model
from stream.partitions.commands import RollCommand
from stream.policy import DAY_MS, Policy
from stream.serving.embedded import EmbeddedStore
from stream.serving.models import Models
from stream.serving.snapshot import Place, load_snapshot, save_snapshot
from stream.stages.succession import StoredModel
from tests.kit import model
from tests.serving.asking import Asked
from tests.serving.test_embedded import coefficients, control, record
from tests.serving.test_scores import (
    CLOSED_MS,
    a_market,
    boosted,
    candidate,
    first_sights,
    new_ones,
)

TIME = CLOSED_MS + DAY_MS


def named(version: str, like: GlobalModel) -> GlobalModel:
    """Return a model under another version, as a folder has it."""
    sha256 = hashlib.sha256(like.scorer.encoded()).hexdigest()
    manifest = msgspec.structs.replace(like.manifest, model_version=version, sha256=sha256)
    return GlobalModel(manifest, like.scorer)


@pytest.mark.parametrize("first", [named("first", model()), named("first", boosted())])
def test_served_scores_after_a_roll_are_the_stages(first: GlobalModel) -> None:
    """Of applications before its time by the old model, from it on by the new one, to 1e-9.

    Also where only one of them takes histories; answers name the model of now, and each candidate
    that another one scored names that.
    """
    new = named("rolled", model() if first.takes_history else boosted())
    market = a_market(first)
    for (stage, number), partition in market.partitions.items():
        command = RollCommand(TIME, 1, StoredModel.of(new))
        market.deliver(stage, number, partition.obey([command], market.now_ms))
    asked = Asked(first)
    asked.store.partitions = 2
    asked.hear(market.sent)
    apps = new_ones(TIME - 1)
    later = [msgspec.structs.replace(app, event_time_ms=TIME) for app in apps[::2]]
    apps = [*apps[1::2], *later]
    question = {"candidates": [candidate(app) for app in apps], "at_ms": TIME}
    assert asked.score(**question)["degraded"] == ["other_model_in_force"]
    asked.store.models.take(new)
    answer = asked.score(**question, explain=True)
    assert (answer["model_version"], answer["degraded"]) == ("rolled", [])
    labels = first_sights(market, apps)
    assert {label.model_version for label in labels} == {"first", "rolled"}
    for each, label in zip(answer["candidates"], labels, strict=True):
        assert each["model_version"] == label.model_version
        assert each["parts"]["global"] == pytest.approx(label.global_score, abs=1e-9)
        assert each["log_odds"] == pytest.approx(label.full_score, abs=1e-9)
        told = sum(sum(of_effect.values()) for of_effect in each["explanation"].values())
        assert told == pytest.approx(each["log_odds"], abs=1e-9)
    columns = {
        "member_id": [app.member_id for app in apps],
        "job_id": [app.job_id for app in apps],
        "application_time_ms": [app.event_time_ms for app in apps],
    } | {
        name: [candidate(app)["features"][name] for app in apps]  # type: ignore[index]
        for name in ("global", "per_member", "per_job")
    }
    of_columns = asked.score(columns=columns, at_ms=TIME)["columns"]
    one_by_one = answer["candidates"]
    assert of_columns["log_odds"] == pytest.approx([each["log_odds"] for each in one_by_one])
    assert of_columns["model_version"] == [each["model_version"] for each in one_by_one]
    of_now = asked.score(candidates=[candidate(later[0])], at_ms=TIME)
    assert of_now["model_version"] == "rolled"
    assert "model_version" not in of_now["candidates"][0]
    of_before = asked.score(candidates=[candidate(apps[0])], at_ms=TIME - 1)
    assert (of_before["model_version"], of_before["degraded"]) == ("first", [])


_VERSIONS = ["test-model", "b", "c", "not here"]
_TOLD = st.lists(
    st.lists(st.sampled_from(_VERSIONS), min_size=1, max_size=3, unique=True),
    min_size=4,
    max_size=4,
)


@given(
    told=_TOLD,
    jobs=st.lists(st.sampled_from([f"j{n}" for n in range(9)]), min_size=1, max_size=8),
    times=st.lists(st.one_of(st.none(), st.integers(0, 40)), min_size=8, max_size=8),
    at_ms=st.integers(0, 40),
)
def test_each_candidate_is_scored_as_its_jobs_partition_says(
    told: list[list[str]], jobs: list[str], times: list[int | None], at_ms: int
) -> None:
    """Whatever partitions say, and whenever somebody applied, or did not; by hand."""
    models = Models(model(), Policy())
    for version in ("b", "c"):
        models.take(named(version, model()))
    successions = [
        [ModelSince(version, 10 * number) for number, version in enumerate(versions)]
        for versions in told
    ]
    models.heed(
        Control(effect="per_job", partition=number, models=each, gate="open", prior_precision=[])
        for number, each in enumerate(successions)
    )
    for job_ids, known in ((jobs, times[: len(jobs)]), (jobs[:1], times), (jobs, None)):
        times_ms = None if known is None else np.array([np.nan if t is None else t for t in known])
        chosen = models.choose(job_ids, times_ms, at_ms, 4)
        size = len(job_ids) if known is None else len(known)
        wanted = []
        for at in range(size):
            job = job_ids[at if len(job_ids) > 1 else 0]
            time_ms = at_ms if known is None or known[at] is None else known[at]
            begun = [
                each.model_version
                for each in successions[partition_of(job.encode(), 4)]
                if each.from_ms <= (time_ms or 0)
            ]
            wanted.append(begun[-1])
        found = [chosen.model_of(at).version for at in range(size)]
        assert found == [each if each != "not here" else "test-model" for each in wanted]
        assert chosen.complete == ("not here" not in wanted)


def test_models_are_let_go_after_their_windows(tmp_path: Path) -> None:
    """Of applications of the event time that coefficients tell; a snapshot has those that are left.

    One that is rolled in again stays; so does one that nobody follows.
    """
    held = EmbeddedStore(model(), Policy())
    window_ms = Policy().labels.window_ms
    for version in ("b", "c", "d"):
        held.models.take(named(version, model()))
    held.apply([control("per_job", 0, "test-model", "b", "c", "b", "d")])
    versions = {each.version for each in held.models.rolled}
    assert versions == {"b", "c", "d"}

    def learned(time_ms: int) -> None:
        found = msgspec.structs.replace(coefficients("per_job", "j", 1), event_time_ms=time_ms)
        held.apply([record(found)])

    learned(3000 + 2 * window_ms - 1)
    assert len(held.models.rolled) == 3
    learned(3000 + 2 * window_ms)
    assert {each.version for each in held.models.rolled} == {"b", "d"}
    path = tmp_path / "snapshot"
    save_snapshot(path, held, {COEFFICIENTS: Place("t", "", [1])}, current_ms=5)
    again = EmbeddedStore(model(), Policy())
    load_snapshot(path, again)
    assert {each.version for each in again.models.rolled} == {"b", "d"}
    assert again.choose(["j"], None, 5000).now.version == "d"
    learned(4000 + 2 * window_ms)
    assert {each.version for each in held.models.rolled} == {"d"}
    other = new_model(
        Linear(np.array([1.0, 2.0])),
        {"global": ["g", "h"], "per_member": ["m0", "m1"], "per_job": ["j0"]},
        trained_from_ms=0,
        trained_until_ms=0,
        applications=0,
        positives=0,
    )
    with pytest.raises(ConfigError, match="other global features"):
        held.models.take(other)
    with pytest.raises(StateError, match="of another model"):
        load_snapshot(path, EmbeddedStore(named("x", model()), Policy()))


def test_an_event_of_the_future_lets_no_model_go() -> None:
    """By the wall clock the windows of their applications are not over."""
    held = EmbeddedStore(model(), Policy())
    now_ms = time.time_ns() // 1_000_000
    since = [("test-model", 0), ("b", now_ms - 2 * DAY_MS), ("c", now_ms - DAY_MS)]
    for version, _ in since[1:]:
        held.models.take(named(version, model()))
    models = [ModelSince(*each) for each in since]
    said = Control(effect="per_job", partition=0, models=models, gate="open", prior_precision=[])
    held.controls["per_job:0"] = said
    held.heed_controls()
    ahead_ms = now_ms + 10_000 * DAY_MS
    found = msgspec.structs.replace(coefficients("per_job", "j", 1), event_time_ms=ahead_ms)
    held.apply([record(found)])
    assert {each.version for each in held.models.rolled} == {"b", "c"}


def test_a_model_that_is_named_and_not_here_is_told() -> None:
    """Until it comes; an answer without candidates tells it too, of any partition."""
    held = EmbeddedStore(model(), Policy())
    assert held.choose([], None, 5).complete
    held.apply([control("per_job", 0, "test-model"), control("per_job", 1, "test-model", "b")])
    assert held.models.lacking == {"b"}
    assert held.choose([], None, 999).complete
    assert not held.choose([], None, 1000).complete
    held.models.take(named("b", model()))
    assert held.models.lacking == frozenset()
    assert held.choose([], None, 1000).complete
