"""The state of a replay, split over the partitions that live workers have.

A replay keeps both stages in one store, or in several that share the entities and jobs among them.
Workers keep a store for each stage and partition: members' effects where murmur2 puts the member,
everything of a job where it puts the job. Each entry goes to one place; what changes on the way:

- an application's facts say to which partition its labels go back: its member's;
- runs of deadlines are cut by job, less what was taken out of them already;
- what is counted is counted anew;
- markers of the forgotten count as asked for now: from now on labels take time to come back;
- identity and progress are the caller's to make.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from stream.effects import EFFECTS
from stream.errors import StateError
from stream.events.partitioner import partition_of
from stream.events.wire import encode
from stream.histories.preferences import JobPreferences
from stream.partitions.clock import EventTime
from stream.partitions.progress import Identity, Progress, load_identity
from stream.stages.histories import PAIRS
from stream.stages.succession import MODEL_KEYS, NAMES_KEY
from stream.state import codec, keys
from stream.state.census import StateCounts, census_entry
from stream.state.deadlines import RUN, pending_deadlines, stored_run
from stream.state.facts import Deadline, Facts, Orphan
from stream.state.store import Store
from stream.worker.contract import PartitionId

_FIRST, _END = b"\x00", b"\xff"  # no key begins so
_OF_JOB = frozenset(b"aejpx")  # families whose keys begin with the length and the id of a job
_OF_ENTITY = frozenset(b"ng")
_FORGOTTEN_PAIRS = keys.prefix(keys.FORGOTTEN, PAIRS)
_STAGES = {spec.name: spec.stage for spec in EFFECTS if spec.score is not None}


class Entry(NamedTuple):
    """A key and its value, and where they belong."""

    place: PartitionId
    key: bytes
    value: bytes


def identity_of(stores: Iterable[Store]) -> Identity:
    """Read whose the stores of a replay are, which has to be the same.

    Raises:
        StateError: they say nothing, or different things.

    """
    found = [load_identity(store) for store in stores]
    identity = found[0] if found else None
    if identity is None:
        raise StateError("the run holds no state: replay again")
    if any(other != identity for other in found):
        raise StateError("the run's states were learned with different models or settings")
    return identity


def split(stores: Iterable[Store], partitions: int, now_ms: int) -> Iterator[Entry]:
    """Give every entry of a replay's stores, once, with the place where it belongs.

    Args:
        stores: of one replay; together they hold each entity and each job once.
        partitions: of either stage.
        now_ms: the wall clock.

    Raises:
        StateError: a key or value is not one that a replay writes.

    """
    deadlines = _Runs(partitions)
    counted: defaultdict[PartitionId, StateCounts] = defaultdict(StateCounts)
    for store in stores:
        for key, value in store.scan(_FIRST, _END):
            family = key[0]
            if family in _OF_JOB:
                place = "job", partition_of(keys.parts(key)[0], partitions)
                counts = counted[place]
                counts.pending += family == ord("p")
                counts.orphans += family == ord("e") and _waits(value)
                yield Entry(place, key, _at_home(family, value, partitions))
            elif key.startswith(_FORGOTTEN_PAIRS):
                for number in range(partitions):
                    yield Entry(("job", number), key, _asked_now(value, now_ms))
            elif family in _OF_ENTITY:
                place = _home_of(*keys.parts(key), partitions)
                counted[place].entities += family == ord("n")
                forgotten = key[:1] == keys.FORGOTTEN
                yield Entry(place, key, _asked_now(value, now_ms) if forgotten else value)
            elif family == ord("c"):
                stage, entity_id = keys.parts(key)
                yield Entry((stage.decode(), partition_of(entity_id, partitions)), key, value)
            elif family == ord("m"):
                place = "job", partition_of(keys.parts(key)[1], partitions)
                counted[place].pairs += 1
                yield Entry(place, key, value)
            elif family in b"bik":
                yield Entry(("job", partition_of(key[1:], partitions)), key, value)
            elif family == ord("t"):
                effect, rest = keys.parts(key)
                home = _home_of(effect, rest[keys.TIME_BYTES :], partitions)
                yield Entry(home, key, value)
            elif family == ord("s"):
                yield from _own(key, value, partitions)
            elif family != ord("d"):
                raise StateError(f"the run's state has a key that is no replay's: {key[:64]!r}")
        for deadline in pending_deadlines(store):
            yield from deadlines.add(deadline)
    yield from deadlines.rest()
    for place, counts in counted.items():
        if counts != StateCounts():
            yield Entry(place, *census_entry(place[0], counts))


def first_progress(stage: str, partitions: int, watermark_ms: int | None) -> Progress:
    """Progress of a partition that has read nothing, all its channels where history ended.

    Args:
        stage: of the partition. partitions: how many there are.
        watermark_ms: the replay's.

    """
    count = 1 if stage == "member" else partitions + 1
    return Progress(
        positions={},
        event_time=EventTime.of(count, watermark_ms),
    )


def preferences_entry(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Key and value, as published, of what a partition keeps of a job's preferences."""
    job_id = key[1:]
    return job_id, encode(JobPreferences.of(job_id.decode(), codec.PREFERENCES.decode(value)))


class _Runs:
    """Deadlines on their way to their jobs' partitions, a run at a time."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._waiting: defaultdict[int, list[Deadline]] = defaultdict(list)

    def add(self, deadline: Deadline) -> Iterator[Entry]:
        number = partition_of(deadline.job_id.encode(), self._partitions)
        waiting = self._waiting[number]
        waiting.append(deadline)
        if len(waiting) == RUN:
            yield self._run(number)

    def rest(self) -> Iterator[Entry]:
        for number in sorted(self._waiting):
            yield self._run(number)

    def _run(self, number: int) -> Entry:
        return Entry(("job", number), *stored_run(sorted(set(self._waiting.pop(number)))))


def _home_of(effect: bytes, entity_id: bytes, partitions: int) -> PartitionId:
    name = effect.decode()
    stage = _STAGES.get(name)
    if stage is None:
        raise StateError(f"the run's state has an effect that is not known: {name[:64]!r}")
    return stage, partition_of(entity_id, partitions)


def _asked_now(value: bytes, now_ms: int) -> bytes:
    """A marker of a forgotten entity, as if that had been asked for now."""
    until_ms, _ = codec.FORGOTTEN.decode(value)
    return codec.FORGOTTEN.encode((until_ms, now_ms))


def _waits(value: bytes) -> bool:
    """Whether an engagement waits for its application."""
    return isinstance(codec.ENGAGEMENT.decode(value), Orphan)


def _at_home(family: int, value: bytes, partitions: int) -> bytes:
    """An application's facts as the partition has them that its member's applications come from."""
    if family != ord("a"):
        return value
    record = codec.APPLICATION.decode(value)
    if not isinstance(record, Facts):
        return value
    number = partition_of(record.member_id.encode(), partitions)
    return codec.APPLICATION.encode(msgspec.structs.replace(record, partition=number))


def _own(key: bytes, value: bytes, partitions: int) -> Iterator[Entry]:
    """What holds for all partitions of a stage; the caller writes the rest of a store's own."""
    for effect, stage in _STAGES.items():
        if key == keys.own(f"ages {effect}"):
            for number in range(partitions):
                yield Entry((stage, number), key, value)
    if key == NAMES_KEY or key.startswith(MODEL_KEYS):  # members know the names alone
        for stage in ("member", "job") if key == NAMES_KEY else ("job",):
            for number in range(partitions):
                yield Entry((stage, number), key, value)
