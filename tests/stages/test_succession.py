"""Which model scores an application, and how long a model is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ConfigError, StateError
from stream.model.coefficients import Linear
from stream.model.columns import HISTORY_COLUMNS
from stream.model.folder import GlobalModel, new_model
from stream.policy import Policy
from stream.stages.succession import Models, Roll, Succession, check_fits
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from tests.kit import parse_policy

POLICY = parse_policy('[labels]\nwindow = "10ms"\naging = "off"\n')
W = 10


def made(beta: float, **features: list[str]) -> GlobalModel:
    """Return a model of one feature."""
    named = {"global": ["g"], "per_member": ["m"], "per_job": ["j"], **features}
    return new_model(
        Linear(np.array([beta] * len(named["global"]))),
        named,
        trained_from_ms=0,
        trained_until_ms=0,
        applications=0,
        positives=0,
        inputs=("global", "history") if "history" in named else ("global",),
    )


MODELS = [made(float(number)) for number in range(6)]


def opened(store: MemoryStore, given: GlobalModel = MODELS[0]) -> tuple[Overlay, Models]:
    """Open the models of a state."""
    overlay = Overlay(store)
    succession = Succession(overlay, given.version)
    return overlay, Models(overlay, succession, given, POLICY)


@given(
    rolls=st.lists(st.integers(1, 60), max_size=5),
    moves=st.lists(st.integers(0, 30), max_size=5),
)
def test_the_last_one_rolled_in_before_an_application_scores_it(
    rolls: list[int], moves: list[int]
) -> None:
    """Whatever was rolled in and however far event time is: of all times that are still in time.

    Restarted after every step, with the first model and with the last that was rolled in.
    """
    store, watermark_ms = MemoryStore(), 0
    moves = (moves + [0] * len(rolls))[: len(rolls)]
    for number, (from_ms, move) in enumerate(zip(rolls, moves, strict=True), 1):
        overlay, models = opened(store, MODELS[(number - 1) * (number % 2)])
        models.roll(MODELS[number], from_ms)
        watermark_ms += move
        if models.let_go_ms is not None and watermark_ms >= models.let_go_ms:
            models.let_go(watermark_ms)
        overlay.flush()
        _, models = opened(store)
        succession = Succession(overlay, "")
        for time_ms in range(watermark_ms - W, 80):
            before = [k for k, begin in enumerate(rolls[:number], 1) if begin <= time_ms]
            expected = max(before, default=0)
            assert succession.number_at(time_ms) == expected
            found = models.at(expected)
            assert found is not None
            assert found.version == MODELS[expected].version
        for k in range(1, number + 1):
            followed_ms = min(rolls[k:number], default=None)
            if followed_ms is not None and watermark_ms > (followed_ms - 1) + W:
                _, models = opened(store)
                with pytest.raises(StateError, match="has lost model"):
                    models.at(k)


def test_a_roll_that_was_undone_leaves_nothing() -> None:
    """After a discard the models are those of the store, and a number is free again."""
    overlay, models = opened(MemoryStore())
    models.roll(MODELS[1], 5)
    overlay.discard()
    assert models.let_go_ms is None
    succession = Succession(overlay, MODELS[0].version)
    assert succession.number_at(9) == 0
    models.roll(MODELS[2], 5)
    found = models.at(1)
    assert found is not None
    assert found.version == MODELS[2].version


def test_versions_are_remembered_when_models_are_let_go() -> None:
    """Labels and coefficients of old applications name the model that scored them."""
    overlay, models = opened(MemoryStore())
    models.roll(MODELS[1], 5)
    models.roll(MODELS[2], 7)
    models.let_go(1000)
    overlay.flush()
    succession = Succession(overlay, "")
    assert [succession.version_at(t) for t in (4, 5, 6, 7)] == [
        MODELS[k].version for k in (0, 1, 1, 2)
    ]
    assert succession.rolls[1:] == (Roll(5, MODELS[1].version), Roll(7, MODELS[2].version))


@pytest.mark.parametrize("block", ["global", "per_member", "per_job"])
def test_a_model_of_other_features_cannot_follow(block: str) -> None:
    """It is refused in one line that names the block."""
    with pytest.raises(ConfigError, match=f"other {block} features than"):
        check_fits(made(1.0, **{block: ["other"]}), MODELS[0], POLICY)


def test_a_model_that_takes_what_is_not_kept_cannot_follow() -> None:
    """Histories, where the policy keeps none; and nothing follows no model."""
    policy = parse_policy("[features]\nhistories = false\n")
    features = {"global": ["g"], "per_member": ["m"], "per_job": ["j"], "history": HISTORY_COLUMNS}
    takes = new_model(
        Linear(np.zeros(1 + len(HISTORY_COLUMNS))),
        features,
        trained_from_ms=0,
        trained_until_ms=0,
        applications=0,
        positives=0,
        inputs=("global", "history"),
    )
    with pytest.raises(ConfigError, match="takes histories"):
        check_fits(takes, MODELS[0], policy)
    check_fits(takes, MODELS[0], Policy())
    with pytest.raises(ConfigError, match="no global model"):
        check_fits(takes, None, Policy())
