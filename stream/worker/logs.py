"""SHELL: how a worker's log lines look (text, or one JSON object a line), and which there are.

Lines name topics, partitions, offsets, ids and reasons; never payloads, never secrets.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec

_REPEAT_S = 10.0  # the same line of a library is logged again after so long


def formatter(name: str) -> logging.Formatter:
    """Make the formatter of a format, ``text`` or ``json``."""
    return _Json() if name == "json" else logging.Formatter("%(levelname)s %(name)s: %(message)s")


class _Json(logging.Formatter):
    """``{"time":…,"level":…,"logger":…,"message":…}``, and ``error`` where there is a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class Terse(logging.Filter):
    """Keeps the log readable: of the libraries no tracebacks, nothing of routine, and no flood.

    While a broker is away aiokafka logs twenty errors a second; and each of Faust's services logs
    the error that ends the worker, which is printed once, at the end.
    """

    _ROUTINE = (
        "Crashed reason=",
        "because it is rebalancing",
        "RebalanceInProgressError",
        "is overlapping",  # Faust's timers notice that a unit of work took long
        "Missing sensor state",
    )

    def __init__(self) -> None:
        super().__init__()
        self._logged_s: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to keep a line; but for our warnings, it loses its traceback."""
        if not (record.name.startswith("stream.") and record.levelno == logging.WARNING):
            record.exc_info = record.exc_text = None
        message = record.getMessage()
        if any(routine in message for routine in self._ROUTINE):
            return False
        if record.name.startswith("stream."):
            return True
        kind = (record.name, str(record.msg))
        before = self._logged_s.get(kind)
        if before is not None and record.created - before < _REPEAT_S:
            return False
        self._logged_s[kind] = record.created
        return True
