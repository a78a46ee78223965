"""What is read from and sent to Kafka, and the names of the topics."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

import msgspec

from stream.events.structs import DeadLetter, Source

APPLICATIONS = "applications"
ENGAGEMENTS = "engagements"
APPLICATIONS_BY_JOB = "applications-by-job"
LABELS = "labels"
COEFFICIENTS = "coefficients"
PREFERENCES = "preferences"
MATCHES = "matches"
APPLICANTS = "applicants"
DEAD_LETTERS = "dead-letters"

INPUTS = (APPLICATIONS, ENGAGEMENTS)
"""Written by producers."""

CONSUMED = (APPLICATIONS, ENGAGEMENTS, APPLICATIONS_BY_JOB, LABELS)
"""Read by the worker. All topics but dead letters have one partition count."""

TOPICS = (*CONSUMED, COEFFICIENTS, PREFERENCES, MATCHES, APPLICANTS, DEAD_LETTERS)

WRITTEN = tuple(topic for topic in TOPICS if topic not in INPUTS)
"""Written by the worker."""

MAX_DEAD_LETTER_BYTES = 64 * 1024
MAX_DEAD_LETTER_KEY_BYTES = 1024
"""An id of 256 characters has no more; a longer key is none of ours, and is cut."""

_MAX_HEADER_BYTES = 1024

MAX_OUTPUT_BYTES = 900_000
"""Largest value that is sent: below the 1 MB that brokers and clients take by default. Everything
else that is sent with it (keys, headers) is bounded too, by some kilobytes."""

MAX_SENT_BYTES = 1_000_000
"""What a topic has to take at once: the largest message, or several, with framing."""


class TopicNames(msgspec.Struct, frozen=True):
    """What Kafka calls the topics of one application id.

    Inputs are everybody's. What workers write has the plain names above, or, where an application
    runs beside another one, names that begin with its id. Everything but the clients of Kafka goes
    by the plain names.
    """

    prefix: str = ""

    def of(self, topic: str) -> str:
        """Kafka's name of a topic."""
        return topic if topic in INPUTS else self.prefix + topic

    @classmethod
    def own(cls, application_id: str) -> TopicNames:
        """Names that begin with an application id."""
        return cls(f"{application_id}-")

    @classmethod
    def among(cls, application_id: str, there: Container[str]) -> TopicNames:
        """Names that an application id has, given the topics of a broker.

        Its own, where ``hearback bootstrap`` has made them, else the plain ones.
        """
        own = cls.own(application_id)
        return own if own.of(APPLICATIONS_BY_JOB) in there else cls()


PLAIN = TopicNames()


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record as read. ``timestamp_ms`` is Kafka's own: when what caused it was first written."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


class Read(NamedTuple):
    """What one fetch brought of one topic.

    ``records`` are in order of offset; ``end`` is where the fetch ended, past anything that is not
    a record.
    """

    topic: str
    records: Sequence[Record]
    end: int

    def since(self, position: int) -> Read:
        """Return what of it is not below a position."""
        fresh = [record for record in self.records if record.offset >= position]
        return Read(self.topic, fresh, max(self.end, position))


class Message(msgspec.Struct, frozen=True, gc=False):
    """A record to be written.

    ``value`` None: a tombstone. ``partition`` None: where murmur2 of the key says.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None
    timestamp_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()


def source_of(topic: str, partition: int, record: Record) -> Source:
    """Where a record was read, with what a dead letter needs of it."""
    raw = record.value or b""
    return Source(
        topic, partition, record.offset, len(raw), raw[:MAX_DEAD_LETTER_BYTES], record.key
    )


def dead_letter_message(letter: DeadLetter, timestamp_ms: int) -> Message:
    """Dead letter → message: key and value as received, the rest in headers.

    All of it is bounded, whatever was received: a dead letter can always be sent.
    """
    source = letter.source
    key = source.key and source.key[:MAX_DEAD_LETTER_KEY_BYTES]
    cut = key != source.key or len(source.raw) < source.size
    headers = (
        ("reason", letter.reason),
        ("message", letter.message),
        ("topic", source.topic),
        ("partition", str(source.partition)),
        ("offset", str(source.offset)),
        ("size", str(source.size)),
        ("truncated", str(cut).lower()),
    )
    return Message(
        DEAD_LETTERS,
        key,
        source.raw,
        None,
        timestamp_ms,
        tuple((name, _bounded(value)) for name, value in headers),
    )


def refused_message(message: Message, reason: str, why: str, cause: Source) -> Message:
    """Return the dead letter that stands for a message that its topic does not take.

    Args:
        message: what was to be sent. reason: of the dead letter. why: what the broker says.
        cause: what had been read when it was made; its bytes are not used.

    """
    raw = message.value or b""
    source = Source(
        *(cause.topic, cause.partition, cause.offset),
        *(len(raw), raw[:MAX_DEAD_LETTER_BYTES], message.key),
    )
    return dead_letter_message(DeadLetter(reason, why, source), message.timestamp_ms)


def _bounded(header: str) -> bytes:
    """Header → UTF-8, cut between two characters."""
    encoded = header.encode(errors="replace")
    if len(encoded) <= _MAX_HEADER_BYTES:
        return encoded
    return encoded[:_MAX_HEADER_BYTES].decode(errors="ignore").encode()
