"""Commands to running workers, as they stand in the control topic.

One compacted topic for each application id. Key ``gate:<effect>`` or ``gate:<effect>:<partition>``,
so that only the newest command of a kind stays, value JSON::

    {"type":"gate","action":"open","effect":"per_job","partition":null,"issued_ms":1700000000000}

Key ``roll:<issued_ms>``, so that each stays: a partition that was away obeys all, in order::

    {"type":"roll","from_ms":1700000600000,"issued_ms":1700000000000,"model":[{…manifest},"base64"]}

The command carries the whole model, so that no worker needs a file that others have, also one that
is started on another machine a month later. A partition obeys a command once, by its ``issued_ms``:
which one it obeyed last is part of its state, and so are the models. What cannot be read is
nobody's command.

Key ``refusal``: no command, but what `hearback model refresh` did when it rolled nothing in::

    {"type":"refusal","until_ms":1700000000000,"reason":"worse","margin":0.005,"issued_ms":1700000600000}
"""

from __future__ import annotations

from typing import Literal

import msgspec

from stream.effects import EFFECT_NAMES
from stream.errors import EventError, ModelError, ModelTooLargeError
from stream.events.structs import TimeMs
from stream.model.folder import GlobalModel
from stream.policy import Policy
from stream.stages.succession import StoredModel, check_fits

MAX_COMMAND_BYTES = 900_000
"""What a command may take: topics take 1 MB at once."""


class GateCommand(msgspec.Struct, frozen=True, tag_field="type", tag="gate"):
    """Publish an effect's coefficients again; ``partition`` None: in all partitions."""

    effect: str
    partition: int | None
    issued_ms: int
    action: Literal["open"] = "open"

    def concerns(self, effect: str, partition: int) -> bool:
        """Whether a partition of an effect has to obey."""
        return self.effect == effect and self.partition in {None, partition}


class RollCommand(msgspec.Struct, frozen=True, tag_field="type", tag="roll"):
    """Score the applications from a time (ms) on by another global model, in all partitions."""

    from_ms: TimeMs
    issued_ms: int
    model: StoredModel


class Refusal(msgspec.Struct, frozen=True, tag_field="type", tag="refusal"):
    """The model of a period stays out: nobody obeys this, but refreshers and operators know it.

    ``until_ms``: when its training ended. ``margin``: by which it was judged; None: it does not
    depend on that.
    """

    until_ms: TimeMs
    reason: Literal["worse", "too_large"]
    margin: float | None
    issued_ms: int

    def holds_for(self, margin: float) -> bool:
        """Whether it would be refused again: by the same margin, or one that lets less in."""
        return self.margin is None or margin <= self.margin


Command = GateCommand | RollCommand | Refusal


def check_roll(model: GlobalModel, first: GlobalModel, policy: Policy) -> None:
    """Refuse a model that cannot be rolled in where the state began with another.

    Raises:
        ConfigError: it takes other features. ModelTooLargeError: the first is too large to be kept
            in the state.

    """
    check_fits(model, first, policy)
    encode_command(RollCommand(0, 0, StoredModel.of(first)))


def control_of(application_id: str) -> str:
    """Name the control topic of an application id."""
    return f"{application_id}-control"


def command_key(command: Command) -> bytes:
    """Key of a command: of those with one key only the newest stays."""
    if isinstance(command, RollCommand):
        return f"roll:{command.issued_ms}".encode()
    if isinstance(command, Refusal):
        return b"refusal"
    where = "" if command.partition is None else f":{command.partition}"
    return f"gate:{command.effect}{where}".encode()


def encode_command(command: Command) -> bytes:
    """Command → JSON.

    Raises:
        ModelTooLargeError: it is a model that is too large for a message.

    """
    value = msgspec.json.encode(command)
    if len(value) > MAX_COMMAND_BYTES:
        raise ModelTooLargeError(
            f"a command with this model takes {len(value):,} bytes, {MAX_COMMAND_BYTES:,} at most:"
            " such a model takes a cut-over"
        )
    return value


def decode_command(value: bytes) -> Command:
    """JSON → command.

    Raises:
        EventError: it is none.

    """
    try:
        command: Command = msgspec.json.decode(value, type=Command)
        if isinstance(command, RollCommand):
            command.model.model()
    except (msgspec.DecodeError, UnicodeDecodeError, ModelError) as error:
        raise EventError(f"not a command: {error}") from None
    if isinstance(command, GateCommand) and command.effect not in EFFECT_NAMES:
        raise EventError(f"not a command: there is no effect {command.effect[:64]!r}")
    return command
