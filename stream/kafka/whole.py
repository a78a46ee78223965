"""SHELL: a whole topic as it is now, read as often as one likes (``train --from-labels``)."""

from __future__ import annotations

from collections.abc import Iterator

from stream.errors import ConfigError
from stream.kafka.cluster import TopicEnds, look_at_cluster
from stream.kafka.reader import Reader

_ANSWER_S = 10.0


class WholeTopic:
    """What a topic holds at this moment, of committed transactions.

    Args:
        broker: where it is. topic: its name.

    Raises:
        ConfigError: there is no such topic. BrokerError: the broker does not answer.

    """

    def __init__(self, broker: str, topic: str) -> None:
        partitions = look_at_cluster(broker, _ANSWER_S).partitions.get(topic)
        if partitions is None:
            raise ConfigError(f"there is no topic {topic} on {broker}")
        self._broker = broker
        self._topic = topic
        self._ends = TopicEnds(broker, topic, partitions).of_each(_ANSWER_S)

    def values(self) -> Iterator[bytes]:
        """Read from the beginning to where the topic ended, one partition after the other.

        Tombstones are left out.

        Raises:
            BrokerError: it cannot be read.

        """
        with Reader(self._broker, follows=False) as reader:
            for partition, end in enumerate(self._ends):
                start = reader.span(self._topic, partition)[0]
                if start >= end:
                    continue
                for chunk in reader.to_end(self._topic, partition, start, least=end):
                    for offset, _, value in chunk.records:
                        if value is not None and offset < end:
                            yield value
                    if chunk.next >= end:
                        break
