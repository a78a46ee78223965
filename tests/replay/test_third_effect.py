"""A third effect, declared here alone: one model for each channel that applications come by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from stream.configuration.settings import to_toml
from stream.effects import EFFECTS, EffectSpec
from stream.errors import ConfigError
from stream.events.records import COEFFICIENTS
from stream.events.structs import Application
from stream.events.wire import decode_coefficients
from stream.policy import EffectSettings, Policy
from stream.replay.reader import first_look
from stream.replay.resumable import replay_into
from stream.replay.run_folder import COEFFICIENTS as COEFFICIENTS_FILE
from stream.replay.run_folder import DEAD_LETTERS, LABELS, SCORES
from stream.replay.savepoint import Options
from tests import kit
from tests.kit import TestEvent, parse_policy
from tests.replay.test_single import lines_of, market, rows, run
from tests.updaters.kernels import Array, ReferenceKernel, fitted, variances

CHANNEL = EffectSpec(name="per_channel", stage="job", block="per_member", entity="channel")

SETTINGS = """
[effects.per_channel]
prior_precision = 2.0
half_life = "off"

[effects.per_member]
half_life = "off"

[effects.per_job]
half_life = "off"
"""

CHANNELS = (None, "search", "mail", "profile: pages")


@pytest.fixture
def policy() -> Policy:
    """The shipped effects and the third one."""
    return parse_policy(SETTINGS, Policy(declared=(*EFFECTS, CHANNEL)))


def events() -> list[TestEvent]:
    """A log whose applications come by a channel each, some by none, with features of their own."""
    changed: list[TestEvent] = []
    for event in market():
        if isinstance(event, Application):
            number = int(event.application_id.removeprefix("a"))
            z = np.random.default_rng(number).normal(size=2).astype("<f4").tobytes()
            features = msgspec.structs.replace(event.features, per_member=z)
            channel = CHANNELS[number % len(CHANNELS)]
            changed.append(msgspec.structs.replace(event, features=features, channel=channel))
        else:
            changed.append(event)
    return changed


def learned(path: Path, effect: str) -> dict[str, dict[str, Any]]:
    """Coefficients of a run by entity."""
    return {
        row["entity_id"]: row for row in rows(path / COEFFICIENTS_FILE) if row["effect"] == effect
    }


def last_labels(path: Path) -> list[dict[str, Any]]:
    """The last label of every application."""
    found = {(row["job_id"], row["application_id"]): row for row in rows(path / LABELS)}
    return list(found.values())


def mode_of(labels: list[dict[str, Any]], block: str, offsets: Array, precision: float) -> Array:
    """Mode and variances of an entity that has learned these labels, one after the other."""
    Z = np.array([label["features"][block] for label in labels], dtype=np.float32)
    y = np.array([float(label["label"]) for label in labels])
    one = np.ones(len(y))
    theta = fitted(ReferenceKernel(), (Z, y, one, offsets), precision)
    variance = variances(
        ReferenceKernel(), (Z, one, offsets), precision, np.zeros(len(theta)), theta
    )
    return np.concatenate([theta, variance])


def test_it_learns_what_its_labels_say(tmp_path: Path, policy: Policy) -> None:
    """Each channel has the mode of its labels, with all other scores in the offset."""
    metrics = run(tmp_path / "run", events(), policy, close=True)
    labels = last_labels(tmp_path / "run")
    found = learned(tmp_path / "run", "per_channel")
    assert found.keys() == {channel for channel in CHANNELS if channel is not None}
    assert metrics.entities["per_channel"] == 3
    assert metrics.refits["per_channel"] > 0
    for channel, row in found.items():
        own = [label for label in labels if label["channel"] == channel]
        offsets = np.array(
            [label["global_score"] + label["member_score"] + label["job_score"] for label in own]
        )
        assert row["examples"] == len(own)
        assert np.allclose(
            row["mean"] + row["variance"], mode_of(own, "per_member", offsets, 2.0), atol=1e-5
        )


def test_the_others_have_its_score_in_their_offsets(tmp_path: Path, policy: Policy) -> None:
    """Members and jobs learn what neither the other nor the channel says."""
    run(tmp_path / "run", events(), policy, close=True)
    labels = last_labels(tmp_path / "run")
    for effect, field, other in (
        ("per_member", "member_id", "job_score"),
        ("per_job", "job_id", "member_score"),
    ):
        for entity_id, row in learned(tmp_path / "run", effect).items():
            own = [label for label in labels if label[field] == entity_id]
            offsets = np.array(
                [
                    label["global_score"] + label[other] + label["further_scores"]["per_channel"]
                    for label in own
                ]
            )
            wanted = mode_of(own, effect, offsets, 3.0)
            assert np.allclose(row["mean"] + row["variance"], wanted, atol=1e-5)


def test_its_scores_are_of_first_sight_and_part_of_the_score(
    tmp_path: Path, policy: Policy
) -> None:
    """An application without a channel scores 0; labels carry the scores of ``scores.jsonl``."""
    metrics = run(tmp_path / "run", events(), policy, close=True)
    channels = {
        event.application_id: event.channel for event in events() if isinstance(event, Application)
    }
    scores = {row["application_id"]: row for row in rows(tmp_path / "run" / SCORES)}
    told = {channels[name]: row["further_scores"] for name, row in scores.items()}
    assert told[None] == {"per_channel": 0.0}
    assert all(told[channel]["per_channel"] != 0.0 for channel in CHANNELS if channel)
    for row in scores.values():
        parts = row["global_score"] + row["member_score"] + row["job_score"]
        assert row["score"] == parts + row["further_scores"]["per_channel"]
    for label in rows(tmp_path / "run" / LABELS):
        assert label["further_scores"] == scores[label["application_id"]]["further_scores"]
    assert metrics.quality.full is not None


def test_where_no_application_has_an_entity_nothing_else_changes(
    tmp_path: Path, policy: Policy
) -> None:
    """Without channels the files say the same as without the effect, but that it scored 0."""
    without = msgspec.structs.replace(policy, declared=EFFECTS)
    run(tmp_path / "one", market(), policy, close=True)
    run(tmp_path / "two", market(), without, close=True)
    for name in (LABELS, SCORES, COEFFICIENTS_FILE, DEAD_LETTERS):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one.replace(b',"further_scores":{"per_channel":0.0}', b"") == two
        assert b"further_scores" not in two


def test_its_settings_are_in_the_policy() -> None:
    """``[effects.per_channel]`` is read where the effect is declared, and refused elsewhere."""
    declared = Policy(declared=(*EFFECTS, CHANNEL))
    assert declared.effects["per_channel"] == EffectSettings()
    changes = "[effects.per_channel]\ncapacity = 7"
    changed = parse_policy(changes, declared)
    assert changed.effects["per_channel"].capacity == 7
    assert parse_policy(to_toml(changed), declared) == changed
    with pytest.raises(ConfigError, match=r"no section \[effects.per_channel\]"):
        parse_policy(changes)


def test_it_may_be_learned_beside_the_member(tmp_path: Path, policy: Policy) -> None:
    """In the stage of members its score travels to the job, which is labelled with it."""
    spec = msgspec.structs.replace(CHANNEL, stage="member")
    moved = msgspec.structs.replace(policy, declared=(*EFFECTS, spec))
    run(tmp_path / "job", events(), policy, close=True)
    run(tmp_path / "member", events(), moved, close=True)
    for name in (LABELS, COEFFICIENTS_FILE):
        here, there = (rows(tmp_path / folder / name) for folder in ("job", "member"))
        assert here == there


def test_partitions_publish_it(policy: Policy) -> None:
    """A job partition sends its coefficients; labels take its scores to the member."""
    live = kit.Market(policy, 1)
    live.produce(events())
    live.run()
    sent = {
        message.key.decode(): decode_coefficients(message.value)
        for message in live.sent
        if message.topic == COEFFICIENTS and message.key is not None and message.value is not None
    }
    for channel in CHANNELS[1:]:
        found = sent[f"per_channel:{channel}"]
        assert (found.effect, found.entity_id) == ("per_channel", channel)
        assert found.examples > 0
    assert any((label.further_scores or {})["per_channel"] for label in live.labels())
    assert all(len(label.per_member) == 8 for label in live.labels())


def test_several_processes_refuse_it(tmp_path: Path, policy: Policy) -> None:
    """Each would learn its own share of a channel; nothing is written."""
    lines, space = first_look(lines_of(events()), kit.model())
    options = Options(workers=2)
    with pytest.raises(ConfigError, match="per_channel"):
        replay_into(tmp_path / "run", [], lines, policy, kit.model(), space, options)
    assert not (tmp_path / "run").exists()
