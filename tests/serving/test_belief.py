"""Scores for serving: the worker's mean, and draws with the stated moments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.effects import EFFECTS, JOB
from stream.errors import ConfigError, InvalidFeaturesError, StateError
from stream.events.structs import Coefficients
from stream.policy import EffectSettings, Policy
from stream.serving.belief import Belief, mean_score, probability, thompson_score
from stream.serving.lookup import belief_from_run, from_run
from stream.updaters.effect import Effect
from tests.replay.test_single import market, run
from tests.replay.test_single import rows as rows_of
from tests.updaters.test_effect import DictBook
from tests.updaters.test_folding import label, rows

BY_NAME = {spec.name: spec for spec in EFFECTS}
DRAWS = 20_000


def message(mean: list[float], variance: list[float]) -> Coefficients:
    """Coefficients of member m1."""
    return Coefficients(
        effect="per_member",
        entity_id="m1",
        model_version="v",
        mean=mean,
        variance=variance,
        examples=3,
        event_time_ms=0,
    )


def learned(**settings: Any) -> tuple[Effect, DictBook, EffectSettings]:
    """Job j after 60 labels with correlated features, some of them folded."""
    chosen = EffectSettings(**settings)
    book = DictBook()
    effect = Effect(JOB, 4, settings=chosen, model_version="v", book=book)
    for number, z in enumerate(rows(1, 60, 4)):
        kind = "positive" if number % 3 == 0 else "negative_conclusive"
        effect.learn(label(number, z, kind, score=-0.5))
    effect.flush()
    return effect, book, chosen


def test_the_mean_is_the_workers_score() -> None:
    """Global score plus z'θ of both effects, features rounded to float32 as in learning."""
    member = Belief.of(message([0.5, -1.0], [0.1, 0.2]), 2, 3.0)
    job = Belief.of(None, 1, 3.0)
    found = mean_score(-1.0, (member, [1.0, 0.1]), (job, [7.0]))
    assert found == -1.0 + 0.5 - float(np.float32(0.1))
    effect, _, _ = learned()
    known = effect.coefficients("j")
    z = rows(2, 1, 4)[0]
    belief = Belief.of(known, 4, 3.0)
    assert mean_score(0.0, (belief, z)) == pytest.approx(
        effect.score("j", z.astype("<f4").tobytes()), abs=1e-12
    )


def test_draws_have_the_messages_moments() -> None:
    """Draws from a message have its means and marginal variances, and are uncorrelated."""
    belief = Belief.of(message([0.5, -1.0], [0.09, 0.25]), 2, 3.0)
    rng = np.random.default_rng(1)
    draws = np.array([belief.draw(rng) for _ in range(DRAWS)])
    assert np.allclose(draws.mean(axis=0), [0.5, -1.0], atol=0.015)
    assert np.allclose(np.cov(draws.T), np.diag([0.09, 0.25]), atol=0.008)


def test_an_unknown_entity_is_drawn_from_the_prior() -> None:
    """Nothing known: N(0, I/λ), mean score 0."""
    belief = Belief.of(None, 3, 4.0)
    rng = np.random.default_rng(2)
    draws = np.array([belief.draw(rng) for _ in range(DRAWS)])
    assert mean_score(0.0, (belief, [1.0, 2.0, 3.0])) == 0.0
    assert np.allclose(draws.mean(axis=0), 0.0, atol=0.015)
    assert np.allclose(np.cov(draws.T), np.eye(3) / 4.0, atol=0.01)


def test_an_unknown_entity_has_each_features_prior() -> None:
    """Where the policy has one λ for each feature, so has the draw; their number must fit."""
    names = ["bias", "pay", "age"]
    settings = EffectSettings(prior_precision={"pay": 16.0, "age": 0.25})
    belief = Belief.of(None, 3, settings.precisions(names))
    assert belief.root.tolist() == pytest.approx([3.0**-0.5, 0.25, 2.0])
    for wrong in ([1.0, 2.0], [1.0, 0.0, 1.0], 0.0, float("nan")):
        with pytest.raises(ConfigError, match="one number, or 3"):
            Belief.of(None, 3, wrong)


