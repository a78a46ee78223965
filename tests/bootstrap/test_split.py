"""A replay's state split over partitions: nothing lost, nothing twice, and life goes on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stream.bootstrap.split import Entry, first_progress, identity_of, split
from stream.errors import StateError
from stream.events.partitioner import partition_of
from stream.events.records import APPLICATIONS, LABELS, PLAIN, TOPICS, TopicNames
from stream.events.structs import Application, Coefficients, DeadLetter, Label
from stream.labels.changes import Scores
from stream.partitions.progress import identity_entry, progress_entry
from stream.policy import Policy
from stream.replay.run_folder import RunMetrics
from stream.replay.savepoint import Options
from stream.replay.single import replay
from stream.state import codec, keys
from stream.state.census import COUNTS, Census, StateCounts
from stream.state.deadlines import pending_deadlines
from stream.state.entities import all_posteriors
from stream.state.facts import Facts
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore, RocksStore, Store
from tests.kit import NOW_MS, SPACE, Market, TestEvent, last_labels, model
from tests.labels.bench import arrivals
from tests.partitions.test_partitions import POLICY
from tests.replay.test_single import lines_of
from tests.replay.test_single import market as simple_log


class Sink:
    """A replay's results in memory."""

    def __init__(self, store: Store | None = None) -> None:
        self.store: Store = store or MemoryStore()
        self.labels: list[Label] = []
        self.told: RunMetrics

    def scored(self, app: Application, scores: Scores) -> None:
        """Not looked at."""

    def label(self, label: Label) -> None:
        """Take a label."""
        self.labels.append(label)

    def coefficients(self, coefficients: Coefficients) -> None:
        """Not looked at."""

    def dead_letter(self, letter: DeadLetter) -> None:
        """Not looked at."""

    def metrics(self, metrics: RunMetrics) -> None:
        """Take the counts."""
        self.told = metrics


def replayed(
    events: Sequence[TestEvent],
    policy: Policy = POLICY,
    store: Store | None = None,
    *,
    sink: Sink | None = None,
    **more: Any,
) -> Sink:
    """Replay events into memory."""
    sink = sink or Sink(store)
    replay(lines_of(events), sink, policy, model(), SPACE, Options(**more))
    return sink


def taken_over(history: Sink, market: Market) -> None:
    """Let partitions begin where a replay ended, as ``hearback bootstrap`` does."""
    identity = replace(identity_of([history.store]), partitions=market.count)
    for entry in split([history.store], market.count, NOW_MS):
        market.stores[entry.place].write({entry.key: entry.value})
    told = history.told
    for (stage, number), store in market.stores.items():
        progress = first_progress(stage, market.count, told.watermark_ms)
        store.write(dict([identity_entry(identity), progress_entry(progress)]))
        market.restart(stage, number)


def learned(stores: Sequence[Store]) -> dict[tuple[str, str], tuple[int, set[tuple[str, int]]]]:
    """Examples of all entities in some stores, of which each has to be in one."""
    found = {}
    for store in stores:
        for effect in ("per_member", "per_job"):
            for entity_id, posterior in all_posteriors(store, effect):
                assert (effect, entity_id) not in found
                kept = {(example.id, example.kind) for example in posterior.kept}
                found[effect, entity_id] = len(posterior.kept), kept
    return found


@given(arrivals(), st.data(), st.integers(1, 4), st.booleans())
def test_history_and_live_stream_meet_without_a_seam(
    events: list[TestEvent], data: st.DataObject, partitions: int, overlap: bool
) -> None:
    """Replay of a part, live rest: labels and examples of a replay of all, nothing said twice.

    Where the live stream begins earlier, what history had changes nothing.
    """
    if not events:
        return
    cut = data.draw(st.integers(1, len(events)))
    history = replayed(events[:cut])
    live = Market(POLICY, partitions)
    taken_over(history, live)
    live.produce(events[data.draw(st.integers(0, cut)) if overlap else cut :])
    live.clock(20_000)
    live.run()
    whole = replayed(events, close=True)
    labels = history.labels + live.labels()
    assert last_labels(labels) == last_labels(whole.labels)
    said = Counter(
        (each.job_id, each.application_id, each.kind, each.weight, each.final) for each in labels
    )
    assert all(count == 1 for count in said.values())
    assert learned(list(live.stores.values())) == learned([whole.store])


@given(arrivals(), st.integers(1, 5), st.integers(1, 3))
def test_partitions_hold_together_what_the_replay_held(
    events: list[TestEvent], partitions: int, shares: int
) -> None:
    """Every entry is in the one place where murmur2 puts it, from one store or from several."""
    history = replayed(events)
    stores = shared_out(history.store, shares)
    check_split(history.store, list(split(stores, partitions, NOW_MS)), partitions)


@pytest.mark.parametrize("partitions", [1, 7])
def test_the_split_of_a_rocksdb(tmp_path: Path, partitions: int) -> None:
    """A longer log on disk, with answers, closings and strangers."""
    store = RocksStore(tmp_path / "state")
    replayed(simple_log(), Policy(), store)
    store.close()
    store = RocksStore(tmp_path / "state", read_only=True)
    entries = list(split([store], partitions, NOW_MS))
    check_split(store, entries, partitions)
    store.close()


