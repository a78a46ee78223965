"""Bytes ↔ events. What a struct of :mod:`stream.events.structs` does not say of them stands here.

Decoding checks everything that can be told from one message alone; what it refuses raises an
:class:`~stream.errors.EventError` whose class is the dead letter's reason. Encoding writes
compact JSON in a fixed field order, so that equal messages are equal bytes.

Feature vectors go out with the digits that tell each float32 value from all others: ``0.2`` comes
back as ``0.2``.

An event may stand behind the header of a schema registry's serializers, a zero byte and four of the
schema's id (Confluent, "Wire format"), if what follows is JSON.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import orjson

from stream.errors import (
    EventError,
    InvalidFeaturesError,
    InvalidIdError,
    TooLargeError,
)
from stream.events.applications import (
    ApplicationFields,
    RawApplication,
    RawFeatures,
    entered,
    packed,
)
from stream.events.lenient import respelled
from stream.events.refusals import UNREADABLE, refused
from stream.events.structs import (
    Clock,
    Coefficients,
    Engagement,
    Event,
    Forget,
    FurtherScores,
    Id,
    JobEvent,
    Label,
    Match,
    PartitionNumber,
    ScoredApplication,
    TimeMs,
    Watermark,
)
from stream.features.blocks import FeatureSpace
from stream.histories.history import NAMES, NUMBERS
from stream.histories.preferences import JobPreferences, Preferred, Terms
from stream.text import BYTE_ORDER_MARK, encoding_of

_T = TypeVar("_T")

_Numbers = bytes | list[float]
"""Float32, little-endian, in base64: between the stages a history is written and read several times
as fast so as in digits, which are read too."""

MAX_MESSAGE_BYTES = 256 * 1024

_MAGIC = b"\0"
_HEADER_BYTES = 5


class ApplicationByJob(ApplicationFields, frozen=True, gc=False, kw_only=True, tag="application"):
    """An application after the member stage: a producer may have fields of these names too.

    ``attributes`` is the fingerprint of those that were sent.
    """

    member_score: float | None = None
    partition: PartitionNumber | None = None
    watermark_ms: int | None = None
    further_scores: FurtherScores | msgspec.UnsetType = msgspec.UNSET
    history: _Numbers | msgspec.UnsetType = msgspec.UNSET
    attributes: str | msgspec.UnsetType = msgspec.UNSET


class _LabelFeatures(msgspec.Struct, frozen=True, gc=False):
    """The blocks of a label, which are kept as bytes and sent as lists."""

    per_member: list[float]
    per_job: list[float]
    history: list[float] | None = None
    preferences: Preferred | msgspec.UnsetType = msgspec.UNSET


class AllFeatures(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, rename={"global_": "global"}
):
    """Those, and what the global model scored: stages that learn from labels pass it over."""

    global_: list[float] | msgspec.UnsetType = msgspec.UNSET
    per_member: list[float]
    per_job: list[float]
    history: list[float] | None = None
    preferences: Preferred | msgspec.UnsetType = msgspec.UNSET


_F = TypeVar("_F", _LabelFeatures, AllFeatures)

_LEAST_WEIGHT = 1e-9  # one of nothing teaches nothing, and is not stored


class LabelMessage(
    msgspec.Struct, Generic[_F], frozen=True, gc=False, tag_field="type", tag="label"
):
    """A label in its own order, but for the blocks: ``features`` stands for both."""

    application_id: Id
    member_id: Id
    job_id: Id
    label: Annotated[int, msgspec.Meta(ge=0, le=1)]
    kind: str
    previous: str | None
    rule: str | None
    final: bool
    weight: Annotated[float, msgspec.Meta(ge=_LEAST_WEIGHT)]
    application_time_ms: TimeMs
    evidence_time_ms: int | None
    label_time_ms: int
    model_version: str
    features: _F
    global_score: float
    member_score: float
    job_score: float
    channel: str | None
    terms: Terms | None
    further_scores: FurtherScores | msgspec.UnsetType = msgspec.UNSET
    previous_weight: float | None = None
    first_model: str | msgspec.UnsetType = msgspec.UNSET
    declined_time_ms: TimeMs | msgspec.UnsetType = msgspec.UNSET


_FEATURES = LabelMessage.__struct_fields__.index("features")

RawEvent = RawApplication | Engagement | JobEvent | Clock | Forget

_EVENT = msgspec.json.Decoder(RawEvent)
_ANY = msgspec.json.Decoder(dict[str, Any])
_BY_JOB = msgspec.json.Decoder(ApplicationByJob | Watermark | Forget)
_LABEL = msgspec.json.Decoder(LabelMessage[_LabelFeatures])
_WHOLE_LABEL = msgspec.json.Decoder(LabelMessage[AllFeatures])
_PREFERENCES = msgspec.json.Decoder(JobPreferences)
_COEFFICIENTS = msgspec.json.Decoder(Coefficients)
_ENCODE = msgspec.json.Encoder().encode


def decode_raw(raw: bytes) -> RawEvent:
    """Parse one event without a model: features stay as sent.

    Integer ids and other spellings of times are read as :mod:`stream.events.lenient` says.

    Raises:
        TooLargeError: it is over 256 KiB. Our own messages may be larger: numbers grow digits.

    """
    if len(raw) > MAX_MESSAGE_BYTES:
        raise TooLargeError(f"{len(raw)} bytes, the limit is {MAX_MESSAGE_BYTES}")
    try:
        event: RawEvent = _EVENT.decode(raw)
    except UNREADABLE as error:
        return _second_reading(raw, error)
    return event


def decode_event(raw: bytes, space: FeatureSpace) -> Event:
    """Parse one message of ``applications`` or ``engagements`` or a log line."""
    return to_event(decode_raw(raw), space)


def to_event(event: RawEvent, space: FeatureSpace) -> Event:
    """Raw event → event, features packed against the model's names."""
    if isinstance(event, RawApplication):
        return entered(event, space)
    if isinstance(event, Forget) and (event.member_id is None) == (event.job_id is None):
        raise InvalidIdError("forget takes either a member_id or a job_id")
    return event


