"""Commands to running workers, as they stand in the control topic.

One compacted topic for each application id; key ``gate:<effect>`` or ``gate:<effect>:<partition>``,
so that only the newest command of a kind stays, value JSON::

    {"type":"gate","action":"open","effect":"per_job","partition":null,"issued_ms":1700000000000}

A partition obeys a command once, by its ``issued_ms``: which one it obeyed last is part of its
state. What cannot be read is nobody's command.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from stream.effects import EFFECT_NAMES
from stream.errors import EventError


class GateCommand(msgspec.Struct, frozen=True, tag_field="type", tag="gate"):
    """Publish an effect's coefficients again; ``partition`` None: in all partitions."""

    effect: str
    partition: int | None
    issued_ms: int
    action: Literal["open"] = "open"

    def concerns(self, effect: str, partition: int) -> bool:
        """Whether a partition of an effect has to obey."""
        return self.effect == effect and self.partition in {None, partition}


def control_of(application_id: str) -> str:
    """Name the control topic of an application id."""
    return f"{application_id}-control"


def command_key(command: GateCommand) -> bytes:
    """Key of a command: of those with one key only the newest stays."""
    where = "" if command.partition is None else f":{command.partition}"
    return f"gate:{command.effect}{where}".encode()


def encode_command(command: GateCommand) -> bytes:
    """Command → JSON."""
    return msgspec.json.encode(command)


def decode_command(value: bytes) -> GateCommand:
    """JSON → command.

    Raises:
        EventError: it is none.

    """
    try:
        command = msgspec.json.decode(value, type=GateCommand)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventError(f"not a command: {error}") from None
    if command.effect not in EFFECT_NAMES:
        raise EventError(f"not a command: there is no effect {command.effect[:64]!r}")
    return command
