"""Empirical Bayes: the formula by hand, the truth of drawn entities, what nobody learned."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from stream.backtest.empirical import learned_prior
from stream.effects import JOB
from stream.policy import EffectSettings
from stream.updaters.effect import Effect
from stream.updaters.kept import Posterior
from tests.updaters.test_effect import DictBook
from tests.updaters.test_folding import label

NAMES = ["bias", "pay", "silent"]
TRUTH = {"bias": 0.4, "pay": 6.0}
ENTITIES, EACH = 400, 30


def learned(settings: EffectSettings) -> tuple[Effect, dict[str, Posterior]]:
    """Jobs with coefficients drawn from the truth, and labels from these; one feature is zero."""
    rng = np.random.default_rng(3)
    book = DictBook()
    fitted = settings.fitted(NAMES)
    effect = Effect(JOB, 3, settings=fitted, model_version="v", book=book)
    for entity in range(ENTITIES):
        theta = rng.standard_normal(2) / np.sqrt(list(TRUTH.values()))
        Z: NDArray[np.float64] = np.zeros((EACH, 3))
        Z[:, 0], Z[:, 1] = 1.0, rng.standard_normal(EACH)
        answered = rng.random(EACH) < expit(Z[:, :2] @ theta)
        for number in range(EACH):
            kind = "positive" if answered[number] else "negative_conclusive"
            one = label(number, Z[number], kind)
            effect.learn(msgspec.structs.replace(one, job_id=f"j{entity}"))
    effect.flush()
    found = {f"j{entity}": book.load(f"j{entity}") for entity in range(ENTITIES)}
    return effect, {name: one for name, one in found.items() if one is not None}


def test_rounds_come_to_the_variances_that_truth_was_drawn_with() -> None:
    """From λ = 3, the first round is E/Σ(μ² + v), some more are near the truth; silence stays."""
    settings = EffectSettings(half_life_ms=None)
    prior: dict[str, float] | None = {}
    for number in range(8):
        effect, posteriors = learned(settings)
        prior = learned_prior(effect, posteriors, NAMES)
        assert prior
        if number == 0:
            known = effect.describe(posteriors).values()
            squares = [np.array(one.mean) ** 2 + np.array(one.variance) for one in known]
            assert list(prior.values()) == pytest.approx(1.0 / np.mean(squares, axis=0), rel=5e-3)
        settings = msgspec.structs.replace(settings, prior_precision=prior)
    assert prior
    assert prior["bias"] == pytest.approx(TRUTH["bias"], rel=0.25)
    assert prior["pay"] == pytest.approx(TRUTH["pay"], rel=0.35)
    assert prior["silent"] == pytest.approx(3.0, rel=0.01)
    assert list(prior) == NAMES


def test_where_nobody_has_learned_there_is_nothing_to_propose() -> None:
    """Neither without entities nor without features."""
    effect = Effect(JOB, 3, settings=EffectSettings(), model_version="v", book=DictBook())
    assert learned_prior(effect, {}, NAMES) is None
