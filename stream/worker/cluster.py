"""SHELL: what the broker says of itself and its topics."""

from __future__ import annotations

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.embedded_broker import CLUSTER_ID_PREFIX
from stream.errors import BrokerError


class Cluster(msgspec.Struct, frozen=True):
    """Partition counts by topic, and whether this is the embedded broker."""

    partitions: dict[str, int]
    embedded: bool


def look_at_cluster(broker: str, timeout_s: float) -> Cluster:
    """Ask the broker for its topics.

    Raises:
        BrokerError: it does not answer in time.

    """
    client = AdminClient({"bootstrap.servers": broker, "log_level": 0})
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
    )
