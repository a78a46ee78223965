"""What evidence has settled is a union of ranges, each part with evidence that covers it."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from stream.labels import settled as module
from stream.labels.changes import Scores
from stream.labels.machine import LabelMachine
from stream.labels.settled import MOST_STRETCHES, added, found, since, with_stretch
from stream.policy import LabelPolicy
from stream.state import keys
from stream.state.facts import NOTHING, Settled, Stretch
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from stream.state.stored_facts import StoredFacts
from tests.kit import application, engagement, opcodes, source

RANGES = st.lists(st.tuples(st.integers(-5, 60), st.integers(0, 25)), max_size=25)
TIMES = range(-10, 100)


def union(ranges: list[tuple[int, int]]) -> tuple[Settled, dict[int, set[int]]]:
    """Add ranges one by one; return the union and who covers each time."""
    settled: Settled = NOTHING
    covering: dict[int, set[int]] = {}
    for number, (first, length) in enumerate(ranges):
        new = [t for t in range(first, first + length + 1) if t not in covering]
        gaps = added(settled, first, first + length)
        assert [t for a, b in gaps for t in range(a, b + 1)] == new
        if gaps:
            settled = with_stretch(settled, Stretch(first, first + length, number, "rule"))
        for t in range(first, first + length + 1):
            covering.setdefault(t, set()).add(number)
    return settled, covering


@given(RANGES)
def test_the_union_covers_what_was_added_with_evidence_that_does(
    ranges: list[tuple[int, int]],
) -> None:
    """A time is settled exactly if a range held it, and the evidence named is of such a range."""
    settled, covering = union(ranges)
    assert all(a.last_ms < b.first_ms for a, b in pairwise(settled))
    for t in TIMES:
        stretch = found(settled, t)
        assert (stretch is not None) == (t in covering)
        assert stretch is None or stretch.evidence_ms in covering[t]


@given(RANGES)
def test_there_are_never_too_many_stretches(ranges: list[tuple[int, int]]) -> None:
    """Neighbours are joined, then the oldest go: from the first that is kept on all is settled.

    Nothing is settled that no range held.
    """
    with patch.object(module, "MOST_STRETCHES", 4):
        settled: Settled = NOTHING
        everything: Settled = NOTHING
        covered: set[int] = set()
        most = 0  # parts that the covered times ever had
        for number, (first, length) in enumerate(ranges):
            new = Stretch(first, first + length, number, "rule")
            settled = with_stretch(settled, new)
            assert len(settled) <= 4
            covered |= set(range(first, first + length + 1))
            most = max(most, sum(1 for t in covered if t - 1 not in covered))
            assert {t for t in TIMES if found(settled, t)} <= covered
            with patch.object(module, "MOST_STRETCHES", 1_000):
                everything = with_stretch(everything, new)
    if most <= 2:  # never more than could be joined
        assert {t for t in TIMES if found(settled, t)} == covered
    for t in TIMES:
        if settled and t >= max(stretch.first_ms for stretch in settled):
            assert (found(settled, t) is None) == (found(everything, t) is None)


def test_late_answers_cost_what_early_ones_do() -> None:
    """Each of thousands, at the end of its window, takes as many steps; the value stays small."""
    count, some = 3_000, 20
    labels = LabelPolicy(window_ms=10_000_000, allowed_lateness_ms=10_000_000, aging=())
    overlay = Overlay(MemoryStore())
    machine = LabelMachine(labels, StoredFacts(overlay))

    def answer(first: int, end: int) -> None:
        for each in range(first, end):
            late = engagement(f"e{each}", f"a{each}", 9_990 + 100 * each + labels.window_ms)
            list(machine.apply(late, source(), None))

    for each in range(count):
        event = application(f"a{each}", 10_000 + 100 * each)
        list(machine.apply(event, source(), None, score=lambda _: Scores(0.0, 0.0, 0.0, None)))
    answer(0, 2 * MOST_STRETCHES)
    early = opcodes(lambda: answer(2 * MOST_STRETCHES, 2 * MOST_STRETCHES + some))
    answer(2 * MOST_STRETCHES + some, count - some)
    late = opcodes(lambda: answer(count - some, count))
    assert late < 1.1 * early
    overlay.flush()
    value = overlay.get(keys.SETTLED + b"j")
    assert value is not None
    assert len(value) < 40 * MOST_STRETCHES


@given(RANGES, st.integers(-10, 100))
def test_what_is_over_is_dropped(ranges: list[tuple[int, int]], first: int) -> None:
    """Dropping what ends before a time leaves every later time as it was."""
    settled, covering = union(ranges)
    kept = since(settled, first)
    assert all(stretch.last_ms >= first for stretch in kept)
    for t in range(first, 100):
        assert (found(kept, t) is not None) == (t in covering)