def decode_by_job(raw: bytes, space: FeatureSpace) -> ScoredApplication | Watermark | Forget:
    """Parse one message of ``applications-by-job``; a member is to be forgotten there, no job."""
    message = _decode(_BY_JOB, raw)
    if isinstance(message, Watermark):
        return message
    if isinstance(message, Forget):
        if message.member_id is None or message.job_id is not None:
            raise InvalidIdError("what is forgotten by the job is a member")
        return message
    if message.member_score is None or message.partition is None:
        raise EventError("an application without member_score or partition")
    return ScoredApplication(
        packed(message, space, _unhexed(message.attributes or None)),
        message.member_score,
        message.partition,
        message.watermark_ms,
        message.further_scores or None,
        packed_numbers(message.history or None, len(NUMBERS)),
    )


def encode(
    message: Clock | Forget | Watermark | Coefficients | JobPreferences | Match,
) -> bytes:
    """Message → bytes, for what travels as it is; the others have functions of their own."""
    return _ENCODE(message)


def encode_by_job(scored: ScoredApplication) -> bytes:
    """Application + member score + source partition and watermark → ``applications-by-job``."""
    app = scored.application
    features = app.features
    return _ENCODE(
        ApplicationByJob(
            application_id=app.application_id,
            member_id=app.member_id,
            job_id=app.job_id,
            event_time_ms=app.event_time_ms,
            features=RawFeatures(
                global_=None if features.global_ is None else digits(features.global_),
                per_member=digits(features.per_member),
                per_job=digits(features.per_job),
            ),
            global_score=app.global_score,
            channel=app.channel,
            terms=app.terms,
            member_score=scored.member_score,
            partition=scored.partition,
            watermark_ms=scored.watermark_ms,
            further_scores=scored.further_scores or msgspec.UNSET,
            history=msgspec.UNSET if scored.history is None else scored.history,
            attributes=msgspec.UNSET if app.attributes is None else app.attributes.hex(),
        )
    )


def encode_label(label: Label) -> bytes:
    """Label → ``labels`` and ``labels.jsonl``."""
    return _ENCODE(
        LabelMessage(  # in order: names would cost more than the encoding
            label.application_id,
            label.member_id,
            label.job_id,
            label.label,
            label.kind,
            label.previous,
            label.rule,
            label.final,
            label.weight,
            label.application_time_ms,
            label.evidence_time_ms,
            label.label_time_ms,
            label.model_version,
            AllFeatures(
                global_=msgspec.UNSET if label.global_ is None else digits(label.global_),
                per_member=digits(label.per_member),
                per_job=digits(label.per_job),
                history=None if label.history is None else digits(label.history),
                preferences=label.preferences or msgspec.UNSET,
            ),
            label.global_score,
            label.member_score,
            label.job_score,
            label.channel,
            label.terms,
            label.further_scores or msgspec.UNSET,
            label.previous_weight,
            label.first_model or msgspec.UNSET,
            msgspec.UNSET if label.declined_time_ms is None else label.declined_time_ms,
        )
    )


def decode_label(raw: bytes, space: FeatureSpace) -> Label:
    """Parse one message of ``labels``, but for what the global model scored."""
    return _label(_decode(_LABEL, raw), space, None)


