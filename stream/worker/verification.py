"""SHELL: a checkpoint (or a stopped worker's data folder) against its changelogs.

A key whose newest record lies below the offset that the store says it has come to must have that
record's value in the store, and a key that the store has must be in the changelog. Keys with newer
records cannot be compared; they are counted.

Of each key of a changelog partition a digest is held in memory, some 200 bytes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from stream.errors import StateError
from stream.kafka.cluster import ids_of_topics, look_at_cluster
from stream.state import keys
from stream.state.store import RocksStore, Store
from stream.units import format_time
from stream.worker.changelog import MARK, Changelog, Mark, changelog_of, load_mark
from stream.worker.contract import PartitionId
from stream.worker.data_folder import name_of, partition_ids_in, whose

_ANSWER_S = 10.0
_DIGEST_BYTES = 16
_FIRST, _END = b"\x00", b"\xff"  # no key begins so
_TOLD = 5  # keys that are named


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one partition's store."""

    place: PartitionId
    offset: int
    """Up to where in the changelog the store is."""
    equal: int
    """Keys that are as the changelog says, or deleted in both."""
    later: int
    """Keys that have changed since."""
    different: int
    """Keys that are not what the changelog says."""
    examples: list[str]
    """Some of these, described."""


def verify_checkpoint(
    folder: Path,
    broker: str,
    on_place: Callable[[PartitionId], None] = lambda _: None,
) -> Iterator[Verified]:
    """Compare all stores of a folder with the changelogs at a broker, one after the other.

    Args:
        folder: a checkpoint, or the data folder of a worker that is at rest.
        broker: where the changelogs are.
        on_place: called with the partition is compared next.

    Raises:
        BrokerError: the broker does not answer. ConfigError: it is no such folder.
        StateError: a store is damaged, too old, or follows another changelog.

    """
    application_id = whose(folder)
    places = partition_ids_in(folder)
    if not places:
        raise StateError(f"{folder} holds no stores")
    embedded = look_at_cluster(broker, _ANSWER_S).embedded
    topics = {changelog_of(application_id, stage) for stage, _ in places}
    ids = {} if embedded else ids_of_topics(broker, topics, _ANSWER_S)
    for place in places:
        on_place(place)
        changelog = Changelog(broker, application_id, place, topic_ids=ids)
        store = RocksStore(folder / name_of(place), read_only=True)
        try:
            mark = load_mark(store)
            if mark is None:
                raise StateError(f"{folder / name_of(place)} holds no state")
            start, end = changelog.span()
            changelog.check(mark, start, end)
            if changelog.is_too_old(mark, end, time.time_ns() // 1_000_000):
                raise StateError(
                    f"{folder / name_of(place)} is from {format_time(mark.applied_ms)}: so old that"
                    " deletions may have vanished from the changelog since; a worker would make it"
                    " again from there. Take another checkpoint"
                )
            yield _compare(place, store, mark, changelog)
        finally:
            store.close()


def _compare(place: PartitionId, store: Store, mark: Mark, changelog: Changelog) -> Verified:
    newest: dict[bytes, tuple[int, bytes | None]] = {}
    for offset, key, value in changelog.records():
        newest[key] = offset, _digest(value)
    newest.pop(MARK, None)
    equal = later = different = 0
    examples: list[str] = []

    def differs(key: bytes, how: str) -> None:
        nonlocal different
        different += 1
        if len(examples) < _TOLD:
            examples.append(f"{keys.in_words(key)} {how}")

    for key, value in store.scan(_FIRST, _END):
        if key == MARK:
            continue
        found = newest.pop(key, None)
        if found is None:
            differs(key, "is not in the changelog")
        elif found[0] >= mark.offset:
            later += 1
        elif found[1] is None:
            differs(key, "was deleted")
        elif found[1] != _digest(value):
            differs(key, "has another value")
        else:
            equal += 1
    for key, (offset, digest) in newest.items():
        if offset >= mark.offset:
            later += 1
        elif digest is not None:
            differs(key, "is missing")
        else:
            equal += 1
    return Verified(
        place=place,
        offset=mark.offset,
        equal=equal,
        later=later,
        different=different,
        examples=examples,
    )


def _digest(value: bytes | None) -> bytes | None:
    if value is None:
        return None
    return hashlib.blake2b(value, digest_size=_DIGEST_BYTES).digest()
