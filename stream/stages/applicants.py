"""Open applications of the jobs of one partition, as they are published for a service.

An application is published when it comes and withdrawn when its window closes, its job closes, or
its member or job is forgotten; whatever comes of it besides is in its labels. So what is published
is a function of the set of events: those that are in time, of no job that was closed since, and
not forgotten.

An index has what is published, by member. What the state has and the index has not (it was made by
a replay, or while nothing was published) is published later, some at a time (:meth:`catch_up`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

from msgspec import UNSET

from stream.events.applicants import Applicant
from stream.events.structs import Application
from stream.events.wire import AllFeatures, digits
from stream.labels.changes import Change, Entered, Scores, Step
from stream.stages.succession import Succession
from stream.state import keys
from stream.state.entities import Forgotten
from stream.state.facts import Facts
from stream.state.overlay import Overlay
from stream.state.stored_facts import StoredFacts

APPLICANTS: Final = "applicants"
"""Names the markers of forgotten members."""

_CAUGHT_UP: Final = keys.own("applicants")
_CLOSINGS: Final = 1 << 13  # jobs of which the newest closing is held

Counts = Callable[[str, int], bool]
"""Whether an application of a job counts, by its time: the job was not forgotten since."""


class OpenApplications:
    """Publishes the open applications of one partition.

    Args:
        overlay: where the index is kept. facts: of the applications. succession: the models' names.
        counts: of the jobs.

    Attributes:
        behind: whether the state may have open applications that are not published.

    """

    def __init__(
        self, overlay: Overlay, facts: StoredFacts, succession: Succession, counts: Counts
    ) -> None:
        self._overlay = overlay
        self._facts = facts
        self._succession = succession
        self._counts = counts
        self._forgotten = Forgotten(APPLICANTS, overlay)
        self._closings: dict[str, int] = {}
        self._changed: dict[tuple[str, str], Applicant | None] = {}
        self._looked_at = b""  # the last key of which it was seen whether it is published
        self.behind = overlay.get(_CAUGHT_UP) is None
        overlay.attach(self._throw_away, self._changed.clear)

    def take(self) -> list[tuple[str, str, Applicant | None]]:
        """Return what has changed since this was asked: job, application, None: withdrawn."""
        changed = [(*ids, applicant) for ids, applicant in self._changed.items()]
        self._changed.clear()
        return changed

    def follow(self, step: Step) -> None:
        """Take in what happens to an application."""
        if isinstance(step, Entered):
            app = step.application
            if self._may_be_decided(app.member_id, app.job_id, app.event_time_ms):
                self._publish(_entered(app, step.scores, self._succession.versions))
        elif isinstance(step, Change) and step.closed:
            self._withdraw(step.facts.member_id, step.job_id, step.application_id)

    def close(self, job_id: str, time_ms: int) -> None:
        """Withdraw a job's applications up to its closing, which the facts have by now."""
        if job_id in self._closings:
            self._closings[job_id] = max(self._closings[job_id], time_ms)
        self.forget(job_id, time_ms)

    def forget(self, job_id: str, until_ms: int) -> None:
        """Withdraw a job's applications up to a time."""
        for application_id, facts in self._facts.open(job_id):
            if facts.event_time_ms <= until_ms:
                self._withdraw(facts.member_id, job_id, application_id)

    def forget_member(self, member_id: str, until_ms: int, now_ms: int) -> None:
        """Withdraw a member's applications up to a time, those that are still to come too."""
        if not self._forgotten.counts(member_id, until_ms):
            return
        prefix = keys.prefix(keys.PUBLISHED, member_id)
        for key, _ in list(self._overlay.scan(prefix, prefix, keys.after(prefix))):
            job_id, application_id = _ids(key)
            facts = self._facts.application(job_id, application_id)
            if not isinstance(facts, Facts) or facts.event_time_ms <= until_ms:
                self._withdraw(member_id, job_id, application_id)
        self._forgotten.enter(member_id, until_ms, now_ms)

    def strike_before(self, time_ms: int, asked_ms: int) -> None:
        """Strike markers, as :meth:`stream.state.entities.Forgotten.strike_before` does."""
        self._forgotten.strike_before(time_ms, asked_ms)

    def catch_up(self, most: int) -> None:
        """Look at some of what the state has, and of the index; publish or withdraw."""
        for family, look in ((keys.APPLICATION, self._missing), (keys.PUBLISHED, self._left_over)):
            if self._looked_at[:1] > family:
                continue
            first = max(self._looked_at + b"\0", family)
            entries = self._overlay.store.scan(first, keys.after(family))
            found = [key for key, _ in islice(entries, most)]
            for key in found:
                look(key)
            if found:
                self._looked_at = found[-1]
                return
        self.behind = False
        self._overlay.put(_CAUGHT_UP, b"")

    def _missing(self, key: bytes) -> None:
        """Publish an application that is open, if it is not."""
        job_id, application_id = (part.decode() for part in keys.parts(key))
        facts = self._facts.application(job_id, application_id)
        if not isinstance(facts, Facts):
            return
        index = keys.published(facts.member_id, job_id, application_id)
        if self._overlay.get(index) is None and self._may_be_decided(
            facts.member_id, job_id, facts.event_time_ms
        ):
            self._publish(_known(job_id, application_id, facts, self._succession.versions))

    def _left_over(self, key: bytes) -> None:
        """Withdraw an application that is published, if it is not open."""
        job_id, application_id = _ids(key)
        facts = self._facts.application(job_id, application_id)
        if not isinstance(facts, Facts):
            self._withdraw(keys.parts(key)[0].decode(), job_id, application_id)

    def _may_be_decided(self, member_id: str, job_id: str, time_ms: int) -> bool:
        return (
            time_ms > self._closed_ms(job_id)
            and self._forgotten.counts(member_id, time_ms)
            and self._counts(job_id, time_ms)
        )

    def _closed_ms(self, job_id: str) -> int:
        """Time of a job's newest closing; -1: none is known."""
        closed_ms = self._closings.get(job_id)
        if closed_ms is None:
            closed_ms = max(
                (fact.event_time_ms for fact in self._facts.closings(job_id)), default=-1
            )
            if len(self._closings) >= _CLOSINGS:
                self._closings.clear()
            self._closings[job_id] = closed_ms
        return closed_ms

    def _publish(self, applicant: Applicant) -> None:
        ids = applicant.job_id, applicant.application_id
        key = keys.published(applicant.member_id, *ids)
        self._overlay.change(keys.prefix(keys.PUBLISHED, applicant.member_id), key, b"")
        self._changed[ids] = applicant

    def _withdraw(self, member_id: str, job_id: str, application_id: str) -> None:
        key = keys.published(member_id, job_id, application_id)
        if self._overlay.get(key) is not None:
            self._overlay.change(keys.prefix(keys.PUBLISHED, member_id), key, None)
            self._changed[job_id, application_id] = None

    def _throw_away(self) -> None:
        """Forget what was not flushed."""
        self._changed.clear()
        self._closings.clear()
        self._looked_at = b""
        self.behind = self._overlay.get(_CAUGHT_UP) is None


