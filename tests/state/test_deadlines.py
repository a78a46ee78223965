"""Deadlines come out in order of time, whatever part of them is in memory."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from stream.labels.facts import Deadline
from stream.state import deadlines
from stream.state.deadlines import DeadlineQueue
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 40)),
            st.tuples(st.just("move"), st.integers(0, 45)),
            st.tuples(st.sampled_from(["flush", "restart"]), st.just(0)),
        ),
        max_size=60,
    )
)
def test_due_gives_all_that_lies_strictly_before(steps: list[tuple[str, int]]) -> None:
    """The queue equals a sorted list, over flushes and restarts, with tiny blocks."""
    store = MemoryStore()
    overlay = Overlay(store)
    with patch.object(deadlines, "_BLOCK", 2), patch.object(deadlines, "_MOST", 4):
        queue = DeadlineQueue(overlay)
        waiting: list[int] = []
        for number, (step, time_ms) in enumerate(steps):
            if step == "add":
                queue.add(Deadline(time_ms, 1, "j", str(number)))
                waiting.append(time_ms)
            elif step == "move":
                due = [deadline.at_ms for deadline in queue.due(time_ms)]
                assert due == sorted(at for at in waiting if at < time_ms)
                waiting = [at for at in waiting if at >= time_ms]
            else:
                overlay.flush()
                if step == "restart":
                    queue = DeadlineQueue(overlay)
        overlay.flush()
        assert len(list(store.scan(b"", b"\xff"))) == len(waiting)


def test_an_equal_deadline_counts_once() -> None:
    """Entering the same deadline twice gives it out once."""
    overlay = Overlay(MemoryStore())
    queue = DeadlineQueue(overlay)
    assert list(queue.due(100)) == []
    queue.add(Deadline(5, 1, "j"))
    queue.add(Deadline(5, 1, "j"))
    assert len(list(queue.due(6))) == 1


def test_a_discard_takes_the_heap_back() -> None:
    """Deadlines added since the last flush are gone after a discard, taken ones are back."""
    overlay = Overlay(MemoryStore())
    queue = DeadlineQueue(overlay)
    queue.add(Deadline(5, 1, "j", "kept"))
    overlay.flush()
    assert [deadline.subject for deadline in queue.due(6)] == ["kept"]
    queue.add(Deadline(4, 1, "j", "gone"))
    overlay.discard()
    assert [deadline.subject for deadline in queue.due(6)] == ["kept"]
