"""Stored values ↔ bytes.

Every value is one version byte followed by MessagePack (:class:`Codec`), of a struct as an array
but for a store's identity, which is a map. New fields go to the end, with a default, so that values
written before them are still read; a change that this cannot express takes a new version, and old
versions are read for ever. What cannot be read raises :class:`~stream.errors.StateError`; a value
is never half-used. A value that only says that its key is there is empty, or the version byte 1.

=======  =========================================================================
version  layout
=======  =========================================================================
none     Identity, progress, census, tallies, judgements and changelog marks of
         earlier releases: MessagePack alone, or JSON (identity). The first byte is
         that of an array (0x90 to 0x9f, 0xdc, 0xdd) or ``{`` (0x7b), so versions
         stay below 0x20.
1        MessagePack: ``Facts`` / ``Marker`` / ``Waiting`` and ``Applied`` /
         ``Orphan`` (tagged by their first element), ``Settled`` (a list of
         ``Stretch``), ``JobEventFact``, ``Deadline`` and lists of it, ``History``,
         ``Preferences``, names of models and models, a forgotten entity's marker; those
         that had no version before; a
         posterior with a list of examples (:class:`_Listed`)
2        a posterior with a value for each column of its examples (:class:`_Packed`)
=======  =========================================================================
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import pairwise
from math import inf, isfinite
from struct import calcsize
from typing import Any, Generic, TypeVar

import msgspec

from stream.errors import ConfigError, StateError
from stream.events.ladder import Kind
from stream.histories.applicants import BUCKETS, Applicants, Market
from stream.histories.history import HISTORY_BYTES, History
from stream.histories.preferences import EACH, Preferences
from stream.state.facts import (
    AGE,
    ApplicationRecord,
    Applied,
    Deadline,
    EngagementRecord,
    Facts,
    JobEventFact,
    Marker,
    Orphan,
    Settled,
    Waiting,
)
from stream.updaters.kept import Example, Kept, Posterior

_T = TypeVar("_T")

_encode = msgspec.msgpack.Encoder().encode
_LEAST_UNVERSIONED = 0x20  # versions are below
_LABELS = bytes(range(Kind.NEGATIVE_INFERRED << 1, (Kind.POSITIVE << 1 | 1) + 1))
_LAST_BYTES = bytes(range(1, 0x7F))  # of a weight, little-endian: finite, and above zero
RULES = frozenset({"later_response", "job_closed"})
"""What an inferred label may rest on."""


class Codec(Generic[_T]):
    """Stored values of one type ↔ bytes.

    To be made at import: msgspec describes a type at its first use, in Python, and a second thread
    that meets the half-made description ends the process. Sessions open in threads, all at once.

    Args:
        kind: the type, as msgspec takes it.
        version: that is written and read (``prefix``).
        sound: whether a value is one that a release may have written, where its type does not say.
        unversioned: decodes what earlier releases wrote without a version; None: they did not.

    """

    def __init__(
        self,
        kind: Any,
        *,
        version: int = 1,
        sound: Callable[[Any], bool] | None = None,
        unversioned: msgspec.json.Decoder[Any] | msgspec.msgpack.Decoder[Any] | None = None,
    ) -> None:
        self._version = version
        self.prefix = bytes([version])
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._sound = sound
        self._unversioned = unversioned

    def encode(self, value: _T) -> bytes:
        """Value → bytes."""
        return self.prefix + _encode(value)

    def decode(self, value: bytes) -> _T:
        """Bytes → value.

        Raises:
            StateError: they are damaged, or of another version.

        """
        try:
            if value[:1] == self.prefix:
                decoded: _T = self._decoder.decode(memoryview(value)[1:])
                return self._checked(decoded)
            if self._unversioned is not None and value and value[0] >= _LEAST_UNVERSIONED:
                older: _T = self._unversioned.decode(value)
                return self._checked(older)
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, ConfigError) as error:
            raise StateError(f"a stored value is damaged: {error}") from None
        found = value[0] if value else "nothing"
        raise StateError(
            f"a stored value has format version {found}, this release reads {self._version}:"
            " use the release that wrote it, or start from an empty folder"
        )

    def _checked(self, value: _T) -> _T:
        if self._sound is not None and not self._sound(value):
            raise StateError(
                f"a stored value is damaged: no release writes such a {type(value).__name__}"
            )
        return value


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


def _sound_application(record: ApplicationRecord) -> bool:
    """Scores are finite, a history is whole, and it is known what an inferred label rests on."""
    if not isinstance(record, Facts):
        return True
    known = record.rule is None or record.rule == AGE or record.rule in RULES
    whole = record.history is None or len(record.history) == HISTORY_BYTES
    return known and whole and isfinite(record.full_score)


def _sound_stretches(settled: Settled) -> bool:
    """They are disjoint and sorted."""
    before = None
    for stretch in settled:
        if stretch.last_ms < stretch.first_ms or stretch.rule not in RULES:
            return False
        if before is not None and stretch.first_ms <= before:
            return False
        before = stretch.last_ms
    return True


def _sound_run(deadlines: list[Deadline]) -> bool:
    """There are some, sorted."""
    return bool(deadlines) and deadlines == sorted(deadlines)


def _sound_history(history: History) -> bool:
    """There are no more positives than answers, and no more of those than applications."""
    recent = history.recent_applications, history.recent_answers, history.recent_positives
    return (
        0 <= history.positives <= history.answers <= history.applications
        and history.newest_ms >= 0
        and all(count >= 0.0 and isfinite(count) for count in recent)
    )


def _sound_preferences(preferences: Preferences) -> bool:
    """Nothing is counted less than never, and there are as many terms as it says."""
    tables = preferences.terms.values()
    rows = [preferences.totals, *(row for table in tables for row in table.values())]
    size = preferences.size == sum(map(len, tables)) and preferences.text_bytes >= 0
    return size and all(len(row) >= EACH and min(row) >= 0 for row in rows)


def _sound_applicants(applicants: Applicants) -> bool:
    """No more scores are kept than applicants were counted, the best last."""
    best = applicants.best
    return (
        len(best) <= applicants.count
        and all(map(isfinite, best))
        and all(one <= other for one, other in pairwise(best))
    )


def _sound_market(market: Market) -> bool:
    """Of each bucket there is a weight."""
    return len(market.weights) == BUCKETS and all(0.0 <= w < inf for w in market.weights)


def _sound_posterior(posterior: Posterior) -> bool:
    """Sizes agree with the mode's; examples are sorted, of a known kind, of some weight; finite."""
    mode, kept, precision = posterior.mode, posterior.kept, posterior.precision
    size, count = len(mode), len(kept.ids)
    if size % 8 or len(kept.features) * 2 != count * size or posterior.folded < 0:
        return False
    if posterior.folded:
        if len(precision) not in {size, size * size // 8} or len(posterior.linear) != size:
            return False
    elif precision or posterior.linear:
        return False
    weights = kept.weights.tobytes()
    if kept.labels.translate(None, _LABELS) or weights[7::8].translate(None, _LAST_BYTES):
        return False
    if count:
        times = kept.times_ms.tolist()
        if times[0] < 0 or times[-1] > posterior.time_ms:
            return False
        if times != sorted(set(times)):  # rarely: then they are sorted by id
            places = list(zip(times, kept.ids, strict=True))
            if places != sorted(set(places)):
                return False
    numbers = mode + precision + posterior.linear + kept.offsets.tobytes()
    return _are_finite(numbers, "d") and _are_finite(kept.features, "f")


def _are_finite(numbers: bytes | bytearray, code: str) -> bool:
    """Whether all numbers are; of little-endian ones the last byte tells of most, and quickly."""
    size = calcsize(code)
    last = numbers[size - 1 :: size]
    if 0x7F not in last and 0xFF not in last:
        return True
    return all(map(isfinite, array(code, bytes(numbers))))


APPLICATION = Codec[ApplicationRecord](Facts | Marker | Waiting, sound=_sound_application)
ENGAGEMENT = Codec[EngagementRecord](Applied | Orphan)
SETTLED = Codec[Settled](Settled, sound=_sound_stretches)
JOB_EVENT = Codec[JobEventFact](JobEventFact)
DEADLINE = Codec[Deadline](Deadline)
DEADLINES = Codec[list[Deadline]](list[Deadline], sound=_sound_run)
HISTORY = Codec[History](History, sound=_sound_history)
PREFERENCES = Codec[Preferences](Preferences, sound=_sound_preferences)
APPLICANTS = Codec[Applicants](Applicants, sound=_sound_applicants)
MARKET = Codec[Market](Market, sound=_sound_market)
FORGOTTEN = Codec[tuple[int, int]](tuple[int, int])
"""Up to when an entity's applications count for nothing, and when that was asked for (ms)."""

STEPS = Codec[tuple[tuple[int, float], ...]](tuple[tuple[int, float], ...])
"""Ages (ms) at which silence weighs more, and the weights."""

_LISTED = Codec[_Listed](_Listed)
_PACKED = Codec[Any](_Packed, version=2)  # encoded from a tuple: columns may be bytearrays


def encode_posterior(posterior: Posterior) -> bytes:
    """Entity posterior → bytes."""
    kept = posterior.kept
    return _PACKED.encode(
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
    if value[:1] == b"\x01":
        listed = _LISTED.decode(value)
        if len({len(example.z) for example in listed.kept}) > 1:
            raise StateError("a stored value is damaged: its examples do not fit together")
        try:
            kept = Kept.of(listed.kept)
        except (ValueError, OverflowError) as error:
            raise StateError(f"a stored value is damaged: {error}") from None
        return _checked_posterior(listed, kept)
    packed: _Packed = _PACKED.decode(value)
    n = len(packed.ids)
    if not (
        8 * n == len(packed.times_ms) == len(packed.weights) == len(packed.offsets)
        and n == len(packed.labels)
        and (len(packed.features) % (4 * n) == 0 if n else not packed.features)
    ):
        raise StateError("a stored value is damaged: its columns do not fit together")
    kept = Kept(
        ids=packed.ids,
        times_ms=packed.times_ms,
        labels=packed.labels,
        weights=packed.weights,
        offsets=packed.offsets,
        features=packed.features,
    )
    return _checked_posterior(packed, kept)


def _checked_posterior(stored: _Packed | _Listed, kept: Kept) -> Posterior:
    posterior = Posterior(
        stored.mode,
        stored.time_ms,
        kept,
        folded=stored.folded,
        precision=stored.precision,
        linear=stored.linear,
    )
    if not _sound_posterior(posterior):
        raise StateError("a stored value is damaged: no release writes such a posterior")
    return posterior
