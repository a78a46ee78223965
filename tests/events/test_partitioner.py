"""murmur2 against Kafka's Java client and against librdkafka."""

from __future__ import annotations

from collections.abc import Iterator

import confluent_kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.events.partitioner import murmur2, partition_of

# Apache Kafka, clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java, testMurmur2
JAVA = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}

# librdkafka, src/rdmurmur2.c, unittest_murmur2, made with the Java client (unsigned there)
LIBRDKAFKA = {
    "kafka": 0xD067CF64,
    "giberish123456789": 0x8F552B0C,
    "1234": 0x9FC97B14,
    "234": 0xE7C009CA,
    "34": 0x873930DA,
    "4": 0x5A4B5CA1,
    "PreAmbleWillBeRemoved,ThePrePartThatIs": 0x78424F1C,
    "": 0x106E08D9,
}


@pytest.mark.parametrize(("key", "expected"), JAVA.items())
def test_hashes_are_those_of_the_java_client(key: str, expected: int) -> None:
    """The hash is the signed number that Kafka's own test of its Java client expects."""
    assert murmur2(key.encode()) == expected


@pytest.mark.parametrize(("key", "expected"), LIBRDKAFKA.items())
def test_hashes_are_those_of_librdkafka(key: str, expected: int) -> None:
    """The hash has the bits that librdkafka's own test expects, for every remainder length."""
    assert murmur2(key.encode()) & 0xFFFFFFFF == expected


@given(st.binary(max_size=300), st.integers(1, 1_000))
def test_every_key_has_a_partition(key: bytes, partitions: int) -> None:
    """The hash is a Java int, and the partition lies within the topic."""
    assert -(2**31) <= murmur2(key) < 2**31
    assert 0 <= partition_of(key, partitions) < partitions


@pytest.fixture
def broker() -> Iterator[str]:
    """Run librdkafka's mock cluster, whose topics have 4 partitions."""
    owner = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
    (node,) = owner.list_topics(timeout=10).brokers.values()
    yield f"{node.host}:{node.port}"
    owner.flush(1)


def test_partitions_are_those_that_librdkafka_delivers_to(broker: str) -> None:
    """A producer set to murmur2_random puts every key where partition_of says."""
    keys = [f"m{number:06d}" for number in range(300)]
    keys += ["x" * length for length in range(10)]
    keys += ["abcdefghi"[:length] for length in range(1, 10)]
    keys += ["ä", "日本", "ключ", "🙂", "é" * 5, "m-ü-7", "\x00", "\x00\x00\x00\x80", "\x7f" * 256]
    delivered: dict[str, int | None] = {}

    def note(error: confluent_kafka.KafkaError | None, message: confluent_kafka.Message) -> None:
        assert error is None
        key = message.key()
        assert key is not None
        delivered[key.decode()] = message.partition()

    producer = confluent_kafka.Producer(
        {"bootstrap.servers": broker, "partitioner": "murmur2_random", "log_level": 0}
    )
    for key in keys:
        producer.produce("keys", b"", key.encode(), on_delivery=note)
    assert producer.flush(20) == 0
    assert delivered == {key: partition_of(key.encode(), 4) for key in keys}
    assert set(delivered.values()) == {0, 1, 2, 3}
