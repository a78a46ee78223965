"""Who learns labels later, or fewer of them, still sees the same applications."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from stream.backtest.rehearsal import Rehearsal, Step, record, rehearse
from stream.backtest.schedule import AT_EVERY_LABEL, NEVER, AtAge, Learn, schedule, timeliness
from stream.events.ladder import BY_NAME
from stream.events.structs import Label
from stream.logs.files import LogLine
from stream.policy import DAY_MS, HOUR_MS, LabelPolicy, Policy
from stream.replay.reader import first_look

WINDOW_MS = LabelPolicy().window_ms


def scored(steps: list[Step]) -> list[int]:
    """Applications in the order of their scoring."""
    return [step.number for step in steps if step.label is None]


def next_monday_ms(time_ms: int) -> int:
    """Midnight of the next Monday, by the calendar."""
    day = datetime.fromtimestamp(time_ms / 1000, UTC).replace(hour=0, minute=0, second=0)
    return int((day + timedelta(days=7 - day.weekday())).timestamp()) * 1000


def known_then(rehearsal: Rehearsal, due: Callable[[Label, int], int]) -> list[set[int]]:
    """Before each scoring, the applications of which a label has come and is due: brute force."""
    found = []
    arrived: list[tuple[int, int]] = []
    now_ms = 0
    for number, label in rehearsal.steps:
        at_ms = rehearsal.applications[number].event_time_ms
        now_ms = max(now_ms, at_ms if label is None else label.label_time_ms)
        if label is not None:
            arrived.append((number, due(label, now_ms)))
        else:
            found.append({one for one, due_ms in arrived if due_ms <= now_ms})
    return found


def learned_then(steps: list[Step]) -> list[set[int]]:
    """Before each scoring, the applications of which a label was learned."""
    found: list[set[int]] = []
    learned: set[int] = set()
    for number, label in steps:
        if label is None:
            found.append(set(learned))
        else:
            learned.add(number)
    return found


def test_at_every_label_nothing_changes(rehearsal: Rehearsal, stop_ms: int) -> None:
    """Labels that take effect at once are the recording's own steps."""
    steps = schedule(rehearsal, AT_EVERY_LABEL, "early", stop_ms, WINDOW_MS)
    assert steps == rehearsal.steps


@pytest.mark.parametrize("refresh_ms", [HOUR_MS, DAY_MS, 7 * DAY_MS, NEVER])
@pytest.mark.parametrize("learn", ["early", "explicit", "final"])
def test_every_application_is_scored_in_the_recorded_order(
    rehearsal: Rehearsal, stop_ms: int, refresh_ms: int | None, learn: Learn
) -> None:
    """Only labels move; each application's labels still climb, and say what came before."""
    steps = schedule(rehearsal, refresh_ms, learn, stop_ms, WINDOW_MS)
    assert scored(steps) == scored(rehearsal.steps)
    seen: dict[int, str] = {}
    for number, label in steps:
        if label is not None:
            assert label.previous == seen.get(number)
            if number in seen:
                assert BY_NAME[label.kind] >= BY_NAME[seen[number]]
            seen[number] = label.kind


def test_a_weekly_refresh_takes_effect_on_mondays(rehearsal: Rehearsal, stop_ms: int) -> None:
    """Before each scoring, exactly the labels that came before the last Monday are learned."""
    steps = schedule(rehearsal, 7 * DAY_MS, "early", stop_ms, WINDOW_MS)
    expected = known_then(rehearsal, lambda _, now_ms: next_monday_ms(now_ms))
    assert learned_then(steps) == expected
    assert len(expected[-1]) > 500


def test_never_learns_nothing_more(rehearsal: Rehearsal, stop_ms: int) -> None:
    """Nothing that came after the end of learning is learned, everything before it is."""
    steps = schedule(rehearsal, NEVER, "early", stop_ms, WINDOW_MS)
    labels = [label for _, label in steps if label is not None]
    assert labels
    assert max(label.label_time_ms for label in labels) < stop_ms
    before = [
        label for _, label in rehearsal.steps if label is not None and label.label_time_ms < stop_ms
    ]
    assert len(labels) > 0.99 * len(before)


