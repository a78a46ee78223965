"""The embedded broker serves exactly the topics it was asked for, and goes away when closed."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from stream.errors import BrokerError, ConfigError
from stream.kafka.embedded import EmbeddedBroker


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """A broker without topics."""
    with EmbeddedBroker() as broker:
        yield broker


def test_topics_have_the_partitions_that_were_asked_for(broker: EmbeddedBroker) -> None:
    """Each topic has exactly its number of partitions, and creating it again changes nothing."""
    broker.create_topics({"one": 1, "seven": 7})
    broker.create_topics({"seven": 7})
    found = AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=10)
    assert {name: len(topic.partitions) for name, topic in found.topics.items()} == {
        "one": 1,
        "seven": 7,
    }


@pytest.mark.parametrize("count", [0, 2])
def test_other_partition_counts_are_refused_in_words(broker: EmbeddedBroker, count: int) -> None:
    """A count of none, or another than the topic has, is an error that names topic and count."""
    broker.create_topics({"one": 1})
    with pytest.raises(ConfigError, match=rf"topic one .*not {count}"):
        broker.create_topics({"one": count})


def test_records_come_back(broker: EmbeddedBroker) -> None:
    """What a producer sends, a consumer group reads, in order and from the partition it went to."""
    broker.create_topics({"one": 2})
    client = {"bootstrap.servers": broker.bootstrap_servers}
    producer = Producer(client)
    for number in range(10):
        producer.produce("one", str(number), partition=1)
    assert producer.flush(10) == 0
    consumer = Consumer(client | {"group.id": "test", "auto.offset.reset": "earliest"})
    consumer.subscribe(["one"])
    try:
        messages = consumer.consume(10, timeout=10)
    finally:
        consumer.close()
    assert [(m.partition(), m.value()) for m in messages] == [(1, b"%d" % n) for n in range(10)]


def test_it_listens_on_this_machine_only_and_not_after_closing() -> None:
    """The address is on 127.0.0.1; once closed, twice or more, nothing answers there any more."""
    with EmbeddedBroker() as broker:
        host, port = broker.bootstrap_servers.split(":")
        assert host == "127.0.0.1"
        socket.create_connection((host, int(port)), timeout=2).close()
    broker.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=2)
    with pytest.raises(BrokerError, match="closed"):
        broker.create_topics({"one": 1})


def test_two_brokers_know_nothing_of_each_other(broker: EmbeddedBroker) -> None:
    """Brokers made at the same time have their own addresses and topics."""
    with EmbeddedBroker() as other:
        other.create_topics({"one": 1})
        assert other.bootstrap_servers != broker.bootstrap_servers
        client = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        assert client.list_topics(timeout=10).topics == {}


def test_it_is_silent(broker: EmbeddedBroker, capfd: pytest.CaptureFixture[str]) -> None:
    """The broker writes nothing to the terminal."""
    broker.create_topics({"one": 1})
    Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0}).list_topics(
        timeout=10
    )
    broker.close()
    assert capfd.readouterr() == ("", "")
