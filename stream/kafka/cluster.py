"""SHELL: what the broker says of itself and its topics."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from confluent_kafka import KafkaException, TopicCollection, TopicPartition, admin

from stream.errors import BrokerError
from stream.kafka.connection import client_security
from stream.kafka.embedded import CLUSTER_ID_PREFIX
from stream.kafka.refusals import error_of

_ANSWER_S = 10.0
_SILENT = logging.Logger("librdkafka", logging.CRITICAL + 1)  # noqa: LOG001 - nobody else's
"""For librdkafka: what goes wrong comes as an exception, and is printed once."""


class Cluster(msgspec.Struct, frozen=True):
    """Partition counts by topic, and whether this is the embedded broker."""

    partitions: dict[str, int]
    embedded: bool
    brokers: int = 1


def client_settings(broker: str) -> dict[str, Any]:
    """Settings that every client of librdkafka gets."""
    return {
        "bootstrap.servers": str(broker),
        "log_level": 0,
        "logger": _SILENT,
    } | client_security(broker)


def look_at_cluster(broker: str, timeout_s: float) -> Cluster:
    """Ask the broker for its topics.

    Raises:
        BrokerError: it does not answer in time.

    """
    client = admin.AdminClient(client_settings(broker))
    try:
        found = client.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise BrokerError(
            f"no Kafka broker answers at {broker} within {timeout_s:g} s: "
            "is it running, and is the address right?"
        ) from error
    return Cluster(
        {name: len(topic.partitions) for name, topic in found.topics.items()},
        (found.cluster_id or "").startswith(CLUSTER_ID_PREFIX),
        len(found.brokers),
    )


@lru_cache
def is_embedded(broker: str) -> bool:
    """Whether this is the embedded broker, which sends wrong checksums; asked once a process.

    Raises:
        BrokerError: it does not answer in time.

    """
    return look_at_cluster(broker, _ANSWER_S).embedded


class TopicEnds:
    """Asks how much was written to a topic; to be used by one thread at a time.

    Args:
        broker: where it is. topic: as Kafka calls it. partitions: how many it has.

    """

    def __init__(self, broker: str, topic: str, partitions: int) -> None:
        self._client = admin.AdminClient(client_settings(broker))
        latest: Any = admin.OffsetSpec  # type: ignore[attr-defined]  # exported by name only
        self._asked = {
            TopicPartition(topic, number): latest.latest() for number in range(partitions)
        }

    def written(self, timeout_s: float) -> int:
        """Return the sum of the ends of all partitions: it grows with every record.

        Raises:
            BrokerError: the broker does not answer.

        """
        return sum(self.of_each(timeout_s))

    def of_each(self, timeout_s: float) -> list[int]:
        """Return the end of each partition.

        Raises:
            BrokerError: the broker does not answer.

        """
        try:
            ends = self._client.list_offsets(self._asked, request_timeout=timeout_s)
            return [int(ends[place].result().offset) for place in self._asked]
        except KafkaException as error:
            raise error_of(error, "the ends of a topic are not known") from None


def settings_of_topics(
    broker: str, topics: Iterable[str], timeout_s: float
) -> dict[str, dict[str, str]]:
    """Ask for all settings of topics, those that come from the brokers too.

    Raises:
        BrokerError: the broker does not answer, or does not tell.

    """
    resource_of: Any = admin.ConfigResource  # type: ignore[attr-defined]  # exported by name only
    wanted = [resource_of(resource_of.Type.TOPIC, name) for name in topics]
    if not wanted:
        return {}
    client = admin.AdminClient(client_settings(broker))
    found: dict[str, dict[str, str]] = {}
    answers = client.describe_configs(wanted, request_timeout=timeout_s)
    for resource, future in answers.items():
        try:
            settings = future.result(timeout_s)
        except KafkaException as error:
            raise error_of(error, f"the settings of {resource.name} cannot be read") from None
        except TimeoutError:
            raise BrokerError(
                f"the settings of {resource.name} cannot be read: no answer"
            ) from None
        found[resource.name] = {name: str(entry.value) for name, entry in settings.items()}
    return found


def ids_of_topics(broker: str, topics: Iterable[str], timeout_s: float) -> dict[str, str]:
    """Ask a real broker what it calls these topics: another id is another topic.

    Raises:
        BrokerError: it does not answer, or there is no such topic.

    """
    client = admin.AdminClient(client_settings(broker))
    try:
        found = client.describe_topics(TopicCollection(list(topics)), request_timeout=timeout_s)
        return {name: str(future.result().topic_id) for name, future in found.items()}
    except KafkaException as error:
        raise error_of(error, f"{broker} does not tell its topics") from None
