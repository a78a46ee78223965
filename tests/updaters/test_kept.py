"""Kept examples: in order, whatever the order in which they come, and column by column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.updaters.kept import Example, Kept


def example(
    time_ms: int, identity: str, kind: int = 1, d: int = 2, *, final: bool = False
) -> Example:
    """Make an example whose numbers follow from its time."""
    z = bytes((time_ms + n) % 256 for n in range(4 * d))
    return Example(time_ms, identity, kind, final, 1.0 + time_ms, -0.5 * time_ms, z)


SIZES = st.integers(0, 3)
PLACES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abcde")), unique=True, max_size=12)


@given(PLACES, SIZES)
def test_they_are_ordered_by_time_and_id(places: list[tuple[int, str]], d: int) -> None:
    """Each goes where it belongs, and is found there as it was."""
    kept = Kept.of([])
    for time_ms, identity in places:
        at, there = kept.place(example(time_ms, identity, d=d))
        assert not there
        kept.insert(at, example(time_ms, identity, d=d))
    wanted = [example(time_ms, identity, d=d) for time_ms, identity in sorted(places)]
    assert list(kept) == wanted
    assert kept == Kept.of(wanted)
    for at, found in enumerate(wanted):
        assert kept.place(found) == (at, True)
        assert (kept.kind(at), kept.rung(at)) == (found.kind, found.rung)


@given(PLACES, st.data(), SIZES)
def test_one_is_replaced_and_some_are_taken(
    places: list[tuple[int, str]], data: st.DataObject, d: int
) -> None:
    """Of the others nothing changes."""
    wanted = [example(time_ms, identity, d=d) for time_ms, identity in sorted(places)]
    kept = Kept.of(wanted)
    if wanted:
        at = data.draw(st.integers(0, len(wanted) - 1))
        wanted[at] = example(wanted[at].time_ms, wanted[at].id, 4, d, final=True)
        kept.replace(at, wanted[at])
        assert (kept.kind(at), kept.rung(at)) == (4, wanted[at].rung)
    assert list(kept) == wanted
    chosen = sorted(
        data.draw(st.sets(st.integers(0, max(len(wanted) - 1, 0)), max_size=len(wanted)))
    )
    assert list(kept.take(chosen)) == [wanted[at] for at in chosen]
    assert kept.places(final=True) == [at for at, each in enumerate(wanted) if each.final]
    assert kept.places(final=False) == [at for at, each in enumerate(wanted) if not each.final]
    for final in (False, True):
        assert kept.count(final=final) == sum(each.final is final for each in wanted)


def test_a_place_counts_as_in_a_list() -> None:
    """From the end too; and what is not there is an error."""
    kept = Kept.of([example(1, "a"), example(2, "b")])
    assert kept[-1] == kept[1] == example(2, "b")
    with pytest.raises(IndexError):
        kept[2]
    with pytest.raises(IndexError):
        Kept.of([])[0]
