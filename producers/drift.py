"""Preferences that drift: the truth of a simulated marketplace over time.

Pure; :mod:`producers.simulate` goes through the days with it, and the command line writes it next
to the log. Shapes: M members, J jobs, d as in the settings.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from producers.terms import Terms
from producers.truth import SimulationSettings, Truth, draw_truth, generator
from stream.policy import DAY_MS

_Floats = NDArray[np.float64]


class Preferences:
    """The truth of each day in turn.

    Every coefficient goes its own way, as a stationary Gaussian process of first order
    (Ornstein-Uhlenbeck), day by day: θ ← ρ·θ + √(1−ρ²)·ε, with ρ = 2^(−1 day / half-life) and ε of
    the effect's own spread. So all days look alike, and an entity's coefficients of two days
    correlate by ½ to the power of their distance in half-lives.

    Attributes:
        today: the truth of the day that was last gone to; at first, of day 0.

    """

    def __init__(self, settings: SimulationSettings) -> None:
        self.today = draw_truth(settings)
        self._day = 0
        self._rng = generator(settings, 3)
        self._moving = [
            _Moving(self.today.per_member, settings.precision_member, settings.drift_member_ms),
            _Moving(self.today.per_job, settings.precision_job, settings.drift_job_ms),
        ]

    def go_to(self, day: int) -> Truth:
        """Let the days pass up to this one; days only go forward."""
        while self._day < day:
            self._day += 1
            for effect in self._moving:
                effect.step(self._rng)
            # What is written is what decides: rounded once, here.
            member, job = (effect.now.round(6) for effect in self._moving)
            self.today = replace(self.today, per_member=member, per_job=job)
        return self.today


def truth_over_time(settings: SimulationSettings, every_days: int = 7) -> bytes:
    """Write the truth as JSON: that of the last day, and of every so many days where it drifts.

    ``per_member`` and ``per_job`` are those of the last day on which members apply: what a learner
    that has read the log should have found. ``over_time`` has one entry for every so many days:
    ``day`` (from 0), ``from_ms``, and both effects' coefficients on that day. ``preferences`` are
    those for terms, where there are some.
    """
    preferences = Preferences(settings)
    over_time = []
    drifts = settings.drift_member_ms is not None or settings.drift_job_ms is not None
    if drifts:
        for day in range(0, settings.days, every_days):
            effects = preferences.go_to(day).effects()
            over_time.append({"day": day, "from_ms": settings.start_ms + day * DAY_MS, **effects})
    return preferences.go_to(settings.days - 1).to_json(
        over_time if drifts else None, Terms(settings).preferences()
    )


class _Moving:
    """One effect's coefficients on their way, (entities, d)."""

    def __init__(self, start: _Floats, precision: float, half_life_ms: int | None) -> None:
        self.now = start
        self._keep = 1.0 if half_life_ms is None else 2.0 ** (-DAY_MS / half_life_ms)
        self._spread = math.sqrt((1.0 - self._keep**2) / precision)

    def step(self, rng: np.random.Generator) -> None:
        """Let one day pass."""
        if self._spread > 0.0:
            self.now = self._keep * self.now + self._spread * rng.standard_normal(self.now.shape)
