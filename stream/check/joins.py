"""Engagements and the applications that they name.

What a look at one event does not tell: whether an engagement finds its application, how the two lie
in time, and what is lost because of the order in which they are read. Ids are sampled by the
application's, so that an engagement is looked at exactly if its application is.
"""

from __future__ import annotations

import msgspec

from stream.check.tallies import MOST_KEPT, Tally, left_out
from stream.events.applications import RawApplication, attributes_fingerprint
from stream.events.structs import Engagement, JobEvent
from stream.features.blocks import RawBlock
from stream.labels.inference import past
from stream.logs.files import LogLine
from stream.policy import LabelPolicy

_MOST_GAPS = 1_000


class _Known(msgspec.Struct, gc=False):
    """What is kept of an application."""

    member_id: str
    time_ms: int
    content: int
    answered: bool = False


class _Waiting(msgspec.Struct, gc=False):
    """An engagement that was read before its application."""

    event: Engagement
    line: LogLine


class Joins:
    """Applications and engagements of a log, joined by their ids.

    Attributes:
        applications, engagements: how many different ones were looked at. share: of how many ids
            one is looked at. answered: applications that an answer in time made positive.
        joined: engagements that found their application, of the same member.
        skewed: of these, up to ``clock_skew`` before it. early: before that. after: after the
            window. early_ms, after_ms: by how much (the first thousand).
        unmatched: engagements whose application is not in the log. too_old: of these, those whose
            application may lie before the log's beginning. other_job: those whose application is
            there under another job.
        mismatched: engagements that name another member than their application.
        late_applications, late_engagements: read when the window had passed; the second: though
            they lie in it. expired: engagements read so long before their application that they
            no longer wait for it.
        repeats, conflicts: events read before, with the same content or another (these by type).

    """

    def __init__(self, policy: LabelPolicy) -> None:
        self._policy = policy
        self._answers = policy.positive_actions
        self._apps: dict[tuple[str, str], _Known] = {}
        self._jobs: dict[str, str] = {}
        self._waiting: dict[tuple[str, str], list[_Waiting]] = {}
        self._contents: dict[tuple[str, str], tuple[str, int]] = {}
        self._job_events: dict[tuple[str, str], int] = {}
        self._mask = 0
        self.answered = self.joined = 0
        self.early_ms: list[int] = []
        self.after_ms: list[int] = []
        self.skewed, self.early, self.after = Tally(), Tally(), Tally()
        self.unmatched, self.too_old, self.other_job = Tally(), Tally(), Tally()
        self.mismatched = Tally()
        self.late_applications, self.late_engagements, self.expired = Tally(), Tally(), Tally()
        self.repeats = Tally()
        self.conflicts = {name: Tally() for name in ("application", "engagement", "job")}

    @property
    def applications(self) -> int:
        """Different applications that were looked at."""
        return len(self._apps)

    @property
    def engagements(self) -> int:
        """Different engagements that were looked at."""
        return len(self._contents)

    @property
    def share(self) -> int:
        """Of so many ids one was looked at."""
        return self._mask + 1

    def open_at(self, time_ms: int) -> int:
        """How many applications have a window that ends after this time."""
        from_ms = time_ms - self._policy.window_ms
        return sum(app.time_ms > from_ms for app in self._apps.values())

    def application(self, app: RawApplication, line: LogLine, mark_ms: int | None) -> bool:
        """Take an application in, read at a watermark; False: it comes again or is left out."""
        name = app.application_id
        if left_out(name, self._mask):
            return False
        key, content = (app.job_id, name), _content(app)
        known = self._apps.get(key)
        if known is not None:
            self._again("application", name, line, same=known.content == content)
            return False
        known = self._apps[key] = _Known(app.member_id, app.event_time_ms, content)
        self._jobs.setdefault(name, app.job_id)
        if past(mark_ms, app.event_time_ms + self._policy.window_ms):
            self.late_applications.add(line, name)
        for waiting in self._waiting.pop(key, ()) if self._waiting else ():
            self._join(waiting.event, waiting.line, known, mark_ms, waited=True)
        if len(self._apps) > MOST_KEPT:
            self._halve()
        return True

    def engagement(self, event: Engagement, line: LogLine, mark_ms: int | None) -> bool:
        """Take an engagement in, read at a watermark; False: it comes again or is left out."""
        name = event.application_id
        if left_out(name, self._mask):
            return False
        one, content = (event.job_id, event.engagement_id), hash(event)
        before = self._contents.get(one)
        if before is not None:
            self._again("engagement", event.engagement_id, line, same=before[1] == content)
            return False
        self._contents[one] = name, content
        key = event.job_id, name
        known = self._apps.get(key)
        if known is None:
            place = LogLine(line.source, line.number, b"")
            self._waiting.setdefault(key, []).append(_Waiting(event, place))
        else:
            self._join(event, line, known, mark_ms, waited=False)
        if len(self._contents) > 2 * MOST_KEPT:
            self._halve()
        return True

    def job_event(self, event: JobEvent, line: LogLine) -> bool:
        """Take a job event in; False: it comes again or is left out."""
        one, content = (event.job_id, event.job_event_id), hash(event)
        if left_out(event.job_id, self._mask):
            return False
        if one in self._job_events:
            same = self._job_events[one] == content
            self._again("job", event.job_event_id, line, same=same)
            return False
        self._job_events[one] = content
        if len(self._job_events) > 2 * MOST_KEPT:
            self._halve()
        return True

    def end(self) -> None:
        """Count what found no application."""
        times_ms = sorted(app.time_ms for app in self._apps.values())
        skipped = min(len(times_ms) // 20, 10)  # a few clocks that are years behind
        until_ms = times_ms[skipped] + self._policy.window_ms if times_ms else None
        for (job_id, name), waiting in self._waiting.items():
            for one in waiting:
                event = one.event
                self.unmatched.add(one.line, name)
                if name in self._jobs:
                    jobs = f"job {job_id!r}, the application job {self._jobs[name]!r}"
                    self.other_job.add(one.line, f"engagement {event.engagement_id} names {jobs}")
                elif until_ms is not None and event.event_time_ms < until_ms:
                    self.too_old.add(one.line, name)

    def an_application(self) -> str | None:
        """Return the id of some application."""
        return next(iter(self._jobs), None)

    def distinct(self, kind: str) -> int:
        """How many different ones of a type were looked at."""
        return {
            "application": len(self._apps),
            "engagement": len(self._contents),
            "job": len(self._job_events),
        }[kind]

    def _again(self, kind: str, name: str, line: LogLine, *, same: bool) -> None:
        (self.repeats if same else self.conflicts[kind]).add(line, name)

    def _join(
        self, event: Engagement, line: LogLine, app: _Known, mark_ms: int | None, *, waited: bool
    ) -> None:
        policy, time_ms, submitted_ms = self._policy, event.event_time_ms, app.time_ms
        if event.member_id != app.member_id:
            self.mismatched.add(line, event.engagement_id)
            return
        self.joined += 1
        after_ms = time_ms - submitted_ms
        if after_ms > policy.window_ms:
            self.after.add(line, event.engagement_id)
            if len(self.after_ms) < _MOST_GAPS:
                self.after_ms.append(after_ms)
            return
        if after_ms < -policy.clock_skew_ms:
            self.early.add(line, event.engagement_id)
            if len(self.early_ms) < _MOST_GAPS:
                self.early_ms.append(-after_ms)
            return
        if after_ms < 0:
            self.skewed.add(line, event.engagement_id)
        if past(mark_ms, submitted_ms + policy.window_ms):
            self.late_engagements.add(line, event.engagement_id)
        elif waited and past(mark_ms, time_ms + policy.orphan_ttl_ms):
            self.expired.add(line, event.engagement_id)
        elif not app.answered and event.action in self._answers:
            app.answered = True
            self.answered += 1

    def _halve(self) -> None:
        """Look at half of the ids only, of those before too; what was counted is halved with it."""
        mask = self._mask = 2 * self._mask + 1
        self._apps = {k: app for k, app in self._apps.items() if not left_out(k[1], mask)}
        self._jobs = {name: job for name, job in self._jobs.items() if not left_out(name, mask)}
        self._waiting = {k: one for k, one in self._waiting.items() if not left_out(k[1], mask)}
        self._contents = {k: v for k, v in self._contents.items() if not left_out(v[0], mask)}
        self._job_events = {k: v for k, v in self._job_events.items() if not left_out(k[0], mask)}
        self.answered = sum(app.answered for app in self._apps.values())
        self.joined //= 2
        for tally in (*vars(self).values(), *self.conflicts.values()):
            if isinstance(tally, Tally) and tally.count:
                tally.count = max(tally.count // 2, 1)


def _content(app: RawApplication) -> int:
    features = app.features
    return hash(
        (
            app.member_id,
            app.event_time_ms,
            app.global_score,
            app.channel,
            None if app.terms is None else str(app.terms),
            attributes_fingerprint(app),
            features
            and (
                features.global_ and _values(features.global_),
                _values(features.per_member),
                _values(features.per_job),
            ),
        )
    )


def _values(block: RawBlock) -> object:
    return frozenset(block.items()) if isinstance(block, dict) else tuple(block)
