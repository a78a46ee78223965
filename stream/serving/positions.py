"""Whether all that some engagements have led to is in the store; who asks waits for it.

A producer knows topic, partition and offset of what he has written. All that it has led to is in
the store when, one after the other:

1. its job partition has read past it, as its read record says
   (:mod:`stream.partitions.readings`): what the job has learned of it, and the labels that it has
   made, are in Kafka;
2. the member partitions have read past the ends that ``labels`` had then: so is what members have
   learned of these;
3. all that is followed was read up to the ends that it had then.

Ends are those of all that was written, of open transactions too: the partitions of one transaction
become readable one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Final, NamedTuple

from stream.errors import QuestionError
from stream.events.records import ENGAGEMENTS, LABELS

AFTER: Final = "Hearback-After"
"""The header in which questions say their positions."""

MOST: Final = 64
"""Positions that one question may wait for."""

_FORM = re.compile(rf"{ENGAGEMENTS}/(\d{{1,6}}):(\d{{1,18}})")


class Position(NamedTuple):
    """Partition and offset of an engagement."""

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
                f"{part.strip()[:64]!r} is no position of an engagement, as {ENGAGEMENTS}/3:1234 is"
            )
        found.append(Position(int(match[1]), int(match[2])))
    if len(found) > MOST:
        raise QuestionError(f"{len(found)} positions, the most are {MOST}")
    return found


class _Wait:
    """One who waits: for what is still to be found out, step by step."""

    def __init__(self, positions: Iterable[Position]) -> None:
        self.future: Future[None] = Future()
        self.read = {f"{ENGAGEMENTS}/{number}": at + 1 for number, at in sorted(positions)}
        self.labels: dict[str, int] | None = None
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
        """Return what is done when all that engagements have led to is there."""
        wait = _Wait(positions)
        with self._lock:  # who gave up would stay while the broker is away: nobody goes on then
            self._waits = [*(each for each in self._waits if not each.future.done()), wait]
        return wait.future

    def go_on(
        self,
        offsets: Mapping[str, int],
        ends: Callable[[], Mapping[str, int]],
        ends_of_labels: Callable[[], Sequence[int]],
    ) -> None:
        """Look who need not wait any more.

        Args:
            offsets: up to where all that is followed was read and entered, by ``topic/partition``.
            ends: asks for the ends of the same. ends_of_labels: for those of ``labels``.

        Raises:
            BrokerError: it does not answer.

        """
        with self._lock:
            waits = self._waits = [each for each in self._waits if not each.future.done()]
        heard = [each for each in waits if each.labels is None and _reached(self.read, each.read)]
        if heard:
            labels = {f"{LABELS}/{n}": end for n, end in enumerate(ends_of_labels()) if end}
            for each in heard:
                each.labels = labels
        learned = [
            each
            for each in waits
            if each.ends is None and each.labels is not None and _reached(self.read, each.labels)
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
