"""Who learns which history, and when it is read.

The member stage keeps those of members, the job stage those of jobs and of pairs. At first sight of
an application each stage reads what it keeps, and counts the application after that; answers come
with the labels. Both know an application again until its window is over: the member stage in the
member's history, the job stage in that of the pair, which lives for two windows after its newest
application.

A job's preferences are counted with its history.

Whoever is forgotten takes the histories along. Of the applications that a forgotten member or job
had until then nothing is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from stream.events.ladder import Kind
from stream.events.structs import Application, Label
from stream.histories.history import NOTHING, Answer, History, Summary, fingerprint
from stream.histories.preferences import (
    NEGATIVE,
    POSITIVE,
    JobPreferences,
    Preferences,
    Preferred,
    Terms,
)
from stream.labels.changes import Ended, Entered, Step
from stream.state import codec, keys
from stream.state.census import Census
from stream.state.entities import Forgotten
from stream.state.facts import Deadline
from stream.state.overlay import Overlay
from stream.state.stored_facts import StoredFacts
from stream.state.stored_histories import StoredValues

PAIRS = "pairs"
"""Names the markers of forgotten members in the job stage."""

_DECLINED, _POSITIVE = Kind.NEGATIVE_EXPLICIT.wire, Kind.POSITIVE.wire
_ANSWERED = frozenset({_DECLINED, _POSITIVE})


class EntityHistories(Protocol):
    """What goes with the entities of a stage."""

    def forget(self, entity_id: str, before_ms: int | None = None) -> None:
        """Let an entity's histories go; or only if its newest application is before a time."""

    def summary(self, entity_id: str) -> Summary | None:
        """What is published of an entity's history; None: it has none."""

    def strike_before(self, time_ms: int, asked_ms: int) -> None:
        """Strike markers, as :meth:`stream.state.entities.Forgotten.strike_before` does."""


class MemberHistories:
    """Histories of the members of one partition.

    Args:
        overlay: where they are kept. window_ms: W.

    """

    def __init__(self, overlay: Overlay, window_ms: int) -> None:
        self._window_ms = window_ms
        self._values = StoredValues[History](overlay, codec.HISTORY)

    def first_sight(
        self,
        *,
        member_id: str,
        job_id: str,
        application_id: str,
        time_ms: int,
        watermark_ms: int | None,
        counts: bool,
    ) -> bytes | None:
        """Read a member's numbers, float32 of shape (12,), and count the application.

        None: it comes after its window, when it cannot be told from a repeat. A repeat, and what
        ``counts`` says is of a forgotten member, counts for nothing.
        """
        over_ms = -1 if watermark_ms is None else watermark_ms - self._window_ms
        if time_ms < over_ms:
            return None
        key = keys.key(keys.HISTORY, "member", member_id)
        history = self._values.get(key)
        numbers = NOTHING if history is None else history.read(time_ms)
        if counts:
            history = history or History()
            if history.enter(fingerprint(job_id, application_id), time_ms, over_ms):
                self._values.put(key, history)
        return numbers

    def learn(self, label: Label) -> None:
        """Take in what a label says of an answer, if the application was counted."""
        at_ms = label.evidence_time_ms
        if label.kind not in _ANSWERED or at_ms is None or label.history is None:
            return
        if label.declined_time_ms is not None:
            self.learn(_decline_before(label))
            label = msgspec.structs.replace(label, previous=_DECLINED)
        key = keys.key(keys.HISTORY, "member", label.member_id)
        history = self._values.get(key)
        if history is None:
            return
        name, positive = fingerprint(label.job_id, label.application_id), label.kind == _POSITIVE
        if name in history.open:
            changed = history.learn(name, at_ms, positive=positive) is not None
        else:  # over, by this partition's own event time: each kind of label comes once
            first = label.previous not in _ANSWERED
            answer = Answer(label.application_time_ms, at_ms, first, positive)
            changed = history.learn_closed(answer)
        if changed:
            self._values.put(key, history)

    def forget(self, member_id: str, before_ms: int | None = None) -> None:
        """Let a member's history go; or only if its newest application is before a time."""
        _forget(self._values, keys.key(keys.HISTORY, "member", member_id), before_ms)

    def summary(self, member_id: str) -> Summary | None:
        """What is published of a member's history; None: it has none."""
        history = self._values.get(keys.key(keys.HISTORY, "member", member_id))
        return None if history is None else history.summary()

    def strike_before(self, time_ms: int, asked_ms: int) -> None:
        """There are no markers but the effect's."""


