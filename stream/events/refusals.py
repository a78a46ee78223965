"""Why bytes are no event: the class of the error is the dead letter's reason."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from stream.errors import (
    EventError,
    InvalidFeaturesError,
    InvalidIdError,
    InvalidTimeError,
    UnknownActionError,
    UnknownTypeError,
)

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises of bytes that it cannot read."""

_TIMES: Final = (
    "whole milliseconds since 1970, or ISO 8601 with a zone such as 2024-01-31T12:00:00Z"
)
_ATTRIBUTES: Final = {"member", "job", "context"}
_OF_FEATURES: Final = {"features", "per_member", "per_job", "global", "global_score"} | _ATTRIBUTES
_PATH: Final = re.compile(r"`\$?\.?([a-z_]*)[^`]*`$")


def refused(error: Exception, raw: bytes) -> EventError:
    """Say why bytes cannot be used, given what their decoder raised."""
    if isinstance(error, msgspec.ValidationError):
        return _refusal(str(error))
    if isinstance(error, UnicodeDecodeError):
        return EventError("not UTF-8")
    if b"NaN" in raw or b"Infinity" in raw:
        return InvalidFeaturesError("NaN and Infinity are no JSON numbers")
    if b"\0" in raw.strip(b"\0"):
        return EventError("zero bytes, as UTF-16 has them: make all of the file UTF-8 (iconv)")
    return EventError(str(error) or "too deeply nested")


def _refusal(message: str) -> EventError:
    """Choose the reason by the field that msgspec names at the end of its message."""
    found = _PATH.search(message)
    field = found.group(1) if found else ""
    text = message[:200]
    if field == "type":
        return UnknownTypeError(text)
    if field == "action":
        return UnknownActionError(text)
    if field.endswith("_id"):
        return InvalidIdError(text)
    if field == "event_time_ms":
        return InvalidTimeError(f"{text} ({_TIMES})")
    if field in _OF_FEATURES:
        return InvalidFeaturesError(text)
    return EventError(text)
