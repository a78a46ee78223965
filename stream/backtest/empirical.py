"""A prior for each feature from what was learned: empirical Bayes, by EM.

With coefficients θ_ek ~ N(0, 1/λ_k) of E entities and Laplace's posteriors N(μ_e, V_e), the
expectation step gives E[θ_ek²] = μ_ek² + V_ekk, the maximisation step

    λ_k = E / Σ_e (μ_ek² + V_ekk).

A round is one of both, from posteriors learned with the λ of the round before. A feature that no
entity has learned anything of keeps its λ, since its posterior is the prior.

Source: Bishop, Pattern Recognition and Machine Learning, §9.3.4 (EM for the evidence).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stream.updaters.effect import Effect
from stream.updaters.kept import Posterior

_LEAST, _MOST = 1e-3, 1e4
"""Of a λ that is proposed: beyond them a coefficient is free, or is none."""


def learned_prior(
    effect: Effect, posteriors: Mapping[str, Posterior], names: Sequence[str]
) -> dict[str, float] | None:
    """Return λ by feature after one round, to three digits; None where nobody has learned.

    Args:
        effect: that has learned. posteriors: of its entities, up to date.
        names: of its features, d of them.

    """
    if not posteriors or not names:
        return None
    means = np.array([np.frombuffer(one.mode) for one in posteriors.values()])
    variances = np.array(effect.fitter.variances(list(posteriors.values())))
    squares = (means**2 + variances).mean(axis=0)
    each = np.clip(1.0 / squares, _LEAST, _MOST).tolist()
    return {name: float(f"{value:.3g}") for name, value in zip(names, each, strict=True)}