PRIORS = {"a": 1.0, "b": 9.0, "c": 3.0, "d": 30.0}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"capacity": 4},
        {"capacity": 4, "full_up_to": 3},
        {"prior_precision": PRIORS},
        {"prior_precision": PRIORS, "capacity": 4, "full_up_to": 3},
    ],
)
def test_the_states_covariance_has_the_messages_variances(settings: dict[str, Any]) -> None:
    """Drawn jointly from the state, marginal variances are those of the coefficients message."""
    effect, book, chosen = learned(**settings)
    posterior = book.load("j")
    known = effect.coefficients("j")
    assert posterior is not None
    assert known is not None
    assert bool(posterior.folded) == ("capacity" in settings)
    belief = Belief.of_state(posterior, chosen)
    rng = np.random.default_rng(3)
    covariance = np.cov(np.array([belief.draw(rng) for _ in range(DRAWS)]).T)
    assert np.allclose(np.diag(covariance), known.variance, rtol=0.05)
    exact = belief.root @ belief.root.T
    assert np.allclose(np.diag(exact), known.variance, rtol=1e-6)
    assert np.abs(exact - np.diag(np.diag(exact))).max() > 0.005


def test_a_runs_state_gives_the_joint_belief(tmp_path: Path) -> None:
    """A replay's folder gives the belief whose mean and variances it wrote; None for nobody."""
    run(tmp_path / "run", market(), close=True)
    row = next(row for row in rows_of(tmp_path / "run" / "coefficients.jsonl"))
    belief = belief_from_run(tmp_path / "run", BY_NAME[row["effect"]], row["entity_id"])
    assert belief is not None
    assert belief.mean.tolist() == row["mean"]
    exact = belief.root @ belief.root.T
    assert np.diag(exact).tolist() == pytest.approx(row["variance"])
    assert belief_from_run(tmp_path / "run", BY_NAME[row["effect"]], "nobody") is None


def test_a_run_with_priors_by_feature_gives_its_own_variances(tmp_path: Path) -> None:
    """Whatever order the policy names features in: mean and variances are those it wrote."""
    settings = EffectSettings(prior_precision={"m1": 40.0, "m0": 0.5})
    path = tmp_path / "run"
    run(path, market(), Policy(effects={"per_member": settings}), close=True)
    row = next(row for row in rows_of(path / "coefficients.jsonl") if row["effect"] == "per_member")
    belief = belief_from_run(path, BY_NAME["per_member"], row["entity_id"])
    entity = from_run(path, BY_NAME["per_member"], row["entity_id"])
    assert belief is not None
    assert entity is not None
    assert np.diag(belief.root @ belief.root.T).tolist() == pytest.approx(row["variance"])
    assert list(entity.coefficients.variance) == pytest.approx(row["variance"])
    assert row["variance"][1] < 1 / 40 < row["variance"][0]


def test_a_seed_gives_the_same_draws() -> None:
    """Equal generators give equal scores; the global random state is not touched."""
    belief = Belief.of(None, 2, 3.0)
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    one, other = (
        [thompson_score(rng, 0.0, (belief, [1.0, 1.0]), (belief, [0.0, 2.0])) for _ in range(5)]
        for rng in (np.random.default_rng(7), np.random.default_rng(7))
    )
    assert one == other
    assert len(set(one)) == 5
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_sizes_must_fit() -> None:
    """Features or a message of another size are refused in words."""
    belief = Belief.of(None, 2, 3.0)
    with pytest.raises(InvalidFeaturesError, match=r"\(3,\).*\(2,\)"):
        mean_score(0.0, (belief, [1.0, 2.0, 3.0]))
    with pytest.raises(InvalidFeaturesError, match="finite"):
        thompson_score(np.random.default_rng(0), 0.0, (belief, [1.0, float("nan")]))
    with pytest.raises(StateError, match=r"expected 3.*another model"):
        Belief.of(message([0.0], [1.0]), 3, 3.0)


def test_probabilities_do_not_overflow() -> None:
    """Log-odds of ±1000 are probabilities of 1 and 0."""
    assert [probability(x) for x in (-1000.0, 0.0, 1000.0)] == [0.0, 0.5, 1.0]
