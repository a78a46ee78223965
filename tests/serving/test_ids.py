"""Slots by id, against a dictionary."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.serving import ids as ids_module
from stream.serving.ids import Ids

_STRANGE = ["", "\0", "\0\0", "a", "a\0", "a\0b", "b", "ab", "ä€😀", "d" * 10_000, "0" * 255, " a"]
_ID = st.one_of(st.sampled_from(_STRANGE), st.text(max_size=3), st.integers(0, 300).map(str))
_STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "remove"]), st.lists(_ID, max_size=40, unique=True)),
    max_size=12,
)


class Model:
    """Ids, and a dictionary that is given the same."""

    def __init__(self) -> None:
        self.ids = Ids(1)
        self.slots: dict[str, int] = {}
        self.rows = 1

    def put(self, given: list[str]) -> None:
        """Enter those that are new."""
        new = [each for each in given if each not in self.slots]
        slots = np.arange(self.rows, self.rows + len(new))
        self.rows += len(new)
        self.ids = self.ids.grown(self.rows, len(new), sum(len(each.encode()) for each in new))
        self.ids.add(new, slots)
        self.slots.update(zip(new, slots.tolist(), strict=True))

    def remove(self, given: list[str]) -> None:
        """Forget each, known or not."""
        for each in given:
            assert self.ids.remove(each) == self.slots.pop(each, 0)

    def check(self, asked: list[str]) -> None:
        """Compare what both have."""
        wanted = [self.slots.get(each, 0) for each in asked]
        assert self.ids.find(asked).tolist() == wanted
        assert [self.ids.find([each]).item() for each in asked[:5]] == wanted[:5]
        assert len(self.ids) == len(self.slots)
        slots = self.ids.slots
        in_order = sorted(self.slots, key=self.slots.__getitem__)
        assert slots.tolist() == [self.slots[each] for each in in_order]
        assert self.ids.text(slots) == "".join(in_order).encode()
        assert self.ids.lengths(slots).tolist() == [len(each.encode()) for each in in_order]


@pytest.mark.parametrize("bits", [31, 8, 0])
@given(steps=_STEPS, asked=st.lists(_ID, max_size=60))
def test_slots_are_those_of_a_dictionary(
    bits: int, steps: list[tuple[str, list[str]]], asked: list[str]
) -> None:
    """Whatever comes and goes, in any order, and however many ids have the same hash."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids_module, "_HASHED", (1 << bits) - 1)
        model = Model()
        for what, given_ids in steps:
            (model.put if what == "put" else model.remove)(given_ids)
            model.check(asked + given_ids)
        model.check([*asked, *_STRANGE, *model.slots])


def test_what_is_no_text_is_not_known() -> None:
    """A lone surrogate has no bytes in UTF-8, so no message can have brought it."""
    model = Model()
    model.put(["?", "a", "\ufffd"])
    model.check(["\ud800"])
    model.check(["a", "\ud800", "?", "a\udcff", "\ufffd", "b"])


def test_ids_that_come_and_go_leave_no_room_behind() -> None:
    """Of twenty thousand that came and went, no more is kept than of the hundred that are there."""
    model = Model()
    for turn in range(200):
        model.rows = 1
        model.put([f"{turn}-{number}" * (1 + turn % 7) for number in range(100)])
        if turn < 199:
            model.remove(list(model.slots))
    model.check([*model.slots, "0-0", "nobody"])
    assert len(model.ids._text) < 50_000


def test_ids_take_a_third_of_a_dictionarys_memory() -> None:
    """And of all orders of size the same."""
    for count in (5_000, 20_000):
        names = [f"m{number:07d}" for number in range(count)]
        tracemalloc.start()
        model = Ids(count + 1).grown(count + 1, count, 8 * count)
        model.add(names, np.arange(1, count + 1))
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert model.find(names).tolist() == list(range(1, count + 1))
        assert taken < 60 * count
