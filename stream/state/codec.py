"""Stored values ↔ bytes.

Every value is one version byte followed by MessagePack of a struct as an array. New fields go to
the end, with a default, so that values written before them are still read; a change that this
cannot express takes a new version, and old versions are read for ever. What cannot be read raises
:class:`~stream.errors.StateError`; a value is never half-used.

=======  =========================================================================
version  layout
=======  =========================================================================
1        MessagePack arrays: ``Facts`` / ``Marker`` / ``Waiting`` and ``Applied`` /
         ``Orphan`` (tagged by their first element), ``Settled`` (a list of
         ``Stretch``), ``JobEventFact``, ``Deadline`` and lists of it, a forgotten
         entity's marker; a posterior with a list of examples (:class:`_Listed`)
2        a posterior with a value for each column of its examples (:class:`_Packed`)
=======  =========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from stream.errors import StateError
from stream.labels.facts import (
    ApplicationRecord,
    Applied,
    Deadline,
    EngagementRecord,
    Facts,
    JobEventFact,
    Marker,
    Orphan,
    Waiting,
)
from stream.labels.settled import Settled
from stream.updaters.kept import Example, Kept
from stream.updaters.posterior import Posterior

VERSION = 1
POSTERIOR_VERSION = 2
_PREFIX = bytes([VERSION])
_PACKED = bytes([POSTERIOR_VERSION])
_T = TypeVar("_T")


class _Packed(msgspec.Struct, array_like=True, gc=False):
    """A posterior as it is stored; the columns of :class:`stream.updaters.kept.Kept`."""

    mode: bytes
    time_ms: int
    ids: list[str]
    times_ms: bytes
    labels: bytes
    weights: bytes
    offsets: bytes
    features: bytes
    folded: int = 0
    precision: bytes = b""
    linear: bytes = b""


class _Listed(msgspec.Struct, array_like=True):
    """A posterior as it was stored before."""

    mode: bytes
    time_ms: int
    kept: list[Example]
    folded: int = 0
    precision: bytes = b""
    linear: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_APPLICATION = msgspec.msgpack.Decoder(Facts | Marker | Waiting)
_ENGAGEMENT = msgspec.msgpack.Decoder(Applied | Orphan)
_SETTLED = msgspec.msgpack.Decoder(Settled)
_JOB_EVENT = msgspec.msgpack.Decoder(JobEventFact)
_DEADLINE = msgspec.msgpack.Decoder(Deadline)
_DEADLINES = msgspec.msgpack.Decoder(list[Deadline])
_MARKER = msgspec.msgpack.Decoder(tuple[int, int])
_POSTERIOR = msgspec.msgpack.Decoder(_Packed)
_LISTED = msgspec.msgpack.Decoder(_Listed)


def encode_application(record: ApplicationRecord) -> bytes:
    """Application record → bytes."""
    return _PREFIX + _encode(record)


def decode_application(value: bytes) -> ApplicationRecord:
    """Bytes → application record."""
    record: ApplicationRecord = _decode(_APPLICATION, value)
    return record


def encode_engagement(record: EngagementRecord) -> bytes:
    """Engagement record → bytes."""
    return _PREFIX + _encode(record)


def decode_engagement(value: bytes) -> EngagementRecord:
    """Bytes → engagement record."""
    record: EngagementRecord = _decode(_ENGAGEMENT, value)
    return record


def encode_settled(settled: Settled) -> bytes:
    """What a job's evidence has settled → bytes."""
    return _PREFIX + _encode(settled)


def decode_settled(value: bytes) -> Settled:
    """Bytes → what a job's evidence has settled."""
    return _decode(_SETTLED, value)


def encode_job_event(fact: JobEventFact) -> bytes:
    """Job event fact → bytes."""
    return _PREFIX + _encode(fact)


def decode_job_event(value: bytes) -> JobEventFact:
    """Bytes → job event fact."""
    return _decode(_JOB_EVENT, value)


def encode_deadline(deadline: Deadline) -> bytes:
    """Deadline → bytes."""
    return _PREFIX + _encode(deadline)


def decode_deadline(value: bytes) -> Deadline:
    """Bytes → deadline."""
    return _decode(_DEADLINE, value)


def encode_deadlines(run: Sequence[Deadline]) -> bytes:
    """Run of deadlines → bytes."""
    return _PREFIX + _encode(run)


def decode_deadlines(value: bytes) -> list[Deadline]:
    """Bytes → run of deadlines."""
    return _decode(_DEADLINES, value)


def encode_forgotten(until_ms: int, asked_ms: int) -> bytes:
    """Marker of a forgotten entity → bytes."""
    return _PREFIX + _encode((until_ms, asked_ms))


def decode_forgotten(value: bytes) -> tuple[int, int]:
    """Bytes → marker of a forgotten entity."""
    return _decode(_MARKER, value)


def encode_posterior(posterior: Posterior) -> bytes:
    """Entity posterior → bytes."""
    kept = posterior.kept
    return _PACKED + _encode(
        (
            posterior.mode,
            posterior.time_ms,
            kept.ids,
            kept.times_ms.tobytes(),
            kept.labels,
            kept.weights.tobytes(),
            kept.offsets.tobytes(),
            kept.features,
            posterior.folded,
            posterior.precision,
            posterior.linear,
        )
    )


def decode_posterior(value: bytes) -> Posterior:
    """Bytes → entity posterior."""
    if value[:1] == _PREFIX:
        listed = _decode(_LISTED, value)
        if len({len(example.z) for example in listed.kept}) > 1:
            raise StateError("a stored value is damaged: its examples do not fit together")
        try:
            kept = Kept.of(listed.kept)
        except (ValueError, OverflowError) as error:
            raise StateError(f"a stored value is damaged: {error}") from None
        return Posterior(
            *(listed.mode, listed.time_ms, kept, listed.folded, listed.precision, listed.linear)
        )
    packed = _decode(_POSTERIOR, value, _PACKED)
    n = len(packed.ids)
    if not (
        8 * n == len(packed.times_ms) == len(packed.weights) == len(packed.offsets)
        and n == len(packed.labels)
        and (len(packed.features) % (4 * n) == 0 if n else not packed.features)
    ):
        raise StateError("a stored value is damaged: its columns do not fit together")
    return Posterior(
        packed.mode,
        packed.time_ms,
        Kept(
            packed.ids,
            packed.times_ms,
            packed.labels,
            packed.weights,
            packed.offsets,
            packed.features,
        ),
        packed.folded,
        packed.precision,
        packed.linear,
    )


def _decode(decoder: msgspec.msgpack.Decoder[_T], value: bytes, prefix: bytes = _PREFIX) -> _T:
    if value[:1] != prefix:
        found = value[0] if value else "nothing"
        raise StateError(
            f"a stored value has format version {found}, this release reads {prefix[0]}:"
            " use the release that wrote it, or start from an empty folder"
        )
    try:
        return decoder.decode(memoryview(value)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(f"a stored value is damaged: {error}") from None
