"""What is held of a changelog while it is read is bounded, whatever its records are like."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from stream.errors import InterruptedSessionError
from stream.kafka.reader import Chunk
from stream.state.store import MemoryStore, Writes
from stream.worker import changelog as module
from stream.worker.changelog import CHUNK_BYTES, MARK, MARKS, Changelog
from stream.worker.settings import Turns

COUNT = 60_000
AT_ONCE = 2_000


class Long:
    """A reader of a long changelog."""

    value: bytes | None = None

    def __init__(self, broker: str, *more: Any) -> None:
        del broker, more

    def __enter__(self) -> Long:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def span(self, topic: str, partition: int) -> tuple[int, int]:
        """All of it."""
        del topic, partition
        return 0, COUNT

    def to_end(self, topic: str, partition: int, *_: int, **more: Any) -> Iterator[Chunk]:
        """Give other keys all the time."""
        del more
        for first in range(0, COUNT, AT_ONCE):
            records = [
                (at, b"%0100d" % at, self.value and self.value + b"%d" % at)
                for at in range(first, first + AT_ONCE)
            ]
            end = first + AT_ONCE
            yield Chunk(topic, partition, records, end, at_end=end == COUNT)


class Sieve(MemoryStore):
    """A store that keeps only how far it is, and counts the rest."""

    count = 0

    def write(self, writes: Writes, *, logged: bool = True) -> None:
        """Keep the mark."""
        self.count += len(writes) - 1
        super().write({MARK: writes[MARK]}, logged=logged)

    def flush(self) -> None:
        """Nothing is held back."""


@pytest.mark.parametrize("value", [None, b"", b"v" * 10, b"v" * 1_000])
def test_a_recovery_holds_what_it_may(monkeypatch: pytest.MonkeyPatch, value: bytes | None) -> None:
    """Tombstones, keys without a value, and small values take memory as large ones do."""
    monkeypatch.setattr(module, "Reader", Long)
    monkeypatch.setattr(Long, "value", value)
    store = Sieve()
    tracemalloc.start()
    try:
        Changelog("none", "test", ("job", 0)).bring_up(
            store, renew=lambda: store, go_on=lambda: True, now_ms=lambda: 0
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert store.count == COUNT
    mark = store.get(MARK)
    assert mark is not None
    assert MARKS.decode(mark).offset == COUNT
    read = AT_ONCE * (len(value or b"") + 400)  # two polls at once, for a moment
    assert peak < CHUNK_BYTES + 2 * read


def test_so_many_at_a_time() -> None:
    """Whoever waits for a turn gives up when a rebalance begins, and has it when one is free."""
    turns = Turns(2)
    done: list[str] = []
    going = threading.Event()

    def wait(name: str) -> None:
        with turns.take(lambda: True):
            done.append(name)

    with turns.take(lambda: True), turns.take(lambda: True):
        with pytest.raises(InterruptedSessionError), turns.take(going.is_set):
            pass
        waiting = threading.Thread(target=wait, args=["third"])
        waiting.start()
        assert not done
    waiting.join(5)
    assert done == ["third"]
