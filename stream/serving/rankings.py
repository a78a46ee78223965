"""The held applicants of a job, scored and ranked with what is known now.

An applicant's score is the global one of its first sight, plus z'θ of the member and of the job
with the coefficients of now: what the worker itself believes of it. Its features are what the
global model was asked then, so its histories are those of then too.

Kept of many jobs, until their applicants change, is where these and their members are found. Scores
are kept of few: until coefficients of the job or of one of its applicants change, or the models at
hand. Ages are not part of them; who asks again within the second, by which ages count, gets the
same list.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.effects import JOB, MEMBER
from stream.model.folder import GlobalModel
from stream.serving.answers import degraded
from stream.serving.applicants import Applicants
from stream.serving.held import ANSWERED, DECLINED, OPEN, Held
from stream.serving.messages import (
    ApplicantAnswer,
    ApplicantsAnswer,
    ApplicantScored,
    By,
    Parts,
    Reason,
)
from stream.serving.reasons import Reasons, largest
from stream.serving.scorer import Scorer, products
from stream.serving.store import Found
from stream.updaters.folding import sigmoid

_MOST_JOBS = 1_000  # that are kept, those asked for last,
_MOST_APPLICANTS = 100_000  # and all of theirs: some 8 MB. The last job is kept
_MOST_SCORED = 64  # jobs whose scores are kept, those asked for last,
_MOST_SCORES = 32_000  # of so many applicants: of 16 features some 15 MB. The last job's are kept
_MOST_LISTS = 3  # of a job, each of
_MOST_LISTED = 100  # at most: 20 MB for all jobs
_Floats = NDArray[np.float64]
_Places = NDArray[np.int64]


class NotOpenError(Exception):
    """Nobody ranks this application; the message says why."""


class _Kept(msgspec.Struct, gc=False):
    """The applicants of a job, with all that no coefficients change (n,)."""

    held: Held
    versions: frozenset[str]
    """Of the models that scored them."""
    later: _Floats
    """How many later ones were answered."""
    members: Callable[[], Found]
    job: Callable[[], Found]


class _Scored(msgspec.Struct, gc=False):
    """Scores of all held applicants of a job (n,), and what they are made of."""

    kept: _Kept
    changes: int
    """Of the store, when they were made or found to be so still."""
    at_hand: list[GlobalModel | None]
    """The models of the versions; None: it is not at hand."""
    member: Found
    job: Found
    per_member: _Floats
    per_job: _Floats
    of_member: _Floats
    of_job: _Floats
    log_odds: _Floats
    reasons: dict[int, list[Reason]]
    """By place, of those in kept lists."""
    lists: dict[tuple[By, int, int], tuple[int, list[ApplicantScored]]]
    """By what is ranked by, how many are told and when: how many are open, and those."""


class Rankings:
    """Ranks the applicants of jobs.

    Args:
        scorer: model, coefficients and what is left to come. applicants: who is held.

    """

    def __init__(self, scorer: Scorer, applicants: Applicants) -> None:
        self._scorer = scorer
        self._applicants = applicants
        self._reasons = Reasons(scorer)
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_applicants = 0
        self._scores: OrderedDict[str, _Scored] = OrderedDict()

    def of_job(
        self, job_id: str, *, top: int, by: By, at_ms: int | None, now_ms: int
    ) -> ApplicantsAnswer:
        """Rank the open applicants of a job.

        Args:
            job_id: whose. top: so many are told.
            by: as in a :class:`~stream.serving.messages.RankQuestion`.
            at_ms: when ages count; None: now. now_ms: the wall clock.

        """
        at_ms = self._applicants.as_of_ms(now_ms) if at_ms is None else at_ms
        of, told = self._list(job_id, by, top, at_ms)
        store = self._scorer.store
        standing, chosen = store.standing(), store.choose([job_id], None, at_ms)
        return ApplicantsAnswer(
            job_id=job_id,
            as_of_ms=at_ms,
            model_version=chosen.now.version,
            staleness_s=standing.age_s(now_ms),
            degraded=degraded(standing, chosen, now_ms),
            of=of,
            applicants=told,
        )

    def of_application(
        self, job_id: str, application_id: str, *, by: By, at_ms: int | None, now_ms: int
    ) -> ApplicantAnswer:
        """Tell where one of the open applicants stands; arguments as of :meth:`of_job`.

        Raises:
            NotOpenError: it is none of them.

        """
        at_ms = self._applicants.as_of_ms(now_ms) if at_ms is None else at_ms
        scored = self._scored(job_id)
        if scored is None or application_id not in scored.kept.held.application_ids:
            raise NotOpenError(
                "no such application is open: its window is over, its job is closed, it was"
                " forgotten, or it never came"
            )
        held = scored.kept.held
        place = held.application_ids.index(application_id)
        order, count = self._ranked(scored, by, at_ms, len(held.application_ids))
        found = np.flatnonzero(order == place)
        if not len(found):
            raise NotOpenError(_WHY.get(int(held.states[place]), "its window is over"))
        rank = int(found[0])
        places = order[rank : rank + 1]
        (told,) = self._told(scored, places, rank, at_ms)
        (added,) = self._reasons.added(held, places, _learned(scored, places))
        store = self._scorer.store
        standing, chosen = store.standing(), store.choose([job_id], None, at_ms)
        return ApplicantAnswer(
            **msgspec.structs.asdict(told),
            job_id=job_id,
            as_of_ms=at_ms,
            model_version=chosen.now.version,
            staleness_s=standing.age_s(now_ms),
            degraded=degraded(standing, chosen, now_ms),
            of=count,
            percentile=100.0 * (count - rank) / count,
            for_=largest(np.maximum(added.values, 0.0), added.names)[0],
            against=largest(np.minimum(added.values, 0.0), added.names)[0],
        )

    def _list(self, job_id: str, by: By, top: int, at_ms: int) -> tuple[int, list[ApplicantScored]]:
        """How many are open, and the best of them."""
        scored = self._scored(job_id)
        if scored is None:
            return 0, []
        found = scored.lists.get((by, top, at_ms))
        if found is None:
            places, count = self._ranked(scored, by, at_ms, top)
            found = count, self._told(scored, places, 0, at_ms)
            if len(scored.lists) >= _MOST_LISTS:
                scored.lists.clear()
            if len(places) <= _MOST_LISTED:
                scored.lists[by, top, at_ms] = found
        return found

    def _ranked(self, scored: _Scored, by: By, at_ms: int, top: int) -> tuple[_Places, int]:
        """Places of the best open applicants, by rank, and how many are open."""
        kept, held, waiting = scored.kept, scored.kept.held, self._scorer.waiting
        open_ = (held.states == OPEN) & (held.times_ms >= at_ms - self._applicants.window_ms)
        places = np.flatnonzero(open_)
        ranked_by = scored.log_odds[places]
        if by != "probability":
            of = waiting.orders if by == "next" else waiting.probabilities
            ranked_by = of(ranked_by, _ages_ms(held, places, at_ms), kept.later[places])
        return _best(ranked_by, places, held, top), len(places)

    def _scored(self, job_id: str) -> _Scored | None:
        """Score all held applicants of a job; None: there are none."""
        store = self._scorer.store
        changes, kept = store.changes, self._keep(job_id)
        if kept is None:
            self._scores.pop(job_id, None)
            return None
        at_hand = [store.model(version) for version in kept.versions]
        scored = self._scores.get(job_id)
        again = scored is not None and scored.kept is kept and scored.at_hand == at_hand
        if scored is not None and again and scored.changes == changes:
            self._scores.move_to_end(job_id)
            return scored
        member, job = kept.members(), kept.job()
        if scored is not None and again and job.same(scored.job) and member.same(scored.member):
            self._scores.move_to_end(job_id)
            scored.changes = changes
            return scored
        if scored is not None and scored.kept is kept:
            per_member, per_job = scored.per_member, scored.per_job
        elif (blocks := self._applicants.blocks(job_id, kept.held)) is not None:
            per_member, per_job = blocks[0].astype(np.float64), blocks[1].astype(np.float64)
        else:
            return self._scored(job_id)  # they have changed between two looks
        size = len(kept.held.slots)
        of_member = products(per_member, member.mean, size)
        of_job = products(per_job, job.mean, size)
        log_odds = kept.held.global_score + of_member + of_job
        features_and_scores = per_member, per_job, of_member, of_job, log_odds
        scored = _Scored(kept, changes, at_hand, member, job, *features_and_scores, {}, {})
        self._scores.pop(job_id, None)
        self._scores[job_id] = scored
        while len(self._scores) > 1 and (
            len(self._scores) > _MOST_SCORED
            or sum(len(each.log_odds) for each in self._scores.values()) > _MOST_SCORES
        ):
            self._scores.popitem(last=False)
        return scored

    def _keep(self, job_id: str) -> _Kept | None:
        """Hold on to the applicants of a job as they are now; None: there are none."""
        kept = self._kept.get(job_id)
        if kept is not None and kept.held.version == self._applicants.version_of(job_id):
            self._kept.move_to_end(job_id)
            return kept
        if kept is not None:
            self._drop(job_id)
        held = self._applicants.of_job(job_id)
        if held is None:
            return None
        answered = np.sort(held.times_ms[held.states == ANSWERED])
        later = (len(answered) - np.searchsorted(answered, held.times_ms, "right")).astype(float)
        store = self._scorer.store
        members, job = store.finder(MEMBER.name, held.member_ids), store.finder(JOB.name, [job_id])
        kept = self._kept[job_id] = _Kept(held, frozenset(held.models), later, members, job)
        self._kept_applicants += len(held.slots)
        while len(self._kept) > 1 and (
            len(self._kept) > _MOST_JOBS or self._kept_applicants > _MOST_APPLICANTS
        ):
            self._drop(next(iter(self._kept)))
        return kept

    def _drop(self, job_id: str) -> None:
        self._kept_applicants -= len(self._kept.pop(job_id).held.slots)

    def _told(
        self, scored: _Scored, places: _Places, first: int, at_ms: int
    ) -> list[ApplicantScored]:
        """Tell of applicants whose ranks follow ``first``."""
        kept, held = scored.kept, scored.kept.held
        log_odds = scored.log_odds[places]
        ages_ms, later = _ages_ms(held, places, at_ms), kept.later[places]
        z, other_z = scored.per_member[places], scored.per_job[places]
        of_members, of_job = (
            found.astype(np.float64)
            for found in (scored.member.variance[places], scored.job.variance)
        )
        variance = products(z * z, of_members, len(places))
        variance += products(other_z * other_z, of_job, len(places))
        now = self._scorer.waiting.probabilities(log_odds, ages_ms, later)
        numbers = log_odds, sigmoid(log_odds), now, np.sqrt(variance)
        parts = held.global_score[places], scored.of_member[places], scored.of_job[places]
        job_known = bool(scored.job.known[0])
        return [
            ApplicantScored(
                rank=rank,
                application_id=held.application_ids[place],
                member_id=held.member_ids[place],
                application_time_ms=int(held.times_ms[place]),
                log_odds=each[0],
                probability=each[1],
                probability_now=each[2],
                standard_deviation=each[3],
                parts=of_each,
                member_known=known,
                job_known=job_known,
                reasons=reasons,
            )
            for rank, place, known, of_each, reasons, each in zip(
                range(first + 1, first + 1 + len(places)),
                places.tolist(),
                scored.member.known[places].tolist(),
                map(Parts, *(part.tolist() for part in parts)),
                self._why(scored, places),
                zip(*(of_all.tolist() for of_all in numbers), strict=True),
                strict=True,
            )
        ]

    def _why(self, scored: _Scored, places: _Places) -> list[list[Reason]]:
        """Return the reasons of applicants."""
        known = scored.reasons if len(places) <= _MOST_LISTED else {}
        missing = [place for place in places.tolist() if place not in known]
        if missing:
            at = np.array(missing)
            found = self._reasons.few(scored.kept.held, at, _learned(scored, at))
            known.update(zip(missing, found, strict=True))
        return [known[place] for place in places.tolist()]


_WHY = {ANSWERED: "it was answered", DECLINED: "it was declined"}


def _learned(scored: _Scored, places: _Places) -> _Floats:
    """What the features of member and job add to the scores of some (k, m)."""
    of_member = scored.per_member[places] * scored.member.mean[places]
    return np.concatenate([of_member, scored.per_job[places] * scored.job.mean], axis=1)


def _ages_ms(held: Held, places: _Places, at_ms: int) -> _Floats:
    return np.maximum(at_ms - held.times_ms[places], 0.0)


def _best(by: _Floats, places: _Places, held: Held, top: int) -> _Places:
    """Order the best places; equal ones by member id, then by application id."""
    if top < len(by):
        chosen = np.flatnonzero(by >= np.partition(by, -top)[-top])
        by, places = by[chosen], places[chosen]
    order = np.argsort(-by, kind="stable")
    by, places = by[order], places[order]
    if (by[1:] == by[:-1]).any():
        ranked = sorted(
            zip((-by).tolist(), places.tolist(), strict=True),
            key=lambda each: (each[0], held.member_ids[each[1]], held.application_ids[each[1]]),
        )
        places = np.array([place for _, place in ranked], np.int64)
    return places[:top]
