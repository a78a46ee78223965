"""The prior precision of the effects over a new model: chosen on its span, in force by default."""

from __future__ import annotations

from pathlib import Path

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.backtest.prior import with_chosen_prior
from stream.backtest.tuning import train_until
from stream.configuration.load import load_config, with_model
from stream.effects import EFFECT_NAMES
from stream.logs.files import LogLine
from stream.model.folder import GlobalModel, load_model, save_model, with_prior
from stream.policy import DAY_MS, Policy
from tests.kit import model

START_MS = 1_704_067_200_000


def lines_of(precision: float, members: int = 60) -> list[LogLine]:
    """Write a market whose entities differ by N(0, 1/λ) in each coefficient."""
    settings = SimulationSettings(
        members=members, jobs=30, days=40, seed=4, applications_per_member=8.0,
        start_ms=START_MS, precision_member=precision, precision_job=precision,
    )  # fmt: skip
    return [LogLine("log", n, line) for n, line in enumerate(simulate(settings), 1)]


def chosen(lines: list[LogLine], until_ms: int) -> tuple[GlobalModel, GlobalModel, str]:
    """Fit trees; return the model without a prior, with one, and what is said."""
    fitted = train_until(lines, Policy(), until_ms, lambda _: None, kind="boosted")
    assert fitted.manifest.prior_precision is None
    return fitted, *with_chosen_prior(lines, fitted, Policy())


def test_entities_that_hardly_differ_get_a_strong_prior() -> None:
    """Of markets with λ = 100 and 0.5, the first gets a stronger one than usual, the other not.

    What lies after the training is not looked at, and a model with a λ has a version of its own.
    """
    found = {}
    for precision in (100.0, 0.5):
        lines = lines_of(precision)
        until_ms = START_MS + 35 * DAY_MS
        fitted, with_one, said = chosen(lines, until_ms)
        found[precision] = with_one.manifest.prior_precision
        assert f"λ = {found[precision]:g}, on" in said
        assert with_one.version != fitted.version
        assert with_one.scorer is fitted.scorer
    assert found[100.0] is not None
    assert found[0.5] is not None
    assert found[100.0] >= 10.0
    assert found[0.5] <= 3.0


def test_where_too_little_has_closed_none_is_chosen() -> None:
    """The model stays as it is, and why is said."""
    lines = lines_of(3.0, members=15)
    fitted, with_one, said = chosen(lines, START_MS + 35 * DAY_MS)
    assert with_one is fitted
    assert "as usual, not chosen: only" in said


def of(precision: float | None) -> GlobalModel:
    """Return a model that says so of the effects."""
    return model() if precision is None else with_prior(model(), precision)


def precisions(policy: Policy) -> list[object]:
    """λ of each effect."""
    return [policy.effects[name].prior_precision for name in EFFECT_NAMES]


def test_a_policy_stands_above_the_model(tmp_path: Path) -> None:
    """The model's λ is in force where file, policy and environment say nothing; else theirs."""
    nothing = load_config(None, {})
    assert with_model(nothing, None) is nothing
    assert with_model(nothing, of(None)) is nothing
    found = with_model(nothing, of(30.0))
    assert precisions(found.policy) == [30.0, 30.0]
    assert set(found.sources) == {f"effects.{name}.prior_precision" for name in EFFECT_NAMES}
    assert set(found.sources.values()) == {f"model {of(30.0).version}"}
    policy = tmp_path / "policy.toml"
    policy.write_text("[effects.per_job]\nprior_precision = 5.0\n")
    given = with_model(load_config(None, {}, policy), of(30.0))
    assert given.policy.effects["per_job"].prior_precision == 5.0
    assert given.policy.effects["per_member"].prior_precision == 30.0
    variable = {"HEARBACK_EFFECTS_PER_MEMBER_PRIOR_PRECISION": "3"}
    given = with_model(load_config(None, variable, policy), of(30.0))
    assert given.policy.effects["per_member"].prior_precision == 3.0


def test_a_folder_keeps_it(tmp_path: Path) -> None:
    """Written and read, the model says the same."""
    save_model(tmp_path / "model", of(12.5))
    assert load_model(tmp_path / "model").manifest == of(12.5).manifest
