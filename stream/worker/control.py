"""SHELL: the control topic: commands are sent to it, and every worker reads all of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import TypeVar

from confluent_kafka import Producer

from stream.errors import BrokerError, ConfigError, EventError
from stream.kafka.cluster import client_settings
from stream.kafka.reader import Reader
from stream.model.folder import GlobalModel
from stream.partitions.commands import (
    Command,
    Refusal,
    RollCommand,
    command_key,
    control_of,
    decode_command,
    encode_command,
)
from stream.stages.succession import StoredModel

_C = TypeVar("_C", bound=Command)

_log = logging.getLogger(__name__)

_PARTITION = 0  # commands are few: one partition is used, whatever the topic has
_POLL_S = 0.5
_AGAIN_S = 5.0  # after trouble
_SENT_S = 15.0


def send_command(broker: str, application_id: str, command: Command) -> None:
    """Send a command to all workers of an application id.

    Raises:
        BrokerError: the broker did not take it.

    """
    errors: list[str] = []
    producer = Producer(client_settings(broker) | {"acks": "all", "message.timeout.ms": 10_000})
    producer.produce(
        control_of(application_id),
        encode_command(command),
        command_key(command),
        _PARTITION,
        on_delivery=lambda error, _: errors.append(error.str()) if error else None,
    )
    left = producer.flush(_SENT_S)
    if left or errors:
        why = errors[0] if errors else "no answer"
        raise BrokerError(f"{broker} did not take the command: {why}")


def sent_rolls(broker: str, application_id: str) -> list[RollCommand]:
    """Return the commands that have rolled models in, in the order in which they count.

    Raises:
        BrokerError: the broker does not answer, or has no such topic.

    """
    return _sent(broker, application_id, RollCommand)


def last_refusal(broker: str, application_id: str) -> Refusal | None:
    """Return what a refresher has refused last; None: nothing.

    Raises:
        BrokerError: the broker does not answer, or has no such topic.

    """
    return next(reversed(_sent(broker, application_id, Refusal)), None)


def _sent(broker: str, application_id: str, kind: type[_C]) -> list[_C]:
    """Return the commands of a kind, by when they were issued."""
    found: dict[int, _C] = {}
    with Reader(broker, follows=False) as reader:
        for chunk in reader.to_end(control_of(application_id), _PARTITION):
            for _, _, value in chunk.records:
                with suppress(EventError):
                    command = None if value is None else decode_command(value)
                    if isinstance(command, kind):
                        found[command.issued_ms] = command
    return [found[issued_ms] for issued_ms in sorted(found)]


def roll_in(broker: str, application_id: str, model: GlobalModel, from_ms: int) -> None:
    """Tell all workers to score the applications from a time (ms) on by another model.

    Raises:
        BrokerError: the broker did not take it. ModelTooLargeError: no message can have it.

    """
    newest_ms = max((roll.issued_ms for roll in sent_rolls(broker, application_id)), default=0)
    issued_ms = max(time.time_ns() // 1_000_000, newest_ms + 1)
    send_command(broker, application_id, RollCommand(from_ms, issued_ms, StoredModel.of(model)))


class CommandReader:
    """Reads the control topic in a thread of its own, from its beginning, for as long as it runs.

    While the broker is away there are no new commands; nothing else depends on it.

    Args:
        broker: where to. application_id: whose topic.
        check: is given each model that is rolled in; raises ConfigError where it cannot be here.
        refused: is told of each model that a refresher has refused.
        keeps_rolls: whether :meth:`commands` has them: each takes as much memory as its model.

    """

    def __init__(
        self,
        broker: str,
        application_id: str,
        check: Callable[[GlobalModel], None] = lambda _: None,
        refused: Callable[[Refusal], None] = lambda _: None,
        *,
        keeps_rolls: bool = True,
    ) -> None:
        self._check = check
        self._refused = refused
        self._keeps_rolls = keeps_rolls
        self._topic = control_of(application_id)
        self._broker = broker
        self._newest: dict[bytes, Command] = {}
        self._done = Event()
        self._thread = Thread(target=self._read, name="control", daemon=True)

    def start(self) -> None:
        """Read from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def commands(self) -> list[Command]:
        """Return the newest command of each kind; from any thread."""
        return list(self._newest.values())

    def _read(self) -> None:
        while not self._done.is_set():
            try:
                self._follow()
            except BrokerError as error:
                _log.warning("%s cannot be read for now: %s", self._topic, error)
                self._done.wait(_AGAIN_S)

    def _follow(self) -> None:
        with Reader(self._broker) as reader:
            reader.follow(self._topic, _PARTITION)
            while not self._done.is_set():
                for chunk in reader.poll(_POLL_S):
                    for offset, key, value in chunk.records:
                        self._take(offset, key, value)
                    if chunk.damaged:
                        _log.warning("%s is read again: %s", self._topic, chunk.error)
                    if chunk.lost:  # the topic is not there yet, begins later now, or is damaged
                        reader.leave(self._topic, _PARTITION)
                        self._done.wait(_AGAIN_S)
                        reader.follow(self._topic, _PARTITION)

    def _take(self, offset: int, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._newest.pop(key, None)
            return
        try:
            command = decode_command(value)
            if isinstance(command, RollCommand):
                self._check(command.model.model())
                if not self._keeps_rolls:
                    return
            if isinstance(command, Refusal):
                self._refused(command)
            self._newest[key] = command
        except (EventError, ConfigError) as error:
            _log.warning("%s at %s is left aside: %s", self._topic, offset, error)
