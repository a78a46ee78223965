"""SHELL: what a store has in a file, so that a restart reads only what followed.

The file: :data:`MAGIC` (its last byte is the version of the format); the length of the header,
uint32; the header, JSON (:class:`Header`); then of each effect in its order the lengths of the ids
in bytes (uint16), the ids in UTF-8, their rows (int32), and the rows themselves, of each array of
:class:`~stream.serving.table.Table`; then of the jobs with preferences the lengths of ids (uint16)
and messages (uint32), the ids, and the messages as they were published; then, where applicants are
held, those, some at a time: a length, uint32, and a list in MessagePack
(:class:`~stream.serving.applicants.Row`), to a length of 0; last the BLAKE2b digest (32 bytes) of
all before. Numbers are little-endian. There is no pickle.

It has ids and what was learned of people, so its owner alone may read it. A new one takes the old
one's place whole: a crash leaves the old one. Of several processes that have the same file one
writes at a time; the others try again later.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import HearbackError, StateError
from stream.events.records import COEFFICIENTS
from stream.events.structs import Control
from stream.serving.applicants import Applicants
from stream.serving.embedded import EmbeddedStore
from stream.serving.held import Row
from stream.serving.table import ABOUT, Table
from stream.stages.succession import StoredModel

MAGIC: Final = b"hearback-serving\x03"
_LENGTH = Struct("<I")
_DIGEST_BYTES = 32
_MOST_HEADER_BYTES = 1 << 24
_FORMING = ".forming"
_IDS_AT_ONCE = 1 << 16  # a list of all would be a copy of them in memory
_ROWS_AT_ONCE = 1 << 12
_MOST_PART_BYTES = 1 << 28
_ROWS = msgspec.msgpack.Decoder(list[Row])


class Section(msgspec.Struct, frozen=True):
    """One effect's part: features, entities, bytes of their ids, rows (the prior's among them).

    ``summaries``: whether the rows have histories.
    """

    effect: str
    size: int
    entities: int
    id_bytes: int
    rows: int
    summaries: bool


class Place(msgspec.Struct):
    """How far a topic is read.

    ``topic_id``: what Kafka calls it, empty where the broker has no such names. ``offsets``: by
    partition, the next one to read.
    """

    topic: str
    topic_id: str
    offsets: list[int]

    def at_start(self) -> Place:
        """Return the same topic, of which nothing is read."""
        return Place(self.topic, self.topic_id, [0] * len(self.offsets))


class Header(msgspec.Struct, frozen=True):
    """What a snapshot is of.

    ``versions``: of the models whose coefficients it has; the first is that of the given model.
    ``models``: that were rolled in for it. ``read``: up to where partitions had read. ``places``:
    of the topics, by plain name. ``current_ms``: wall clock as of which it had all that was
    published. ``preferences``: of how many jobs it has them. ``applicants``: whether it has those;
    ``newest_ms``: the newest event time of them.
    """

    versions: list[str]
    controls: dict[str, Control]
    models: list[StoredModel]
    read: dict[str, int]
    places: dict[str, Place]
    current_ms: int
    sections: list[Section]
    preferences: int
    applicants: bool = False
    newest_ms: int | None = None


def save_snapshot(
    path: Path, store: EmbeddedStore, places: dict[str, Place], *, current_ms: int
) -> None:
    """Write a snapshot; to be called by the store's writer.

    Raises:
        OSError: it cannot be written; the old one stays.

    """
    applicants = store.applicants
    slots = {effect: table.ids.slots for effect, table in store.tables.items()}
    lengths = {effect: table.ids.lengths(slots[effect]) for effect, table in store.tables.items()}
    header = Header(
        versions=list(store.versions),
        controls=store.controls,
        models=[StoredModel.of(model) for model in store.models.rolled],
        read=store.waits.read,
        places=places,
        current_ms=current_ms,
        sections=[
            Section(
                *(effect, table.size, len(table), int(lengths[effect].sum()), table.used),
                len(table.summary) > 0,
            )
            for effect, table in store.tables.items()
        ],
        preferences=len(store.preferences),
        applicants=applicants is not None,
        newest_ms=None if applicants is None else applicants.newest_ms,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with _forming(path) as file:
        writer = _Hashed(file)
        text = msgspec.json.encode(header)
        writer.write(MAGIC + _LENGTH.pack(len(text)) + text)
        for effect, table in store.tables.items():
            writer.write(lengths[effect].astype("<u2"))
            for first in range(0, len(table), _IDS_AT_ONCE):
                writer.write(table.ids.text(slots[effect][first : first + _IDS_AT_ONCE]))
            writer.write(slots[effect].astype("<i4"))
            for array in table.arrays:
                writer.write(array)
        writer.write(_lengths(store.preferences))
        messages = store.preferences.values()
        writer.write(np.fromiter(map(len, messages), "<u4", len(messages)))
        _write_ids(writer, store.preferences)
        for message in messages:
            writer.write(message)
        if applicants is not None:
            rows = applicants.rows()
            while part := list(islice(rows, _ROWS_AT_ONCE)):
                packed = msgspec.msgpack.encode(part)
                writer.write(_LENGTH.pack(len(packed)) + packed)
            writer.write(_LENGTH.pack(0))
        file.write(writer.digest)


@contextmanager
def _forming(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes another's place when all is written; else nothing is left of it.

    Raises:
        OSError: it cannot be written, or another process writes it now.

    """
    forming = path.with_name(path.name + _FORMING)
    descriptor = os.open(forming, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not forming.exists() or not os.path.samestat(os.fstat(descriptor), forming.stat()):
            raise BlockingIOError(f"{forming} was written by another process: it is done")
        try:
            os.fchmod(descriptor, 0o600)  # it may have been there
            os.ftruncate(descriptor, 0)
            yield file
            file.flush()
            os.fsync(descriptor)
            forming.replace(path)
        except BaseException:
            forming.unlink(missing_ok=True)
            raise


def load_snapshot(path: Path, store: EmbeddedStore) -> Header:
    """Fill an empty store; return what the snapshot is of.

    Raises:
        StateError: it is damaged, of another model or of other effects; the store may be half full.
        OSError: it cannot be read; FileNotFoundError: there is none.

    """
    with path.open("rb") as file:
        reader = _Hashed(file)
        header = _header(path, reader, path.stat().st_size)
        wanted = [(effect, table.size) for effect, table in store.tables.items()]
        if header.versions[:1] != [store.version]:
            raise StateError(f"{path} is of another model ({', '.join(header.versions[:1])})")
        if [(each.effect, each.size) for each in header.sections] != wanted:
            raise StateError(f"{path} is of other effects")
        if header.applicants and store.applicants is None:
            raise StateError(f"{path} has applicants, which are not held any more")
        for section in header.sections:
            _fill(path, store.tables[section.effect], section, reader)
            if store.tables[section.effect].about["version"].max() >= len(header.versions):
                raise StateError(f"{path} is damaged: a row is of no model")
        preferences = _preferences(path, header.preferences, reader, path.stat().st_size)
        if header.applicants and store.applicants is not None:
            _fill_applicants(path, store.applicants, header.newest_ms, reader)
        if file.read() != reader.digest:
            raise StateError(f"{path} is damaged: its checksum is another")
    try:
        for stored in header.models:
            store.models.take(stored.model())
    except HearbackError as error:
        raise StateError(f"{path} is damaged: {error}") from None
    store.versions = {version: number for number, version in enumerate(header.versions)}
    store.preferences = preferences
    store.controls = header.controls
    store.waits.read = header.read
    store.heed_controls()
    return header


def _header(path: Path, reader: _Hashed, file_bytes: int) -> Header:
    if reader.read(len(MAGIC)) != MAGIC:
        raise StateError(f"{path} is no snapshot that this release reads")
    (length,) = _LENGTH.unpack(reader.read(_LENGTH.size))
    if length > _MOST_HEADER_BYTES:
        raise StateError(f"{path} is damaged: its header is too long")
    try:
        header = msgspec.json.decode(reader.read(length), type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(f"{path} is damaged: {error}") from None
    # What a header says is believed only so far as the file has it, or it could fill all memory.
    for each in header.sections:
        if not 0 <= each.entities < each.rows or min(each.size, each.id_bytes) < 0:
            raise StateError(f"{path} is damaged: rows and entities do not agree")
        row_bytes = 12 * each.size + ABOUT.itemsize
        if row_bytes * each.rows + each.id_bytes + 6 * each.entities > file_bytes:
            raise StateError(f"{path} is damaged: it ends too early")
    if not 0 <= 6 * header.preferences <= file_bytes:
        raise StateError(f"{path} is damaged: it ends too early")
    if COEFFICIENTS not in header.places:
        raise StateError(f"{path} is damaged: it does not tell how far {COEFFICIENTS} are read")
    return header


def _fill(path: Path, table: Table, section: Section, reader: _Hashed) -> None:
    lengths = reader.array(section.entities, "<u2")
    text = reader.read(section.id_bytes)
    slots = reader.array(section.entities, "<i4")
    ends = np.cumsum(lengths, dtype=np.int64)
    distinct = np.zeros(section.rows, np.bool_)
    if section.entities:
        if ends[-1] != section.id_bytes or slots.min() < 1 or slots.max() >= section.rows:
            raise StateError(f"{path} is damaged: ids and rows do not agree")
        distinct[slots] = True
    prior = table.variance[0].copy()
    if section.summaries:
        table.keep_summaries()
    larger = table.grown(section.rows - 1, section.id_bytes)
    if larger is not None:
        table.take(larger)
    table.used = section.rows
    for array in table.arrays:
        reader.into(array)
    table.set_prior(prior)
    start = 0
    for first in range(0, section.entities, _IDS_AT_ONCE):
        part = slice(first, first + _IDS_AT_ONCE)
        ids = []
        try:
            for end in ends[part].tolist():
                ids.append(text[start:end].decode())
                start = end
        except UnicodeDecodeError:
            raise StateError(f"{path} is damaged: an id is no text") from None
        if len(set(ids)) < len(ids) or table.ids.find(ids).any():
            raise StateError(f"{path} is damaged: an entity stands twice")
        table.ids.add(ids, slots[part])
    table.free = [row for row in np.flatnonzero(~distinct).tolist() if row]
    if distinct.sum() != section.entities:
        raise StateError(f"{path} is damaged: an entity stands twice")


def _fill_applicants(
    path: Path, applicants: Applicants, newest_ms: int | None, reader: _Hashed
) -> None:
    while True:
        (length,) = _LENGTH.unpack(reader.read(_LENGTH.size))
        if not length:
            return
        if length > _MOST_PART_BYTES:
            raise StateError(f"{path} is damaged: a part of it is too long")
        try:
            applicants.restore(_ROWS.decode(reader.read(length)), newest_ms)
        except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError) as error:
            raise StateError(f"{path} is damaged: {error}") from None


def _preferences(path: Path, count: int, reader: _Hashed, file_bytes: int) -> dict[str, bytes]:
    id_lengths, lengths = reader.array(count, "<u2").tolist(), reader.array(count, "<u4").tolist()
    if sum(id_lengths) + sum(lengths) > file_bytes:
        raise StateError(f"{path} is damaged: it ends too early")
    text, start = reader.read(sum(id_lengths)), 0
    found = {}
    try:
        for id_length, length in zip(id_lengths, lengths, strict=True):
            found[text[start : start + id_length].decode()] = reader.read(length)
            start += id_length
    except UnicodeDecodeError:
        raise StateError(f"{path} is damaged: an id is no text") from None
    return found


def _lengths(ids: Collection[str]) -> NDArray[np.uint16]:
    """Bytes of each id in UTF-8."""
    return np.fromiter((len(each.encode()) for each in ids), "<u2", len(ids))


def _write_ids(writer: _Hashed, ids: Iterable[str]) -> None:
    left = iter(ids)
    while some := "".join(islice(left, _IDS_AT_ONCE)):
        writer.write(some.encode())


class _Hashed:
    """A file that is hashed as it is read or written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    @property
    def digest(self) -> bytes:
        return self._hash.digest()

    def write(self, data: bytes | NDArray[np.generic]) -> None:
        raw = data if isinstance(data, bytes) else _bytes_of(data)
        self._hash.update(raw)
        self._file.write(raw)

    def read(self, length: int) -> bytes:
        raw = self._file.read(length)
        if len(raw) != length:
            raise StateError(f"{self._file.name} is damaged: it ends too early")
        self._hash.update(raw)
        return raw

    def array(self, length: int, kind: str) -> NDArray[np.int64]:
        of = np.dtype(kind)
        return np.frombuffer(self.read(length * of.itemsize), of).astype(np.int64)

    def into(self, array: NDArray[np.generic]) -> None:
        raw = _bytes_of(array)
        if self._file.readinto(raw) != len(raw):  # type: ignore[attr-defined]
            raise StateError(f"{self._file.name} is damaged: it ends too early")
        self._hash.update(raw)


def _bytes_of(array: NDArray[np.generic]) -> memoryview:
    """A C-contiguous array's own bytes, not copied."""
    return array.reshape(-1).view(np.uint8).data
