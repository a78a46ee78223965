"""Progress: what earlier releases stored of it is still read."""

from __future__ import annotations

import msgspec

from stream.partitions.clock import Channel, EventTime
from stream.partitions.progress import Progress, load_progress
from stream.state import keys
from stream.state.store import MemoryStore


def test_a_progress_with_the_largest_time_is_read() -> None:
    """Earlier releases stored the largest time read as well; nothing ever used it."""
    store = MemoryStore()
    stored = [{"applications": 7}, [[10, None], [False, True], 10], 99]
    store.write({keys.own("progress"): msgspec.msgpack.encode(stored)})
    event_time = EventTime([Channel(10, 10), Channel()], 10)
    assert load_progress(store) == Progress(positions={"applications": 7}, event_time=event_time)
