"""The held applicants of a job, scored and ranked with what is known now.

An applicant's score is the global one of its first sight, plus z'θ of the member and of the job
with the coefficients of now: what the worker itself believes of it. Its features are what the
global model was asked then, so its histories are those of then too.

Scores of a job are kept until its applicants change, or coefficients of it or of one of them. Ages
are not part of them; who asks again within the second, by which ages count, gets the same list.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.effects import JOB, MEMBER
from stream.model.folder import GlobalModel
from stream.serving.answers import degraded
from stream.serving.applicants import ANSWERED, DECLINED, OPEN, Applicants, Held
from stream.serving.messages import (
    ApplicantAnswer,
    ApplicantsAnswer,
    ApplicantScored,
    By,
    Parts,
    Reason,
)
from stream.serving.scorer import Scorer, products
from stream.serving.store import Found
from stream.updaters.folding import sigmoid

FEW: Final = 5
"""Reasons that are told of each kind."""

_MOST_JOBS = 64  # that are kept, those asked for last,
_MOST_APPLICANTS = 32_000  # and all of theirs; of 16 features some 20 MB. The last job is kept
_MOST_LISTS = 3  # of a job, each of
_MOST_LISTED = 100  # at most: 20 MB for all jobs
_Floats = NDArray[np.float64]
_Places = NDArray[np.int64]
_Names = list[tuple[str, str]]


class NotOpenError(Exception):
    """Nobody ranks this application; the message says why."""


class _Kept(msgspec.Struct, gc=False):
    """The applicants of a job, with all that no coefficients change (n,)."""

    held: Held
    versions: set[str]
    """Of the models that scored them."""
    later: _Floats
    """How many later ones were answered."""
    members: Callable[[], Found]
    job: Callable[[], Found]
    of_global: _OfGlobal | None = None
    scored: _Scored | None = None


class _OfGlobal(msgspec.Struct, gc=False):
    """What each column adds to the global scores (n, m), of those who were told of.

    ``at_hand``: models by version, None: not at hand. ``names``: of all columns, empty
    where they are not made.
    """

    at_hand: dict[str, GlobalModel | None]
    values: _Floats
    names: list[_Names]


class _Scored(msgspec.Struct, gc=False):
    """Scores of all held applicants of a job (n,), and the coefficients that they are made of."""

    kept: _Kept
    changes: int
    """Of the store, when they were made or found to be so still."""
    member: Found
    job: Found
    of_member: _Floats
    of_job: _Floats
    log_odds: _Floats
    reasons: dict[int, list[Reason]]
    """By place, the largest, of those in kept lists."""
    lists: dict[tuple[By, int, int], tuple[int, list[ApplicantScored]]]
    """By what is ranked by, how many are told and when: how many are open, and those."""


class _Added(msgspec.Struct, gc=False):
    """What each feature adds to the scores of k applicants (k, m), and its effect and name."""

    values: _Floats
    names: list[_Names]


class Rankings:
    """Ranks the applicants of jobs.

    Args:
        scorer: model, coefficients and what is left to come. applicants: who is held.

    """

    def __init__(self, scorer: Scorer, applicants: Applicants) -> None:
        self._scorer = scorer
        self._applicants = applicants
        self._names = [
            (effect.name, name)
            for effect, block in ((MEMBER, scorer.space.per_member), (JOB, scorer.space.per_job))
            for name in block.names
        ]
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

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
        scored = self._scored(job_id)
        of, told = (0, []) if scored is None else self._list(scored, by, top, at_ms)
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
        added = self._added(scored, places)
        (told,) = self._told(scored, places, rank, at_ms)
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
            for_=_largest(np.maximum(added.values, 0.0), added.names)[0],
            against=_largest(np.minimum(added.values, 0.0), added.names)[0],
        )

    def _list(
        self, scored: _Scored, by: By, top: int, at_ms: int
    ) -> tuple[int, list[ApplicantScored]]:
        """How many are open, and the best of them."""
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
        changes = self._scorer.store.changes
        kept = self._keep(job_id)
        if kept is None:
            return None
        scored = kept.scored
        if scored is not None and scored.changes == changes:
            return scored
        member, job, held = kept.members(), kept.job(), kept.held
        if scored is not None and job.same(scored.job) and member.same(scored.member):
            scored.changes = changes
            return scored
        of_member = products(held.per_member, member.mean, len(held.member_ids))
        of_job = products(held.per_job, job.mean, len(held.member_ids))
        log_odds = held.global_score + of_member + of_job
        kept.scored = _Scored(kept, changes, member, job, of_member, of_job, log_odds, {}, {})
        return kept.scored

    def _keep(self, job_id: str) -> _Kept | None:
        """Hold on to the applicants of a job as they are now; None: there are none."""
        kept = self._kept.get(job_id)
        if kept is not None and kept.held.version == self._applicants.version_of(job_id):
            self._kept.move_to_end(job_id)
            return kept
        self._kept.pop(job_id, None)
        held = self._applicants.of_job(job_id)
        if held is None:
            return None
        answered = np.sort(held.times_ms[held.states == ANSWERED])
        later = (len(answered) - np.searchsorted(answered, held.times_ms, "right")).astype(float)
        store = self._scorer.store
        members, job = store.finder(MEMBER.name, held.member_ids), store.finder(JOB.name, [job_id])
        kept = self._kept[job_id] = _Kept(held, set(held.models), later, members, job)
        while len(self._kept) > 1 and (
            len(self._kept) > _MOST_JOBS
            or sum(len(each.held.member_ids) for each in self._kept.values()) > _MOST_APPLICANTS
        ):
            self._kept.popitem(last=False)
        return kept

    def _told(
        self, scored: _Scored, places: _Places, first: int, at_ms: int
    ) -> list[ApplicantScored]:
        """Tell of applicants whose ranks follow ``first``."""
        kept, held = scored.kept, scored.kept.held
        log_odds = scored.log_odds[places]
        ages_ms, later = _ages_ms(held, places, at_ms), kept.later[places]
        variance = np.einsum(
            "ij,ij->i", held.per_member[places] ** 2, scored.member.variance[places]
        )
        variance += np.einsum("ij,j->i", held.per_job[places] ** 2, scored.job.variance[0])
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
                self._reasons(scored, places),
                zip(*(of_all.tolist() for of_all in numbers), strict=True),
                strict=True,
            )
        ]

    def _reasons(self, scored: _Scored, places: _Places) -> list[list[Reason]]:
        known = scored.reasons if len(places) <= _MOST_LISTED else {}
        asked = places.tolist()
        missing = [place for place in asked if place not in known]
        if missing:
            added = self._added(scored, np.array(missing))
            known.update(zip(missing, _largest(added.values, added.names), strict=True))
        return [known[place] for place in asked]

    def _added(self, scored: _Scored, places: _Places) -> _Added:
        """What each feature adds to the scores of k applicants.

        What the global model adds for everybody is left out; of a model that is not at hand, or was
        not asked, there is the whole score.
        """
        held, of_global = scored.kept.held, self._of_global(scored.kept, places)
        width = of_global.values.shape[1]
        split = width + held.per_member.shape[1]
        values = np.empty((len(places), width + len(self._names)))
        values[:, :width] = of_global.values[places]
        np.multiply(held.per_member[places], scored.member.mean[places], values[:, width:split])
        np.multiply(held.per_job[places], scored.job.mean[0], values[:, split:])
        return _Added(values, [of_global.names[place] for place in places.tolist()])

    def _of_global(self, kept: _Kept, places: _Places) -> _OfGlobal:
        """Make what is not there yet of some applicants."""
        held, found = kept.held, kept.of_global
        at_hand = {version: self._scorer.store.model(version) for version in kept.versions}
        if found is None or found.at_hand != at_hand:
            width = max(1 if each is None else len(each.columns) for each in at_hand.values())
            shape = len(held.models), max(width, 1)
            found = kept.of_global = _OfGlobal(at_hand, np.zeros(shape), [[]] * len(held.models))
        all_names: dict[GlobalModel | None, _Names] = {}
        for place in places.tolist():
            if found.names[place]:
                continue
            seen, version = held.seen[place], held.models[place]
            model = None if seen is None else at_hand[version]
            columns = ["global_score"]
            found.values[place, 0] = held.global_score[place]
            if model is not None and seen is not None:
                asked = model.row(seen.global_, seen.history, seen.preferences)
                columns = model.columns
                of_each = model.scorer.contributions(np.frombuffer(asked, "<f4"))[:-1]
                found.values[place, : len(columns)] = of_each
            if model not in all_names:
                rest = [""] * (found.values.shape[1] - len(columns))
                all_names[model] = [*(("global", name) for name in [*columns, *rest])]
                all_names[model] += self._names
            found.names[place] = all_names[model]
        return found


_WHY = {ANSWERED: "it was answered", DECLINED: "it was declined"}


def _largest(values: _Floats, names: list[_Names]) -> list[list[Reason]]:
    """Return the few that are largest in size of each row; none of nothing."""
    left, rows = np.abs(values), np.arange(len(values))
    order = np.empty((len(values), min(FEW, values.shape[1])), np.int64)
    for nth in range(order.shape[1]):  # of equal ones the first; sorting all takes twice as long
        order[:, nth] = at = left.argmax(axis=1)
        left[rows, at] = -1.0
    found = values[rows[:, None], order]
    return [
        [
            Reason(effect, name, value)
            for at, value in zip(places, sizes, strict=True)
            if value
            for effect, name in (of[at],)
        ]
        for of, places, sizes in zip(names, order.tolist(), found.tolist(), strict=True)
    ]


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
