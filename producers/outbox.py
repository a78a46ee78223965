"""SHELL: one producer, and what it must know: the topics, the partitions and their readers.

Used by :mod:`producers.kafka` alone. Records carry the wall clock's time, not the event's: a broker
would drop a log of 2017 at once, by its retention.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import confluent_kafka

from producers.throttle import ANSWER_S, GROWTH, MAX_UNREAD_BYTES, RECORD_BYTES, Throttle
from stream.errors import BrokerError, ConfigError
from stream.events.lenient import as_id
from stream.events.records import APPLICATIONS, CONSUMED, ENGAGEMENTS, INPUTS, TopicNames
from stream.events.structs import Clock
from stream.events.wire import encode
from stream.kafka.embedded import CLUSTER_ID_PREFIX
from stream.logs.files import LineHead, LogLine, ReadProgress
from stream.policy import DAY_MS, HOUR_MS

MAX_PROBLEMS: Final = 5
"""How many of the lines that could not be sent are told one by one."""

_CLOCK_EVERY_S: Final = 1.0
_DELIVERY_S: Final = 60.0  # how long a record may be on its way before that is an error
_PAUSE_S: Final = 0.02  # between two looks at the worker's progress
REPORT_S: Final = 0.2  # between two progress reports

_BY_JOB: Final = ("engagement", "job", "forget")  # a tuple: a type may be a list, or anything

ThrottleMode = Literal["auto", "on", "off"]


@dataclass(slots=True)
class ProduceProgress:
    """How far :func:`produce` got; the same object is reported again and again, and returned.

    ``sent`` counts events, ``clocks`` lines of that type, ``skipped`` lines that belong to no
    topic or are too large for any (the first of them in ``problems``, as ``file:line: reason``),
    ``shared`` names an input partition that somebody else was found to write to,
    ``left_out`` those outside ``from_ms`` … ``until_ms``. ``event_time_ms`` is the largest time
    sent, ``closed_at_ms`` that of the closing clock. ``waiting_for`` is None, or says
    what holds the producer up.
    """

    sent: int = 0
    clocks: int = 0
    skipped: int = 0
    left_out: int = 0
    event_time_ms: int | None = None
    closed_at_ms: int | None = None
    waiting_for: str | None = None
    shared: str | None = None
    problems: list[str] = field(default_factory=list)
    read: ReadProgress = field(default_factory=ReadProgress)


class Outbox:
    """The producer, with what it needs to know about the topics and about its readers."""

    def __init__(
        self,
        broker: str,
        *,
        client: Mapping[str, str | int | float | bool],
        throttle: ThrottleMode,
        group: str,
        progress: ProduceProgress,
        report: Callable[[ProduceProgress], None],
    ) -> None:
        self._progress = progress
        self._clocked_ms = -1  # event time of the newest clock
        self._clocked_s = -math.inf  # when it was sent
        self._closed_ms = -1  # event time of the newest clock that went to both inputs
        self._offsets: dict[tuple[str, int], int] = {}  # of the newest delivery
        self._report = report
        self._reported = time.monotonic()
        self._failure: str | None = None
        self._trouble: str | None = None
        self._room = 0
        self._application_bytes: Counter[int] = Counter()  # by hour of event time
        settings: dict[str, Any] = {
            **client,
            "bootstrap.servers": broker,
            "client.id": "hearback-produce",
            "log_level": 0,  # what goes wrong is said once, by an exception
            "error_cb": self._note_trouble,
        }
        try:
            self._producer = confluent_kafka.Producer(
                {
                    **settings,
                    "partitioner": "murmur2_random",
                    "enable.idempotence": True,  # and with it acks=all, and no reordering
                    # The embedded broker answers a fetch with one batch as it was sent, so that a
                    # played log in small ones would keep a worker busy with units of one event.
                    "linger.ms": 50,
                    "queue.buffering.max.kbytes": 65_536,
                    "message.timeout.ms": int(_DELIVERY_S * 1_000),
                }
            )
        except confluent_kafka.KafkaException as error:
            raise ConfigError(f"Kafka client settings: {error.args[0].str()}") from error
        try:
            embedded, self.partitions, there = self._look_at_topics(broker)
        except confluent_kafka.KafkaException as error:
            self._producer.poll(0)  # says what the trouble was: a wrong password, no TLS there
            reason = self._trouble or error.args[0].str()
            raise BrokerError(f"no Kafka broker answers at {broker}: {reason}") from error
        self._throttle: Throttle | None = None
        if throttle == "on" or (throttle == "auto" and embedded):
            names = TopicNames.among(group, there)
            consumed = [names.of(topic) for topic in CONSUMED]
            self._throttle = Throttle(
                settings,
                group=group,
                topics=consumed,
                written=(APPLICATIONS, ENGAGEMENTS),
                partitions=self.partitions,
            )

    def _look_at_topics(self, broker: str) -> tuple[bool, int, Collection[str]]:
        """Tell whether the broker is embedded, how many partitions the inputs have, its topics."""
        cluster = self._producer.list_topics(timeout=ANSWER_S)
        embedded = (cluster.cluster_id or "").startswith(CLUSTER_ID_PREFIX)
        topics = dict(cluster.topics)
        counts = {}
        for topic in (APPLICATIONS, ENGAGEMENTS):
            if topic not in topics and embedded:  # asked for by name, it comes into being
                topics |= self._producer.list_topics(topic, timeout=ANSWER_S).topics
            if topic not in topics or topics[topic].error is not None:
                raise BrokerError(
                    f"broker {broker} has no topic {topic}: create the topics first "
                    f"({', '.join(CONSUMED)}, coefficients, all with the same number of "
                    "partitions, and dead-letters)"
                )
            counts[topic] = len(topics[topic].partitions)
        if counts[APPLICATIONS] != counts[ENGAGEMENTS]:
            raise BrokerError(
                f"topic {APPLICATIONS} has {counts[APPLICATIONS]} partitions and {ENGAGEMENTS} "
                f"{counts[ENGAGEMENTS]}: both need the same number"
            )
        return embedded, counts[APPLICATIONS], topics.keys()

    def send_line(self, line: LogLine, head: LineHead | None, time_ms: int) -> None:
        """Send one line to where it belongs, or count it as skipped."""
        topic, key, problem = _route(line, head)
        if problem is None and topic is None:
            self._broadcast(line.raw)
            self._progress.clocks += 1
        elif problem is None and topic is not None:
            problem = self._send(topic, line.raw, key)
            if problem is None:
                self._progress.sent += 1
                if topic == APPLICATIONS and self._throttle is not None:
                    self._throttle.saw_application(len(line.raw))
                    self._application_bytes[time_ms // HOUR_MS] += len(line.raw)
        if problem is not None:
            self._progress.skipped += 1
            if len(self._progress.problems) < MAX_PROBLEMS:
                self._progress.problems.append(f"{line.source}:{line.number}: {problem}")
            return
        if time_ms > (self._progress.event_time_ms or -1) and not is_absurd(time_ms):
            self._progress.event_time_ms = time_ms
        if time.monotonic() - self._reported > REPORT_S:
            self.idle(0.0)

    def tell_time(self, hour_ms: int, topics: Collection[str]) -> None:
        """Send a clock, if it says more than the one before, once a second at most.

        So that windows close behind the log also where partitions have few events. A clock binds
        everybody who writes to its partition: there is none where somebody else does.
        """
        if hour_ms <= self._clocked_ms or time.monotonic() - self._clocked_s < _CLOCK_EVERY_S:
            return
        if self._progress.shared is not None:
            return
        self._clocked_ms, self._clocked_s = hour_ms, time.monotonic()
        self._broadcast(encode(Clock(hour_ms, sure=True)), sorted(topics))
        if set(INPUTS) <= set(topics):
            self._closed_ms = hour_ms

    def close_windows(self, closing_ms: int, window_ms: int) -> None:
        """Send the closing clock everywhere.

        Throttled, in as many steps as it takes to let no more labels loose at once than may be
        unread, each after the worker has read everything.
        """
        if self._throttle is not None:
            open_since_ms = self._closed_ms - window_ms
            pending = [
                (hour * HOUR_MS, size)
                for hour, size in sorted(self._application_bytes.items())
                if (hour + 1) * HOUR_MS > open_since_ms
            ]
            most = self.partitions * MAX_UNREAD_BYTES // GROWTH
            for time_ms in _cuts(pending, most):
                self._broadcast(encode(Clock(min(time_ms + window_ms, closing_ms), sure=True)))
                self._wait(self._throttle, 0, all_read=True)
        self._broadcast(encode(Clock(closing_ms, sure=True)))
        self._progress.closed_at_ms = closing_ms

    def idle(self, seconds: float) -> None:
        """Let time pass: deliveries are noted, failures raised, progress is reported."""
        self._producer.poll(0)
        self._raise_failure()
        if time.monotonic() - self._reported > REPORT_S:
            self._reported = time.monotonic()
            self._report(self._progress)
        if seconds > 0:
            time.sleep(seconds)  # not in poll(), which would hold back Ctrl-C

    def flush(self) -> None:
        """Wait until the broker has taken everything."""
        while self._producer.flush(REPORT_S):
            self.idle(0.0)
        self._raise_failure()

    def end(self) -> None:
        """Drop what is still queued (after a failure) and close the connections."""
        self._producer.purge()
        self._producer.flush(ANSWER_S)
        if self._throttle is not None:
            self._throttle.end()

    def _broadcast(self, value: bytes, topics: Sequence[str] = INPUTS) -> None:
        for topic in topics:
            for partition in range(self.partitions):
                self._send(topic, value, None, partition)

    def _send(self, topic: str, value: bytes, key: bytes | None, partition: int = -1) -> str | None:
        """Queue one record; return why it cannot be sent, ever, or None."""
        size = len(value) + len(key or b"") + RECORD_BYTES
        if self._throttle is not None:
            if size > self._room:
                self._wait(self._throttle, size)
            self._room -= size
        while True:
            try:
                self._producer.produce(topic, value, key, partition, on_delivery=self._delivered)
            except BufferError:
                self.idle(_PAUSE_S)
            except confluent_kafka.KafkaException as error:
                if error.args[0].code() == confluent_kafka.KafkaError.MSG_SIZE_TOO_LARGE:
                    return f"{len(value)} bytes are too large for the broker"
                raise BrokerError(f"topic {topic}: {error.args[0].str()}") from error
            else:
                return None

    def _wait(self, throttle: Throttle, size: int, *, all_read: bool = False) -> None:
        """Wait until ``size`` bytes may be sent and, if asked for, all that was sent is read.

        Wherever these bytes go, no partition has more unread then than it may.
        """
        self.flush()
        # A sixteenth at least, lest every event is waited for alone; and no more than ever may.
        wanted = min(max(size, MAX_UNREAD_BYTES // 16), MAX_UNREAD_BYTES)
        while True:
            unread, where = throttle.most_unread()
            self._room = MAX_UNREAD_BYTES - unread
            if self._room >= wanted and not (all_read and throttle.has_unread_sent()):
                break
            self._progress.waiting_for = f"the worker to read {where}"
            self.idle(_PAUSE_S)
        self._progress.waiting_for = None

    def _delivered(
        self, error: confluent_kafka.KafkaError | None, message: confluent_kafka.Message
    ) -> None:
        if error is not None:
            self._failure = self._failure or f"topic {message.topic()}: {error.str()}"
            return
        place, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
        before = self._offsets.get(place)
        if before is not None and offset != before + 1 and self._progress.shared is None:
            self._progress.shared = f"{place[0]}-{place[1]}"
        self._offsets[place] = offset
        if self._throttle is not None:
            self._throttle.delivered(message)

    def _note_trouble(self, error: confluent_kafka.KafkaError) -> None:
        # That all brokers are down follows from what was said before, and says less.
        if error.code() != confluent_kafka.KafkaError._ALL_BROKERS_DOWN:
            self._trouble = error.str()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            trouble = f" ({self._trouble})" if self._trouble else ""
            raise BrokerError(f"the broker did not take an event for {self._failure}{trouble}")


def _cuts(pending: Sequence[tuple[int, int]], most: int) -> Iterator[int]:
    """Cut what is pending into equal parts of no more than so many bytes; give where.

    Args:
        pending: hours (ms) in order, with the bytes of the applications of each.

    """
    total = sum(size for _, size in pending)
    parts = total // most + 1
    part, before = 1, 0
    for hour_ms, size in pending:
        while part < parts and before + size >= total * part / parts:
            yield hour_ms + int((total * part / parts - before) / size * HOUR_MS)
            part += 1
        before += size


def is_absurd(time_ms: int) -> bool:
    """Tell whether a time is over a day ahead of now: the worker sets such an event aside."""
    return time_ms > now_ms() + DAY_MS


def now_ms() -> int:
    """Read the wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _route(line: LogLine, head: LineHead | None) -> tuple[str | None, bytes | None, str | None]:
    """Tell topic and key of a line (none of both: a clock), or why it has none."""
    if line.damaged is not None:
        return None, None, line.damaged
    if head is None:
        return None, None, "not a JSON object"
    if head.type == "clock":
        return None, None, "a clock without a time" if head.time_ms() is None else None
    if head.type == "application" or (head.type == "forget" and head.job_id is None):
        topic, name, entity = APPLICATIONS, "member_id", head.member_id
    elif head.type in _BY_JOB:
        topic, name, entity = ENGAGEMENTS, "job_id", head.job_id
    else:
        return None, None, f"unknown type {str(head.type)[:40]!r}"
    key = as_id(entity)  # as the worker reads it, who compares it with the record's key
    if not isinstance(key, str):
        return None, None, f"no {name}"
    return topic, key.encode(), None
