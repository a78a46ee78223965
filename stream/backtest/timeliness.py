"""How early labels are known, and how right they are at each age of an application.

Shapes: n applications.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.backtest.rehearsal import Step
from stream.backtest.schedule import Learn, due_ms, heard
from stream.policy import DAY_MS, HOUR_MS
from stream.units import format_duration

AGES_MS: Final = (HOUR_MS, 6 * HOUR_MS, *(days * DAY_MS for days in (1, 2, 3, 5, 7, 10, 14)))
"""Ages at which it is asked what was known; the window's end and a day more come after them."""


class AtAge(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of applications of an age. Shares; None where nothing was known yet.

    ``labelled`` have any label; ``right`` of these have the final one; ``positives_known`` of the
    positives are known to be; ``negatives_right`` of those called negative stay so.
    """

    age_ms: int
    age: str
    labelled: float
    right: float | None
    positives_known: float | None
    negatives_right: float | None


def timeliness(
    steps: Iterable[Step],
    learn: Learn,
    targets: NDArray[np.float64],
    judged: NDArray[np.bool_],
    window_ms: int,
) -> list[AtAge]:
    """Ask at each age which labels were known, for one way of taking them.

    Args:
        steps: as recorded.
        learn: which labels, as in :mod:`stream.backtest.schedule`.
        targets: final labels (n,).
        judged: which applications count (n,).
        window_ms: of the label policy.

    """
    ages = [age for age in AGES_MS if age < window_ms] + [window_ms, window_ms + DAY_MS]
    known = np.full((len(ages), len(targets)), np.nan)
    for number, label in steps:
        if label is not None and judged[number] and heard(label, learn):
            age_ms = due_ms(label, label.label_time_ms, learn, window_ms)
            at = int(np.searchsorted(ages, age_ms - label.application_time_ms))
            known[at:, number] = label.label
    y = targets[judged]
    return [
        _at_age(age, known_then[judged], y) for age, known_then in zip(ages, known, strict=True)
    ]


def _at_age(age_ms: int, known: NDArray[np.float64], y: NDArray[np.float64]) -> AtAge:
    labelled = ~np.isnan(known)
    return AtAge(
        age_ms=age_ms,
        age=format_duration(age_ms),
        labelled=_share(labelled) or 0.0,
        right=_share(known[labelled] == y[labelled]),
        positives_known=_share(known[y == 1] == 1),
        negatives_right=_share(y[known == 0] == 0),
    )


def _share(found: NDArray[np.bool_]) -> float | None:
    return float(found.mean()) if len(found) else None
