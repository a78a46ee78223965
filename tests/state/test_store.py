"""Both stores and the overlay are the same ordered map."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import DamagedStateError, NotOpenError, StateError
from stream.state import keys
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore, RocksStore, Store


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Both stores in turn."""
    made: Store = MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "db")
    yield made
    made.close()


def test_batches_are_read_back(store: Store) -> None:
    """What a batch puts and deletes is what get and scan give."""
    store.write({b"pa": b"1", b"pb": b"2", b"pc": b"", b"q": b"4"})
    store.write({b"pb": None, b"missing": None})
    assert store.get(b"pa") == b"1"
    assert store.get(b"pb") is None
    assert store.get(b"pc") == b""
    assert list(store.scan(b"p", b"q")) == [(b"pa", b"1"), (b"pc", b"")]


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.get(b"a"),
        lambda store: list(store.scan(b"a", b"z")),
        lambda store: store.write({b"a": b"1"}),
        lambda store: store.flush(),
    ],
)
def test_a_closed_store_refuses_use(store: Store, use: Callable[[Store], object]) -> None:
    """Whatever is asked of it, the error says that it is closed; closing it again is none."""
    store.write({b"a": b"1"})
    store.close()
    with pytest.raises(NotOpenError, match="is closed"):
        use(store)
    store.close()


def test_a_closed_rocks_store_refuses_what_only_it_can(tmp_path: Path) -> None:
    """Sizes and copies, too."""
    store = RocksStore(tmp_path / "db")
    store.close()
    with pytest.raises(NotOpenError, match="db is closed"):
        store.size()
    with pytest.raises(NotOpenError, match="db is closed"):
        store.count_roughly()
    with pytest.raises(NotOpenError, match="db is closed"):
        store.checkpoint(tmp_path / "copy")


def test_rocks_store_survives_reopening(tmp_path: Path) -> None:
    """What was written is there after closing, also for a read-only visitor."""
    first = RocksStore(tmp_path / "db")
    first.write({b"k": b"v"})
    first.close()
    second = RocksStore(tmp_path / "db", read_only=True)
    assert second.get(b"k") == b"v"
    second.close()


