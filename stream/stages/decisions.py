"""Ranks the applications of a job, or of a member, at the moment when one of them is answered.

A stage has the coefficients of the moment of its own effect, and the other's score of the
application's first sight, as the global one (:mod:`stream.quality.ranking`). Where the global model
takes histories, the job stage has those of the job and its pairs of the moment, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from stream.events.ladder import Kind
from stream.labels.changes import Change, Entered
from stream.quality.ranking import MOST_CANDIDATES, ORDERS, Owner, row, watched
from stream.stages.thinning import Thinning
from stream.state import codec, keys
from stream.state.facts import Facts
from stream.state.overlay import Overlay
from stream.state.stored_facts import StoredFacts
from stream.state.waiting import Candidates, Waits, is_waiting, mark, waits
from stream.updaters.effect import Effect

FIRST_SIGHT: dict[Owner, tuple[str, ...]] = {
    "job": ("global", "member"),
    "member": ("global", "job"),
}
"""Of these scores that of the application's first sight is taken."""


ScoredNow = Callable[[str, Waits, int], Waits]
"""A candidate of a job as it is scored at a time (ms)."""


class JobDecisions:
    """Decisions of the jobs of one partition, read from its state: a restart changes nothing.

    Args:
        overlay: of its state. book: what is remembered of the applications.
        effect: of the jobs. window_ms: W.
        most: pending applications of jobs that are followed; of more, half of the jobs are.
        scored_now: scores candidates as of a decision.

    """

    def __init__(
        self,
        overlay: Overlay,
        book: StoredFacts,
        effect: Effect,
        *,
        window_ms: int,
        most: int,
        scored_now: ScoredNow,
    ) -> None:
        self._made: bytes | None = None
        self._scored_now = scored_now
        self._book = book
        self._effect = effect
        self._window_ms = window_ms
        self._most = most
        self._thinning = Thinning(overlay, "job", self._too_many)

    @property
    def halvings(self) -> int:
        """How often the jobs that are looked at were halved."""
        return self._thinning.halvings

    def decide(self, job_id: str, application_id: str, answered: Waits, at_ms: int) -> None:
        """Rank who is answered for the first time, before anything of that is learned.

        Args:
            job_id: whose decision. application_id, answered: who is answered.
            at_ms: the answer's time.

        """
        owner = mark(job_id)
        if not self._thinning.looks_at(owner, at_ms):
            return
        others, sampled = self._book.waiting(job_id).others(
            application_id, at_ms, self._window_ms, MOST_CANDIDATES - 1
        )
        if not others:
            return
        candidates = [self._scored_now(job_id, each, at_ms) for each in (answered, *others)]
        self._made = _ranked("job", job_id, self._effect, candidates, sampled=sampled)

    def begin(self) -> None:
        """Begin another event."""
        self._made = None

    def take(self) -> bytes | None:
        """Take the event's decision, as :func:`~stream.quality.ranking.row` has it, and count it.

        With the label of who was answered, so in its unit of work: what comes before that is done
        again after a crash. None: it was none, or of a job that is left out.
        """
        made, self._made = self._made, None
        if made is not None and self._thinning.count():
            left = self._thinning.halvings
            self._book.stop_following(lambda job_id: not watched(mark(job_id), left))
        return made

    def _too_many(self, halvings: int) -> bool:
        return self._book.census.counts.pending > self._most << halvings


