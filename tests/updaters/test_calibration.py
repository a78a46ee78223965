"""The stated uncertainty is right: intervals hold the truth as often as they say."""

from __future__ import annotations

import numpy as np

from benchmarks.calibration import alone, covered
from stream.policy import EffectSettings


def test_95_percent_intervals_cover_93_to_97_percent() -> None:
    """Pooled over λ of 1, 3 and 10 and 5 to 200 final labels, many of the entities partly folded.

    Truth is drawn from N(0, I/λ) with the configured λ, the other effect's true score is in the
    offset, half-life off, full precision. (Other conditions: ``benchmarks/calibration.py``.)
    """
    inside = []
    folded = 0
    for precision, capacity in ((1.0, 128), (3.0, 16), (10.0, 128)):
        settings = EffectSettings(
            prior_precision=precision, half_life_ms=None, capacity=capacity, full_up_to=6
        )
        for entity in alone(precision, settings):
            inside.append(covered(entity.truth, entity.coefficients))
            folded += entity.posterior.folded > 0
    assert np.size(inside) >= 20_000
    assert folded >= 1000
    assert 0.93 <= np.mean(inside) <= 0.97
