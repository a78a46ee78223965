"""Copies of others' partitions: whatever a broker says of them, the worker goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
from confluent_kafka import KafkaError
from prometheus_client import CollectorRegistry

from stream.errors import DamagedStateError
from stream.kafka.reader import Chunk
from stream.metrics.worker import WorkerMetrics
from stream.policy import Policy
from stream.state.store import RocksStore, Writes
from stream.worker import standby
from stream.worker.changelog import MARK
from stream.worker.data_folder import DataFolder
from stream.worker.settings import Resources, WorkerSettings
from stream.worker.standby import Standbys
from tests.kit import NOW_MS, model

TOPIC = "test-job-changelog"


class Script:
    """A reader that is told what to give, poll by poll, and what it was asked for."""

    polls: ClassVar[list[list[Chunk]]]
    followed: ClassVar[list[tuple[str, int, int]]]

    def __init__(self, broker: str, *more: Any) -> None:
        del broker, more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def span(self, topic: str, partition: int) -> tuple[int, int]:
        """Nothing is missing."""
        del topic, partition
        return 0, 100

    def follow(self, topic: str, partition: int, offset: int = 0) -> None:
        """Note it."""
        self.followed.append((topic, partition, offset))

    def leave(self, topic: str, partition: int) -> None:
        """Nothing."""

    def poll(self, wait_s: float) -> list[Chunk]:
        """Give what comes next."""
        time.sleep(min(wait_s, 0.02))
        return self.polls.pop(0) if self.polls else []


@pytest.fixture
def standbys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standbys]:
    """Standbys with a script for a reader."""
    monkeypatch.setattr(standby, "Reader", Script)
    monkeypatch.setattr(standby, "ids_of_topics", lambda *_: {})
    monkeypatch.setattr(standby, "_AGAIN_S", 0.3)
    Script.followed = []
    data = DataFolder(tmp_path / "data", "test")
    made = Standbys(
        Resources(
            settings=WorkerSettings(
                broker="none", application_id="test", data_dir=tmp_path, partitions=1
            ),
            model=model(),
            policy=Policy(),
            data=data,
            metrics=WorkerMetrics(CollectorRegistry(), "v"),
            now_ms=lambda: NOW_MS,
        )
    )
    made.data = data  # type: ignore[attr-defined]
    yield made
    made.stop()
    data.release()


def records(first: int, *, at_end: bool = False) -> Chunk:
    """Two records of the changelog."""
    found: list[tuple[int, bytes, bytes | None]] = [
        (offset, b"k%d" % offset, b"v") for offset in (first, first + 1)
    ]
    return Chunk(TOPIC, 0, found, first + 2, at_end)


def lost(code: int) -> Chunk:
    """What comes where the position is gone."""
    return Chunk(TOPIC, 0, error=KafkaError(code))


def until_followed(times: int) -> None:
    """Wait for a copy to be begun for the so-many-th time, and for the script's end."""
    deadline = time.monotonic() + 10
    while (len(Script.followed) < times or Script.polls) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(Script.followed) == times
    assert not Script.polls


def test_errors_that_follow_each_other_stop_nothing(standbys: Standbys) -> None:
    """What still comes of a copy that was left is passed over, and the copy is begun again."""
    failed: list[Exception] = []
    Script.polls = [
        [records(0)],
        [lost(KafkaError._AUTO_OFFSET_RESET), lost(KafkaError.UNKNOWN_TOPIC_OR_PART)],
        [records(2), lost(KafkaError._AUTO_OFFSET_RESET), Chunk("", 0, error=KafkaError(-195))],
        *[[]] * 20,
        [records(2, at_end=True)],
    ]
    standbys.follow([("job", 0)], failed.append)
    until_followed(2)
    standbys.stop()
    assert not failed
    assert Script.followed == [(TOPIC, 0, 0), (TOPIC, 0, 2)]
    store = standbys.data.store(("job", 0))  # type: ignore[attr-defined]
    assert {key for key, _ in store.scan(b"\x00", b"\xff")} == {b"k0", b"k1", b"k2", b"k3", MARK}


def test_a_copy_that_is_found_damaged_is_begun_again(
    standbys: Standbys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is put aside, and the worker goes on."""
    failed: list[Exception] = []
    write, broken = RocksStore.write, threading.Event()

    def fail_once(self: RocksStore, writes: Writes, *, logged: bool = True) -> None:
        if not broken.is_set():
            broken.set()
            raise DamagedStateError("a block is damaged")
        write(self, writes, logged=logged)

    monkeypatch.setattr(RocksStore, "write", fail_once)
    Script.polls = [[records(0)], *[[]] * 20, [records(0, at_end=True)]]
    standbys.follow([("job", 0)], failed.append)
    until_followed(2)
    standbys.stop()
    assert not failed
    data: DataFolder = standbys.data  # type: ignore[attr-defined]
    assert data.damaged_stores == 1
    assert data.store(("job", 0)).get(b"k1") == b"v"


@pytest.mark.parametrize(
    "code", [KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED]
)
def test_records_that_cannot_be_read_leave_no_hole(
    standbys: Standbys, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What came behind them is not applied: the copy is begun again where it stood."""
    failed: list[Exception] = []
    behind = records(4, at_end=True)
    behind.error = KafkaError(code)
    Script.polls = [[records(0)], [behind], *[[]] * 20, [records(2)], [records(4, at_end=True)]]
    standbys.follow([("job", 0)], failed.append)
    until_followed(2)
    standbys.stop()
    assert not failed
    assert Script.followed == [(TOPIC, 0, 0), (TOPIC, 0, 2)]
    store = standbys.data.store(("job", 0))  # type: ignore[attr-defined]
    wanted = {b"k%d" % at for at in range(6)} | {MARK}
    assert {key for key, _ in store.scan(b"\x00", b"\xff")} == wanted
    assert "job-0 is not kept as a standby" in caplog.text


def test_a_copy_that_is_found_damaged_while_nothing_comes_is_begun_again(
    standbys: Standbys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of itself now and then is a write too; the others and the worker go on."""
    failed: list[Exception] = []
    write, broken = RocksStore.write, threading.Event()

    def fail_once(self: RocksStore, writes: Writes, *, logged: bool = True) -> None:
        if set(writes) == {MARK} and not broken.is_set():
            broken.set()
            raise DamagedStateError("a block is damaged")
        write(self, writes, logged=logged)

    monkeypatch.setattr(RocksStore, "write", fail_once)
    monkeypatch.setattr(standby, "_FRESH_S", 0.01)
    whole = records(0, at_end=True)
    whole.next = 100  # the end
    Script.polls = [[whole], *[[]] * 20, [records(0, at_end=True)]]
    standbys.follow([("job", 0)], failed.append)
    until_followed(2)
    standbys.stop()
    assert not failed
    assert Script.followed == [(TOPIC, 0, 0), (TOPIC, 0, 0)]
    data: DataFolder = standbys.data  # type: ignore[attr-defined]
    assert data.damaged_stores == 1
    assert data.store(("job", 0)).get(b"k1") == b"v"