def test_nothing_inferred(rehearsal: Rehearsal, stop_ms: int) -> None:
    """With explicit labels, what is learned equals a replay whose policy infers nothing."""
    steps = schedule(rehearsal, AT_EVERY_LABEL, "explicit", stop_ms, WINDOW_MS)
    kinds = {label.kind for _, label in steps if label is not None}
    assert kinds == {"negative_explicit", "negative_conclusive", "positive"}


def test_explicit_scores_are_those_of_a_policy_that_infers_nothing(
    rehearsal: Rehearsal, log: list[LogLine], stop_ms: int
) -> None:
    """Leaving inferred labels out gives the scores of a replay that never inferred any."""
    lines, space = first_look(log, None)
    policy = Policy(labels=LabelPolicy(aging=(), later_response="off", job_closed="off"))
    other = record(lines, policy, None, space)
    steps = schedule(rehearsal, AT_EVERY_LABEL, "explicit", stop_ms, WINDOW_MS)
    scores = rehearsal.scores(rehearse(rehearsal, Policy(), steps=steps))
    assert np.allclose(scores, other.recorded, atol=1e-6)


def test_final_labels_wait_for_their_window(rehearsal: Rehearsal, stop_ms: int) -> None:
    """Each application is learned once at most, when its whole window has passed."""
    steps = schedule(rehearsal, AT_EVERY_LABEL, "final", stop_ms, WINDOW_MS)
    numbers = [number for number, label in steps if label is not None]
    assert len(numbers) == len(set(numbers)) > 0.5 * len(rehearsal.applications)

    def due(label: Label, now_ms: int) -> int:
        passed_ms = label.application_time_ms + WINDOW_MS + 1
        return max(now_ms, passed_ms) if label.final else 2**62

    assert learned_then(steps) == known_then(rehearsal, due)


def at_ages(rehearsal: Rehearsal, learn: Learn) -> dict[str, AtAge]:
    """Ask for one way of taking labels."""
    judged = np.ones(len(rehearsal.applications), dtype=bool)
    found = timeliness(rehearsal.steps, learn, rehearsal.targets, judged, WINDOW_MS)
    return {one.age: one for one in found}


def test_early_labels_are_counted(rehearsal: Rehearsal) -> None:
    """At three days, shares equal those counted label by label, each as it weighs."""
    known: dict[int, int] = {}
    weights: dict[int, float] = {}
    for number, label in rehearsal.steps:
        if label is not None and label.label_time_ms - label.application_time_ms <= 3 * DAY_MS:
            known[number], weights[number] = label.label, label.weight
    truth = rehearsal.targets
    assert min(weights.values()) < 0.5 < max(weights.values())
    found = at_ages(rehearsal, "early")["3d"]
    n = len(truth)
    assert found.labelled == pytest.approx(len(known) / n)
    right = sum(weights[k] for k, y in known.items() if truth[k] == y)
    assert found.right == pytest.approx(right / sum(weights.values()))
    positives = [number for number in range(n) if truth[number] == 1]
    assert found.positives_known == pytest.approx(np.mean([known.get(k) == 1 for k in positives]))
    negative = [number for number, y in known.items() if y == 0]
    stay = sum(weights[k] for k in negative if truth[k] == 0)
    assert found.negatives_right == pytest.approx(stay / sum(weights[k] for k in negative))


def test_the_ways_differ_as_they_should(rehearsal: Rehearsal) -> None:
    """Inferring labels more, explicit ones are surer, and final ones come with the window."""
    early, explicit, final = (
        at_ages(rehearsal, "early"),
        at_ages(rehearsal, "explicit"),
        at_ages(rehearsal, "final"),
    )
    assert early["1d"].labelled > explicit["1d"].labelled > final["1d"].labelled == 0.0
    assert final["1d"].right is None
    assert (explicit["3d"].right or 0) > (early["3d"].right or 1)
    assert final["14d"].labelled == 0.0
    for one in (early, explicit, final):
        assert one["15d"].labelled > 0.98
        assert one["15d"].right == 1.0
    assert list(early) == ["1h", "6h", "1d", "2d", "3d", "5d", "7d", "10d", "14d", "15d"]
