"""What is left to come of an application that waits."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from stream.errors import ConfigError
from stream.labels.delays import default_curve
from stream.model.folder import GlobalModel
from stream.model.landmark import Landmark
from stream.policy import DAY_MS, LabelPolicy
from stream.serving.belief import probability
from stream.serving.waiting import Waiting
from tests import kit

CURVE = default_curve(14 * DAY_MS)
LANDMARK = Landmark(
    intercept=-0.2,
    answered=(0.9, 0.8, 0.1, -0.05, -0.3),
    next=(0.5, 0.2, -0.8, 0.0, 0.1),
    moments=100,
    decisions=100,
)


def model(landmark: Landmark | None) -> GlobalModel:
    """Return a model with delays."""
    known = kit.model()
    manifest = msgspec.structs.replace(known.manifest, delays=CURVE, landmark=landmark)
    return GlobalModel(manifest, known.scorer)


def test_without_a_landmark_silence_takes_odds_away() -> None:
    """The odds are the score's times 1 − F(age): all at first, none when the window ends."""
    waiting = Waiting(model(None), LabelPolicy())
    assert waiting.probability(0.7, 0) == pytest.approx(probability(0.7))
    for days in (0.5, 2.0, 9.0):
        odds = np.exp(0.7) * (1 - CURVE.at(days * DAY_MS))
        assert waiting.probability(0.7, days * DAY_MS, 4) == pytest.approx(odds / (1 + odds))
    assert waiting.probability(0.7, 14 * DAY_MS) == 0.0
    assert waiting.order(0.7, DAY_MS) > waiting.order(0.7, 2 * DAY_MS)


def test_with_a_landmark_its_coefficients_count() -> None:
    """Both questions have answers of their own, from score, age and who was answered since."""
    waiting = Waiting(model(LANDMARK), LabelPolicy())
    left, age = np.log(1 - CURVE.at(3 * DAY_MS)), np.log(3 + 1 / 24)
    log_odds = -0.2 + 0.9 * 1.2 + 0.8 * left + 0.1 * age - 0.05 * 2 - 0.3 * np.log(3.0)
    assert waiting.probability(1.2, 3 * DAY_MS, 2) == pytest.approx(probability(log_odds))
    order = 0.5 * 1.2 + 0.2 * left - 0.8 * age + 0.1 * np.log(3.0)
    assert waiting.order(1.2, 3 * DAY_MS, 2) == pytest.approx(order)
    assert waiting.probability(1.2, 14 * DAY_MS) == 0.0


def test_a_landmark_holds_only_with_its_own_delays() -> None:
    """With another window or curve the delays in force tell; with a longer window, nothing does."""
    for text in ('window = "7d"', 'delay_curve = ["1d:0.5", "14d:1"]'):
        labels = kit.parse_policy(f"[labels]\n{text}\n").labels
        plain, other = (Waiting(model(one), labels) for one in (None, LANDMARK))
        assert plain.probability(0.3, DAY_MS, 1) == other.probability(0.3, DAY_MS, 1)
    longer = kit.parse_policy('[labels]\nwindow = "20d"\n').labels
    with pytest.raises(ConfigError, match="before the label window"):
        Waiting(model(LANDMARK), longer)


def test_negative_ages_and_counts_are_refused() -> None:
    """What cannot be gives no figure."""
    waiting = Waiting(model(LANDMARK), LabelPolicy())
    for age_ms, later in ((-1.0, 0), (0.0, -1)):
        with pytest.raises(ConfigError, match="0 or more"):
            waiting.probability(0.0, age_ms, later)
