"""A topic as it was when a command began, as often as that asks for it."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from stream.errors import ConfigError
from stream.kafka.embedded import EmbeddedBroker
from stream.kafka.whole import WholeTopic


def test_a_topic_is_read_to_the_end_that_it_had() -> None:
    """Each value once, in transactions or not, whatever is written meanwhile; no tombstones."""
    with EmbeddedBroker() as broker:
        address = broker.bootstrap_servers
        broker.create_topics({"labels": 3})
        producer = Producer(
            {"bootstrap.servers": address, "log_level": 0, "transactional.id": "labels"}
        )
        producer.init_transactions(20)

        def send(first: int, count: int) -> None:
            producer.begin_transaction()
            for at in range(first, first + count):
                value = None if at % 5 == 0 else b"%d" % at
                producer.produce("labels", value, b"m%d" % at, at % 2)
            producer.commit_transaction(20)

        send(0, 3000)
        whole = WholeTopic(address, "labels")
        send(4000, 1000)
        wanted = sorted(b"%d" % at for at in range(3000) if at % 5)
        for _ in range(2):
            assert sorted(whole.values()) == wanted
        with pytest.raises(ConfigError, match="there is no topic gone on"):
            WholeTopic(address, "gone")
