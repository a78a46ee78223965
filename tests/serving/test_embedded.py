"""The store of coefficients in the process, against a dictionary."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import StateError
from stream.events.structs import Coefficients
from stream.events.wire import coefficients_key, encode
from stream.histories.history import NAMES, Summary
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel
from stream.policy import EffectSettings, Policy
from stream.serving.embedded import EmbeddedStore
from stream.serving.snapshot import load_snapshot, save_snapshot
from tests.kit import model

SIZES = {"per_member": 2, "per_job": 1}
Known = dict[tuple[str, str], Coefficients]


def with_histories() -> GlobalModel:
    """Return the kit's model, taking histories."""
    plain = model()
    features = plain.manifest.features | {"history": [f"history.{name}" for name in NAMES]}
    manifest = msgspec.structs.replace(
        plain.manifest, features=features, inputs=("global", "history")
    )
    return GlobalModel(manifest, Linear(np.linspace(-1.0, 1.0, 1 + len(NAMES))))


def store() -> EmbeddedStore:
    """Return an empty store that keeps histories."""
    return EmbeddedStore(with_histories(), Policy())


def coefficients(
    effect: str, entity_id: str, number: float, *, version: str = "test-model"
) -> Coefficients:
    """Coefficients that tell which message they are of; every other has a history."""
    size = SIZES[effect]
    found = Coefficients(
        effect=effect,
        entity_id=entity_id,
        model_version=version,
        mean=[number + at for at in range(size)],
        variance=[number + 0.5] * size,
        examples=int(number),
        event_time_ms=int(number) * 1000,
    )
    if number % 2:
        return found
    history = Summary(int(number), 2, 1, 7, number / 3, 0.1, 0.2, 5 if number % 4 else None, None)
    return msgspec.structs.replace(found, history=history)


def record(found: Coefficients) -> tuple[bytes, bytes | None]:
    """Return the message of coefficients."""
    return coefficients_key(found.effect, found.entity_id), encode(found)


def same(held: EmbeddedStore, known: Known, ids: list[str]) -> None:
    """Compare what a store has with a dictionary, of known ids and others."""
    for effect, size in SIZES.items():
        assert len(held.tables[effect]) == sum(name == effect for name, _ in known)
        found = held.find(effect, ids)
        for at, entity_id in enumerate(ids):
            wanted = known.get((effect, entity_id))
            assert held.entity(effect, entity_id) == wanted
            assert found.known[at] == (wanted is not None)
            mean = [0.0] * size if wanted is None else wanted.mean
            variance = [1 / 3] * size if wanted is None else wanted.variance
            assert found.mean[at].tolist() == mean
            assert found.variance[at].tolist() == np.array(variance, np.float32).tolist()
            history = None if wanted is None else wanted.history or None
            assert found.summaries[at] == history


_IDS = ["a", "b", "ä€", "d" * 256, "e:f", ""]
_PLACE = st.tuples(st.sampled_from(sorted(SIZES)), st.sampled_from(_IDS))
_BATCHES = st.lists(
    st.one_of(
        st.just("snapshot"),
        st.lists(
            st.tuples(_PLACE, st.sampled_from(["put", "put", "tombstone", "other", "damaged"])),
            max_size=12,
        ),
    ),
    max_size=12,
)


@given(batches=_BATCHES)
def test_a_store_has_what_a_dictionary_of_the_topic_has(
    tmp_path_factory: pytest.TempPathFactory, batches: list[object]
) -> None:
    """Whatever the sequence of messages, tombstones, repeats, other models and snapshots."""
    held, known, number, left_out = store(), Known(), 0, 0
    path = tmp_path_factory.mktemp("store") / "snapshot"
    for batch in batches:
        if not isinstance(batch, list):
            save_snapshot(path, held, topic="t", topic_id="x", offsets=[number], current_ms=5)
            left_out, held = 0, store()
            header = load_snapshot(path, held)
            assert (header.offsets, header.topic_id, header.current_ms) == ([number], "x", 5)
            same(held, known, _IDS)
            continue
        records: list[tuple[bytes, bytes | None]] = []
        for (effect, entity_id), what in batch:
            number += 1
            found = coefficients(effect, entity_id, number)
            if what == "put":
                known[effect, entity_id] = found
                records.append(record(found))
                records += records[-1:] * (number % 2)
            elif what == "tombstone":
                known.pop((effect, entity_id), None)
                records.append((coefficients_key(effect, entity_id), None))
            elif what == "other":
                left_out += 1
                records.append(record(msgspec.structs.replace(found, model_version="other")))
            else:
                left_out += 1
                records.append((coefficients_key(effect, entity_id), b"{"))
        held.apply(records)
        same(held, known, _IDS)
    assert sum(held.standing().left_out.values()) == left_out


