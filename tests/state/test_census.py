"""The counts of what is kept: exact, undone with their unit of work, there after a restart."""

from __future__ import annotations

from stream.policy import DAY_MS, HOUR_MS, LabelPolicy, Policy
from stream.state.census import Census
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from tests.kit import Market, application, engagement


def test_counts_follow_what_comes_and_goes() -> None:
    """Pending, orphans and entities after each step, also of a partition started anew."""
    market = Market(Policy(labels=LabelPolicy(aging=())), 1)

    def counts(stage: str = "job") -> tuple[int, int, int]:
        found = market.partitions[stage, 0].learning.census.counts
        return found.pending, found.orphans, found.entities

    market.produce([application("a", 0), application("b", 1), engagement("o", "late", 2 * HOUR_MS)])
    market.run()
    assert counts() == (2, 1, 0)
    market.produce([application("late", HOUR_MS)])
    market.run()
    assert counts() == (0, 0, 1)  # the orphan answered it, which settles those before it
    assert counts("member") == (0, 0, 3)
    market.restart("job", 0)
    assert counts() == (0, 0, 1)
    market.produce([application("c", 3 * HOUR_MS, job="k"), engagement("x", "y", 4 * HOUR_MS)])
    market.run()
    assert counts() == (1, 1, 1)
    market.produce([application("z", 30 * DAY_MS), engagement("w", "z", 30 * DAY_MS)])
    market.run()
    pending, orphans, entities = counts()
    assert (orphans, entities) == (0, 2)
    assert pending == 0


def test_a_discard_undoes_the_counts() -> None:
    """What is thrown away was never counted; what is flushed is there for the next."""
    store = MemoryStore()
    overlay = Overlay(store)
    census = Census(overlay)
    census.pending(2)
    overlay.flush()
    census.pending(5)
    census.entities(1)
    overlay.discard()
    assert census.counts.pending == 2
    assert census.counts.entities == 0
    census.pending(-3)
    assert census.counts.pending == 0
    assert Census(Overlay(store)).counts.pending == 2
    overlay.flush()
    assert not list(store.scan(b"", b"\xff"))
