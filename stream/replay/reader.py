"""Log lines → events in order, each with the whole log's watermark.

The watermark (:class:`~stream.labels.driver.LogTime`) is made here, before anything is applied, so
that it does not depend on how many processes the events are split over.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import msgspec

from stream.errors import (
    ConfigError,
    EventError,
    InvalidFeaturesError,
    ModelError,
    TimeJumpError,
)
from stream.events.applications import RawApplication
from stream.events.records import MAX_DEAD_LETTER_BYTES
from stream.events.structs import (
    Application,
    Clock,
    DeadLetter,
    Engagement,
    Event,
    Forget,
    JobEvent,
    Source,
)
from stream.events.wire import decode_event, decode_raw, to_event
from stream.features.blocks import FeatureSpace, names_of
from stream.labels.driver import LogTime
from stream.logs.files import LogLine
from stream.logs.jumps import CONFIRMATIONS, JumpFilter
from stream.model.folder import GlobalModel
from stream.policy import Policy

_LOOK_AHEAD = 10_000  # lines
_FEW = 10  # applications

_NAMES: dict[type[Event], str] = {
    Application: "application",
    Engagement: "engagement",
    JobEvent: "job",
    Clock: "clock",
    Forget: "forget",
}


class Read(msgspec.Struct, frozen=True, gc=False):
    """An event that may be applied now.

    ``watermark_ms`` is the log's before it, ``after_ms`` once it is applied (None: not known yet).
    """

    event: Event
    source: Source
    watermark_ms: int | None
    after_ms: int | None


class ReaderState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a reader is, for another to go on from there.

    ``lines`` were read, whose contents have the CRC-32 ``checksum``; ``held`` are the numbers, from
    1, of those that wait for others to confirm their time.
    """

    lines: int = 0
    checksum: int = 0
    largest_ms: int = 0
    watermark_ms: int | None = None
    jump_ms: int | None = None
    held: list[int] = []
    events: dict[str, int] = {}


class Reader:
    """Reads a log, line by line.

    Args:
        space: the feature blocks.
        policy: which actions are known, and how late events may be.
        scored: whether there is a global model: without one an application must bring its score.
        max_jump_ms: hold an event further ahead back until others confirm it; None: never.

    Attributes:
        lines: read so far. time: of the log. events: given out, by type.

    """

    def __init__(
        self, space: FeatureSpace, policy: Policy, *, scored: bool, max_jump_ms: int | None
    ) -> None:
        self._space = space.limited(policy.features.max_feature)
        self._scored = scored and space.global_ is not None
        self._jumps: JumpFilter[tuple[Event, Source, int]] = JumpFilter(max_jump_ms)
        self._checksum = 0
        self.lines = 0
        self.time = LogTime(policy.labels)
        self.events: Counter[str] = Counter()

    def line(self, line: LogLine) -> Iterator[Read | DeadLetter]:
        """Read a line; give what may be applied now, in order, or why it cannot be used."""
        self.lines += 1
        self._checksum = zlib.crc32(line.raw, self._checksum)
        try:
            event, source = self._decode(line)
        except EventError as error:
            return iter((DeadLetter.of(error, _source(line)),))
        if isinstance(event, Forget):
            return iter((self._give(event, source),))  # may lie anywhere in time
        ready = self._jumps.take(event.event_time_ms, (event, source, self.lines))
        return (self._give(event, source) for event, source, _ in ready)

    def end(self) -> Iterator[Read | DeadLetter]:
        """Give what waits at the end of a log; set aside the jumps that nothing confirmed."""
        for event, source, _ in self._jumps.end():
            yield self._give(event, source)
        held, self._jumps.held = self._jumps.held, []
        for _, (event, source, _) in held:
            error = TimeJumpError(
                f"event_time_ms {event.event_time_ms} lies more than --max-jump ahead, and fewer"
                f" than {CONFIRMATIONS} further events followed it there"
            )
            yield DeadLetter.of(error, source)

    def state(self) -> ReaderState:
        """Return how far this reader is."""
        return ReaderState(
            lines=self.lines,
            checksum=self._checksum,
            largest_ms=self.time.largest_ms,
            watermark_ms=self.time.watermark_ms,
            jump_ms=self._jumps.largest_ms,
            held=[number for _, (_, _, number) in self._jumps.held],
            events=dict(self.events),
        )

    def skip(self, lines: Iterator[LogLine], state: ReaderState) -> None:
        """Pass the lines that another reader has read, and go on from where it was.

        Raises:
            ConfigError: they are not the lines that it read.

        """
        held: list[tuple[int, tuple[Event, Source, int]]] = []
        wanted = set(state.held)
        checksum = number = 0
        for number, line in enumerate(islice(lines, state.lines), 1):
            checksum = zlib.crc32(line.raw, checksum)
            if number in wanted:
                event, source = self._decode(line)
                held.append((event.event_time_ms, (event, source, number)))
        if (number, checksum) != (state.lines, state.checksum):
            raise ConfigError(
                f"the log is not that of the interrupted replay: its first {state.lines:,} lines"
                " differ"
            )
        self.lines, self._checksum = state.lines, state.checksum
        self.time.largest_ms, self.time.watermark_ms = state.largest_ms, state.watermark_ms
        self._jumps.largest_ms, self._jumps.held = state.jump_ms, held
        self.events = Counter(state.events)

    def _decode(self, line: LogLine) -> tuple[Event, Source]:
        if line.damaged is not None:
            raise EventError(line.damaged)
        return decode_event(line.raw, self._space), _source(line)

    def _give(self, event: Event, source: Source) -> Read:
        """Move the watermark as an event does that is applied now."""
        self.events[_NAMES[type(event)]] += 1
        before_ms = self.time.watermark_ms
        if not isinstance(event, Application) or self._has_score(event):
            self.time.move(event)
        return Read(event, source, before_ms, self.time.watermark_ms)

    def _has_score(self, app: Application) -> bool:
        """Whether an application brings its global score or what makes it: else it is refused."""
        return app.global_score is not None or (self._scored and app.features.global_ is not None)


