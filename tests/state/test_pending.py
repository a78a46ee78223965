"""Pending applications of a job are a sorted list, whatever part of it is in memory."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from stream.state import pending
from stream.state.census import Census
from stream.state.overlay import Overlay
from stream.state.pending import PendingApplications
from stream.state.store import MemoryStore
from tests.conftest import thorough

JOBS = ("j", "jj")
ENTRIES = st.tuples(st.sampled_from(JOBS), st.integers(0, 12), st.sampled_from("abc"))
STEPS = st.one_of(
    st.tuples(st.sampled_from(["add", "remove"]), ENTRIES),
    st.tuples(st.sampled_from(["flush", "restart", "discard"]), st.none()),
)


@thorough
@given(st.lists(STEPS, max_size=80), st.integers(0, 12), st.integers(0, 12))
@example([("add", ("j", 3, "a")), ("remove", ("j", 3, "a")), ("add", ("j", 0, "a"))], 0, 5)
def test_ranges_equal_those_of_a_sorted_list(
    steps: list[tuple[str, tuple[str, int, str] | None]], first_ms: int, last_ms: int
) -> None:
    """Over flushes, restarts and discards, with little in memory; nothing stays behind."""
    store = MemoryStore()
    overlay = Overlay(store)
    with patch.object(pending, "PART", 2), patch.object(pending, "_MOST_KEPT", 6):
        book = PendingApplications(overlay, Census(overlay))
        model: set[tuple[str, int, str]] = set()
        flushed: set[tuple[str, int, str]] = set()
        for step, entry in steps:
            if entry is not None and (step == "add") == (entry in model):
                continue  # the machine enters what is not there, and strikes what is
            if entry is not None:
                getattr(book, step)(*entry)
                (model.add if step == "add" else model.discard)(entry)
            elif step == "discard":
                overlay.discard()
                model = set(flushed)
            else:
                overlay.flush()
                flushed = set(model)
                if step == "restart":
                    overlay = Overlay(store)
                    book = PendingApplications(overlay, Census(overlay))
        for job in JOBS:
            expected = [
                name for which, at, name in sorted(model)
                if which == job and first_ms <= at <= last_ms
            ]  # fmt: skip
            assert list(book.between(job, first_ms, last_ms)) == expected
        for entry in model:
            book.remove(*entry)
        overlay.flush()
        assert not list(store.scan(b"", b"\xff"))


@given(st.lists(ENTRIES, max_size=40, unique=True), st.data())
def test_what_was_given_may_be_struck_and_flushed_before_the_next(
    entries: list[tuple[str, int, str]], data: st.DataObject
) -> None:
    """Striking what comes out, with flushes between, still gives each one once, in order."""
    overlay = Overlay(MemoryStore())
    with patch.object(pending, "PART", 2), patch.object(pending, "_MOST_KEPT", 6):
        book = PendingApplications(overlay, Census(overlay))
        for entry in entries:
            book.add(*entry)
        given_out = []
        left = sorted((at, name) for job, at, name in entries if job == "j")
        for name in book.between("j", 0, 100):
            at = next(at for at, other in left if other == name)
            left.remove((at, name))
            given_out.append((at, name))
            if data.draw(st.booleans()):
                book.remove("j", at, name)
            if data.draw(st.booleans()):
                overlay.flush()
        assert given_out == sorted(given_out)
        assert not left