def test_rows_of_those_who_left_are_used_again() -> None:
    """A million messages of comers and goers need no more rows than there were entities at once."""
    held = store()
    for turn in range(50):
        held.apply([record(coefficients("per_job", f"{turn}-{n}", n)) for n in range(100)])
        held.apply([(coefficients_key("per_job", f"{turn}-{n}"), None) for n in range(100)])
    assert held.tables["per_job"].used == 101
    assert not held.tables["per_job"].mean.any()


def test_more_entities_than_there_is_room_for_make_room() -> None:
    """Arrays grow, and rows keep what they had."""
    held = store()
    for first in range(0, 5000, 1000):
        batch = [coefficients("per_member", f"m{n}", n) for n in range(first, first + 1000)]
        held.apply([record(each) for each in batch])
    found = held.find("per_member", [f"m{n}" for n in range(5000)])
    assert found.known.all()
    assert found.mean[:, 0].tolist() == list(range(5000))


def test_an_unknown_entity_has_the_prior() -> None:
    """Its variance is one over the configured precision, by feature where it is."""
    policy = Policy(effects={"per_member": EffectSettings(prior_precision={"m0": 4.0, "m1": 8.0})})
    found = EmbeddedStore(model(), policy).find("per_member", ["nobody"])
    assert found.mean.tolist() == [[0.0, 0.0]]
    assert found.variance.tolist() == [[0.25, 0.125]]
    assert not found.known.any()
    assert found.summaries == [None]


def test_no_row_is_ever_torn() -> None:
    """A reader sees rows as they were published, while one writer changes, removes and adds them.

    All numbers of a message are the same.
    """
    size = 64
    names = [f"f{n}" for n in range(size)]
    manifest = msgspec.structs.replace(
        model().manifest, features={"global": ["g"], "per_member": names, "per_job": []}
    )
    held = EmbeddedStore(GlobalModel(manifest, Linear(np.array([0.0]))), Policy())
    ids = [f"m{n}" for n in range(200)]
    torn: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = held.find("per_member", ids)
            mean = found.mean[found.known]
            variance = found.variance[found.known]
            if (mean != mean[:, :1]).any() or (variance != mean[:, :1]).any():
                torn.append(mean)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    blank = coefficients("per_member", "m0", 1)
    for turn in range(1, 40):
        records: list[tuple[bytes, bytes | None]] = []
        for n, entity_id in enumerate(ids):
            if (n + turn) % 5 == 0:
                records.append((coefficients_key("per_member", entity_id), None))
                continue
            numbers = [float(turn)] * size
            found = msgspec.structs.replace(
                blank, entity_id=entity_id, mean=numbers, variance=numbers
            )
            records.append(record(found))
        held.apply(records)
    stop.set()
    for reader in readers:
        reader.join()
    assert not torn


def filled(path: Path) -> bytes:
    """Write a snapshot of ten members and jobs; return its bytes."""
    held = store()
    held.apply([record(coefficients(effect, f"x{n}", n)) for effect in SIZES for n in range(10)])
    held.apply([(coefficients_key("per_job", "x3"), None)])
    save_snapshot(path, held, topic="t", topic_id="", offsets=[1, 2], current_ms=3)
    return path.read_bytes()


def test_a_snapshot_is_for_its_owner_alone(tmp_path: Path) -> None:
    """It has people's data in it, also where a file of that name lay open."""
    path = tmp_path / "snapshot"
    path.with_name("snapshot.forming").write_bytes(b"")
    path.with_name("snapshot.forming").chmod(0o666)
    filled(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["snapshot"]


def test_a_damaged_snapshot_is_refused(tmp_path: Path) -> None:
    """Cut short anywhere, or with any byte changed, it is never taken."""
    path = tmp_path / "snapshot"
    whole = filled(path)
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(StateError):
            load_snapshot(path, store())
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(StateError):
            load_snapshot(path, store())
    path.write_bytes(whole + b"x")
    with pytest.raises(StateError, match="checksum"):
        load_snapshot(path, store())


def test_a_snapshot_of_something_else_is_refused(tmp_path: Path) -> None:
    """Of another model, or without the histories that this one takes."""
    path = tmp_path / "snapshot"
    filled(path)
    with pytest.raises(StateError, match="other effects"):
        load_snapshot(path, EmbeddedStore(model(), Policy()))
    with pytest.raises(StateError, match=r"another model \(test-model\)"):
        load_snapshot(path, EmbeddedStore(model("newer"), Policy()))
