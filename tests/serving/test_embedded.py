"""The store of coefficients in the process, against a dictionary."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import StateError
from stream.events.partitioner import partition_of
from stream.events.records import COEFFICIENTS, PREFERENCES
from stream.events.structs import CONTROL, Coefficients, Control, ModelSince
from stream.events.wire import coefficients_key, encode
from stream.histories.history import NAMES, Summary
from stream.histories.preferences import JobPreferences, Preferences
from stream.model.coefficients import Linear
from stream.model.columns import preference_columns
from stream.model.folder import GlobalModel
from stream.policy import EffectSettings, Policy
from stream.serving.embedded import EmbeddedStore
from stream.serving.snapshot import Place, load_snapshot, save_snapshot
from stream.serving.store import Found
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
        found = held.find(effect, ids, histories=True)
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


def control(
    effect: str, partition: int, *versions: str, shut: bool = False, prior: float = 3.0
) -> tuple[bytes, bytes]:
    """Return a control record's message."""
    entity_id = f"{effect}:{partition}"
    models = [ModelSince(version, 1000 * number) for number, version in enumerate(versions)]
    found = Coefficients(
        effect=CONTROL,
        entity_id=entity_id,
        model_version=versions[-1],
        mean=[],
        variance=[],
        examples=0,
        event_time_ms=0,
        control=Control(
            effect=effect,
            partition=partition,
            models=models,
            gate="shut" if shut else "open",
            prior_precision=[prior] * SIZES[effect],
        ),
    )
    return coefficients_key(CONTROL, entity_id), encode(found)


_IDS = ["a", "b", "ä€", "d" * 256, "e:f", ""]
_PLACE = st.tuples(st.sampled_from(sorted(SIZES)), st.sampled_from(_IDS))
_WHAT = ["put", "put", "tombstone", "other", "damaged", "rolled", "back"]
_BATCHES = st.lists(
    st.one_of(
        st.just("snapshot"),
        st.lists(st.tuples(_PLACE, st.sampled_from(_WHAT)), max_size=12),
    ),
    max_size=12,
)


@given(batches=_BATCHES)
def test_a_store_has_what_a_dictionary_of_the_topic_has(
    tmp_path_factory: pytest.TempPathFactory, batches: list[object]
) -> None:
    """Whatever the sequence of messages, tombstones, repeats, other models and snapshots.

    Another model's coefficients count while a control record names it beside ours.
    """
    held, newest, number, rolled = store(), Known(), 0, False
    path = tmp_path_factory.mktemp("store") / "snapshot"
    for batch in batches:
        if isinstance(batch, list):
            records: list[tuple[bytes, bytes | None]] = []
            for (effect, entity_id), what in batch:
                number += 1
                found = coefficients(effect, entity_id, number)
                if what == "put":
                    newest[effect, entity_id] = found
                    records += [record(found)] * (1 + number % 2)
                elif what == "other":
                    found = msgspec.structs.replace(found, model_version="other")
                    newest[effect, entity_id] = found
                    records.append(record(found))
                elif what == "tombstone":
                    newest.pop((effect, entity_id), None)
                    records.append((coefficients_key(effect, entity_id), None))
                elif what == "damaged":
                    records.append((coefficients_key(effect, entity_id), b"{"))
                else:
                    rolled = what == "rolled"
                    versions = ["test-model", *["other"] * rolled]
                    records.append(control("per_job", 3, *versions))
            held.apply(records)
        else:
            place = Place("t", "x", [number])
            save_snapshot(path, held, {COEFFICIENTS: place}, current_ms=5)
            held = store()
            header = load_snapshot(path, held)
            assert (header.places, header.current_ms) == ({COEFFICIENTS: place}, 5)
        known = {
            place: each
            for place, each in newest.items()
            if each.model_version == "test-model" or rolled
        }
        same(held, known, _IDS)
        entities = Counter(effect for effect, _ in newest)
        assert held.standing().entities == {name: entities[name] for name in SIZES}
        assert held.choose(["j"], None, 999).complete
        assert held.choose(["j"], None, 1000).complete != rolled


def with_preferences() -> EmbeddedStore:
    """Return an empty store for a model that takes preferences."""
    plain = model().manifest
    names = preference_columns(["skill"])
    manifest = msgspec.structs.replace(
        plain,
        features=plain.features | {"preferences": names},
        inputs=("global", "preferences"),
    )
    return EmbeddedStore(GlobalModel(manifest, Linear(np.zeros(1 + len(names)))), Policy())


def preferences(job_id: str, number: int) -> JobPreferences:
    """Preferences that tell which message they are of."""
    counts = [number + 2, number, 1]
    return JobPreferences(job_id, ["mail"], counts * 2, {"skill": {f"s{number}": counts * 2}})


