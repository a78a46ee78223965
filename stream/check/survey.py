"""One pass over a log, in bounded memory: what is there, before anything is learned of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from stream.check.columns import Columns
from stream.check.joins import Joins
from stream.check.order import SECONDS, Order
from stream.check.said import Said
from stream.check.tallies import Distinct, Tally
from stream.errors import EventError
from stream.events.applications import RawApplication
from stream.events.structs import Clock, Engagement, Forget, JobEvent
from stream.events.wire import RawEvent, decode_raw, to_event
from stream.features.blocks import FeatureSpace
from stream.labels.machine import CLOSED
from stream.labels.transitions import stimuli
from stream.logs.files import LogLine
from stream.logs.jumps import JumpFilter
from stream.logs.order import read_head
from stream.policy import DAY_MS, Policy

LEAST_MAX_JUMP_MS = 30 * DAY_MS
"""A jump is looked for beyond this, or two label windows if they are longer."""

_MOST_ACTIONS = 1_000
_SHOWN_CHARS = 60
_FEW = 10  # events after a pause, at the end of a log, that are as likely of a wrong clock

APPLICATION, ENGAGEMENT, JOB = "application", "engagement", "job"
_TYPES = {
    RawApplication: APPLICATION,
    Engagement: ENGAGEMENT,
    JobEvent: JOB,
    Clock: "clock",
    Forget: "forget",
}


class FileLines(msgspec.Struct):
    """Lines of one file, and how many of them are events."""

    lines: int = 0
    usable: int = 0


class Times(msgspec.Struct):
    """Of one type of event: how many there are, and how many of their times seem another unit's."""

    events: int = 0
    seconds: Tally = msgspec.field(default_factory=Tally)
    micros: Tally = msgspec.field(default_factory=Tally)
    nanos: Tally = msgspec.field(default_factory=Tally)


