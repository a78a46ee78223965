"""SHELL: asks the workers to forget a member or a job, by a record of their input."""

from __future__ import annotations

import confluent_kafka

from stream.errors import BrokerError, ConfigError
from stream.events.partitioner import partition_of
from stream.events.records import APPLICATIONS, ENGAGEMENTS
from stream.events.structs import Forget
from stream.events.wire import encode
from stream.kafka.connection import client_security

_ANSWER_S = 10.0
_DELIVERY_S = 30.0


def send_forget(broker: str, forget: Forget) -> tuple[str, int, int]:
    """Write the record; return topic, partition and offset of it.

    A record of the input, because whoever owns the entity's partition reads it, exactly once, and
    in order with the entity's events.

    Args:
        broker: ``host:port``, and how to talk to it. forget: of whom, and up to when.

    Raises:
        BrokerError: the broker does not answer or does not take it.
        ConfigError: the topic is missing.

    """
    entity_id = forget.member_id if forget.member_id is not None else forget.job_id
    topic = APPLICATIONS if forget.member_id is not None else ENGAGEMENTS
    key = (entity_id or "").encode()
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": str(broker),
            "enable.idempotence": True,
            "delivery.timeout.ms": int(_DELIVERY_S * 1000),
            "log_level": 0,
        }
        | client_security(broker)
    )
    sent: list[tuple[confluent_kafka.KafkaError | None, confluent_kafka.Message]] = []
    try:
        found = producer.list_topics(topic, timeout=_ANSWER_S).topics[topic]
        if found.error is not None or not found.partitions:
            raise ConfigError(f"there is no topic {topic} at {broker}")
        producer.produce(
            topic,
            encode(forget),
            key,
            partition_of(key, len(found.partitions)),
            on_delivery=lambda error, message: sent.append((error, message)),
        )
        producer.flush(_DELIVERY_S)
    except confluent_kafka.KafkaException as error:
        raise BrokerError(f"no answer from {broker}: {error.args[0].str()}") from None
    if not sent or sent[0][0] is not None:
        why = sent[0][0].str() if sent and sent[0][0] is not None else "no answer"
        raise BrokerError(f"{broker} did not take it: {why}")
    message = sent[0][1]
    return topic, message.partition() or 0, message.offset() or 0
