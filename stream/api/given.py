"""What may be given for a time, a duration, or a policy."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from stream.configuration.load import load_config
from stream.configuration.sections import Config
from stream.configuration.settings import read_document
from stream.units import parse_duration_ms, parse_time_ms

Time = str | int | date
"""A text or digits as :func:`stream.units.parse_time_ms` reads them, or a date or ``datetime``, UTC
where it has no zone."""

Duration = str | timedelta
"""``"30d"``, or a ``timedelta``."""

PolicyLike = str | Path | Mapping[str, Any]
"""A policy file, or what stands in one: ``{"labels": {"window": "7d"}}``."""


def time_ms(given: Time | None) -> int | None:
    """Time → milliseconds since 1970.

    Raises:
        ConfigError: it is no time.

    """
    if given is None:
        return None
    text = given.isoformat() if isinstance(given, date) else str(given)
    return parse_time_ms(text)


def duration_ms(given: Duration | None) -> int | None:
    """Duration → milliseconds.

    Raises:
        ConfigError: it is no duration.

    """
    if isinstance(given, timedelta):
        return given // timedelta(milliseconds=1)
    return None if given is None else parse_duration_ms(given)


def settings(policy: PolicyLike | None) -> Config:
    """Return the settings in force: the defaults, and above them the policy's.

    Raises:
        ConfigError: it cannot be read, or says what cannot be.

    """
    if isinstance(policy, Mapping):
        return load_config(None, {}, None, read_document(policy, holder=Config().policy))
    return load_config(None, {}, None if policy is None else Path(policy))


def moment(at_ms: int) -> datetime:
    """Milliseconds since 1970 → ``datetime`` in UTC."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
