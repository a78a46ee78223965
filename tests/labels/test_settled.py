"""What evidence has settled is a union of ranges, each part with evidence that covers it."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from stream.labels import settled as module
from stream.labels.settled import added, found, since, with_stretch
from stream.state.facts import NOTHING, Settled, Stretch

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
def test_joining_stretches_settles_nothing_else(ranges: list[tuple[int, int]]) -> None:
    """Where there are too many stretches and neighbours are joined, the union stays the same."""
    with patch.object(module, "MOST_STRETCHES", 4):
        settled, covering = union(ranges)
    gaps = sum(1 for t in covering if t - 1 not in covering)
    assert len(settled) <= max(4, gaps)
    assert [t for t in TIMES if found(settled, t)] == sorted(t for t in covering if t in TIMES)


@given(RANGES, st.integers(-10, 100))
def test_what_is_over_is_dropped(ranges: list[tuple[int, int]], first: int) -> None:
    """Dropping what ends before a time leaves every later time as it was."""
    settled, covering = union(ranges)
    kept = since(settled, first)
    assert all(stretch.last_ms >= first for stretch in kept)
    for t in range(first, 100):
        assert (found(kept, t) is not None) == (t in covering)