@given(
    batches=st.lists(
        st.one_of(
            st.just("snapshot"),
            st.lists(st.tuples(st.sampled_from(_IDS), st.sampled_from(_WHAT[:5]))),
        ),
        max_size=8,
    )
)
def test_preferences_are_those_of_a_dictionary_of_their_topic(
    tmp_path_factory: pytest.TempPathFactory, batches: list[object]
) -> None:
    """Whatever the sequence of messages, tombstones, what cannot be read, and snapshots."""
    held, newest, number, damaged = with_preferences(), dict[str, JobPreferences](), 0, 0
    path = tmp_path_factory.mktemp("store") / "snapshot"
    for batch in batches:
        if isinstance(batch, list):
            records: list[tuple[bytes, bytes | None]] = []
            for job_id, what in batch:
                number += 1
                found = preferences(job_id, number)
                value: bytes | None = encode(found)
                if what == "tombstone":
                    value = None
                    newest.pop(job_id, None)
                elif what == "damaged":
                    value, damaged = encode(found)[:-1], damaged + 1
                else:
                    newest[job_id] = found
                records.append((job_id.encode(), value))
            held.topics[PREFERENCES](records)
            assert held.standing().left_out == ({"malformed": damaged} if damaged else {})
        else:
            places = {COEFFICIENTS: Place("c", "", [1]), PREFERENCES: Place("p", "x", [number])}
            save_snapshot(path, held, places, current_ms=5)
            held, damaged = with_preferences(), 0
            assert load_snapshot(path, held).places == places
        for job_id in [*_IDS, "unknown"]:
            wanted = newest[job_id].counts() if job_id in newest else Preferences()
            assert held.preferences_of(job_id) == wanted
    held.clear()
    assert not held.preferences


def test_preferences_are_read_once_and_a_new_message_counts_at_once() -> None:
    """A job's stay the same object until another message or a tombstone comes; few are kept."""
    held = with_preferences()
    take = held.topics[PREFERENCES]
    take([(b"j", encode(preferences("j", 1)))])
    first = held.preferences_of("j")
    assert held.preferences_of("j") is first
    take([(b"j", encode(preferences("j", 2)))])
    assert held.preferences_of("j") == preferences("j", 2).counts() != first
    others = [f"k{number}" for number in range(40)]
    take([(job_id.encode(), encode(preferences(job_id, 3))) for job_id in others])
    kept = [held.preferences_of(job_id) for job_id in others]
    assert held.preferences_of(others[-1]) is kept[-1]
    assert held.preferences_of(others[0]) is not kept[0]
    take([(b"j", None)])
    assert held.preferences_of("j") == Preferences()


def test_only_a_model_that_takes_preferences_has_their_topic_read() -> None:
    """They are as large as all else."""
    assert list(store().topics) == [COEFFICIENTS]
    assert list(with_preferences().topics) == [COEFFICIENTS, PREFERENCES]


def test_what_is_not_taken_is_counted() -> None:
    """By reason: what cannot be read, is of another model or effect, or has another size."""
    held = store()
    job = coefficients("per_job", "j", 1)
    foreign = msgspec.structs.replace
    held.apply(
        [
            (b"per_job:x", b"{"),
            record(foreign(job, mean=[1.0, 2.0])),
            record(foreign(job, model_version="other")),
            (b"per_team:x", encode(foreign(job, effect="per_team"))),
            (b"what", None),
            (b"control:per_job:9", None),
        ]
    )
    assert held.standing().left_out == {"malformed": 2, "other_model": 1, "other_effect": 1}
    held.apply([record(foreign(job, model_version=f"v{number}")) for number in range(2000)])
    assert len(held.versions) == 1000


def test_a_shut_gate_leaves_its_partition_out() -> None:
    """Its entities count as not known until it opens; the others are served."""
    held = store()
    held.partitions = 4
    ids = [f"j{number}" for number in range(40)]
    held.apply([record(coefficients("per_job", each, 1)) for each in ids])
    held.apply([control("per_job", 2, "test-model", shut=True)])
    wanted = [partition_of(each.encode(), 4) != 2 for each in ids]
    found = held.find("per_job", ids)
    assert found.known.tolist() == wanted
    assert not found.mean[~found.known].any()
    assert not all(wanted)
    assert held.standing().degraded == ("gate_shut:per_job",)
    assert held.find("per_member", ["nobody"]).known.tolist() == [False]
    held.apply([control("per_job", 2, "test-model")])
    assert held.find("per_job", ids).known.all()
    assert held.standing().degraded == ()


