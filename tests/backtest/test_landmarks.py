"""Moments at which applications wait: what is seen of them, and what is learned."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.backtest.landmarks import fitted, learn_landmark
from stream.backtest.moments import MOMENTS, Moments, features
from stream.backtest.rehearsal import Rehearsal, Step, record, record_labels, rehearse
from stream.labels.delays import fitted as delays
from stream.logs.files import LogLine
from stream.model.folder import GlobalModel, with_landmark
from stream.model.landmark import log_odds_now
from stream.model.training import Trainer
from stream.policy import DAY_MS, Policy
from stream.replay.reader import first_look
from tests import kit

WINDOW_MS = 14 * DAY_MS
SETTINGS = SimulationSettings(
    seed=4, members=200, jobs=40, days=40, global_score=True, out_of_order_share=0.0
)


@pytest.fixture(scope="module")
def lines() -> list[LogLine]:
    """A market in order of time."""
    raw = sorted(simulate(SETTINGS), key=_time_ms)
    return [LogLine("log", at, line) for at, line in enumerate(raw, 1)]


@pytest.fixture(scope="module")
def rehearsal(lines: list[LogLine]) -> Rehearsal:
    """Its recording, with true global scores."""
    known, space = first_look(iter(lines), None)
    return record(known, Policy(), None, space)


@pytest.fixture(scope="module")
def watch(rehearsal: Rehearsal) -> Moments:
    """What was seen while it was learned."""
    seen = Moments(rehearsal, WINDOW_MS)
    rehearse(rehearsal, Policy(), watch=seen)
    return seen


def answers(rehearsal: Rehearsal) -> dict[int, int]:
    """Time of the first positive answer by application, of all labels."""
    return {
        number: label.evidence_time_ms
        for number, label in rehearsal.steps
        if label is not None and label.label and label.evidence_time_ms is not None
    }


def test_later_answers_are_counted_as_by_hand(rehearsal: Rehearsal, watch: Moments) -> None:
    """Who applied later to the job and was answered before the moment; not who is answered now."""
    answered, times_ms = answers(rehearsal), rehearsal.times_ms
    jobs = [app.job_id for app in rehearsal.applications]

    def by_hand(number: int, at_ms: int) -> list[int]:
        return [
            other
            for other, answered_ms in answered.items()
            if jobs[other] == jobs[number] and times_ms[other] > times_ms[number]
            if answered_ms <= at_ms
        ]

    assert len(watch.moments) > 5000
    for seen in watch.moments[::50]:
        at_ms = int(times_ms[seen.number]) + seen.age_ms
        assert seen.later == len(by_hand(seen.number, at_ms))
    assert len(watch.decisions) > 500
    for at_ms, job_id, candidates in watch.decisions[::10]:
        now = {number for number, answered_ms in answered.items() if answered_ms == at_ms}
        assert candidates[0].number in now
        for seen in candidates:
            assert jobs[seen.number] == job_id
            assert seen.age_ms == at_ms - times_ms[seen.number]
            if len(now) == 1:
                assert seen.later == len(set(by_hand(seen.number, at_ms)) - now)


def test_who_applied_after_an_answer_was_not_there_to_be_chosen() -> None:
    """Where events arrive out of order, some are read before an answer that they came after."""
    settings = msgspec.structs.replace(SETTINGS, members=100, out_of_order_share=0.5)
    raw = [LogLine("log", at, line) for at, line in enumerate(simulate(settings), 1)]
    known, space = first_look(iter(raw), None)
    rehearsal = record(known, Policy(), None, space)
    watch = Moments(rehearsal, WINDOW_MS)
    rehearse(rehearsal, Policy(), watch=watch)
    assert len(watch.decisions) > 200
    for at_ms, _, candidates in watch.decisions:
        for seen in candidates:
            assert 0 <= seen.age_ms <= WINDOW_MS
            assert rehearsal.times_ms[seen.number] == at_ms - seen.age_ms


def test_only_who_waits_is_looked_at(rehearsal: Rehearsal, watch: Moments) -> None:
    """Nobody after an answer, at most so often each, in the window, young ages too."""
    answered = answers(rehearsal)
    ages = np.array([seen.age_ms for seen in watch.moments])
    for seen in watch.moments:
        at_ms = rehearsal.times_ms[seen.number] + seen.age_ms
        assert answered.get(seen.number, at_ms) >= at_ms
    assert ages.min() >= 0
    assert ages.max() < WINDOW_MS
    assert (ages < DAY_MS).mean() > 0.2
    assert np.bincount([seen.number for seen in watch.moments]).max() <= MOMENTS


def test_the_probability_that_is_left_fits_at_any_age(rehearsal: Rehearsal, watch: Moments) -> None:
    """Observed over expected is about 1 from the first hours to the last days of a window."""
    came = [at_ms - int(rehearsal.times_ms[one]) for one, at_ms in answers(rehearsal).items()]
    silent = len(rehearsal.applications) - len(came)
    curve = delays(came, [WINDOW_MS] * silent, WINDOW_MS)
    landmark = fitted(rehearsal, Policy(), curve, SETTINGS.start_ms + 100 * DAY_MS)
    assert landmark is not None
    assert landmark.answered[0] > 0.5  # the score counts
    y = rehearsal.targets[[seen.number for seen in watch.moments]]
    p = 1 / (1 + np.exp(-log_odds_now(landmark, features(watch.moments, curve))))
    ages = np.array([seen.age_ms for seen in watch.moments]) / DAY_MS
    for low, high in ((0, 0.25), (0.25, 1), (1, 3), (3, 7), (7, 14)):
        there = (ages >= low) & (ages < high)
        assert 0.8 < y[there].sum() / p[there].sum() < 1.25, (low, high)


def trained(lines: list[LogLine], until_ms: int) -> GlobalModel:
    """Train with a landmark."""
    trainer = Trainer(Policy(), until_ms, None)
    trainer.read(lines, lambda _: None)
    model = trainer.model()
    landmark = learn_landmark(lines, Policy(), model, trainer.newest(500))
    assert landmark is not None
    return with_landmark(model, landmark)


def test_train_learns_a_landmark_from_nothing_later(lines: list[LogLine]) -> None:
    """The same lines up to the end of training, and whatever comes after, give the same model."""
    until_ms = SETTINGS.start_ms + 25 * DAY_MS
    whole = trained(lines, until_ms)
    early = [line for line in lines if _time_ms(line.raw) <= until_ms]
    assert len(early) < len(lines)
    assert whole.manifest == trained(early, until_ms).manifest
    assert whole.manifest.landmark is not None


def _time_ms(raw: bytes) -> int:
    event: dict[str, int] = msgspec.json.decode(raw)
    return event["event_time_ms"]


def test_labels_are_recorded_as_a_replay_gives_them(
    lines: list[LogLine], rehearsal: Rehearsal
) -> None:
    """Without learning anything: the same applications, labels and order; scores brought along."""
    known, space = first_look(iter(lines), None)
    alone = record_labels(known, Policy(), kit.model(), space)
    assert [app.application_id for app in alone.applications] == [
        app.application_id for app in rehearsal.applications
    ]
    assert alone.global_scores == pytest.approx(rehearsal.global_scores)
    assert alone.metrics is None
    assert alone.left_out == rehearsal.left_out
    assert alone.left_out.ignored

    def told(steps: list[Step]) -> list[tuple[object, ...]]:
        return [
            (number, label and (label.kind, label.weight, label.label_time_ms, label.final))
            for number, label in steps
        ]

    assert told(alone.steps) == told(rehearsal.steps)
