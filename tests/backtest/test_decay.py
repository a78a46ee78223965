"""The simulated market loses its freshness as hiring markets are said to."""

from __future__ import annotations

import numpy as np
import pytest

from producers.simulate import lively
from stream.backtest.freshness import Freezer, Freshness
from stream.backtest.judgement import Blocks
from stream.backtest.rehearsal import record, rehearse
from stream.policy import DAY_MS, Policy
from stream.replay.reader import first_look
from tests.backtest.conftest import lines_of

SETTINGS = lively(members=600, jobs=240, days=100, global_score=True, seed=1)


@pytest.fixture(scope="module")
def curve() -> Freshness:
    """Measure a lively market of some 28,000 events."""
    lines, space = first_look(lines_of(SETTINGS), None)
    rehearsal = record(lines, Policy(), None, space)
    from_ms = SETTINGS.start_ms + 30 * DAY_MS
    judged = rehearsal.times_ms >= from_ms
    freezer = Freezer(rehearsal, judged, from_ms, SETTINGS.start_ms + SETTINGS.days * DAY_MS)
    live = rehearse(rehearsal, Policy(), pauses=freezer.pauses, on_pause=freezer.freeze)
    blocks = np.maximum(Blocks.cut(rehearsal.times_ms, from_ms).of, 0)
    return freezer.curve(
        rehearsal.targets, rehearsal.global_scores, member=live.member, job=live.job, blocks=blocks
    )


def test_half_of_the_gain_is_lost_in_about_three_weeks(curve: Freshness) -> None:
    """Without updates the effects' advantage halves within two to four weeks."""
    both = curve.half_life_days["both"]
    assert both is not None
    assert 12 < both.value < 28


def test_jobs_grow_stale_faster_than_members(curve: Freshness) -> None:
    """What jobs' coefficients add is lost several times as fast as what members' add."""
    member, job = curve.half_life_days["member"], curve.half_life_days["job"]
    assert member is not None
    assert job is not None
    assert job.value < 12
    assert 1.5 * job.value < member.value < 45


def test_updated_scores_do_not_age(curve: Freshness) -> None:
    """With updates, the AUC of the eighth week is that of the first."""
    live = [point.auc_live for point in curve.points]
    assert max(live) - min(live) < 0.05
    frozen = [point.auc_frozen for point in curve.points]
    assert frozen[0] - frozen[-1] > 0.05
