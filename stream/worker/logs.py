"""SHELL: how a worker's log lines look: text for people, or one JSON object a line.

Lines name topics, partitions, offsets, ids and reasons; never payloads, never secrets.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec


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
