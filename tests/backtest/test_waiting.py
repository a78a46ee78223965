"""What a backtest says of those who wait, against counts by hand."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from producers.truth import SimulationSettings
from stream.backtest.comparison import parse_comparison
from stream.backtest.decisions import ScoreOf, Watch
from stream.backtest.moments import Moments
from stream.backtest.rehearsal import Rehearsal, record, rehearse
from stream.backtest.result import Backtest
from stream.backtest.runner import Runner, look_through
from stream.backtest.waiting import WaitingWatch, by_age
from stream.events.structs import Label
from stream.labels.delays import default_curve
from stream.logs.files import LogLine
from stream.model.landmark import Landmark
from stream.policy import DAY_MS, HOUR_MS, Policy
from stream.quality.ranking import Owner
from stream.replay.reader import first_look
from tests.backtest.conftest import lines_of

WINDOW_MS = Policy().labels.window_ms
CURVE = default_curve(WINDOW_MS)
SETTINGS = SimulationSettings(
    seed=3, members=80, jobs=25, days=40, applications_per_member=8, global_score=True,
    out_of_order_share=0.0,
)  # fmt: skip
FROM_MS = SETTINGS.start_ms + 8 * DAY_MS
NEWEST_FIRST = Landmark(
    intercept=-1.0, answered=(0.5, 0.0, 0.0, 0.0, 0.0), next=(0.0, 0.0, -1.0, 0.0, 0.0),
    moments=1, decisions=1,
)  # fmt: skip
FEWEST_SINCE = msgspec.structs.replace(NEWEST_FIRST, next=(0.0, 0.0, 0.0, -1.0, 0.0))


@pytest.fixture(scope="module")
def lines() -> list[LogLine]:
    """A small market."""
    return lines_of(SETTINGS)


@pytest.fixture(scope="module")
def small(lines: list[LogLine]) -> Rehearsal:
    """Its recording."""
    known, space = first_look(lines, None)
    return record(known, Policy(), None, space)


def watched(small: Rehearsal, landmark: Landmark | None) -> WaitingWatch:
    """Watch it; those are judged who applied since FROM_MS."""
    judged = small.times_ms >= FROM_MS
    watch = WaitingWatch(small, WINDOW_MS, FROM_MS, judged, CURVE, landmark)
    rehearse(small, Policy(), watch=watch)
    return watch


def test_answers_are_counted_by_age_as_by_hand(small: Rehearsal) -> None:
    """Of each moment of a judged one: its bracket, whether an answer came, what was expected."""
    plain = Moments(small, WINDOW_MS)
    rehearse(small, Policy(), watch=plain)
    moments = [one for one in plain.moments if small.times_ms[one.number] >= FROM_MS]
    found = watched(small, NEWEST_FIRST).by_age(np.zeros_like(small.times_ms), 1)
    assert sum(at.moments for at in found) == len(moments) > 500
    hours = [0, 6, 24, 72, 168, 336]
    for at, low, high in zip(found, hours, hours[1:], strict=False):
        assert (at.from_ms, at.to_ms) == (low * HOUR_MS, high * HOUR_MS)
        there = [one for one in moments if low * HOUR_MS <= one.age_ms < high * HOUR_MS]
        assert at.moments == len(there)
        came = sum(small.targets[one.number] == 1.0 for one in there)
        expected = {"delays": 0.0, "landmark": 0.0}
        for one in there:
            left = 1.0 - np.interp(one.age_ms, (0, *CURVE.ages_ms), (0.0, *CURVE.shares))
            odds = {
                "delays": np.exp(one.score) * max(left, 1e-3),
                "landmark": np.exp(0.5 * one.score - 1.0),
            }
            for name in expected:
                expected[name] += odds[name] / (1.0 + odds[name])
        for name, each in expected.items():
            ratio = at.observed_over_expected[name]
            assert ratio.value == pytest.approx(came / each, rel=1e-9)
            assert ratio.low is None  # one block


def test_brackets_end_with_the_window() -> None:
    """A short window cuts the last one, a long one adds one; where nobody waits there is none."""
    ages_ms = np.array([0, 5 * HOUR_MS, 30 * HOUR_MS, 60 * HOUR_MS])
    y, zeros = np.array([1.0, 0.0, 0.0, 1.0]), np.zeros(4)
    blocks = np.zeros(4, dtype=np.int64)
    found = by_age(y, ages_ms, {"delays": zeros}, 3 * DAY_MS - 1, blocks, 1)
    assert [(at.from_ms, at.to_ms, at.moments) for at in found] == [
        (0, 6 * HOUR_MS, 2),
        (DAY_MS, 3 * DAY_MS - 1, 2),
    ]
    assert [at.observed_over_expected["delays"].value for at in found] == [1.0, 1.0]
    late = np.full(4, 15 * DAY_MS)
    (last,) = by_age(y, late, {"delays": zeros}, 30 * DAY_MS, blocks, 1)
    assert (last.from_ms, last.to_ms) == (14 * DAY_MS, 30 * DAY_MS)


def test_a_landmark_that_goes_by_age_orders_as_the_newest_first(small: Rehearsal) -> None:
    """The same decisions and jobs give the same figures and intervals; the others stay."""
    watch = watched(small, NEWEST_FIRST)
    plain = Watch(small, WINDOW_MS, FROM_MS)
    rehearse(small, Policy(), watch=plain)
    found, wanted = watch.rankings(), plain.rankings()
    assert found is not None
    assert wanted is not None
    orders = dict(found.orders)
    assert [*orders][3:5] == ["full", "landmark"]
    assert orders.pop("landmark") == orders["newest_first"]
    assert orders == wanted.orders
    assert found.gain == wanted.gain
    assert watch.rankings("member") == plain.rankings("member")


class ByHand(Watch):
    """Ranks the answered one by later applicants answered before, counted from the labels."""

    aucs: list[float]
    answers: list[tuple[int, int]]  # of those answered so far: number, time of application

    def label(self, number: int, label: Label, scores: Mapping[str, ScoreOf]) -> None:
        """Count the answer after its decision."""
        super().label(number, label, scores)
        if label.label:
            self.answers.append((number, int(self._rehearsal.times_ms[number])))

    def decided(
        self,
        within: Owner,
        numbers: list[int],
        at_ms: int,
        values: NDArray[np.float64],
        *,
        sampled: bool,
    ) -> None:
        """Count the later ones of each candidate."""
        super().decided(within, numbers, at_ms, values, sampled=sampled)
        if within == "job":
            apps, times_ms = self._rehearsal.applications, self._rehearsal.times_ms
            mine, *others = (
                sum(
                    apps[other].job_id == apps[number].job_id and time_ms > times_ms[number]
                    for other, time_ms in self.answers
                )
                for number in numbers
            )
            self.aucs.append(
                float(np.mean([(mine < each) + (mine == each) / 2 for each in others]))
            )


def test_answers_to_later_applicants_count_as_of_the_decision(small: Rehearsal) -> None:
    """A landmark that goes by these alone ranks as a count over all labels until then does."""
    by_hand = ByHand(small, WINDOW_MS, FROM_MS)
    by_hand.aucs, by_hand.answers = [], []
    rehearse(small, Policy(), watch=by_hand)
    found = watched(small, FEWEST_SINCE).rankings()
    assert found is not None
    assert found.decisions == len(by_hand.aucs) > 50
    assert found.orders["landmark"]["auc"].value == pytest.approx(np.mean(by_hand.aucs))


@pytest.mark.parametrize("reference", ["at once", "weekly", "final"])
def test_who_waits_is_judged_where_labels_are_learned_as_they_are_known(
    lines: list[LogLine], reference: str
) -> None:
    """Without a model the delays alone tell; a reference that waits for labels tells nothing."""
    settings = [{"name": "at once"}, {"name": "weekly", "refresh": "weekly"},
                {"name": "final", "learn": "final"}]  # fmt: skip
    comparison = parse_comparison({"reference": reference, "setting": settings}, Policy())
    found = Runner(
        read=lambda: lines, names=["log"], span=look_through(lines), comparison=comparison,
        policy=Policy(), model=None, score_from_ms=FROM_MS,
    ).run()  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(found), type=Backtest) == found
    assert found.rankings is not None
    assert ("delays" in found.rankings.orders) == bool(found.waiting) == (reference == "at once")
    assert "landmark" not in found.rankings.orders
    for at in found.waiting:
        assert [*at.observed_over_expected] == ["delays"]
        ratio = at.observed_over_expected["delays"]
        assert ratio.low is not None
        assert ratio.low <= ratio.value <= (ratio.high or 0.0)