class Survey:
    """Looks through a log.

    Args:
        policy: whose lists name the actions, and what is late.
        max_jump_ms: as the command has it; None: no event is held back.
        from_ms, until_ms: events before and after these times are left out, as the command does.
        space: the feature blocks that applications must have, where they are known; without a
            global one, they must have a global score too.
        attributes: whether these are counted.

    Attributes:
        files: by name. lines: all of them. usable: events. left_out: by ``until_ms``.
        first_line: the beginning of the first line.
        refused: lines that are no events, by reason and type ("": of none that is known), but those
            whose times are counted as micro- or nanoseconds. damage: where files end too early.
        times: by type. actions, job_actions: how often each came. unlisted, unlisted_jobs: of these
            what no list of the policy has. order, joins, blocks: see there. members, jobs: ids.
        said: attributes; None: not counted.
        scored: applications with a global score or a global block. unscored: with neither.
        misfits: those that ``space`` does not fit. huge_scores: beyond ``max_feature``.
        turns: how often an event is of another type than the one before.
        far: events whose time lies far ahead of all others, or all that ``max_jump_ms`` leaves out.
            overtaken: events read after the first of these. closed: applications whose windows
            only these times close. not_yet: whether they lie in the future.

    """

    def __init__(
        self,
        policy: Policy,
        *,
        max_jump_ms: int | None = None,
        from_ms: int | None = None,
        until_ms: int | None = None,
        space: FeatureSpace | None = None,
        attributes: bool = False,
    ) -> None:
        labels = policy.labels
        self.policy = policy
        self.max_jump_ms = max_jump_ms
        self._from_ms, self._until_ms = from_ms, until_ms
        self._listed = stimuli(labels)
        self._jumps: JumpFilter[tuple[int, RawEvent, LogLine]] = JumpFilter(
            max_jump_ms or max(LEAST_MAX_JUMP_MS, 2 * labels.window_ms)
        )
        self.lines = self.usable = self.left_out = 0
        self.first_line = ""
        self.files: dict[str, FileLines] = {}
        self.refused: dict[tuple[str, str], Tally] = {}
        self.damage: list[tuple[str, str]] = []
        self.times = {name: Times() for name in _TYPES.values()}
        self.actions: Counter[str] = Counter()
        self.job_actions: Counter[str] = Counter()
        self.unlisted, self.unlisted_jobs = Tally(), Tally()
        self.order = Order(labels.allowed_lateness_ms)
        self.joins = Joins(labels)
        limit = policy.features.max_feature
        self.blocks = {name: Columns(name, limit) for name in ("global", "per_member", "per_job")}
        self.members, self.jobs = Distinct(), Distinct()
        self.said = Said() if attributes else None
        self.scored = 0
        self.unscored, self.misfits, self.huge_scores = Tally(), Tally(), Tally()
        self._limit = limit
        self._space = None if space is None else space.limited(limit)
        self.turns = 0
        self._last: type[RawEvent] | None = None
        self.far = Tally()
        self.far_ms = self.overtaken = self.closed = self._dated = 0
        self.not_yet = False
        self._now_ms = time.time_ns() // 1_000_000

    def read(self, lines: Iterable[LogLine], progress: Callable[[int], None]) -> None:
        """Take a whole log in; ``progress`` is told the number of lines now and then."""
        for line in lines:
            self._line(line)
            if self.lines % 4096 == 0:
                progress(self.lines)
        progress(self.lines)
        for _, event, line in self._jumps.end():
            self._event(event, line)
        self._end_far()
        self.joins.end()
        for block in self.blocks.values():
            block.end()

    def _line(self, line: LogLine) -> None:
        self.lines += 1
        file = self.files.get(line.source)
        if file is None:
            file = self.files[line.source] = FileLines()
        file.lines += 1
        if not self.first_line:
            self.first_line = line.raw[:_SHOWN_CHARS].decode(errors="replace")
        if line.damaged is not None:
            self.damage.append((f"{line.source}:{line.number}", line.damaged))
            return
        try:
            event = decode_raw(line.raw)
        except EventError as error:
            self._refuse(error, line)
            return
        file.usable += 1
        time_ms = event.event_time_ms
        if (self._until_ms is not None and time_ms > self._until_ms) or (
            self._from_ms is not None and time_ms < self._from_ms
        ):
            self.left_out += 1
            return
        self.usable += 1
        if isinstance(event, Forget):
            self.times["forget"].events += 1
            return
        self._dated += 1
        for _, one, at in self._jumps.take(time_ms, (self._dated, event, line)):
            self._event(one, at)

    def _refuse(self, error: EventError, line: LogLine) -> None:
        head = read_head(line.raw)
        kind = "" if head is None or str(head.type) not in self.times else str(head.type)
        if head is not None and kind:
            times = self.times[kind]
            times.events += 1
            value = head.event_time_ms
            if isinstance(value, int | float) and error.reason == "invalid_time":
                if int(value) in SECONDS:
                    times.seconds.add(line, str(value))
                for unit, per_second in ((times.micros, 10**6), (times.nanos, 10**9)):
                    if int(value / per_second) in SECONDS:
                        unit.add(line, str(value))
                        return
        self.refused.setdefault((error.reason, kind), Tally()).add(line, str(error))

    def refused_by_reason(self) -> Counter[str]:
        """How many lines are no events, all types together."""
        counts: Counter[str] = Counter()
        for (reason, _), tally in self.refused.items():
            counts[reason] += tally.count
        units = sum(times.micros.count + times.nanos.count for times in self.times.values())
        return counts + Counter(invalid_time=units)

    def _event(self, event: RawEvent, line: LogLine) -> None:
        """Take an event in, in the order in which it is applied."""
        kind, time_ms, order = type(event), event.event_time_ms, self.order
        times = self.times[_TYPES[kind]]
        times.events += 1
        if time_ms in SECONDS:
            times.seconds.add(line, str(time_ms))
        if kind is not self._last:
            self.turns += 1
            self._last = kind
        mark_ms = order.mark_ms
        if isinstance(event, RawApplication):
            self._application(event, line)
            looked_at = self.joins.application(event, line, mark_ms)
            order.move(time_ms, line, looked_at=looked_at)
        elif isinstance(event, Engagement):
            self._count(self.actions, event.action)
            looked_at = self.joins.engagement(event, line, mark_ms)
            if self._moves(event):
                order.move(time_ms, line, looked_at=looked_at)
            else:
                self.unlisted.add(line, event.action)
        elif isinstance(event, JobEvent):
            self._count(self.job_actions, event.action)
            self.jobs.add(event.job_id)
            looked_at = self.joins.job_event(event, line)
            if self._moves(event):
                order.move(time_ms, line, looked_at=looked_at)
            else:
                self.unlisted_jobs.add(line, event.action)
        else:
            order.clock(time_ms)

    def _application(self, app: RawApplication, line: LogLine) -> None:
        features = app.features
        self.members.add(app.member_id)
        self.jobs.add(app.job_id)
        attributes = app.member or app.job or app.context
        if self.said is not None:
            self.said.add(app)
        if features is not None and features.global_ is not None:
            self.blocks["global"].add(features.global_, line)
        elif app.global_score is None and not attributes:
            self.unscored.add(line, app.application_id)
        score = app.global_score
        self.scored += score is not None
        if score is not None and abs(score) > self._limit:
            self.huge_scores.add(line, f"{score:g}")
        if self._space is not None:
            self._fit(app, self._space, line)
        if features is not None:
            self.blocks["per_member"].add(features.per_member, line)
            self.blocks["per_job"].add(features.per_job, line)
        elif not attributes:
            self.misfits.add(line, "neither features nor attributes")

    def _fit(self, app: RawApplication, space: FeatureSpace, line: LogLine) -> None:
        """Look whether an application is one that the command takes."""
        try:
            to_event(app, space)
        except EventError as error:
            self.misfits.add(line, str(error))
        else:
            if app.global_score is None and space.global_ is None:
                self.misfits.add(line, "no global_score, and no model is given with --model")

    def _end_far(self) -> None:
        """Look at what lies far ahead of all others: a wrong clock, or a real pause of the log.

        It is a pause if events go on there: more than lie before it again, and not only a handful
        at the log's end or such as have not happened yet.
        """
        held = self._jumps.held
        if not held:
            return
        count = len(held)
        self.overtaken = self._dated - held[0][1][0] - (count - 1)
        self.not_yet = min(time_ms for time_ms, _ in held) > self._now_ms >= self.order.largest_ms
        few = count <= min(_FEW, max(self._dated // 100, 1))
        moves = any(self._moves(event) for _, (_, event, _) in held)
        wrong = moves and (self.not_yet or few or self.overtaken >= count)
        if wrong or self.max_jump_ms is not None:
            self.closed = self.joins.open_at(self.order.largest_ms)
            self.far_ms = held[0][0]
            for _, (_, _, line) in held:
                self.far.add(line)
        if self.max_jump_ms is None:
            for _, (_, event, line) in held:
                self._event(event, line)

    def _moves(self, event: RawEvent) -> bool:
        """Whether an event moves the time of the log."""
        if isinstance(event, Engagement):
            return event.action in self._listed
        return not isinstance(event, JobEvent) or event.action == CLOSED

    def _count(self, actions: Counter[str], action: str) -> None:
        if action in actions or len(actions) < _MOST_ACTIONS:
            actions[action] += 1
