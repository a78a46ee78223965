"""What is left to come of an application that waits: the probability of now, and who is next.

``probability(score)`` (:mod:`stream.serving.belief`) is that of an answer within the window, at
application. Whoever asks later knows more: that it has not come yet, and to how many later
applicants to the same job it has::

    waiting = Waiting(load_model(path), policy.labels)
    waiting.probability(log_odds, age_ms=2 * DAY_MS, later=3)
    waiting.order(log_odds, age_ms=2 * DAY_MS, later=3)  # the highest first
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError
from stream.labels.delays import curve_of
from stream.model.folder import GlobalModel
from stream.model.landmark import columns, log_odds_now, order_now
from stream.policy import LabelPolicy
from stream.updaters.folding import sigmoid

_Floats = NDArray[np.float64]


class Waiting:
    """Tells what is left to come, with the landmark of a model; without one, by its delays alone.

    Args:
        model: the global model. policy: the label policy that it was trained with; with another
            window or curve the landmark does not hold, and the delays alone tell.

    Raises:
        ConfigError: the policy's window is longer than the model's delays reach.

    """

    def __init__(self, model: GlobalModel, policy: LabelPolicy) -> None:
        known = model.manifest
        self._curve = curve_of(policy, known.delays)
        self._landmark = known.landmark if self._curve == known.delays else None

    def probability(self, log_odds: float, age_ms: float, later: int = 0) -> float:
        """Return the probability that an answer still comes, within the window.

        Args:
            log_odds: the application's score, with the coefficients of now.
            age_ms: since it was submitted; it is open: neither answered nor declined, and its job
                not closed.
            later: how many who applied later to the same job were answered.

        Raises:
            ConfigError: a negative age or number.

        """
        return float(self.probabilities(*_alone(log_odds, age_ms, later))[0])

    def order(self, log_odds: float, age_ms: float, later: int = 0) -> float:
        """By what those who wait for one job are ranked: the highest is likeliest to be next.

        Arguments and errors as of :meth:`probability`. Numbers of one job and moment can be
        compared, no others.
        """
        return float(self.orders(*_alone(log_odds, age_ms, later))[0])

    def probabilities(self, log_odds: _Floats, ages_ms: _Floats, later: _Floats) -> _Floats:
        """:meth:`probability` of n applications (n,)."""
        rows = self._columns(log_odds, ages_ms, later)
        open_ = ages_ms < self._curve.window_ms
        return np.where(open_, sigmoid(log_odds_now(self._landmark, rows)), 0.0)

    def orders(self, log_odds: _Floats, ages_ms: _Floats, later: _Floats) -> _Floats:
        """:meth:`order` of n applications (n,)."""
        return order_now(self._landmark, self._columns(log_odds, ages_ms, later))

    def _columns(self, log_odds: _Floats, ages_ms: _Floats, later: _Floats) -> _Floats:
        if (ages_ms < 0).any() or (later < 0).any():
            raise ConfigError("an application's age and the answers since are 0 or more")
        return columns(log_odds, ages_ms, later, self._curve)


def _alone(*values: float) -> list[_Floats]:
    """Arrays of one number each."""
    return [np.array([value], dtype=np.float64) for value in values]
