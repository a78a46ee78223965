"""Whether all that some inputs have led to is in the store; who asks waits for it.

A producer knows topic, partition and offset of what he has written. All that it has led to is in
the store when, one after the other:

1. its partition, of the member stage for an application and of the job stage for an engagement, has
   read past it, as its read record says (:mod:`stream.partitions.readings`): what that has made of
   it is in Kafka;
2. of applications: the job partitions have read past the ends that ``applications-by-job`` had
   then: that the job has the application, and the labels that it has made, are in Kafka too;
3. the member partitions have read past the ends that ``labels`` had then: so is what members have
   learned of these;
4. all that is followed was read up to the ends that it had then.

Ends are those of all that was written, of open transactions too: the partitions of one transaction
become readable one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Final, NamedTuple

from stream.errors import QuestionError
from stream.events.records import APPLICATIONS, APPLICATIONS_BY_JOB, ENGAGEMENTS, INPUTS, LABELS

AFTER: Final = "Hearback-After"
"""The header in which questions say their positions."""

MOST: Final = 64
"""Positions that one question may wait for."""

_FORM = re.compile(rf"({'|'.join(INPUTS)})/([0-9]{{1,6}}):([0-9]{{1,18}})")


class Position(NamedTuple):
    """Where an input was written: topic (one of ``INPUTS``), partition and offset."""

    topic: str
    partition: int
    offset: int


def positions_of(text: str) -> list[Position]:
    """Read positions, as they stand in a header, with commas between.

    Raises:
        QuestionError: it is none, or there are too many.

    """
    found = []
    for part in text.split(","):
        match = _FORM.fullmatch(part.strip())
        if match is None:
            raise QuestionError(
                f"{part.strip()[:64]!r} is no position of an input, as {APPLICATIONS}/3:1234 and"
                f" {ENGAGEMENTS}/3:1234 are"
            )
        found.append(Position(match[1], int(match[2]), int(match[3])))
    if len(found) > MOST:
        raise QuestionError(f"{len(found)} positions, the most are {MOST}")
    return found


class _Wait:
    """One who waits: for what is still to be found out, step by step.

    ``wanted``: up to where partitions have to read. ``next``: topics that are to be read after
    that, up to the ends that they have then. ``ends``: of all that is followed, after the last.
    """

    def __init__(self, positions: Sequence[Position]) -> None:
        self.future: Future[None] = Future()
        self.wanted = {f"{topic}/{number}": at + 1 for topic, number, at in sorted(positions)}
        by_job = any(each.topic == APPLICATIONS for each in positions)
        self.next = [APPLICATIONS_BY_JOB, LABELS] if by_job else [LABELS]
        self.ends: Mapping[str, int] | None = None


class Waits:
    """Those who wait. Anybody may ask; who follows the topics goes on with them.

    Attributes:
        read: up to where partitions have read, as next offsets by ``topic/partition``.

    """

    def __init__(self) -> None:
        self.read: dict[str, int] = {}
        self._waits: list[_Wait] = []
        self._lock = Lock()

    def ask(self, positions: Sequence[Position]) -> Future[None]:
        """Return what is done when all that inputs have led to is there."""
        wait = _Wait(positions)
        with self._lock:  # who gave up would stay while the broker is away: nobody goes on then
            self._waits = [*(each for each in self._waits if not each.future.done()), wait]
        return wait.future

    def go_on(
        self,
        offsets: Mapping[str, int],
        ends: Callable[[], Mapping[str, int]],
        ends_of: Callable[[str], Sequence[int]],
    ) -> None:
        """Look who need not wait any more.

        Args:
            offsets: up to where all that is followed was read and entered, by ``topic/partition``.
            ends: asks for the ends of the same.
            ends_of: for those of the partitions of a topic, ``applications-by-job`` or ``labels``.

        Raises:
            BrokerError: it does not answer.

        """
        with self._lock:
            waits = self._waits = [each for each in self._waits if not each.future.done()]
        for topic in (APPLICATIONS_BY_JOB, LABELS):
            heard = [
                each
                for each in waits
                if each.next[:1] == [topic] and _reached(self.read, each.wanted)
            ]
            if heard:
                wanted = {f"{topic}/{n}": end for n, end in enumerate(ends_of(topic)) if end}
                for each in heard:
                    each.wanted = wanted
                    del each.next[0]
        learned = [
            each
            for each in waits
            if each.ends is None and not each.next and _reached(self.read, each.wanted)
        ]
        if learned:
            found = ends()
            for each in learned:
                each.ends = found
        for each in waits:
            if (
                each.ends is not None
                and _reached(offsets, each.ends)
                and each.future.set_running_or_notify_cancel()
            ):
                each.future.set_result(None)


def _reached(read: Mapping[str, int], wanted: Mapping[str, int]) -> bool:
    return all(read.get(place, 0) >= offset for place, offset in wanted.items())
