"""A store whose files were damaged is recognised, or is as it was after one of its writes."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from stream.errors import DamagedStateError, StateError
from stream.state.store import RocksStore, Writes

WRITES = 240
MARK = b"mark"
Damage = Callable[[bytes], bytes]


class Killed(NamedTuple):
    """A store as a killed process has left it, and what it held after each of its writes."""

    path: Path
    states: list[dict[bytes, bytes]]


def write(number: int) -> Writes:
    """A write that changes, adds and deletes keys all over, and says that it was."""
    dice = Random(number)
    values: dict[bytes, bytes | None] = {
        b"k%04d" % dice.randrange(400): dice.randbytes(30) for _ in range(5)
    }
    values[b"d%04d" % (number % 50)] = None if number % 3 == 0 else b"%d" % number
    return {**values, MARK: b"%d" % number}


def killed(path: Path, unlogged: int) -> Killed:
    """Write a store, the first writes without a log as a recovery does, and copy it while open."""
    store = RocksStore(path / "open")
    states: list[dict[bytes, bytes]] = [{}]
    for number in range(WRITES):
        store.write(write(number), logged=number >= unlogged)
        now = {**states[-1], **write(number)}
        states.append({key: value for key, value in now.items() if value is not None})
        if number + 1 in {100, unlogged or 200}:
            store.flush()  # four tables would be joined meanwhile, and that may fail for a second
    shutil.copytree(path / "open", path / "killed")
    store.close()
    return Killed(path / "killed", states)


@pytest.fixture(scope="module", params=[0, 200], ids=["logged", "first without a log"])
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Stores with several tables and a log."""
    return killed(tmp_path_factory.mktemp("store"), request.param)


def found(path: Path, states: list[dict[bytes, bytes]]) -> int | None:
    """After how many writes a store is as it is; None: it is recognised as damaged."""
    try:
        store = RocksStore(path)
    except DamagedStateError:
        return None
    try:
        held = dict(store.scan(b"\x00", b"\xff"))
        count = int(held[MARK]) + 1 if MARK in held else 0
        assert held == states[count]
        for key in states[-1].keys() | {b"never"}:
            assert store.get(key) == held.get(key)
    except DamagedStateError:
        return None
    finally:
        store.close()
    return count