_DIES = """
import os, signal, sys
from pathlib import Path
from stream.state.store import RocksStore
store = RocksStore(Path(sys.argv[1]))
store.write({b"logged": b"before"})
for number in range(300):  # some 30 MB: more than is kept in memory
    store.write({b"%06d" % number: os.urandom(100_000), b"mark": b"%06d" % number}, logged=False)
if sys.argv[2] == "flush":
    store.flush()
    store.write({b"logged": b"after"})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["flush", "lose"])
def test_what_is_not_logged_is_lost_from_the_end_or_flushed(tmp_path: Path, how: str) -> None:
    """Killed, a store is as after one of its writes: the mark says which."""
    done = subprocess.run([sys.executable, "-c", _DIES, tmp_path / "db", how], check=False)
    assert done.returncode == -signal.SIGKILL
    store = RocksStore(tmp_path / "db")
    marked = int(store.get(b"mark") or -1)
    there = [int(key) for key, _ in store.scan(b"0", b"1")]
    assert there == list(range(marked + 1))
    if how == "flush":
        assert marked == 299
    assert store.get(b"logged") == (b"after" if how == "flush" else b"before")
    store.close()


def test_a_bad_block_is_an_error_not_the_end(tmp_path: Path) -> None:
    """A scan that comes to it does not look complete, and a key in it does not look absent."""
    store = RocksStore(tmp_path / "db")
    keys_ = [b"%06d" % number for number in range(20_000)]
    store.write({key: key * 4 for key in keys_})
    store.flush()
    store.close()
    (table,) = (tmp_path / "db").glob("*.sst")
    content = bytearray(table.read_bytes())
    at = len(content) // 2
    content[at : at + 64] = bytes(byte ^ 0xFF for byte in content[at : at + 64])
    table.write_bytes(content)
    store = RocksStore(tmp_path / "db")
    with pytest.raises(DamagedStateError, match="is damaged"):
        list(store.scan(b"", b"\xff"))
    with pytest.raises(DamagedStateError, match="a worker rebuilds it from the changelog"):
        [store.get(key) for key in keys_]
    store.close()


def test_a_scan_that_was_cut_short_does_not_keep_the_folder(tmp_path: Path) -> None:
    """A store can be opened anew while somebody still holds a scan of the closed one."""
    store = RocksStore(tmp_path / "db")
    store.write({b"a": b"1", b"b": b"2"})
    scan = store.scan(b"", b"\xff")
    assert next(scan) == (b"a", b"1")
    store.close()
    again = RocksStore(tmp_path / "db")
    with pytest.raises(NotOpenError, match="is closed"):
        next(scan)
    assert [key for key, _ in again.scan(b"", b"\xff")] == [b"a", b"b"]
    again.close()


def test_a_damage_that_a_scan_finds_does_not_keep_the_folder(tmp_path: Path) -> None:
    """The error holds on to the frames that it went through, and to nothing of the store."""
    store = RocksStore(tmp_path / "db")
    store.write({b"%04d" % number: b"value" for number in range(100)})
    store.flush()
    (table,) = (tmp_path / "db").glob("*.sst")
    data = bytearray(table.read_bytes())
    data[20] ^= 1
    table.write_bytes(data)
    with pytest.raises(DamagedStateError) as caught:
        list(store.scan(b"", b"\xff"))
    store.close()
    RocksStore(tmp_path / "db").close()
    assert "is damaged" in str(caught.value)


def test_rocks_store_in_use_is_refused_in_words(tmp_path: Path) -> None:
    """Opening a folder that another handle holds is a clear error."""
    first = RocksStore(tmp_path / "db")
    with pytest.raises(StateError, match="in use"):
        RocksStore(tmp_path / "db")
    first.close()


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    """A read-only visit to a folder without state, and a file in the way, are clear errors."""
    with pytest.raises(StateError, match="no state"):
        RocksStore(tmp_path, read_only=True)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StateError, match="cannot be opened"):
        RocksStore(tmp_path / "file")


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
KEYS = st.tuples(st.sampled_from(b"pa"), st.binary(min_size=1, max_size=2)).map(
    lambda pair: bytes([pair[0], 0, 1]) + pair[1]
)
WRITES = st.dictionaries(KEYS, st.one_of(st.none(), st.binary(max_size=2)))


@given(st.lists(st.tuples(WRITES, st.sampled_from(["keep", "flush", "discard"]))))
def test_overlay_is_a_dictionary_over_the_store(
    steps: list[tuple[dict[bytes, bytes | None], str]],
) -> None:
    """Reads and scans see pending writes at once; a discard takes them back."""
    memory = MemoryStore()
    overlay = Overlay(memory)
    flushed: dict[bytes, bytes] = {}
    model: dict[bytes, bytes] = {}
    for writes, end in steps:
        for key, value in writes.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
            if key[0] == ord("p"):
                overlay.change(key[:4], key, value)
            elif value is None:
                overlay.put(key, None)
            else:
                overlay.put(key, value)
        for key in writes:
            assert overlay.get(key) == model.get(key)
        job = next(iter(writes), b"p\x00\x01a")[3:4]
        prefix = b"p\x00\x01" + job
        ordered = sorted((k, v) for k, v in model.items() if k.startswith(prefix))
        assert list(overlay.scan(prefix, prefix, prefix + b"\xff\xff")) == ordered
        if end == "flush":
            overlay.flush()
            flushed = dict(model)
        elif end == "discard":
            overlay.discard()
            model = dict(flushed)
    overlay.flush()
    assert dict(memory.scan(b"", b"\xff")) == model


@given(st.lists(st.integers(0, 2**62), min_size=2, max_size=2))
def test_time_in_keys_sorts_as_time(times: list[int]) -> None:
    """Byte order of encoded times is their order; they read back."""
    first, second = map(keys.time_bytes, times)
    assert (first < second) == (times[0] < times[1])
    assert keys.time_at(b"xx" + first, 2) == times[0]


@given(TEXT, TEXT, TEXT)
def test_keys_of_different_jobs_never_mix(job: str, other: str, name: str) -> None:
    """No application of another job lies between a job's prefix and its end."""
    prefix = keys.prefix(keys.PENDING, job)
    inside = prefix + keys.time_bytes(5) + name.encode()
    assert prefix <= inside < keys.after(prefix)
    if other != job:
        outside = keys.prefix(keys.PENDING, other) + keys.time_bytes(5)
        assert not prefix <= outside < keys.after(prefix)