def first_look(
    lines: Iterable[LogLine], model: GlobalModel | None
) -> tuple[Iterator[LogLine], FeatureSpace]:
    """Check the first applications against the model, before anything is written.

    A log of which none of the first ten readable applications fits is another model's; a single
    misfit is a dead letter like any other. Without a model, block sizes are those of the first
    application, which must bring its score.

    Returns:
        The lines, all of them again, and the feature blocks.

    Raises:
        ModelError: no application fits the model, or there is none and no global score.

    """
    rest = iter(lines)
    seen: list[LogLine] = []
    misfit: ModelError | None = None
    misfits = 0
    for line in islice(rest, _LOOK_AHEAD):
        seen.append(line)
        try:
            raw = decode_raw(line.raw)
        except EventError:
            continue
        if isinstance(raw, RawApplication):
            try:
                return chain(seen, rest), _space_of(raw, f"{line.source}:{line.number}", model)
            except ModelError as error:
                misfit = misfit or error
            misfits += 1
            if misfits == _FEW:
                break
    if misfit is not None:
        raise misfit
    return chain(seen, rest), FeatureSpace(None, (), ()) if model is None else model.space


def _space_of(raw: RawApplication, where: str, model: GlobalModel | None) -> FeatureSpace:
    if model is not None:
        try:
            to_event(raw, model.space)
        except InvalidFeaturesError as error:
            raise ModelError(
                f"the log does not fit model {model.version}: {error} ({where})"
            ) from None
        return model.space
    if raw.global_score is None:
        raise ModelError(
            f"{where} carries no global_score: pass a model with --model (hearback train makes one)"
        )
    if raw.features is None:
        raise ModelError(
            f"{where} carries no features: pass a model with --model that makes them of attributes"
            " (hearback train --spec makes one)"
        )
    return FeatureSpace(
        None,
        names_of(raw.features.per_member, "per_member"),
        names_of(raw.features.per_job, "per_job"),
    )


def _source(line: LogLine) -> Source:
    return Source(line.source, 0, line.number, len(line.raw), line.raw[:MAX_DEAD_LETTER_BYTES])
