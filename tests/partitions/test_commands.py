"""Commands: round trip, and what is none."""

from __future__ import annotations

import pytest

from stream.errors import EventError
from stream.partitions.commands import (
    GateCommand,
    Refusal,
    command_key,
    decode_command,
    encode_command,
)


@pytest.mark.parametrize("partition", [None, 3])
def test_a_command_comes_back_as_it_was(partition: int | None) -> None:
    """Encoded and decoded it is the same; one for all partitions has a key of its own."""
    command = GateCommand("per_job", partition, 17)
    assert decode_command(encode_command(command)) == command
    assert command_key(command) == (b"gate:per_job" if partition is None else b"gate:per_job:3")


@pytest.mark.parametrize(("margin", "lets_in"), [(0.01, 0.02), (None, None)])
def test_a_refusal_holds_for_who_lets_no_more_in(
    margin: float | None, lets_in: float | None
) -> None:
    """It comes back as it was; of several only the newest stays."""
    refusal = Refusal(1000, "worse", margin, 17)
    assert decode_command(encode_command(refusal)) == refusal
    assert command_key(refusal) == command_key(Refusal(2000, "too_large", None, 18)) == b"refusal"
    assert refusal.holds_for(0.01)
    assert refusal.holds_for(-0.5)
    assert refusal.holds_for(0.02) == (lets_in is None)


def test_it_concerns_its_effect_and_partition() -> None:
    """All partitions, or the one that it names."""
    assert GateCommand("per_job", None, 1).concerns("per_job", 4)
    assert GateCommand("per_job", 4, 1).concerns("per_job", 4)
    assert not GateCommand("per_job", 4, 1).concerns("per_job", 5)
    assert not GateCommand("per_job", None, 1).concerns("per_member", 4)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"{}",
        b'{"type":"gate","effect":"nobody","partition":null,"issued_ms":1}',
        b'{"type":"refusal","until_ms":1,"reason":"what","margin":null,"issued_ms":1}',
        b'{"type":"gate","action":"shut","effect":"per_job","partition":null,"issued_ms":1}',
    ],
)
def test_what_is_no_command_is_refused(value: bytes) -> None:
    """In words, so that the worker can say so and go on."""
    with pytest.raises(EventError, match="not a command"):
        decode_command(value)
