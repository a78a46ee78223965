"""Decisions of a rehearsal, and of a replay, against a brute force over all events."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.backtest.decisions import ScoreOf, Watch
from stream.backtest.rehearsal import Recorder, Rehearsal, rehearse
from stream.effects import JOB, MEMBER
from stream.events.structs import Application, Label
from stream.features.blocks import FeatureSpace
from stream.logs.files import LogLine
from stream.policy import DAY_MS, Policy
from stream.quality.ranking import Owner, RankingQuality
from stream.replay.reader import first_look
from stream.replay.run_folder import RunMetrics
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.stages.thinning import MOST_A_WEEK
from stream.state.waiting import mark
from tests.decisions import Decision, decisions, newest_first

SETTINGS = SimulationSettings(
    seed=3, members=80, jobs=25, days=20, applications_per_member=8, global_score=True
)
WINDOW_MS = Policy().labels.window_ms


@cache
def log() -> tuple[list[LogLine], FeatureSpace, list[Decision]]:
    """Return the lines of a simulated log, and the decisions in it."""
    lines = [LogLine("log", at, line) for at, line in enumerate(simulate(SETTINGS), 1)]
    read, space = first_look(lines, None)
    return list(read), space, decisions(lines, space, WINDOW_MS)


class FirstSight(Watch):
    """Takes one effect's scores of first sight, as a replay does."""

    effect: str
    seen: dict[tuple[str, str], float]

    def label(self, number: int, label: Label, scores: Mapping[str, ScoreOf]) -> None:
        """See whether somebody is answered."""

        def of(app: Application) -> float:
            return self.seen[app.job_id, app.application_id]

        super().label(number, label, {**scores, self.effect: of})


def replayed(from_ms: int = 0) -> tuple[Rehearsal, Recorder, RunMetrics]:
    """Replay the log."""
    lines, space, _ = log()
    recorder = Recorder()
    options = Options(close=True, score_from_ms=from_ms)
    metrics = replay(lines, recorder, Policy(), None, space, options)
    return Rehearsal(recorder, space, metrics), recorder, metrics


@pytest.mark.parametrize("within", ["job", "member"])
def test_decisions_are_first_answers_among_those_who_wait(within: Owner) -> None:
    """As many, with the same newest-first AUC, as by a look through all events at each answer."""
    rehearsal, _, _ = replayed()
    watch = Watch(rehearsal, WINDOW_MS)
    rehearse(rehearsal, Policy(), watch=watch)
    check(watch.rankings(within), within)


@pytest.mark.parametrize("within", ["job", "member"])
@pytest.mark.parametrize("from_day", [0, 8])
def test_a_replay_tells_of_the_same_decisions(from_day: int, within: Owner) -> None:
    """``metrics.json`` has those since --score-from, as by a look through all events."""
    first_ms = log()[2][0].at_ms
    from_ms = first_ms + from_day * DAY_MS if from_day else 0
    _, _, metrics = replayed(from_ms)
    check(metrics.rankings if within == "job" else metrics.member_rankings, within, from_ms)


def check(found: RankingQuality | None, within: Owner, from_ms: int = 0) -> None:
    """Compare rankings with the brute force."""
    wanted = [
        (each, others)
        for each in log()[2]
        if (others := each.of_job if within == "job" else each.of_member) and each.at_ms >= from_ms
    ]
    assert found is not None
    assert len(wanted) > 50
    assert found.within == within
    assert found.decisions == len(wanted)
    ids = {getattr(each.answered, f"{within}_id") for each, _ in wanted}
    assert found.owners == len(ids)
    aucs = [newest_first(each, others) for each, others in wanted]
    assert found.orders["newest_first"]["auc"].value == pytest.approx(np.mean(aucs))
    by_score: list[float] = []
    for each, others in wanted:
        mine = each.answered.global_score or 0.0
        theirs = np.array([other.global_score or 0.0 for other in others])
        by_score.append(float(np.mean(theirs < mine) + np.mean(theirs == mine) / 2))
    assert found.orders["global"]["auc"].value == pytest.approx(np.mean(by_score))
    random = [sum(1 / at for at in range(1, len(o) + 2)) / (len(o) + 1) for _, o in wanted]
    assert found.orders["random"]["reciprocal_rank"].value == pytest.approx(np.mean(random))


@pytest.mark.parametrize("within", ["job", "member"])
def test_a_replay_ranks_by_the_other_effects_scores_of_first_sight(within: Owner) -> None:
    """With those, and its own coefficients of the moment, a rehearsal has the same rankings."""
    rehearsal, recorder, metrics = replayed()
    watch = FirstSight(rehearsal, WINDOW_MS)
    watch.effect = MEMBER.name if within == "job" else JOB.name
    watch.seen = {
        (app.job_id, app.application_id): scores.member_score
        if within == "job"
        else scores.job_score
        for app, scores in zip(recorder.applications, recorder.scores, strict=True)
    }
    rehearse(rehearsal, Policy(), watch=watch)
    found = metrics.rankings if within == "job" else metrics.member_rankings
    wanted = watch.rankings(within)
    assert found is not None
    assert wanted is not None
    assert found.first_sight == ("global", "member" if within == "job" else "job")
    assert wanted.first_sight == ("global",)
    assert found.orders == wanted.orders
    assert found.gain == wanted.gain


@pytest.mark.parametrize("within", ["job", "member"])
def test_of_many_decisions_those_of_a_sample_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, within: Owner
) -> None:
    """What is left are all decisions of those whose marks lie lowest, and no other."""
    monkeypatch.setitem(MOST_A_WEEK, within, 25)
    metrics = replayed()[2]
    found = metrics.rankings if within == "job" else metrics.member_rankings
    assert found is not None
    assert found.share <= 0.5
    wanted = [
        newest_first(each, others)
        for each in log()[2]
        if (others := each.of_job if within == "job" else each.of_member)
        and mark(getattr(each.answered, f"{within}_id")) < found.share * 2**64
    ]
    assert found.decisions == len(wanted) > 0
    assert found.orders["newest_first"]["auc"].value == pytest.approx(np.mean(wanted))
