"""Are keyed records where murmur2 puts their key?"""

from __future__ import annotations

from stream.errors import MisroutedError, MisroutedProducerError
from stream.events.partitioner import partition_of
from stream.events.records import APPLICATIONS

_FIRST_KEYED = 100
_TOO_MANY_MISROUTED = 30


class Routing:
    """Checks that keyed records of one input partition are where murmur2 puts their key.

    A stray record is a dead letter. When 30 or more of the first 100 keyed records of a session
    are, the producer uses another partitioner, and going on would set aside most of its events.
    """

    def __init__(self, topic: str, partition: int, partitions: int) -> None:
        self._topic = topic
        self._partition = partition
        self._partitions = partitions
        self._keyed = 0
        self._misrouted = 0

    def check(self, key: bytes | None, identity: str) -> None:
        """Raise unless the key is the event's id and belongs into this partition.

        Raises:
            MisroutedError: it is or does not.
            MisroutedProducerError: so are too many of the first 100.

        """
        if key is None:
            raise MisroutedError(f"no key; {self._topic} are keyed by their id {identity[:64]}")
        expected = identity.encode()
        at = self._partition if key != expected else partition_of(key, self._partitions)
        stray = key != expected or at != self._partition
        if self._keyed < _FIRST_KEYED:
            self._keyed += 1
            self._misrouted += stray
            if self._misrouted >= _TOO_MANY_MISROUTED:
                raise MisroutedProducerError(
                    f"{self._misrouted} of the first {self._keyed} keyed records of"
                    f" {self._topic}-{self._partition} are misrouted: the producer must key by"
                    f" {'member_id' if self._topic == APPLICATIONS else 'job_id'} and use the"
                    " murmur2 partitioner (librdkafka: partitioner=murmur2_random; Java clients:"
                    " the default), then recreate the topic or skip the records"
                )
        if key != expected:
            raise MisroutedError(f"the key is not the id {identity[:64]}")
        if stray:
            raise MisroutedError(
                f"murmur2 of {identity[:64]} is partition {at} of {self._partitions},"
                f" it was in {self._partition}"
            )
