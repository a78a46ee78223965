"""What counts as idle, by what the broker has said and when."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from faust.types import TP

from stream.worker import host as host_module
from stream.worker.contract import InputPartition
from stream.worker.fetching import AnswerAges
from stream.worker.host import Host
from tests.worker.bench import ALL, Bench, run

PLACE = TP("applications", 0)


def test_the_age_of_an_answer_does_not_depend_on_the_wall_clock_being_set() -> None:
    """An old answer is never fresh again, and one from the future says nothing."""
    ages = AnswerAges()
    assert ages.age_s(PLACE, None, 1_000.0, 5.0) is None
    assert ages.age_s(PLACE, 1_000_000, 1_002.0, 5.0) == 2.0
    assert ages.age_s(PLACE, 1_000_000, 1_003.0, 65.0) == 60.0  # set back by a minute
    assert ages.age_s(PLACE, 1_000_000, 900.0, 66.0) is None
    assert ages.age_s(PLACE, 1_000_000, 9_000.0, 67.0) == 8_000.0  # set forward
    assert ages.age_s(PLACE, 9_001_000, 9_001.5, 68.0) == 0.5
    assert ages.age_s(TP("applications", 1), 9_001_000, 9_001.5, 99.0) == 0.5


class _Told:
    """A host whose input's end is what the test says."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.position, self.end = 0, 0
        self.age_s: float | None = 0.0
        monkeypatch.setattr(bench.group, "positions", lambda: dict.fromkeys(ALL, self.position))
        monkeypatch.setattr(bench.group, "high_watermark", self._end)
        monkeypatch.setattr(bench.group, "answer_age_s", lambda _: self.age_s)

    def _end(self, _: InputPartition) -> int:
        return self.end


async def _tick(host: Host, at: float, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let a host look at a time; say whether its member partition has settled since."""
    owned = host._owned["member", 0]
    assert owned.session is not None
    with monkeypatch.context() as patch:
        patch.setattr(host_module, "time", _Clock(lambda: at))
        await host._tick(owned, host._membership.positions())
    return owned.session.partition.clock.is_settled(round(at * 1000))


class _Clock:
    """A module ``time`` whose monotonic clock is the test's."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self.time = time.time


def test_a_partition_is_at_its_end_only_by_answers_that_are_fresh_and_looked_at_all_the_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Being behind for a moment changes nothing; an old answer or a frozen worker begins anew."""
    told = _Told(bench, monkeypatch)

    async def scenario(host: Host) -> None:
        await host.assigned(ALL)
        seen: list[int] = []
        for second in range(60):
            told.end = int(second % 5 == 2)
            told.age_s = 11.0 if second == 20 else 0.1
            at = 1e6 + second + (12 if second >= 40 else 0)
            if await _tick(host, at, monkeypatch):
                seen.append(second)
        settled = [*range(10, 20), *range(31, 40), *range(51, 60)]
        assert seen == [second for second in settled if second % 5 != 2]

    run(bench, scenario)
