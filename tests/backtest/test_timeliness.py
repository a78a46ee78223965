"""How early labels are known, against a plain count."""

from __future__ import annotations

import numpy as np
import pytest

from stream.backtest.rehearsal import Rehearsal
from stream.backtest.schedule import Learn
from stream.backtest.timeliness import AtAge, timeliness
from stream.policy import DAY_MS, LabelPolicy

WINDOW_MS = LabelPolicy().window_ms


def ages(rehearsal: Rehearsal, learn: Learn) -> dict[str, AtAge]:
    """Ask for one way of taking labels."""
    judged = np.ones(len(rehearsal.applications), dtype=bool)
    found = timeliness(rehearsal.steps, learn, rehearsal.targets, judged, WINDOW_MS)
    return {one.age: one for one in found}


def test_early_labels_are_counted(rehearsal: Rehearsal) -> None:
    """At three days, shares equal those counted label by label."""
    known: dict[int, int] = {}
    for number, label in rehearsal.steps:
        if label is not None and label.label_time_ms - label.application_time_ms <= 3 * DAY_MS:
            known[number] = label.label
    truth = rehearsal.targets
    found = ages(rehearsal, "early")["3d"]
    n = len(truth)
    assert found.labelled == pytest.approx(len(known) / n)
    assert found.right == pytest.approx(np.mean([truth[k] == y for k, y in known.items()]))
    positives = [number for number in range(n) if truth[number] == 1]
    assert found.positives_known == pytest.approx(np.mean([known.get(k) == 1 for k in positives]))
    negative = [number for number, y in known.items() if y == 0]
    assert found.negatives_right == pytest.approx(np.mean([truth[k] == 0 for k in negative]))


def test_the_ways_differ_as_they_should(rehearsal: Rehearsal) -> None:
    """Inferring labels more, explicit ones are surer, and final ones come with the window."""
    early, explicit, final = (
        ages(rehearsal, "early"),
        ages(rehearsal, "explicit"),
        ages(rehearsal, "final"),
    )
    assert early["1d"].labelled > explicit["1d"].labelled > final["1d"].labelled == 0.0
    assert final["1d"].right is None
    assert (explicit["3d"].right or 0) > (early["3d"].right or 1)
    assert final["14d"].labelled == 0.0
    for one in (early, explicit, final):
        assert one["15d"].labelled > 0.98
        assert one["15d"].right == 1.0
    assert list(early) == ["1h", "6h", "1d", "2d", "3d", "5d", "7d", "10d", "14d", "15d"]