def decode_whole_label(raw: bytes, space: FeatureSpace) -> Label:
    """Parse one message of ``labels``; of any size is what the global model scored."""
    message = _decode(_WHOLE_LABEL, raw)
    sent = message.features.global_ or []
    return _label(message, space, packed_numbers(sent, len(sent)) or None)


def _label(
    message: LabelMessage[_LabelFeatures] | LabelMessage[AllFeatures],
    space: FeatureSpace,
    packed_global: bytes | None,
) -> Label:
    values = list(msgspec.structs.astuple(message))  # in order, as above
    features = message.features
    values[_FEATURES : _FEATURES + 1] = (
        space.per_member.pack(features.per_member),
        space.per_job.pack(features.per_job),
    )
    declined_time_ms = values.pop()
    first_model = values.pop() or None
    values[-2] = values[-2] or None  # further scores
    history = packed_numbers(features.history, len(NAMES))
    values += (history, features.preferences or None, first_model)
    values += (packed_global, None if declined_time_ms is msgspec.UNSET else declined_time_ms)
    return Label(*values)


def decode_coefficients(raw: bytes) -> Coefficients:
    """Parse one message of ``coefficients``."""
    return _decode(_COEFFICIENTS, raw)


def decode_preferences(raw: bytes) -> JobPreferences:
    """Parse one message of ``preferences``."""
    return _decode(_PREFERENCES, raw)


def coefficients_key(effect: str, entity_id: str) -> bytes:
    """Key of the ``coefficients`` topic: ``effect:entity_id``."""
    return f"{effect}:{entity_id}".encode()


def numbers(packed: bytes) -> list[float]:
    """Float32 bytes of shape (d,) → d Python floats."""
    return list(_floats(len(packed) // 4).unpack(packed))


def digits(packed: bytes) -> Any:
    """Float32 bytes of shape (d,) → a JSON list of the fewest digits that are read as the same.

    It is :class:`msgspec.Raw`, for fields that are lists of numbers to those who read them.
    """
    import numpy as np  # noqa: PLC0415 - help and settings do without it

    values = np.frombuffer(packed, "<f4")
    return msgspec.Raw(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY))


def packed_numbers(history: _Numbers | None, count: int) -> bytes | None:
    """Numbers of a history → float32 bytes.

    Raises:
        InvalidFeaturesError: there are more or fewer of them, or too large ones.

    """
    if history is None:
        return None
    if isinstance(history, bytes):
        last = history[3::4]  # bytes of these numbers: 7F and FF are of NaN, and of 1.7e38 and more
        if len(history) != 4 * count or 0x7F in last or 0xFF in last:
            raise InvalidFeaturesError(f"a history: not {count} finite numbers")
        return history
    try:
        return _floats(count).pack(*history)
    except (StructError, OverflowError) as error:
        raise InvalidFeaturesError(f"a history: {error}") from None


@lru_cache
def _floats(count: int) -> Struct:
    return Struct(f"<{count}f")


def _unhexed(text: str | None) -> bytes | None:
    try:
        return None if text is None else bytes.fromhex(text)
    except ValueError:
        raise EventError("attributes are not hexadecimal") from None


def _second_reading(raw: bytes, error: Exception) -> RawEvent:
    """Read what is no event as it stands, if other spellings of ids and time are all that is wrong.

    Raises:
        EventError: it cannot be used; where other spellings are not what is wrong, ``error`` says
            why.

    """
    if raw.startswith(BYTE_ORDER_MARK):
        return decode_raw(raw.removeprefix(BYTE_ORDER_MARK))
    if raw.startswith(_MAGIC) and len(raw) > _HEADER_BYTES and encoding_of(raw) != "utf-16-be":
        return _behind_header(raw)
    try:
        message = _ANY.decode(raw)
    except UNREADABLE:
        raise refused(error, raw) from None
    if not respelled(message):
        raise refused(error, raw)
    try:
        event: RawEvent = msgspec.convert(message, RawEvent)
    except msgspec.ValidationError as still:
        raise refused(still, raw) from None
    return event


def _behind_header(raw: bytes) -> RawEvent:
    """Read what follows a registry's header.

    Raises:
        EventError: it is no JSON, or cannot be used.

    """
    body = raw[_HEADER_BYTES:]
    if body.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{"):
        return decode_raw(body)
    schema = int.from_bytes(raw[1:_HEADER_BYTES], "big")
    raise EventError(
        f"what follows a registry's header (schema {schema}) is no JSON but Avro, Protobuf or"
        " something else: let the producer write JSON, as the serializer for JSON Schema does"
    )


def _decode(decoder: msgspec.json.Decoder[_T], raw: bytes) -> _T:
    try:
        return decoder.decode(raw)
    except UNREADABLE as error:
        raise refused(error, raw) from None
