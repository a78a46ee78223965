"""The topic ``applicants``: applications that may still be decided, as a service ranks them.

Compacted: the key is a JSON array of the job's and the application's id, the value what was known
at first sight; a tombstone says that the application is no longer open, or forgotten. Whether it
was answered or declined is in ``labels``.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import UNSET

from stream.events.refusals import UNREADABLE, refused
from stream.events.structs import FurtherScores, Id, TimeMs
from stream.events.wire import AllFeatures
from stream.histories.preferences import Terms

_T = TypeVar("_T")


class Applicant(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="type", tag="applicant"
):
    """An open application; scores (log-odds), features and histories are those of first sight."""

    application_id: Id
    member_id: Id
    job_id: Id
    application_time_ms: TimeMs
    model_version: str
    features: AllFeatures
    global_score: float
    member_score: float
    job_score: float
    channel: str | None = None
    terms: Terms | None = None
    further_scores: FurtherScores | msgspec.UnsetType = UNSET


class Decision(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="label"):
    """What a label says of an application's state; its other fields are passed over."""

    application_id: Id
    job_id: Id
    kind: str
    label_time_ms: TimeMs


_APPLICANT = msgspec.json.Decoder(Applicant)
_DECISION = msgspec.json.Decoder(Decision)
_KEY = msgspec.json.Decoder(tuple[Id, Id])
_ENCODE = msgspec.json.Encoder().encode


def applicants_key(job_id: str, application_id: str) -> bytes:
    """Key of the topic ``applicants``."""
    return _ENCODE((job_id, application_id))


def decode_applicants_key(key: bytes) -> tuple[str, str]:
    """Job and application of a key; raises EventError where it is none."""
    return _decode(_KEY, key)


def encode_applicant(applicant: Applicant) -> bytes:
    """Value of the topic ``applicants``."""
    return _ENCODE(applicant)


def decode_applicant(raw: bytes) -> Applicant:
    """Parse a value of the topic ``applicants``; raises EventError where it is none."""
    return _decode(_APPLICANT, raw)


def decode_decision(raw: bytes) -> Decision:
    """Parse a message of ``labels`` for what it says of the application's state alone."""
    return _decode(_DECISION, raw)


def _decode(decoder: msgspec.json.Decoder[_T], raw: bytes) -> _T:
    try:
        return decoder.decode(raw)
    except UNREADABLE as error:
        raise refused(error, raw) from None