def test_priors_come_from_control_records() -> None:
    """They are what the workers learn with, whatever this process was given."""
    held = store()
    held.apply([control("per_job", 0, "test-model", prior=8.0)])
    assert held.find("per_job", ["nobody"]).variance.tolist() == [[0.125]]
    assert held.find("per_member", ["nobody"]).variance.tolist() == [[np.float32(1 / 3)] * 2]


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
    found = EmbeddedStore(model(), policy).find("per_member", ["nobody"], histories=True)
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

    def read(find: Callable[[], Found]) -> None:
        while not stop.is_set():
            found = find()
            mean = found.mean[found.known]
            variance = found.variance[found.known]
            if (mean != mean[:, :1]).any() or (variance != mean[:, :1]).any():
                torn.append(mean)

    again = held.finder("per_member", ids)
    ways: list[Callable[[], Found]] = [lambda: held.find("per_member", ids), again, again]
    readers = [threading.Thread(target=read, args=[way]) for way in ways]
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


def filled(path: Path, held: EmbeddedStore | None = None) -> bytes:
    """Write a snapshot of ten members and jobs; return its bytes."""
    held = held or store()
    held.apply([record(coefficients(effect, f"x{n}", n)) for effect in SIZES for n in range(10)])
    held.apply([(coefficients_key("per_job", "x3"), None)])
    if PREFERENCES in held.topics:
        held.apply_preferences([(b"j", encode(preferences("j", 3)))])
    save_snapshot(
        path, held, {topic: Place("t", "", [1, 2]) for topic in held.topics}, current_ms=3
    )
    return path.read_bytes()


def test_a_snapshot_is_for_its_owner_alone(tmp_path: Path) -> None:
    """It has people's data in it, also where a file of that name lay open."""
    path = tmp_path / "snapshot"
    path.with_name("snapshot.forming").write_bytes(b"")
    path.with_name("snapshot.forming").chmod(0o666)
    filled(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["snapshot"]


class Interrupted(dict[str, bytes]):
    """Preferences; while they are written something happens."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__(j=b"x")
        self.meanwhile = meanwhile

    def values(self) -> Any:
        """Let it happen."""
        self.meanwhile()
        return super().values()


def test_two_processes_may_have_the_same_snapshot(tmp_path: Path) -> None:
    """One of them writes at a time: what there is of it is always whole."""
    path = tmp_path / "snapshot"
    places = {COEFFICIENTS: Place("t", "", [1])}
    tried: list[bytes] = []

    def another() -> None:
        with pytest.raises(BlockingIOError):
            save_snapshot(path, store(), places, current_ms=4)
        tried.append(b"")

    held = store()
    held.preferences = Interrupted(another)
    save_snapshot(path, held, places, current_ms=3)
    assert tried
    assert load_snapshot(path, store()).current_ms == 3
    save_snapshot(path, store(), places, current_ms=5)
    assert load_snapshot(path, store()).current_ms == 5


def test_a_snapshot_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """And nothing else, such as half of the new one on a disk that is full."""
    path = tmp_path / "snapshot"
    whole = filled(path)

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    held = store()
    held.preferences = Interrupted(full)
    with pytest.raises(OSError, match="No space left"):
        save_snapshot(path, held, {COEFFICIENTS: Place("t", "", [1])}, current_ms=3)
    assert path.read_bytes() == whole
    assert [each.name for each in tmp_path.iterdir()] == ["snapshot"]


@pytest.mark.parametrize("empty", [store, with_preferences])
def test_a_damaged_snapshot_is_refused(tmp_path: Path, empty: Callable[[], EmbeddedStore]) -> None:
    """Cut short anywhere, or with any byte changed, it is never taken."""
    path = tmp_path / "snapshot"
    whole = filled(path, empty())
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(StateError):
            load_snapshot(path, empty())
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(StateError):
            load_snapshot(path, empty())
    path.write_bytes(whole + b"x")
    with pytest.raises(StateError, match="checksum"):
        load_snapshot(path, empty())


def test_a_snapshot_of_something_else_is_refused(tmp_path: Path) -> None:
    """Of another model, or of other features."""
    path = tmp_path / "snapshot"
    filled(path)
    features = model().manifest.features | {"per_job": ["j0", "j1"]}
    wider = msgspec.structs.replace(model().manifest, features=features)
    with pytest.raises(StateError, match="other effects"):
        load_snapshot(path, EmbeddedStore(GlobalModel(wider, model().scorer), Policy()))
    with pytest.raises(StateError, match=r"another model \(test-model\)"):
        load_snapshot(path, EmbeddedStore(model("newer"), Policy()))