def damages(data: bytes, most: int) -> Iterator[Damage]:
    """Cut a file, flip a bit of it, put zeros in it, and lengthen it, here and there."""
    size, dice = len(data), Random(len(data))
    yield lambda data: data + b"\x00"
    yield lambda data: data + data[:40]
    if not size:
        return
    places = {0, 6, size - 53, size - 1} if most else {size // 2}
    places |= {dice.randrange(size) for _ in range(most)}
    for at in sorted(place for place in places if place >= 0):
        yield lambda data, at=at: data[:at]  # type: ignore[misc]
        flipped = data[at] ^ 1 << dice.randrange(8)
        yield lambda data, at=at, flipped=flipped: data[:at] + bytes([flipped]) + data[at + 1 :]  # type: ignore[misc]
        yield lambda data, at=at: data[:at] + bytes(len(data[at : at + 64])) + data[at + 64 :]  # type: ignore[misc]


MOST = {"*.sst": 16, "*.log": 8, "MANIFEST-*": 40, "CURRENT": 4, "[!MC]*[!tg]": 0}
"""Places that are damaged in all files of a kind, besides some; the last are those of no matter."""


@pytest.mark.parametrize("kind", MOST)
def test_no_damage_to_a_file_opens_with_a_hole(left: Killed, tmp_path: Path, kind: str) -> None:
    """Whatever is cut, flipped, zeroed, lengthened or removed; and nothing waits for ever."""
    files = sorted(left.path.glob(kind))
    assert files
    for file in files:
        data = file.read_bytes()
        for number, damage in enumerate(damages(data, MOST[kind] // len(files))):
            path = shutil.copytree(left.path, tmp_path / f"{file.name}-{number}")
            (path / file.name).write_bytes(damage(data))
            found(path, left.states)
            shutil.rmtree(path)
        path = shutil.copytree(left.path, tmp_path / file.name)
        (path / file.name).unlink()
        found(path, left.states)


def test_what_a_kill_leaves_is_no_damage(left: Killed, tmp_path: Path) -> None:
    """Every write is there, and a table that came to nothing is passed over."""
    assert found(shutil.copytree(left.path, tmp_path / "a"), left.states) == WRITES
    path = shutil.copytree(left.path, tmp_path / "b")
    table = next(path.glob("*.sst"))
    (path / "000999.sst").write_bytes(table.read_bytes())
    assert found(path, left.states) == WRITES


def test_a_manifest_that_ends_early_is_damage(left: Killed, tmp_path: Path) -> None:
    """Wherever it ends before its last table: the log's writes would follow on a hole."""
    (manifest,) = left.path.glob("MANIFEST-*")
    data = manifest.read_bytes()
    outcomes = []
    for at in range(0, len(data), 11):
        path = shutil.copytree(left.path, tmp_path / str(at))
        (path / manifest.name).write_bytes(data[:at])
        outcomes.append(found(path, left.states))
    assert set(outcomes[: len(outcomes) * 2 // 3]) == {None}
    assert set(outcomes) <= {None, WRITES}


def test_a_log_between_others_that_is_cut_is_damage_or_the_end(tmp_path: Path) -> None:
    """Two logs, as where a table was not finished when the process died."""
    path = tmp_path / "open"
    store = RocksStore(path)
    states: list[dict[bytes, bytes]] = [{}]

    def go_on(first: int, end: int) -> None:
        for number in range(first, end):
            store.write(write(number))
            now = {**states[-1], **write(number)}
            states.append({key: value for key, value in now.items() if value is not None})

    go_on(0, 50)
    whole = shutil.copytree(path, tmp_path / "whole")
    store.flush()
    go_on(50, 100)
    (first,) = whole.glob("*.log")
    (second,) = path.glob("*.log")
    shutil.copy(second, whole)
    store.close()
    assert found(shutil.copytree(whole, tmp_path / "copy"), states) == 100
    data = first.read_bytes()
    ends = {0, 7, 19, 20, len(data) // 2, len(data) - 1}
    at = 0
    for number in range(50):  # at the ends of records, where nothing looks cut
        at = data.index(b"%d" % number, data.index(MARK, at)) + len(b"%d" % number)
        ends |= {at}
    for end in sorted(ends - {len(data)}):
        cut = shutil.copytree(whole, tmp_path / f"cut-{end}")
        (cut / first.name).write_bytes(data[:end])
        assert found(cut, states) in {None, *range(51)}
    gone = shutil.copytree(whole, tmp_path / "gone")
    (gone / first.name).unlink()
    assert found(gone, states) is None


def test_a_folder_in_use_is_not_damaged(tmp_path: Path) -> None:
    """And a folder with a lock in its name, whose blocks are damaged, is not in use."""
    path = tmp_path / "blocks-of-a-lock"
    store = RocksStore(path)
    store.write({b"k": b"v" * 100})
    with pytest.raises(StateError, match="in use by another process") as caught:
        RocksStore(path)
    assert not isinstance(caught.value, DamagedStateError)
    store.close()
    (manifest,) = path.glob("MANIFEST-*")
    manifest.unlink()
    with pytest.raises(DamagedStateError, match="No such file"):
        RocksStore(path)


def test_what_the_machine_refuses_is_not_damage(tmp_path: Path) -> None:
    """A folder that cannot be read now is as good as it was."""
    path = tmp_path / "store"
    RocksStore(path).close()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(3):  # whichever file is the one too many
            os.close(taken.pop())
            with pytest.raises(StateError, match="Too many open files") as caught:
                RocksStore(path)
            assert not isinstance(caught.value, DamagedStateError)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for each in taken:
            os.close(each)
    RocksStore(path).close()


PREAD = "IO error: While pread offset 0 len 4096: /d/job-0/000012.sst: Input/output error"
APPEND = "IO error: While appending to file: /d/job-0/000013.log: Input/output error"
FULL = "IO error: While appending to file: /d/job-0/000013.log: No space left on device"
CHECKSUM = "Corruption: block checksum mismatch"


@pytest.mark.parametrize(
    ("status", "read", "written"),
    [(PREAD, True, True), (CHECKSUM, True, True), (APPEND, True, False), (FULL, False, False)],
)
def test_what_the_disk_cannot_read_is_damage(
    tmp_path: Path, status: str, read: bool, written: bool
) -> None:
    """Also where a write had to read; a disk that does not write would be rebuilt on for ever."""

    class Failing:
        """A database that answers with RocksDB's status."""

        def get(self, key: bytes) -> bytes:
            raise Exception(status)  # noqa: TRY002 - as rocksdict does

        def write(self, *_: object) -> None:
            raise Exception(status)  # noqa: TRY002

        def close(self) -> None:
            """Nothing."""

    store = RocksStore(tmp_path / "store")
    store._db.close()
    store._db = Failing()  # type: ignore[assignment]
    calls: list[tuple[bool, Callable[[], object]]] = [
        (read, lambda: store.get(b"k")),
        (written, lambda: store.write({})),
    ]
    for damage, call in calls:
        with pytest.raises(StateError, match=status.rpartition(": ")[2]) as caught:
            call()
        assert isinstance(caught.value, DamagedStateError) == damage
