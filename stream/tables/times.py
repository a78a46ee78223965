"""Times of tables → milliseconds since 1970, in the zone that the map says where they name none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from importlib import import_module
from typing import Any, Final

from stream.errors import ConfigError
from stream.units import MAX_TIME_MS, iso_time_ms, parse_time_ms

UNREADABLE: Final = -1
"""In place of a time that cannot be read."""

_EPOCH: Final = datetime(1970, 1, 1)
_CALENDAR_DIGITS: Final = {8, 14}


class Times:
    """Reads times; counts those that their zone has twice, or not at all.

    A time in the hour that clocks repeat, or skip, is read by the offset before they were changed.

    Attributes:
        doubtful: how many were so.

    """

    def __init__(self, zone: tzinfo | None) -> None:
        self._zone = zone
        self.doubtful = 0

    def read(self, text: str) -> int:
        """Read one, in milliseconds since 1970.

        Args:
            text: ISO 8601, or digits as :func:`stream.units.parse_time_ms` reads them.

        Raises:
            ConfigError: it cannot be read, lies before 1970, or names no zone where the map names
                none.

        """
        stripped = text.strip()
        if stripped.isdigit() and len(stripped) not in _CALENDAR_DIGITS:
            return parse_time_ms(stripped)
        time_ms = None if stripped.isdigit() else iso_time_ms(stripped)
        if time_ms is None:
            if len(stripped) == 14 and stripped.isdigit():
                stripped = f"{stripped[:8]}T{stripped[8:]}"
            local_ms = iso_time_ms(stripped, UTC)
            if local_ms is None:
                raise ConfigError(_unreadable(text))
            if self._zone is None:
                raise ConfigError(
                    f'{text[:40]!r} has no zone: say in the map which one is meant, zone = "UTC" or'
                    ' zone = "Europe/Berlin" above its first section'
                )
            time_ms = self._in_zone(local_ms, self._zone)
        if not 0 <= time_ms <= MAX_TIME_MS:
            raise ConfigError(f"{text[:40]!r} lies before 1970, or after the year 9999")
        return time_ms

    def read_all(self, texts: Any) -> Any:
        """Arrow array of texts → array of times; :data:`UNREADABLE` where one cannot be read."""
        arrow = import_module("pyarrow")
        return arrow.array([self._or_not(text) for text in texts.to_pylist()], arrow.int64())

    def _or_not(self, text: str | None) -> int | None:
        if text is None:
            return None
        try:
            return self.read(text)
        except ConfigError:
            return UNREADABLE

    def _in_zone(self, local_ms: int, zone: tzinfo) -> int:
        if zone is UTC:
            return local_ms
        local = (_EPOCH + timedelta(milliseconds=local_ms)).replace(tzinfo=zone)
        offset, other = local.utcoffset(), local.replace(fold=1).utcoffset()
        if offset is None or other is None:  # no zone of a name is so
            raise ConfigError("the zone has no offset")
        self.doubtful += offset != other
        return local_ms - offset // timedelta(milliseconds=1)


def _unreadable(text: str) -> str:
    return (
        f"{text[:40]!r} is no time: write ISO 8601, such as 2024-01-31T12:00:00Z, or seconds (10"
        " digits) or milliseconds (13 digits) since 1970"
    )
