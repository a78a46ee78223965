"""The newest decisions of a partition, through flushes, crashes and restarts."""

from __future__ import annotations

import random

import pytest

from stream.errors import StateError
from stream.quality.newest import CHUNK, CHUNKS, NewestDecisions
from stream.quality.ranking import ROW_BYTES
from stream.state import keys
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore


def test_the_newest_are_kept() -> None:
    """As many as are said, in order, as of the last flush where it was thrown away since."""
    rng = random.Random(1)
    store = MemoryStore()
    overlay = Overlay(store)
    newest = NewestDecisions(overlay)
    rows: list[bytes] = []
    safe = 0
    for number in range(3000):
        rows.append(number.to_bytes(ROW_BYTES, "big"))
        newest.add(rows[-1])
        if rng.random() < 0.1:
            overlay.flush()
            safe = len(rows)
        if rng.random() < 0.02:
            del rows[safe:]
            if rng.random() < 0.5:
                overlay.discard()
            else:
                overlay = Overlay(store)
                newest = NewestDecisions(overlay)
        found = bytes(newest.decisions.rows)
        count = len(found) // ROW_BYTES
        assert count >= min(len(rows), CHUNK * (CHUNKS - 1) + 1)
        assert count <= CHUNK * CHUNKS
        assert found == b"".join(rows[len(rows) - count :])
    newest.clear()
    overlay.flush()
    assert not list(store.scan(keys.DECISIONS, keys.after(keys.DECISIONS)))
    assert not len(newest.decisions)


def test_damaged_decisions_are_refused() -> None:
    """Half a decision is an error, not another figure."""
    store = MemoryStore()
    overlay = Overlay(store)
    NewestDecisions(overlay).add(bytes(ROW_BYTES))
    overlay.flush()
    ((key, value),) = store.scan(keys.DECISIONS, keys.after(keys.DECISIONS))
    store.write({key: value[:2] + bytes([value[2] - 1]) + value[3:-1]})
    with pytest.raises(StateError):
        NewestDecisions(Overlay(store))
