"""What is read of a partition: everything from an offset on, once, in order, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from stream.errors import BrokerError, InterruptedSessionError
from stream.kafka import reader as reader_module
from stream.kafka.embedded import EmbeddedBroker
from stream.kafka.reader import Chunk, Reader

Sent = list[tuple[int, bytes, bytes | None]]


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """A broker with a topic of three partitions, of which the last is empty."""
    with EmbeddedBroker() as embedded:
        embedded.create_topics({"t": 3})
        yield embedded.bootstrap_servers


@pytest.fixture(scope="module")
def sent(broker: str) -> list[Sent]:
    """Offset, key and value of what the partitions hold; every third is a tombstone."""
    producer = Producer({"bootstrap.servers": broker, "log_level": 0})
    records: list[Sent] = [
        [(at, b"%d" % (at % 7), None if at % 3 == 0 else b"%d" % at) for at in range(count)]
        for count in (5000, 10, 0)
    ]
    for partition, wanted in enumerate(records):
        for at, key, value in wanted:
            producer.produce("t", value, key, partition, timestamp=1_000_000 + at)
    assert producer.flush(20) == 0
    return records


@pytest.mark.parametrize("partition", [0, 1, 2])
@pytest.mark.parametrize("offset", [0, 7])
def test_a_partition_is_read_to_its_end(
    broker: str, sent: list[Sent], partition: int, offset: int
) -> None:
    """Each record once, from the offset on; only the last chunk is at the end, and says where."""
    if offset > len(sent[partition]):
        return
    with Reader(broker) as reader:
        chunks = list(reader.to_end("t", partition, offset))
        assert reader.span("t", partition) == (0, len(sent[partition]))
    assert [record for chunk in chunks for record in chunk.records] == sent[partition][offset:]
    assert [chunk.at_end for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].next == len(sent[partition])


def test_an_end_that_is_not_the_real_one_is_waited_after(broker: str, sent: list[Sent]) -> None:
    """With ``least``, reading goes on past what the broker shows, until it is told to give up."""
    del sent
    looks = iter([True] * 20)
    with Reader(broker) as reader, pytest.raises(InterruptedSessionError):
        list(reader.to_end("t", 1, least=11, go_on=lambda: next(looks, False)))


def test_several_partitions_are_followed_until_they_are_left(broker: str, sent: list[Sent]) -> None:
    """Chunks say whose they are; a partition that is left is heard of no more."""
    got: dict[int, list[Chunk]] = {0: [], 1: []}
    with Reader(broker) as reader:
        for partition in got:
            reader.follow("t", partition)
        while not all(chunks and chunks[-1].at_end for chunks in got.values()):
            for chunk in reader.poll(1.0):
                got[chunk.partition].append(chunk)
        reader.leave("t", 0)
        reader.leave("t", 1)
        reader.follow("t", 1, 5)
        again = list(reader.poll(1.0))
    for partition, chunks in got.items():
        assert [each for chunk in chunks for each in chunk.records] == sent[partition]
    assert {chunk.partition for chunk in again} <= {1}


def test_a_position_beyond_the_end_is_an_error(broker: str, sent: list[Sent]) -> None:
    """It is never moved in silence."""
    del sent
    with Reader(broker) as reader:
        reader.follow("t", 1, 500)
        while not (chunks := reader.poll(1.0)):
            pass
        assert chunks[0].lost
        assert not chunks[0].records
        reader.leave("t", 1)
        with pytest.raises(BrokerError, match="t-1 cannot be read"):
            list(reader.to_end("t", 1, 500))


def test_a_broker_that_is_away_is_said(sent: list[Sent]) -> None:
    """Every question has its answer within seconds."""
    del sent
    with pytest.raises(BrokerError, match=r"no Kafka broker answers at 127\.0\.0\.1:1 within 10 s"):
        Reader("127.0.0.1:1")


def test_a_wrong_checksum_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """But where the embedded broker sends one: it makes none for a transaction."""
    with EmbeddedBroker() as embedded:
        embedded.create_topics({"t": 1})
        address = embedded.bootstrap_servers
        producer = Producer({"bootstrap.servers": address, "transactional.id": "x", "log_level": 0})
        producer.init_transactions(10)
        producer.begin_transaction()
        producer.produce("t", b"value", b"key", 0)
        producer.commit_transaction(10)
        with Reader(address) as reader:
            (chunk,) = [each for each in reader.to_end("t", 0) if each.records]
        assert chunk.records == [(0, b"key", b"value")]
        monkeypatch.setattr(reader_module, "is_embedded", lambda _: False)
        with Reader(address) as reader, pytest.raises(BrokerError, match="CRC32C"):
            list(reader.to_end("t", 0))
