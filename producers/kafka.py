"""SHELL: plays logs into the Kafka topics, as fast as wanted and never faster than is safe.

Each line travels unchanged. Applications go to ``applications`` under their member's id,
engagements and job events to ``engagements`` under their job's, both partitioned by murmur2; a
clock goes to every partition of both. Clocks of its own tell how far the log has come.

A broker that keeps little drops what is older, read or not (the embedded one: 5 MB of a
partition). There the producer waits for the worker: see :func:`produce`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median_low
from typing import Final

from producers.outbox import (
    REPORT_S,
    Outbox,
    ProduceProgress,
    ThrottleMode,
    is_absurd,
    now_ms,
)
from producers.survey import Survey
from stream.errors import ConfigError
from stream.logs.files import LineHead, LogLine, check_logs, merge, read_head
from stream.policy import HOUR_MS, LabelPolicy
from stream.units import format_time

_TELL_S = 1.0
"""Between two reports that the logs are being read before they are played."""

_FOLLOW: Final = 100
"""So many lines that follow show whether a line's time is wrong: with half of them it is usual."""

_Timed = tuple[LogLine, LineHead | None, int]

__all__ = [
    "ProduceProgress",
    "ThrottleMode",
    "produce",
]


def produce(
    paths: Sequence[Path],
    broker: str,
    *,
    speed: float = math.inf,
    from_ms: int | None = None,
    until_ms: int | None = None,
    close: bool = False,
    clocks: bool = True,
    labels: LabelPolicy | None = None,
    throttle: ThrottleMode = "auto",
    throttle_group: str = "hearback",
    client: Mapping[str, str | int | float | bool] | None = None,
    on_progress: Callable[[ProduceProgress], None] | None = None,
) -> ProduceProgress:
    """Play logs into the topics; returns when the broker has taken all of it.

    Called by ``hearback produce`` and ``hearback demo``.

    Throttled, at most :data:`MAX_UNREAD_BYTES` are unread in each partition of the four topics
    that the worker reads: sent but not committed by its group. Of the two topics written here the
    bytes are known. Of what the worker writes only the number of unread messages is, and each
    counts as three average applications (a label carries its application's features, with all
    their digits). While no worker is running, the producer waits for one.

    Args:
        paths: the logs, merged as :func:`stream.logs.files.merge` says.
        broker: ``host:port``, or several with commas.
        speed: event time runs this many times faster than the wall clock; infinite for as fast as
            possible.
        from_ms: events before it are left out.
        until_ms: events from it on are left out.
        close: end with a clock past every window, in every partition of both inputs.
        clocks: also send clocks, the latest whole hour of event time that the log has passed, once
            a second at most, to the inputs that it has events for; not where others write too.
        labels: say how far out of order events may be, and when every window and every wait is
            over; None: the defaults.
        throttle: ``auto`` is on for the embedded broker only.
        throttle_group: the worker's consumer group, its application id.
        client: more settings for librdkafka, such as those of SASL and TLS.
        on_progress: called a few times a second, and once at the end or at an interrupt.

    Raises:
        LogError: a log cannot be opened.
        ConfigError: ``close`` would lie after now (nothing was sent), or a setting of ``client``
            does not exist.
        BrokerError: the broker does not answer, lacks the topics, or refuses an event.
        KeyboardInterrupt: after the broker has taken what was on its way.

    """
    check_logs(paths)
    labels = labels or LabelPolicy()
    progress = ProduceProgress()
    report = on_progress or (lambda _: None)
    chosen = _Range(from_ms, until_ms)
    survey: Survey | None = None
    closing = None
    if close or clocks:

        def tell() -> None:
            progress.waiting_for = "reading the logs for how they go on"
            report(progress)

        survey = _survey(paths, chosen, labels, tell)
        closing = _closing_ms(survey, labels) if close else None
        progress.waiting_for = None
    outbox = Outbox(
        broker,
        client=client or {},
        throttle=throttle,
        group=throttle_group,
        progress=progress,
        report=report,
    )
    try:
        pace = _Pace(speed)
        timed = _timed(merge(paths, progress.read))
        follow = 0 if math.isinf(speed) else _FOLLOW
        for index, ((line, head, time_ms), following) in enumerate(_followed(timed, follow)):
            if time_ms not in chosen:
                progress.left_out += 1
                continue
            pace.wait(time_ms, following, outbox)
            outbox.send_line(line, head, time_ms)
            if survey is not None and clocks and progress.event_time_ms is not None:
                outbox.tell_time(survey.clock_ms(index, progress.event_time_ms), survey.topics)
        if closing is not None:
            outbox.close_windows(closing, labels.window_ms)
        outbox.flush()
    except KeyboardInterrupt:
        outbox.flush()
        raise
    finally:
        outbox.end()
        report(progress)
    return progress


