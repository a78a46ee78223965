"""Commands through the broker: what is sent to the control topic reaches a worker's partitions."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from stream.cli import app
from stream.errors import BrokerError
from stream.kafka.embedded import EmbeddedBroker
from stream.partitions.commands import GateCommand, control_of
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
        found = {command.effect: command for command in reader.commands()}
        wait(lambda: min(command.issued_ms for command in reader.commands()) > 1)
        assert set(found) == {"per_member", "per_job"}
    finally:
        reader.stop()


def test_no_broker_is_said_in_words() -> None:
    """The command fails with one line."""
    with pytest.raises(BrokerError, match="did not take the command"):
        send_command("127.0.0.1:1", "app", GateCommand("per_job", None, 1))
