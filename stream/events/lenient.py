"""Ids and times in other spellings than the wire format's, where they leave no doubt.

:mod:`stream.events.wire` comes here only with what it could not read as it stands, so that events
in the usual form pay nothing. What is doubtful stays as it is, and is refused there.
"""

from __future__ import annotations

from typing import Any, Final

from stream.units import iso_time_ms

IDS: Final = ("application_id", "member_id", "job_id", "engagement_id", "job_event_id")

_EXACT: Final = 1 << 53  # beyond it a float64 may stand for another integer than was written


def as_id(value: Any) -> Any:
    """Whole number → its digits, as a string; anything else as it is.

    ``7`` and ``7.0`` are one number, and a table in which an integer id is missing somewhere has
    the others as ``7.0``. ``true`` is no number.
    """
    if type(value) is float and value.is_integer() and -_EXACT < value < _EXACT:
        value = int(value)
    return str(value) if type(value) is int else value


def as_time_ms(value: Any) -> Any:
    """Whole float, or ISO 8601 with a zone → milliseconds since 1970; anything else as it is."""
    if type(value) is float and value.is_integer() and -_EXACT < value < _EXACT:
        return int(value)
    if type(value) is str:
        time_ms = iso_time_ms(value)
        return value if time_ms is None else time_ms
    return value


def respelled(message: dict[str, Any]) -> bool:
    """Put ids and the time of an event into the usual form; tell whether that changed anything."""
    changed = False
    for name in IDS:
        if name in message:
            before = message[name]
            message[name] = after = as_id(before)
            changed |= after is not before
    if "event_time_ms" in message:
        before = message["event_time_ms"]
        message["event_time_ms"] = after = as_time_ms(before)
        changed |= after is not before
    return changed
