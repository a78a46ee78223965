"""Are records where murmur2 puts their id?"""

from __future__ import annotations

from stream.errors import MisroutedError, MisroutedProducerError
from stream.events.partitioner import partition_of
from stream.events.records import APPLICATIONS

_NEWEST = 100
_TOO_MANY = 30
_ALL = (1 << _NEWEST) - 1

LAPSES_MS = 600_000
"""Without another misrouted record for so long, a producer passes for mended."""


class Routing:
    """Checks that the records of one input partition have their id as key, and belong there.

    One that has not is a dead letter. When 30 or more of the newest 100 are, the producer uses
    another partitioner. Found among the first 100 of a session, that stops a worker to which it is
    new; one that has learned something goes on without them (:meth:`go_on`), and says so.
    """

    def __init__(self, topic: str, partition: int, partitions: int) -> None:
        self._topic = topic
        self._partition = partition
        self._partitions = partitions
        self._read = 0
        self._newest = 0  # one bit for each record: 1 for a misrouted one, the newest last
        self._goes_on = False
        self._misrouted = 0
        self._seen = 0, 0  # how many were misrouted, and the time (ms) when that was seen first

    def go_on(self) -> None:
        """Set misrouted records aside from now on, however many they are."""
        self._goes_on = True

    @property
    def complaint(self) -> str | None:
        """What is wrong with the producer, while the share of misrouted records is high."""
        misrouted = self._newest.bit_count()
        if misrouted < _TOO_MANY:
            return None
        newest = min(self._read, _NEWEST)
        return (
            f"{misrouted} of the newest {newest} records of {self._topic}-{self._partition} are"
            " misrouted: the producer must key by"
            f" {'member_id' if self._topic == APPLICATIONS else 'job_id'} and use the murmur2"
            " partitioner (librdkafka: partitioner=murmur2_random; Java clients: the default)"
        )

    def complaint_at(self, monotonic_ms: int) -> str | None:
        """Return the complaint, unless no misrouted record has come for :data:`LAPSES_MS`.

        To be called now and then: a quiet partition does not read its way out of the share.
        """
        if self._misrouted != self._seen[0]:
            self._seen = self._misrouted, monotonic_ms
        return self.complaint if monotonic_ms - self._seen[1] < LAPSES_MS else None

    def check(self, key: bytes | None, identity: str) -> None:
        """Raise unless the key is the event's id and belongs into this partition.

        Raises:
            MisroutedError: it is or does not.
            MisroutedProducerError: so are too many of the first 100.

        """
        problem = self._problem(key, identity)
        self._read += 1
        if problem is None:
            if self._newest:
                self._newest = self._newest << 1 & _ALL
            return
        self._newest = (self._newest << 1 | 1) & _ALL
        self._misrouted += 1
        if not self._goes_on and self._read <= _NEWEST and self.complaint:
            raise MisroutedProducerError(
                f"{self.complaint}. Nothing was learned yet: mend it, then delete what it has"
                " written (kafka-delete-records.sh), or make the topic anew under another --app-id"
            )
        raise MisroutedError(problem)

    def _problem(self, key: bytes | None, identity: str) -> str | None:
        if key is None:
            return f"no key; {self._topic} are keyed by their id {identity[:64]}"
        if key != identity.encode():
            return f"the key is not the id {identity[:64]}"
        at = partition_of(key, self._partitions)
        if at == self._partition:
            return None
        return (
            f"murmur2 of {identity[:64]} is partition {at} of {self._partitions},"
            f" it was in {self._partition}"
        )
