"""A rehearsal learns what the replay learned."""

from __future__ import annotations

import numpy as np
import pytest

from producers.simulate import SimulationSettings, simulate
from stream.backtest.rehearsal import Rehearsal, record, rehearse
from stream.logs.files import LogLine
from stream.policy import EffectSettings, Policy
from stream.replay.reader import first_look

SETTINGS = SimulationSettings(members=150, jobs=40, days=30, global_score=True, seed=3)


@pytest.fixture(scope="module")
def rehearsal() -> Rehearsal:
    """Record a simulated market with the default policy."""
    raw = (LogLine("log", number, line) for number, line in enumerate(simulate(SETTINGS), 1))
    lines, space = first_look(raw, None)
    return record(lines, Policy(), None, space)


def test_the_recorded_settings_give_the_replays_scores(rehearsal: Rehearsal) -> None:
    """Learning the record again gives the scores that the replay gave."""
    scores = rehearsal.scores(rehearse(rehearsal, Policy()))
    assert len(scores) > 2000
    assert np.allclose(scores, rehearsal.recorded, atol=1e-6)
    assert not np.isnan(rehearsal.targets).any()
    assert np.abs(scores - rehearsal.global_scores).max() > 0.5


def test_all_that_is_judged_is_final_and_weighs_1(rehearsal: Rehearsal) -> None:
    """AUC, log loss, calibration and who gains rest on these targets: no label of a weight."""
    last = {number: label for number, label in rehearsal.steps if label is not None}
    until_ms = int(rehearsal.times_ms.max())
    judged = rehearsal.to_judge(0, until_ms, Policy().labels.window_ms, "")
    assert judged.sum() > 500
    for number in np.flatnonzero(judged).tolist():
        assert (last[number].final, last[number].weight) == (True, 1.0)
        assert rehearsal.targets[number] == last[number].label


def test_other_settings_are_those_of_their_own_replay(rehearsal: Rehearsal) -> None:
    """Settings tried on a record give what a replay with them would have given."""
    other = EffectSettings(prior_precision=8.0, half_life_ms=None, capacity=5, coupled=False)
    policy = Policy(effects={"per_member": other, "per_job": other})
    raw = (LogLine("log", number, line) for number, line in enumerate(simulate(SETTINGS), 1))
    lines, space = first_look(raw, None)
    replayed = record(lines, policy, None, space)
    scores = rehearsal.scores(rehearse(rehearsal, policy))
    assert np.allclose(scores, replayed.recorded, atol=1e-6)


def test_an_effect_left_out_scores_nothing(rehearsal: Rehearsal) -> None:
    """With one effect alone the other's scores are 0, and it is not in the offsets."""
    found = rehearse(rehearsal, Policy(), ("per_job",))
    assert not found.member.any()
    assert found.job.any()
    assert list(found.effects) == ["per_job"]
