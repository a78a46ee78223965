"""Reads a log into labels: what replays and training share.

A log is one input with one watermark. Each event is applied in full, then time moves, then what is
due is closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from stream.errors import EventError
from stream.events.structs import Clock, DeadLetter, Engagement, Event, Forget, JobEvent, Source
from stream.labels.machine import CLOSED
from stream.labels.transitions import stimuli
from stream.policy import LabelPolicy

_E_contra = TypeVar("_E_contra", contravariant=True)
_S_co = TypeVar("_S_co", covariant=True)


class Labels(Protocol[_E_contra, _S_co]):
    """What applies events: the machine, or a stage around it, each with steps of its own."""

    def apply(self, event: _E_contra, source: Source, watermark_ms: int | None) -> Iterable[_S_co]:
        """Apply an event."""

    def close_due(self, watermark_ms: int | None) -> Iterable[_S_co]:
        """End all that the watermark is past."""


class LogTime:
    """Event time of a log: the largest time read less the allowed lateness, or what a clock says.

    An event that cannot but become a dead letter moves nothing, as far as that can be told from the
    event alone; the time of one that turns out to conflict with another has been read.

    Attributes:
        largest_ms: largest time of an event. watermark_ms: how far event time is; None: not known.
        window_ms: of the labels.

    """

    def __init__(self, policy: LabelPolicy) -> None:
        self._policy = policy
        self._actions = stimuli(policy)
        self.window_ms = policy.window_ms
        self.largest_ms = 0
        self.watermark_ms: int | None = None

    def move(self, event: Event) -> None:
        """Move as an event says that is applied now."""
        match event:
            case Forget():
                return  # it may lie anywhere in time
            case Engagement() if event.action not in self._actions:
                return
            case JobEvent() if event.action != CLOSED:
                return
        mark_ms = event.event_time_ms
        if not isinstance(event, Clock):
            self.largest_ms = max(self.largest_ms, mark_ms)
            mark_ms = self.largest_ms - self._policy.allowed_lateness_ms
        if self.watermark_ms is None or mark_ms > self.watermark_ms:
            self.watermark_ms = mark_ms

    def close(self) -> int:
        """Move past every window of what was read; return the watermark."""
        closed_ms = self._policy.past_everything_ms(self.largest_ms)
        self.watermark_ms = max(closed_ms, self.watermark_ms or 0)
        return self.watermark_ms


def read(
    labels: Labels[_E_contra, _S_co],
    event: _E_contra,
    source: Source,
    before_ms: int | None,
    after_ms: int | None,
) -> Iterator[_S_co | DeadLetter]:
    """Give what comes of an event, and of time having moved; a refusal is a dead letter.

    Args:
        labels: what applies it.
        event: next in the log. source: where it stands.
        before_ms: watermark before it. after_ms: after it.

    """
    try:
        yield from labels.apply(event, source, before_ms)
    except EventError as error:
        yield DeadLetter.of(error, source)
    if after_ms != before_ms:
        yield from labels.close_due(after_ms)