class _Range:
    """The event times that are sent."""

    def __init__(self, from_ms: int | None, until_ms: int | None) -> None:
        self._from = -math.inf if from_ms is None else from_ms
        self._until = math.inf if until_ms is None else until_ms

    def __contains__(self, time_ms: int) -> bool:
        return self._from <= time_ms < self._until


class _Pace:
    """Makes event time run at a constant speed, from the first event on."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._start: tuple[int, float] | None = None
        self._latest_ms = 0

    def wait(self, time_ms: int, following: Collection[_Timed], outbox: Outbox) -> None:
        """Wait for an event's time; not for one hours ahead of half of the lines that follow.

        Not of all of them: the one that comes a day late is no reason to hurry those before it.
        """
        if math.isinf(self._speed) or time_ms <= self._latest_ms or is_absurd(time_ms):
            return
        if following and time_ms >= median_low(ms for _, _, ms in following) + 2 * HOUR_MS:
            return
        self._latest_ms = time_ms
        if self._start is None:
            self._start = time_ms, time.monotonic()
        first_ms, began = self._start
        due = began + (time_ms - first_ms) / 1_000 / self._speed
        while (left := due - time.monotonic()) > 0:
            outbox.idle(min(left, REPORT_S))


def _followed(lines: Iterator[_Timed], most: int) -> Iterator[tuple[_Timed, Collection[_Timed]]]:
    """Attach the lines that follow, so many at most."""
    following: deque[_Timed] = deque()
    for each in lines:
        following.append(each)
        if len(following) > most:
            yield following.popleft(), following
    while following:
        yield following.popleft(), following


def _timed(lines: Iterator[LogLine]) -> Iterator[_Timed]:
    """Attach head and time; a line without a time has that of the line before it."""
    time_ms = 0
    for line in lines:
        head = read_head(line.raw)
        own_ms = None if head is None else head.time_ms()
        if own_ms is not None:
            time_ms = own_ms
        yield line, head, time_ms


def _survey(
    paths: Sequence[Path], chosen: _Range, labels: LabelPolicy, tell: Callable[[], None]
) -> Survey:
    """Read the logs as they are about to be played; ``tell`` is called if that takes a while."""
    survey = Survey(labels)
    told = time.monotonic()
    for index, (line, _, time_ms) in enumerate(_timed(merge(paths))):
        if index % 1000 == 0 and time.monotonic() - told > _TELL_S:
            told = time.monotonic()
            tell()
        if line.damaged is None and time_ms in chosen and not is_absurd(time_ms):
            survey.note(index, line.raw, time_ms)
    survey.begin()
    return survey


def _closing_ms(survey: Survey, labels: LabelPolicy) -> int | None:
    """Return the time of the closing clock; None where nothing would be sent.

    Raises:
        ConfigError: it would lie after now.

    """
    latest = survey.latest_ms
    if latest is None:
        return None
    closing = max(labels.past_everything_ms(latest), survey.latest_clock_ms or 0)
    if closing > now_ms():
        raise ConfigError(
            f"--close would set event time to {format_time(closing)}, which lies after now: the "
            f"last event is of {format_time(latest)} and its window is still open; play without "
            "--close, or with an earlier --until"
        )
    return closing
