"""Deadlines come out in order of time, whatever part of them is in memory."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from stream.state import deadlines
from stream.state.deadlines import DeadlineQueue
from stream.state.facts import Deadline
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
@example([("add", 0), ("add", 0), ("add", 1), ("flush", 0), ("move", 1), ("restart", 0)])
def test_due_gives_all_that_lies_strictly_before(steps: list[tuple[str, int]]) -> None:
    """The queue equals a sorted list, over flushes and restarts, with tiny blocks."""
    store = MemoryStore()
    overlay = Overlay(store)
    with patch.object(deadlines, "RUN", 3), patch.object(deadlines, "_AHEAD", 2):
        queue = DeadlineQueue(overlay)
        waiting: list[int] = []
        watermark_ms = 0
        for number, (step, time_ms) in enumerate(steps):
            if step == "add":
                at_ms = max(time_ms, watermark_ms)
                queue.add(Deadline(at_ms, 1, "j", str(number)))
                waiting.append(at_ms)
            elif step == "move":
                watermark_ms = max(time_ms, watermark_ms)
                due = [deadline.at_ms for deadline in queue.due(watermark_ms)]
                assert due == sorted(at for at in waiting if at < watermark_ms)
                waiting = [at for at in waiting if at >= watermark_ms]
            else:
                overlay.flush()
                if step == "restart":
                    overlay = Overlay(store)
                    queue = DeadlineQueue(overlay)
        overlay.flush()
        assert len(list(queue.due(1000))) == len(waiting)
        overlay.flush()
        assert not list(store.scan(b"", b"\xff"))


@given(st.lists(st.integers(0, 40), max_size=30), st.data())
def test_a_crash_among_what_is_due_repeats_and_loses_nothing(
    times: list[int], data: st.DataObject
) -> None:
    """Taken out and flushed is taken out; taken out and not flushed comes again."""
    store = MemoryStore()
    with patch.object(deadlines, "RUN", 3), patch.object(deadlines, "_AHEAD", 2):
        overlay = Overlay(store)
        queue = DeadlineQueue(overlay)
        for number, time_ms in enumerate(times):
            queue.add(Deadline(time_ms, 1, "j", str(number)))
            if data.draw(st.booleans()):
                overlay.flush()
        overlay.flush()
        taken: list[int] = []
        flushed = 0
        while len(taken) < len(times):
            for deadline in queue.due(50):
                taken.append(deadline.at_ms)
                match data.draw(st.sampled_from(["go on", "flush", "crash", "discard"])):
                    case "flush":
                        overlay.flush()
                        flushed = len(taken)
                    case "crash":
                        overlay = Overlay(store)
                        queue = DeadlineQueue(overlay)
                        del taken[flushed:]
                        break
                    case "discard":
                        overlay.discard()
                        del taken[flushed:]
                        break
        assert taken == sorted(times)


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
