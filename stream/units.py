"""Times, durations, speeds and settings as people write them, and back.

Used by the command line, the policy file and messages. Inside the product a time is a whole number
of milliseconds since 1970 (UTC) and a duration a whole number of milliseconds; only this module
knows other spellings. Everything that cannot be read is a :class:`~stream.errors.ConfigError` whose
one line says what is accepted.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final, NamedTuple

from stream.errors import ConfigError

MS_PER_UNIT: Final[dict[str, int]] = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
"""Milliseconds in one of each unit that a duration may be written in."""

MAX_DURATION_MS: Final = 36_525 * MS_PER_UNIT["d"]
"""The longest duration that is accepted, a hundred years: far beyond use, far from overflow."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_TIME_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, beyond which nothing can be written as ISO 8601."""

_DURATION: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d|w)")
_DIGITS: Final = re.compile(r"[0-9]+")
_PER_MS: Final = {10: Decimal("0.001"), 13: Decimal(1), 16: Decimal(1_000), 19: Decimal(1_000_000)}
"""How many of its unit make a millisecond, by the number of digits: from 2001 to 2286."""
_SPEED: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*[xX]?")


class Setting(NamedTuple):
    """Declares a struct's field as a setting: ``Annotated[type, Setting("what it means")]``.

    The struct is a section of the configuration, the field's type and default are the setting's.
    A field ``window_ms`` is a duration with the key ``window``; of type ``int | None`` it may be
    ``"off"``. All else follows (:mod:`stream.configuration.settings`): reading and checking,
    environment variable, example file, ``hearback config show``, docs.

    Attributes:
        help: one line. Begins in lower case; help texts of options capitalise it.
        example: what a file could say, for a setting without a default.
        key: where it is not the field's name.
        secret: never in a configuration file. It comes from the environment, or from the file that
            the setting ``KEY_file`` of the same section names.

    """

    help: str
    example: str | None = None
    key: str | None = None
    secret: bool = False


def parse_time_ms(text: str) -> int:
    """Read a point in time, in milliseconds since 1970.

    Args:
        text: ISO 8601 (``2024-01-01``, ``2024-01-01T12:00:00Z``, ``2024-01-01 12:00+02:00``,
            ``20240101T120000Z``; UTC where it names no offset; fractions below a millisecond are
            cut off), or digits alone, whose number tells what they are: 8 a date, 14 a date and a
            time, 10 seconds since 1970, 13, 16 and 19 milli-, micro- and nanoseconds.

    Raises:
        ConfigError: it is neither, leaves a doubt (``2017050112``: an hour of 2017, or a second of
            2033), or lies before 1970.

    """
    stripped = text.strip()
    if _DIGITS.fullmatch(stripped):
        milliseconds = _from_digits(stripped)
    else:
        milliseconds = iso_time_ms(stripped, UTC)
    if milliseconds is None or not 0 <= milliseconds <= MAX_TIME_MS:
        raise ConfigError(_time_message(text))
    return milliseconds


def _from_digits(digits: str) -> int | None:
    count = len(digits)
    if count in {8, 14}:
        return iso_time_ms(_compact(digits), UTC)
    if count == 10 and (iso_time_ms(_compact(digits), UTC) or -1) >= 0:
        return None
    per_ms = _PER_MS.get(count)
    return None if per_ms is None else int(int(digits) / per_ms)


def _compact(digits: str) -> str:
    return f"{digits[:8]}T{digits[8:]}" if digits[8:] else digits


def iso_time_ms(text: str, zone: tzinfo | None = None) -> int | None:
    """Read ISO 8601, in milliseconds since 1970; None: it is none, or names no zone.

    Args:
        text: fractions below a millisecond are cut off.
        zone: of a time that names none.

    """
    try:
        moment = datetime.fromisoformat(text.strip().upper().replace(" UTC", "Z"))
    except ValueError:
        return None
    if moment.tzinfo is None:
        if zone is None:
            return None
        moment = moment.replace(tzinfo=zone)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def parse_duration_ms(text: str) -> int:
    """Read a duration, in milliseconds: ``500ms``, ``30s``, ``15m``, ``1h``, ``14d``, ``2w``.

    Fractions are accepted where they come to whole milliseconds (``1.5h``), and so is ``0``.

    Raises:
        ConfigError: it has no unit, is negative, longer than a hundred years, or not a duration.

    """
    stripped = text.strip()
    if stripped == "0":
        return 0
    match = _DURATION.fullmatch(stripped)
    if match is None:
        raise ConfigError(_duration_message(text))
    exact = Decimal(match[1]) * MS_PER_UNIT[match[2]]
    if exact != int(exact) or exact > MAX_DURATION_MS:
        raise ConfigError(_duration_message(text))
    return int(exact)


def parse_speed(text: str) -> float:
    """Read how many times faster than the wall clock to play: ``60x``, ``1.5`` or ``max``.

    Returns:
        A positive number; infinity for ``max`` (as fast as possible).

    Raises:
        ConfigError: it is neither ``max`` nor a positive number.

    """
    stripped = text.strip()
    if stripped == "max":
        return math.inf
    match = _SPEED.fullmatch(stripped)
    speed = float(match[1]) if match else 0.0
    if speed <= 0.0:
        raise ConfigError(
            f"speed {_quote(text)} cannot be read: give a positive number such as 60x, or max"
        )
    return speed


def format_time(ms: int) -> str:
    """Write a time as ISO 8601 in UTC, with milliseconds only where there are some.

    :func:`parse_time_ms` reads it back exactly. A time that no calendar holds is written as digits.
    """
    try:
        moment = _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return str(ms)
    precision = "milliseconds" if ms % 1_000 else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def format_duration(ms: int) -> str:
    """Write a duration as a whole number of the largest unit that gives one (``14d``, not ``2w``).

    :func:`parse_duration_ms` reads it back exactly (where it is not negative).
    """
    if ms == 0:
        return "0s"
    # Weeks are read but never written: every setting and text of the product speaks of days.
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if ms % MS_PER_UNIT[unit] == 0)
    return f"{ms // MS_PER_UNIT[unit]}{unit}"


def _quote(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _time_message(text: str) -> str:
    return (
        f"time {_quote(text)} cannot be read: give a date such as 2024-01-31, ISO 8601 such as "
        "2024-01-31T12:00:00Z (UTC unless it says otherwise), or seconds (10 digits) or "
        "milliseconds (13 digits) since 1970"
    )


def _duration_message(text: str) -> str:
    return (
        f"duration {_quote(text)} cannot be read: give a whole number of milliseconds up to a "
        "hundred years with its unit, one of ms, s, m, h, d, w, such as 14d or 1h"
    )
