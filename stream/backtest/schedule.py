"""When a setting hears of which label: a recorded replay's steps, put in another order.

And what that means for labels: how early they are known, and how right they are at each age.

Labels do not depend on scores, so whoever learns them later, or fewer of them, sees the same
applications with the same final labels. Event time is the largest time seen so far.

- **refresh**: a label takes effect at the next multiple of so many milliseconds (counted from a
  Monday at midnight, UTC); :data:`AT_EVERY_LABEL`: at once; :data:`NEVER`: until a given time at
  once, after it no more.
- **learn**: ``early`` takes every label; ``explicit`` leaves out inferred negatives, so that an
  application is negative when the recruiter says so or when its window has closed; ``final`` takes
  each application's last label when its window has passed, positives too.

Shapes: n applications.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.backtest.rehearsal import Rehearsal, Step
from stream.events.ladder import Kind
from stream.events.structs import Label
from stream.policy import DAY_MS, HOUR_MS
from stream.units import format_duration

Learn = Literal["early", "explicit", "final"]

AT_EVERY_LABEL: Final = 0
NEVER: Final = None

AGES_MS: Final = (HOUR_MS, 6 * HOUR_MS, *(days * DAY_MS for days in (1, 2, 3, 5, 7, 10, 14)))
"""Ages at which it is asked what was known; the window's end and a day more come after them."""

_MONDAY_MS: Final = 4 * DAY_MS  # 1970-01-01 was a Thursday
_INFERRED: Final = Kind.NEGATIVE_INFERRED.wire


class AtAge(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of applications of an age. Shares; None where nothing was known yet.

    ``labelled`` have any label; ``right`` of these have the final one; ``positives_known`` of the
    positives are known to be; ``negatives_right`` of those called negative stay so. In ``right``
    and ``negatives_right`` a label counts as it weighs: one of weight 0.4 claims no more.
    """

    age_ms: int
    age: str
    labelled: float
    right: float | None
    positives_known: float | None
    negatives_right: float | None


def schedule(
    rehearsal: Rehearsal, refresh_ms: int | None, learn: Learn, stop_ms: int, window_ms: int
) -> list[Step]:
    """Put the steps of a recording into a setting's order; what is due after the end is left out.

    Args:
        rehearsal: the recording.
        refresh_ms: how often labels take effect, or one of the two constants.
        learn: which labels.
        stop_ms: with :data:`NEVER`, labels from this time on are not learned.
        window_ms: of the recording's label policy.

    """
    if refresh_ms == AT_EVERY_LABEL and learn == "early":
        return rehearsal.steps
    steps: list[Step] = []
    waiting: list[tuple[int, int, Step]] = []  # by when due, then in order of arrival
    known: dict[int, tuple[str, float]] = {}  # kind and weight last learned of each application
    now_ms = 0
    for position, step in enumerate(rehearsal.steps):
        number, label = step
        happened_ms = rehearsal.applications[number].event_time_ms
        now_ms = max(now_ms, happened_ms if label is None else label.label_time_ms)
        while waiting and waiting[0][0] <= now_ms:
            steps.append(_learned(heapq.heappop(waiting)[2], known))
        if label is None:
            steps.append(step)
            continue
        if not _heard(label, learn):
            continue
        due = _due_ms(label, now_ms, learn, window_ms)
        if refresh_ms is NEVER:
            if due >= stop_ms:
                continue
        elif refresh_ms != AT_EVERY_LABEL:
            due += refresh_ms - (due - _MONDAY_MS) % refresh_ms
        if due <= now_ms:
            steps.append(_learned(step, known))
        else:
            heapq.heappush(waiting, (due, position, step))
    return steps


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
        learn: which labels.
        targets: final labels (n,).
        judged: which applications count (n,).
        window_ms: of the label policy.

    """
    ages = [age for age in AGES_MS if age < window_ms] + [window_ms, window_ms + DAY_MS]
    known = np.full((len(ages), len(targets)), np.nan)
    weights = np.ones_like(known)
    for number, label in steps:
        if label is not None and judged[number] and _heard(label, learn):
            age_ms = _due_ms(label, label.label_time_ms, learn, window_ms)
            at = int(np.searchsorted(ages, age_ms - label.application_time_ms))
            known[at:, number], weights[at:, number] = label.label, label.weight
    y = targets[judged]
    return [
        _at_age(age, known_then[judged], weighed[judged], y)
        for age, known_then, weighed in zip(ages, known, weights, strict=True)
    ]


def _heard(label: Label, learn: Learn) -> bool:
    """Whether a setting hears of a label at all."""
    return label.final if learn == "final" else learn == "early" or label.kind != _INFERRED


def _due_ms(label: Label, now_ms: int, learn: Learn, window_ms: int) -> int:
    """When a setting hears of a label that is there now."""
    if learn == "final":
        return max(now_ms, label.application_time_ms + window_ms + 1)
    return now_ms


def _learned(step: Step, known: dict[int, tuple[str, float]]) -> Step:
    """Say in a label what this setting had learned of the application before."""
    number, label = step
    if label is None:
        return step
    previous, weight = known.get(number, (None, None))
    known[number] = label.kind, label.weight
    if (previous, weight) == (label.previous, label.previous_weight):
        return step
    return Step(number, msgspec.structs.replace(label, previous=previous, previous_weight=weight))


def _at_age(
    age_ms: int,
    known: NDArray[np.float64],
    weights: NDArray[np.float64],
    y: NDArray[np.float64],
) -> AtAge:
    labelled, negative = ~np.isnan(known), known == 0
    return AtAge(
        age_ms=age_ms,
        age=format_duration(age_ms),
        labelled=_share(labelled) or 0.0,
        right=_share(known[labelled] == y[labelled], weights[labelled]),
        positives_known=_share(known[y == 1] == 1),
        negatives_right=_share(y[negative] == 0, weights[negative]),
    )


def _share(found: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> float | None:
    return float(np.average(found, weights=weights)) if len(found) else None
