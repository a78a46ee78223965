"""Scores for a serving process: the mean, or a Thompson draw where it wants to explore.

A process that ranks jobs or candidates reads the ``coefficients`` topic (compacted: the last value
of each key is the truth, a tombstone means forgotten), keeps a dictionary of it, and scores without
the worker::

    known[message.key] = decode_coefficients(message.value)         # stream.events.wire
    member = Belief.of(known.get(coefficients_key("per_member", "m1")), size=4, prior_precision=3.0)
    job = Belief.of(known.get(coefficients_key("per_job", "j1")), size=2, prior_precision=3.0)
    log_odds = mean_score(global_score, (member, z_member), (job, z_job))

The mean is the score that the worker itself would give. For exploration coefficients are drawn from
what is believed of them and scored as if they were true (Thompson, Biometrika 1933; Chapelle & Li,
NIPS 2011). Who ranks many candidates for one job draws the job's coefficients once
(:meth:`Belief.draw`) and uses that draw for all of them.

**What a draw is honest about.** Messages carry each coefficient's marginal variance, not their
covariances, so a draw from a message takes the coefficients as independent: every single one has
the right distribution, a sum of them does not quite (``benchmarks/calibration.py`` measures it).
Where the entity's state is at hand, :meth:`Belief.of_state` draws from the whole Gaussian
(``stream.serving.lookup.belief_from_run`` reads it from a replay's folder). Both treat the member's
and the job's coefficients as independent of each other, and the global model as certain.

Shapes: d features; coefficients and draws float64 (d,); features are rounded to float32, as the
worker does. Randomness comes from the ``numpy.random.Generator`` passed in, and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError, InvalidFeaturesError, StateError
from stream.events.structs import Coefficients
from stream.policy import EffectSettings
from stream.updaters.fitter import precision_at_mode
from stream.updaters.folding import sigmoid
from stream.updaters.kept import Posterior

Numbers = Sequence[float] | NDArray[np.float32] | NDArray[np.float64]
_Vector = NDArray[np.float64]


class Belief:
    """What is known of one entity's coefficients: a Gaussian.

    Made by :meth:`of` (a message, or nothing known) or :meth:`of_state`.

    Args:
        mean: coefficients (d,).
        root: standard deviations (d,) of independent coefficients, or a matrix R (d, d) with
            covariance R·R'.

    """

    def __init__(self, mean: _Vector, root: _Vector) -> None:
        self.mean = mean
        self.root = root

    @classmethod
    def of(
        cls, coefficients: Coefficients | None, size: int, prior_precision: float | Numbers
    ) -> Self:
        """Belief from a message; the prior, N(0, I/λ), where there is none.

        Args:
            coefficients: the entity's last message; None for an unknown or forgotten entity.
            size: d, as many as the model has features for this effect.
            prior_precision: λ of the worker's policy, or one of each feature (d,), as
                :meth:`stream.policy.EffectSettings.precisions` gives them.

        Raises:
            ConfigError: λ is not positive, or there are not d of them.
            StateError: the message has another number of coefficients: it is another model's.

        """
        if coefficients is None:
            given = np.asarray(prior_precision, dtype=np.float64)
            if given.shape not in {(), (size,)} or not (given > 0.0).all():
                raise ConfigError(f"prior_precision must be positive: one number, or {size}")
            return cls(np.zeros(size), np.full(size, 1.0 / np.sqrt(given)))
        if not len(coefficients.mean) == len(coefficients.variance) == size:
            raise StateError(
                f"the coefficients of {coefficients.effect} {coefficients.entity_id} are"
                f" {len(coefficients.mean)} with {len(coefficients.variance)} variances, expected"
                f" {size}: they are of another model ({coefficients.model_version})"
            )
        return cls(np.array(coefficients.mean), np.sqrt(np.array(coefficients.variance)))

    @classmethod
    def of_state(cls, posterior: Posterior, settings: EffectSettings) -> Self:
        """Laplace's Gaussian of an entity's whole state, covariances included.

        Args:
            posterior: as stored, refitted (every flushed state is).
            settings: of the effect, as it was learned with, fitted to its features.

        """
        mean = np.frombuffer(posterior.mode).copy()
        factor = np.linalg.cholesky(precision_at_mode(posterior, settings))
        # H = L·L', so that R = L'⁻¹ has R·R' = H⁻¹.
        return cls(mean, np.linalg.inv(factor).T)

    @property
    def size(self) -> int:
        """D."""
        return len(self.mean)

    def draw(self, rng: np.random.Generator) -> _Vector:
        """One draw of the coefficients (d,)."""
        noise = rng.standard_normal(self.size)
        spread = self.root * noise if self.root.ndim == 1 else self.root @ noise
        return np.asarray(self.mean + spread, dtype=np.float64)

    def features(self, z: Numbers) -> _Vector:
        """Check features and round them as the worker does, (d,).

        Raises:
            InvalidFeaturesError: not d finite numbers.

        """
        rounded = np.asarray(z, dtype=np.float32).astype(np.float64)
        if rounded.shape != (self.size,):
            raise InvalidFeaturesError(
                f"features have shape {rounded.shape}, the coefficients ({self.size},)"
            )
        if not np.isfinite(rounded).all():
            raise InvalidFeaturesError("features have a number that is not finite")
        return rounded


def mean_score(global_score: float, *parts: tuple[Belief, Numbers]) -> float:
    """Log-odds: the global score and z'θ of each effect, at the mean.

    Args:
        global_score: the fixed effect's log-odds.
        parts: each effect's belief and the features (d,) that its coefficients multiply.

    Raises:
        InvalidFeaturesError: features do not fit their coefficients.

    """
    return global_score + sum(float(belief.features(z) @ belief.mean) for belief, z in parts)


def thompson_score(
    rng: np.random.Generator, global_score: float, *parts: tuple[Belief, Numbers]
) -> float:
    """Log-odds with each effect's coefficients drawn anew, in the order of ``parts``.

    The same generator state gives the same score. Arguments and errors as :func:`mean_score`.
    """
    return global_score + sum(float(belief.features(z) @ belief.draw(rng)) for belief, z in parts)


def probability(log_odds: float) -> float:
    """1 / (1 + exp(−x)) without overflow."""
    return float(sigmoid(np.array([log_odds]))[0])