def publish_none(overlay: Overlay) -> None:
    """Note that nothing is published any more: what is, later, has to be looked at anew."""
    if overlay.get(_CAUGHT_UP) is not None:
        overlay.put(_CAUGHT_UP, None)


def _ids(key: bytes) -> tuple[str, str]:
    """Job and application of a key of the index."""
    job_id, application_id = keys.parts(b" " + keys.parts(key)[1])
    return job_id.decode(), application_id.decode()


def _entered(app: Application, scores: Scores, versions: list[str]) -> Applicant:
    features = app.features
    return Applicant(
        application_id=app.application_id,
        member_id=app.member_id,
        job_id=app.job_id,
        application_time_ms=app.event_time_ms,
        model_version=versions[scores.model],
        features=_features(features.global_, features.per_member, features.per_job, scores),
        global_score=scores.global_score,
        member_score=scores.member_score,
        job_score=scores.job_score,
        channel=app.channel,
        terms=app.terms,
        further_scores=scores.further_scores or UNSET,
    )


def _known(job_id: str, application_id: str, facts: Facts, versions: list[str]) -> Applicant:
    return Applicant(
        application_id=application_id,
        member_id=facts.member_id,
        job_id=job_id,
        application_time_ms=facts.event_time_ms,
        model_version=versions[facts.model],
        features=_features(facts.global_, facts.per_member, facts.per_job, facts),
        global_score=facts.global_score,
        member_score=facts.member_score,
        job_score=facts.job_score,
        channel=facts.channel,
        terms=facts.terms,
        further_scores=facts.further_scores or UNSET,
    )


def _features(
    global_: bytes | None, per_member: bytes, per_job: bytes, seen: Scores | Facts
) -> AllFeatures:
    return AllFeatures(
        global_=UNSET if global_ is None else digits(global_),
        per_member=digits(per_member),
        per_job=digits(per_job),
        history=None if seen.history is None else digits(seen.history),
        preferences=seen.preferences or UNSET,
    )
