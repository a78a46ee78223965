"""Commands through the broker: what is sent to the control topic reaches a worker's partitions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar, Self

import pytest
from confluent_kafka import KafkaError, Producer
from typer.testing import CliRunner

from stream.cli import app
from stream.errors import BrokerError
from stream.kafka.embedded import EmbeddedBroker
from stream.kafka.reader import Chunk
from stream.partitions.commands import GateCommand, command_key, control_of, encode_command
from stream.worker import control
from stream.worker.control import CommandReader, send_command


def wait(until: Callable[[], bool]) -> None:
    """Wait, but not for ever."""
    deadline = time.monotonic() + 20
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_newest_command_of_a_kind_is_read(embedded_broker: EmbeddedBroker) -> None:
    """Sent by the command line; what is no command is left aside; an earlier one is replaced."""
    address = embedded_broker.bootstrap_servers
    embedded_broker.create_topics({control_of("app"): 1})
    producer = Producer({"bootstrap.servers": address})
    producer.produce(control_of("app"), b"{", b"gate:per_job", 0)
    producer.flush(10)
    send_command(address, "app", GateCommand("per_job", None, 1))
    reader = CommandReader(address, "app")
    reader.start()
    try:
        wait(lambda: len(reader.commands()) == 1)
        arguments = ["gate", "open", "all", "--broker", address, "--app-id", "app"]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert "told the workers of app to publish per_job in all partitions" in done.output
        wait(lambda: len(reader.commands()) == 2)
        found = {getattr(command, "effect", None) for command in reader.commands()}
        wait(lambda: min(command.issued_ms for command in reader.commands()) > 1)
        assert found == {"per_member", "per_job"}
    finally:
        reader.stop()


def test_no_broker_is_said_in_words() -> None:
    """The command fails with one line."""
    with pytest.raises(BrokerError, match="did not take the command"):
        send_command("127.0.0.1:1", "app", GateCommand("per_job", None, 1))


class Damaged:
    """A reader whose first reading passes over a record that it cannot read."""

    readings: ClassVar[list[Chunk]]

    def __init__(self, broker: str) -> None:
        del broker
        self._following = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def follow(self, topic: str, partition: int) -> None:
        """Begin a reading."""
        del topic, partition
        self._following = True

    def leave(self, topic: str, partition: int) -> None:
        """End it."""
        del topic, partition

    def poll(self, wait_s: float) -> list[Chunk]:
        """Give what this reading has."""
        time.sleep(min(wait_s, 0.02))
        following, self._following = self._following, False
        return [self.readings.pop(0)] if following and self.readings else []


def test_a_command_that_could_not_be_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The topic is read from its start once more, until nothing is missing."""
    command = GateCommand("per_job", None, 1)
    record = (0, command_key(command), encode_command(command))
    monkeypatch.setattr(control, "Reader", Damaged)
    monkeypatch.setattr(control, "_AGAIN_S", 0.01)
    Damaged.readings = [
        Chunk("app-control", 0, error=KafkaError(KafkaError._BAD_MSG)),
        Chunk("app-control", 0, [record], 1, at_end=True),
    ]
    reader = CommandReader("none", "app")
    reader.start()
    try:
        wait(lambda: reader.commands() == [command])
    finally:
        reader.stop()
