"""When a setting hears of which label: a recorded replay's steps, put in another order.

Labels do not depend on scores, so whoever learns them later, or fewer of them, sees the same
applications with the same final labels. Event time is the largest time seen so far.

- **refresh**: a label takes effect at the next multiple of so many milliseconds (counted from a
  Monday at midnight, UTC); :data:`AT_EVERY_LABEL`: at once; :data:`NEVER`: until a given time at
  once, after it no more.
- **learn**: ``early`` takes every label; ``explicit`` leaves out inferred negatives, so that an
  application is negative when the recruiter says so or when its window has closed; ``final`` takes
  each application's last label when its window has passed, positives too.
"""

from __future__ import annotations

import heapq
from typing import Final, Literal

import msgspec

from stream.backtest.rehearsal import Rehearsal, Step
from stream.events.ladder import Kind
from stream.events.structs import Label
from stream.policy import DAY_MS

Learn = Literal["early", "explicit", "final"]

AT_EVERY_LABEL: Final = 0
NEVER: Final = None

_MONDAY_MS: Final = 4 * DAY_MS  # 1970-01-01 was a Thursday
_INFERRED: Final = Kind.NEGATIVE_INFERRED.wire


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
    known: dict[int, str] = {}  # the kind last learned of each application
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
        if not heard(label, learn):
            continue
        due = due_ms(label, now_ms, learn, window_ms)
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


def heard(label: Label, learn: Learn) -> bool:
    """Whether a setting hears of a label at all."""
    return label.final if learn == "final" else learn == "early" or label.kind != _INFERRED


def due_ms(label: Label, now_ms: int, learn: Learn, window_ms: int) -> int:
    """When a setting hears of a label that is there now."""
    if learn == "final":
        return max(now_ms, label.application_time_ms + window_ms + 1)
    return now_ms


def _learned(step: Step, known: dict[int, str]) -> Step:
    """Say in a label what this setting had learned of the application before."""
    number, label = step
    if label is None:
        return step
    previous = known.get(number)
    known[number] = label.kind
    if previous == label.previous:
        return step
    return Step(number, msgspec.structs.replace(label, previous=previous))