class MemberDecisions:
    """Decisions of all members: where every application is seen, in a replay by one process.

    Who waits is in memory, made from the state where a replay goes on. Members that were left out
    once stay so.

    Args:
        overlay: of the state. effect: of the members. window_ms: W.
        most: applications that are followed; of more, those of half of the members are.

    """

    def __init__(self, overlay: Overlay, effect: Effect, window_ms: int, most: int) -> None:
        self._effect = effect
        self._window_ms = window_ms
        self._most = most
        self._waiting: dict[str, Candidates[Waits]] = {}
        self._followed = 0
        self._thinning = Thinning(overlay, "member", self._too_many)
        first = keys.APPLICATION
        for key, value in overlay.store.scan(first, keys.after(first)):
            record = codec.APPLICATION.decode(value)
            if (
                isinstance(record, Facts)
                and is_waiting(record)
                and watched(mark(record.member_id), self.halvings)
            ):
                job_id, application_id = keys.parts(key)
                self._follow(
                    record.member_id, _name(job_id.decode(), application_id.decode()),
                    _waits(record),
                )  # fmt: skip

    @property
    def halvings(self) -> int:
        """How often the members that are looked at were halved."""
        return self._thinning.halvings

    def entered(self, step: Entered) -> None:
        """Let an application wait."""
        app = step.application
        if app.member_id in self._waiting or watched(mark(app.member_id), self.halvings):
            seen = step.waits
            known = Waits(seen.time_ms, seen.fixed, step.scores.job_score, app.features.per_member)
            self._follow(app.member_id, _name(app.job_id, app.application_id), known)

    def changed(self, step: Change) -> bytes | None:
        """Take in that an application waits no longer, before members learn of it.

        Return a decision, if it is one, as :func:`~stream.quality.ranking.row` has it.
        """
        facts = step.facts
        member_id = facts.member_id
        waiting = self._waiting.get(member_id)
        if waiting is None:
            return None
        name = _name(step.job_id, step.application_id)
        if name in waiting:
            waiting.remove(name)
            self._followed -= 1
            if not waiting:
                del self._waiting[member_id]
        if not step.label or facts.kind != Kind.POSITIVE or step.evidence_time_ms is None:
            return None
        return self._decide(waiting, member_id, name, _waits(facts), step.evidence_time_ms)

    def _decide(
        self, waiting: Candidates[Waits], member_id: str, name: str, answered: Waits, at_ms: int
    ) -> bytes | None:
        if not self._thinning.looks_at(mark(member_id), at_ms):
            return None
        others, sampled = waiting.others(name, at_ms, self._window_ms, MOST_CANDIDATES - 1)
        if not others:
            return None
        made = _ranked("member", member_id, self._effect, [answered, *others], sampled=sampled)
        if self._thinning.count():
            self._waiting = {
                each: candidates
                for each, candidates in self._waiting.items()
                if watched(mark(each), self.halvings)
            }
            self._followed = sum(map(len, self._waiting.values()))
        return made

    def _follow(self, member_id: str, name: str, known: Waits) -> None:
        waiting = self._waiting.get(member_id)
        if waiting is None:
            waiting = self._waiting[member_id] = Candidates(member_id)
        waiting.add(name, known.time_ms, known)
        self._followed += 1

    def _too_many(self, halvings: int) -> bool:
        return halvings < self.halvings or self._followed > self._most


def _ranked(
    within: Owner, owner_id: str, effect: Effect, candidates: Sequence[Waits], *, sampled: bool
) -> bytes:
    """Rank candidates, the one answered first; see :func:`~stream.quality.ranking.row`."""
    times, fixed, others, z, _ = zip(*candidates, strict=True)
    values = np.empty((len(ORDERS) - 1, len(times)))
    values[:] = fixed
    own = effect.scores(owner_id, b"".join(z))
    with_member, with_job = (others, own) if within == "job" else (own, others)
    values[1] += with_member
    values[2] += with_job
    values[3] = values[1] + with_job
    values[4] = times
    return row(mark(owner_id), values, sampled=sampled)


def _name(job_id: str, application_id: str) -> str:
    """Name an application among those of other jobs."""
    return f"{len(job_id)}:{job_id}{application_id}"


def _waits(facts: Facts) -> Waits:
    """Take what is ranked within a member out of an application's facts."""
    seen = waits(facts, "")
    return Waits(seen.time_ms, seen.fixed, facts.job_score, facts.per_member)
