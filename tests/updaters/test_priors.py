"""A prior for each feature: the posterior is that of another implementation, also far apart."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from stream.effects import JOB
from stream.errors import ConfigError
from stream.events.ladder import target
from stream.policy import EffectSettings
from stream.updaters.effect import Effect
from tests.updaters.test_effect import DictBook
from tests.updaters.test_folding import label, learn, rows, stream_of_labels

D = 4


def named(values: Any) -> dict[str, float]:
    """λ by name, in the order of the features."""
    return {f"f{at}": float(value) for at, value in enumerate(values)}


def of_job(labels: Any, settings: EffectSettings, d: int = D) -> tuple[Effect, DictBook]:
    """Learn labels of job j."""
    book = DictBook()
    effect = Effect(JOB, d, settings=settings, model_version="v", book=book, tolerance=1e-14)
    for item in labels:
        effect.learn(item)
    effect.flush()
    return effect, book


@pytest.mark.parametrize("n", [3, 60])
def test_the_mode_is_scikit_learns_on_scaled_features(n: int) -> None:
    """θ'Λθ is ‖β‖² for β = Λ^½·θ, whose features are z/√λ: a prior that scikit-learn has."""
    each = np.array([0.2, 3.0, 40.0, 1.0])
    Z = rows(1, n, D)
    y = np.arange(n) % 3 == 0
    kinds = ["positive" if answered else "negative_conclusive" for answered in y]
    labels = [label(k, Z[k], kinds[k]) for k in range(n)]
    effect, _ = of_job(labels, EffectSettings(prior_precision=named(each), half_life_ms=None))
    model: Any = LogisticRegression
    wanted = model(C=1.0, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(Z / np.sqrt(each), y)
    found = effect.coefficients("j")
    assert found is not None
    assert np.allclose(found.mean, wanted.coef_[0] / np.sqrt(each), atol=1e-5)
    p = expit(Z @ np.array(found.mean))
    inverse = np.linalg.inv((Z * (p * (1 - p))[:, None]).T @ Z + np.diag(each))
    assert np.allclose(found.variance, np.diag(inverse), rtol=1e-8)


@given(
    st.integers(0, 99),
    st.sampled_from([2, 9, 80]),
    st.lists(st.floats(-6, 6), min_size=D, max_size=D),
    st.sampled_from([(1000, D), (8, D), (8, 0)]),
)
def test_the_gradient_vanishes_however_far_apart_priors_are(
    seed: int, n: int, logs: list[float], limits: tuple[int, int]
) -> None:
    """With λ from 1e-6 to 1e6 side by side the mode is within 1e-5 standard deviations."""
    capacity, full_up_to = limits
    each = 10.0 ** np.array(logs)
    settings = EffectSettings(
        prior_precision=named(each), capacity=capacity, full_up_to=full_up_to, half_life_ms=None
    )
    effect, book = of_job(stream_of_labels(seed, n, D), settings)
    posterior, known = book.load("j"), effect.coefficients("j")
    assert posterior is not None
    assert known is not None
    theta = np.array(known.mean)
    Z = np.array([np.frombuffer(one.z, "<f4") for one in posterior.kept], float).reshape(-1, D)
    y = np.array([target(one.kind) for one in posterior.kept], float)
    w, o = np.array(posterior.kept.weights), np.array(posterior.kept.offsets)
    A, f = np.diag(each), np.zeros(D)
    if posterior.folded:
        F = np.frombuffer(posterior.precision)
        A = A + (F.reshape(D, D) if full_up_to else np.diag(F))
        f = np.frombuffer(posterior.linear)
    p = expit(o + Z @ theta)
    g = Z.T @ (w * (p - y)) + A @ theta - f
    H = (Z * (w * p * (1 - p))[:, None]).T @ Z + A
    assert g @ np.linalg.solve(H, g) < 1e-10
    assert np.allclose(known.variance, np.diag(np.linalg.inv(H)), rtol=1e-5)


@pytest.mark.parametrize("full_up_to", [0, D])
def test_the_same_for_all_features_is_one_number(full_up_to: int) -> None:
    """Every name with λ = 3 learns, bit for bit, what λ = 3 does."""
    labels = stream_of_labels(5, 200, D)
    plain = EffectSettings(capacity=20, open_limit=10, full_up_to=full_up_to)
    every = named([3.0] * D)
    same = msgspec.structs.replace(plain, prior_precision=every).fitted(list(every))
    (one, found), (other, wanted) = of_job(labels, same), of_job(labels, plain)
    assert found.values == wanted.values
    assert one.coefficients("j") == other.coefficients("j")


def test_a_larger_precision_holds_its_coefficient_nearer_to_zero() -> None:
    """And no other: the names are those of the features, in their order."""
    labels = stream_of_labels(6, 100, D)
    plain = np.frombuffer(learn(labels, D).mode)
    for at in range(D):
        each = np.full(D, 3.0)
        each[at] = 1e6
        held = np.abs(np.frombuffer(learn(labels, D, prior_precision=named(each)).mode))
        assert held[at] < 1e-3 * abs(plain[at])
        assert np.delete(held, at).min() > 1e-3


def test_settings_that_were_not_fitted_are_refused() -> None:
    """Fewer λ than features cannot be in the order of the features."""
    with pytest.raises(ConfigError, match="fit the settings"):
        of_job([], EffectSettings(prior_precision={"f0": 1.0}))