class JobHistories:
    """Histories of the jobs of one partition, and of pairs.

    Args:
        overlay: where they are kept. window_ms: W.
        facts: knows which members have applied for a job.
        census: where pairs are counted.

    Attributes:
        refused: terms that were not counted, for there were too many.

    """

    def __init__(
        self, overlay: Overlay, window_ms: int, *, facts: StoredFacts, census: Census
    ) -> None:
        self._window_ms = window_ms
        self._facts = facts
        self._census = census
        self._values = StoredValues[History](overlay, codec.HISTORY)
        self._preferences = StoredValues[Preferences](overlay, codec.PREFERENCES)
        self._recounted: dict[str, None] = {}
        self.refused = 0
        self._forgotten = Forgotten(PAIRS, overlay)
        overlay.attach(self._recounted.clear, self._recounted.clear)

    def read(self, app: Application) -> bytes:
        """Numbers of job and pair as of an application, float32 of shape (24,)."""
        return self.as_of(app.job_id, app.member_id, app.event_time_ms)

    def as_of(self, job_id: str, member_id: str, at_ms: int) -> bytes:
        """Numbers of job and pair as of a time, float32 of shape (24,)."""
        job = self._values.get(_of_job(job_id))
        pair = self._values.get(keys.pairs_of(member_id) + job_id.encode())
        return (NOTHING if job is None else job.read(at_ms)) + (
            NOTHING if pair is None else pair.read(at_ms)
        )

    def preferred(self, job_id: str, channel: str | None, terms: Terms | None) -> Preferred | None:
        """What a job's recruiters have preferred of an application's terms; None: it has none."""
        if not terms:
            return None
        preferences = self._preferences.get(_of_terms(job_id)) or Preferences()
        return preferences.read(channel, terms)

    def follow(
        self, step: Step, counts: Callable[[str, int], bool], watermark_ms: int | None
    ) -> None:
        """Count an application that has come; let a pair go with the last of its applications.

        ``counts``: whether an application of a job counts, by its time.
        """
        if isinstance(step, Entered):
            app = step.application
            if counts(app.job_id, app.event_time_ms):
                self.enter(app, watermark_ms)
        elif isinstance(step, Ended) and step.marker is not None:
            self.expire(step.marker)

    def enter(self, app: Application, watermark_ms: int | None) -> None:
        """Count an application that is new, in time, and not of a forgotten job."""
        if not self._forgotten.counts(app.member_id, app.event_time_ms):
            return
        pair_key, job_key = _of_pair(app), _of_job(app.job_id)
        pair = self._values.get(pair_key)
        if pair is None:
            self._census.pairs(1)
            pair = History()
        over_ms = -1 if watermark_ms is None else watermark_ms - self._window_ms
        name = fingerprint(app.job_id, app.application_id)
        if not pair.enter(name, app.event_time_ms, over_ms):
            return
        job = self._values.get(job_key) or History()
        job.count(app.event_time_ms)
        self._values.put(pair_key, pair)
        self._values.put(job_key, job)
        if app.terms:
            key = _of_terms(app.job_id)
            preferences = self._preferences.get(key) or Preferences()
            self.refused += preferences.count(app.channel, app.terms)
            self._recounted[app.job_id] = None
            self._preferences.put(key, preferences)

    def learn(self, label: Label) -> None:
        """Take in what a label says of an answer, if the application was counted."""
        at_ms = label.evidence_time_ms
        if label.kind not in _ANSWERED or at_ms is None:
            return
        if label.declined_time_ms is not None:
            self.learn(_decline_before(label))
        pair_key, job_key = _of_pair(label), _of_job(label.job_id)
        pair, job = self._values.get(pair_key), self._values.get(job_key)
        if pair is None or job is None:
            return
        name = fingerprint(label.job_id, label.application_id)
        answer = pair.learn(name, at_ms, positive=label.kind == _POSITIVE)
        if answer is None:
            return
        job.take(answer)
        if answer.was_ms == job.answered_ms:
            job.answered_ms = max(job.settled_ms, *self._answers(label.job_id))
        self._values.put(pair_key, pair)
        self._values.put(job_key, job)
        if label.terms and (answer.first or answer.positive):
            self._rate(label, label.terms, answer)

    def _rate(self, label: Label, terms: Terms, answer: Answer) -> None:
        """Count a rating of an application's terms, in the place of the one that it had."""
        key = _of_terms(label.job_id)
        preferences = self._preferences.get(key)
        if preferences is None:
            return
        if not answer.first:
            preferences.rate(label.channel, terms, NEGATIVE, -1)
        preferences.rate(label.channel, terms, POSITIVE if answer.positive else NEGATIVE, 1)
        self._recounted[label.job_id] = None
        self._preferences.put(key, preferences)

    def expire(self, marker: Deadline) -> None:
        """Let a pair go if the application of which nothing is known any more was its newest."""
        key = keys.pairs_of(marker.detail) + marker.job_id.encode()
        pair = self._values.get(key)
        if pair is None or pair.newest_ms + 2 * self._window_ms > marker.at_ms:
            return
        self._remove(key)
        job = self._values.get(_of_job(marker.job_id)) if pair.answers else None
        if job is not None and pair.answered_ms > job.settled_ms:
            job.settled_ms = pair.answered_ms
            self._values.put(_of_job(marker.job_id), job)

    def forget(self, job_id: str, before_ms: int | None = None) -> None:
        """Let the history of a job and its pairs go; or only a job's that has long been quiet."""
        terms = _of_terms(job_id)
        if _forget(self._values, _of_job(job_id), before_ms) and self._preferences.get(terms):
            self._preferences.put(terms, None)
            self._recounted[job_id] = None
        if before_ms is None:
            for member_id in self._facts.members(job_id):
                self._remove(keys.pairs_of(member_id) + job_id.encode())

    def forget_member(self, member_id: str, until_ms: int, now_ms: int = 0) -> None:
        """Let the pairs of a member go; count nothing of its applications up to a time."""
        if not self._forgotten.counts(member_id, until_ms):
            return
        for key in self._values.under(keys.pairs_of(member_id)):
            self._remove(key)
        self._forgotten.enter(member_id, until_ms, now_ms)

    def summary(self, job_id: str) -> Summary | None:
        """What is published of a job's history; None: it has none."""
        history = self._values.get(_of_job(job_id))
        return None if history is None else history.summary()

    def take_recounted(self) -> list[tuple[str, JobPreferences | None]]:
        """Jobs whose counts have changed since this was asked, with their preferences now."""
        recounted = [(job_id, self.preferences_of(job_id)) for job_id in self._recounted]
        self._recounted.clear()
        return recounted

    def preferences_of(self, job_id: str) -> JobPreferences | None:
        """A job's preferences, to be published; None: it has none."""
        preferences = self._preferences.get(_of_terms(job_id))
        return None if preferences is None else JobPreferences.of(job_id, preferences)

    def strike_before(self, time_ms: int, asked_ms: int) -> None:
        """Strike the markers of forgotten members."""
        self._forgotten.strike_before(time_ms, asked_ms)

    def _answers(self, job_id: str) -> list[int]:
        """When the members of a job had their last answer; -1 for none."""
        found = [
            self._values.get(keys.pairs_of(member_id) + job_id.encode())
            for member_id in self._facts.members(job_id)
        ]
        return [-1, *(pair.answered_ms for pair in found if pair is not None)]

    def _remove(self, key: bytes) -> None:
        if self._values.get(key) is not None:
            self._values.put(key, None)
            self._census.pairs(-1)


def _decline_before(label: Label) -> Label:
    """What would have been told of a decline, had it not been read together with the answer."""
    return msgspec.structs.replace(
        label,
        kind=_DECLINED,
        label=0,
        evidence_time_ms=label.declined_time_ms,
        declined_time_ms=None,
    )


def _of_job(job_id: str) -> bytes:
    return keys.key(keys.HISTORY, "job", job_id)


def _of_pair(of: Application | Label) -> bytes:
    return keys.pairs_of(of.member_id) + of.job_id.encode()


def _of_terms(job_id: str) -> bytes:
    return keys.PREFERENCES + job_id.encode()


def _forget(values: StoredValues[History], key: bytes, before_ms: int | None) -> bool:
    """Remove a history if its newest application is before a time; return whether it did."""
    history = values.get(key)
    if history is None or (before_ms is not None and history.newest_ms >= before_ms):
        return False
    values.put(key, None)
    return True