def check_split(store: Store, entries: list[Entry], partitions: int) -> None:
    """Compare the entries with what a replay's store holds."""
    for stage in ("member", "job"):
        counts = [
            COUNTS.decode(entry.value)
            for entry in entries
            if entry.key == keys.own(f"census-{stage}")
        ]
        wanted = Census(Overlay(store), stage).counts
        for name in StateCounts.__struct_fields__:
            assert sum(getattr(each, name) for each in counts) == getattr(wanted, name)
    others = {entry.key for entry in entries if entry.key[:1] == b"s"}
    assert others <= {keys.own("census-member"), keys.own("census-job")}
    plain = [entry for entry in entries if entry.key[:1] not in b"ds"]
    held = {key: value for key, value in store.scan(b"\x00", b"\xff") if key[:1] not in b"ds"}
    assert Counter(entry.key for entry in plain) == Counter(held.keys())
    for (stage, number), key, value in plain:
        if key[:1] == b"n":
            effect, owner = (part.decode() for part in keys.parts(key))
            assert stage == effect.removeprefix("per_")
            assert value == held[key]
        elif key[:1] == b"c":
            kind, owner = (part.decode() for part in keys.parts(key))
            assert stage == kind
        else:
            assert stage == "job"
            of_pair = key[:1] == b"m"
            owner = (key[1:] if key[:1] in {b"b", b"k"} else keys.parts(key)[of_pair]).decode()
        assert number == partition_of(owner.encode(), partitions)
        if key[:1] == b"a":
            record = codec.APPLICATION.decode(value)
            if isinstance(record, Facts):
                assert record.partition == partition_of(record.member_id.encode(), partitions)
        else:
            assert value == held[key]
    split_up: defaultdict[int, MemoryStore] = defaultdict(MemoryStore)
    for (stage, number), key, value in entries:
        if key[:1] == b"d":
            assert stage == "job"
            split_up[number].write({key: value})
    told = {number: list(pending_deadlines(deadlines)) for number, deadlines in split_up.items()}
    for number, deadlines in told.items():
        for deadline in deadlines:
            assert number == partition_of(deadline.job_id.encode(), partitions)
    assert Counter(chain(*told.values())) == Counter(set(pending_deadlines(store)))


def shared_out(store: Store, shares: int) -> list[Store]:
    """Put a replay's entries into several stores, as a replay with several processes has them."""
    dice = Random(1)
    stores: list[Store] = [MemoryStore() for _ in range(shares)]
    for key, value in store.scan(b"\x00", b"\xff"):
        for each in stores if key[:1] == b"s" else [dice.choice(stores)]:
            each.write({key: value})
    # Each has its own deadlines, of which it knows how far they were taken out.
    done = store.get(keys.DEADLINES)
    if done is not None:
        for each in stores:
            each.write({keys.DEADLINES: done})
    return stores


def test_what_no_replay_writes_is_refused() -> None:
    """A key of a later release, or an effect that is not known, is not passed over in silence."""
    store = MemoryStore()
    store.write({b"zebra": b"1"})
    with pytest.raises(StateError, match="no replay's"):
        list(split([store], 2, NOW_MS))
    other = MemoryStore()
    other.write({keys.key(keys.POSTERIOR, "per_recruiter", "r1"): b"1"})
    with pytest.raises(StateError, match="an effect that is not known"):
        list(split([other], 2, NOW_MS))


def test_states_of_one_run_must_agree() -> None:
    """Stores that say nothing, or were learned differently, are not one run's."""
    with pytest.raises(StateError, match="holds no state"):
        identity_of([MemoryStore()])
    one, two = replayed([]).store, MemoryStore()
    with pytest.raises(StateError, match="different models"):
        identity_of([one, two])


def test_forgotten_and_aged_entities_go_where_the_entity_is() -> None:
    """Markers and entries by age go with their entity; that there are any is said everywhere.

    Of a forgotten member's pairs every job partition knows, for any may have some.

    A replay has no wall clock; the two windows of wall time begin now.
    """
    store = MemoryStore()
    store.write(
        {
            keys.key(keys.FORGOTTEN, "per_member", "m7"): codec.FORGOTTEN.encode((1, 2)),
            keys.key(keys.FORGOTTEN, "pairs", "m7"): codec.FORGOTTEN.encode((1, 2)),
            keys.timed(keys.prefix(keys.AGE, "per_job"), 5, "j7"): b"",
            keys.own("ages per_job"): b"\x01",
        }
    )
    entries = list(split([store], 3, NOW_MS))
    assert {(entry.place, entry.key) for entry in entries} == {
        (("member", partition_of(b"m7", 3)), keys.key(keys.FORGOTTEN, "per_member", "m7")),
        (("job", partition_of(b"j7", 3)), keys.timed(keys.prefix(keys.AGE, "per_job"), 5, "j7")),
        *((("job", number), keys.own("ages per_job")) for number in range(3)),
        *((("job", number), keys.key(keys.FORGOTTEN, "pairs", "m7")) for number in range(3)),
    }
    markers = [entry.value for entry in entries if entry.key[:1] == keys.FORGOTTEN]
    assert {codec.FORGOTTEN.decode(marker) for marker in markers} == {(1, NOW_MS)}


def test_names_of_topics() -> None:
    """Plain ones, or an application id's own where a broker has them; inputs are everybody's."""
    assert [PLAIN.of(topic) for topic in TOPICS] == list(TOPICS)
    own = TopicNames.own("new")
    assert own.of(APPLICATIONS) == APPLICATIONS
    assert own.of(LABELS) == "new-labels"
    assert TopicNames.among("new", {"new-applications-by-job", "labels"}) == own
    assert TopicNames.among("old", {"new-applications-by-job", "labels"}) == PLAIN
