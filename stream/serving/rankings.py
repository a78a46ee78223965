"""The held applicants of a job, scored and ranked with what is known now.

An applicant's score is the global one of its first sight, plus z'θ of the member and of the job
with the coefficients of now: what the worker itself believes of it. Its features are what the
global model was asked then, so its histories are those of then too.

Scores of a job are kept until its applicants or any coefficients change. Ages are not part of them;
who asks again within the second, by which ages count, gets the same list.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.effects import JOB, MEMBER
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

_MOST_KEPT = 64  # jobs whose scores are kept
_MOST_LISTS = 8  # of one job
_Floats = NDArray[np.float64]
_Places = NDArray[np.int64]


class NotOpenError(Exception):
    """Nobody ranks this application; the message says why."""


class _Scored(msgspec.Struct, gc=False):
    """Scores of all held applicants of a job (n,), with the coefficients that they are made of."""

    held: Held
    coefficients: int
    member: Found
    job: Found
    parts: _Floats  # (n, 3)
    log_odds: _Floats
    probability: _Floats
    deviation: _Floats
    reasons: dict[int, list[Reason]]
    """By place, the largest."""
    lists: dict[tuple[By, int, int], tuple[int, list[ApplicantScored]]]
    """By what is ranked by, how many are told and when: how many are open, and those."""


class _Ranked(msgspec.Struct, gc=False):
    """Open applicants by rank: their places, and by place what still comes (n,)."""

    scored: _Scored
    order: _Places
    now: _Floats


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
        self._kept: OrderedDict[str, _Scored] = OrderedDict()

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
        if scored is None or application_id not in scored.held.application_ids:
            raise NotOpenError(
                "no such application is open: its window is over, its job is closed, it was"
                " forgotten, or it never came"
            )
        held, ranked = scored.held, self._ranked(scored, by, at_ms)
        place = held.application_ids.index(application_id)
        found = np.flatnonzero(ranked.order == place)
        if not len(found):
            raise NotOpenError(_WHY.get(int(held.states[place]), "its window is over"))
        rank = int(found[0])
        (told,) = self._told(ranked, range(rank, rank + 1))
        values, names = self._added(scored, place)
        store = self._scorer.store
        standing, chosen = store.standing(), store.choose([job_id], None, at_ms)
        return ApplicantAnswer(
            **msgspec.structs.asdict(told),
            job_id=job_id,
            as_of_ms=at_ms,
            model_version=chosen.now.version,
            staleness_s=standing.age_s(now_ms),
            degraded=degraded(standing, chosen, now_ms),
            of=len(ranked.order),
            percentile=100.0 * (len(ranked.order) - rank) / len(ranked.order),
            for_=_largest(np.maximum(values, 0.0), names),
            against=_largest(np.minimum(values, 0.0), names),
        )

    def _list(
        self, scored: _Scored, by: By, top: int, at_ms: int
    ) -> tuple[int, list[ApplicantScored]]:
        """How many are open, and the best of them."""
        found = scored.lists.get((by, top, at_ms))
        if found is None:
            ranked = self._ranked(scored, by, at_ms)
            count = len(ranked.order)
            found = count, self._told(ranked, range(min(top, count)))
            if len(scored.lists) >= _MOST_LISTS:
                scored.lists.clear()
            scored.lists[by, top, at_ms] = found
        return found

    def _ranked(self, scored: _Scored, by: By, at_ms: int) -> _Ranked:
        held, waiting = scored.held, self._scorer.waiting
        open_ = (held.states == OPEN) & (held.times_ms >= at_ms - self._applicants.window_ms)
        ages_ms = np.maximum(at_ms - held.times_ms, 0.0)
        answered = np.sort(held.times_ms[held.states == ANSWERED])
        later = (len(answered) - np.searchsorted(answered, held.times_ms, "right")).astype(float)
        now = waiting.probabilities(scored.log_odds, ages_ms, later)
        ranked_by = scored.log_odds
        if by == "probability_now":
            ranked_by = now
        elif by == "next":
            ranked_by = waiting.orders(scored.log_odds, ages_ms, later)
        return _Ranked(scored, _best(ranked_by, np.flatnonzero(open_), held), now)

    def _scored(self, job_id: str) -> _Scored | None:
        """Score all held applicants of a job; None: there are none."""
        store, kept = self._scorer.store, self._kept.get(job_id)
        coefficients, applicants = store.changes, self._applicants.version_of(job_id)
        if (
            kept is not None
            and kept.coefficients == coefficients
            and kept.held.version == applicants
        ):
            self._kept.move_to_end(job_id)
            return kept
        held = self._applicants.of_job(job_id)
        if held is None:
            self._kept.pop(job_id, None)
            return None
        member = store.find(MEMBER.name, held.member_ids)
        job = store.find(JOB.name, [job_id])
        count = len(held.member_ids)
        parts = np.column_stack(
            [
                held.global_score,
                products(held.per_member, member.mean, count),
                products(held.per_job, job.mean, count),
            ]
        )
        log_odds = parts.sum(axis=1)
        variance = products(held.per_member**2, member.variance.astype(np.float64), count)
        variance += products(held.per_job**2, job.variance.astype(np.float64), count)
        scored = _Scored(
            *(held, coefficients, member, job, parts, log_odds),
            *(sigmoid(log_odds), np.sqrt(variance), {}, {}),
        )
        self._kept[job_id] = scored
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return scored

    def _told(self, ranked: _Ranked, ranks: range) -> list[ApplicantScored]:
        scored, places = ranked.scored, ranked.order[ranks.start : ranks.stop]
        held = scored.held
        numbers = np.column_stack(
            [
                *(scored.log_odds[places], scored.probability[places], ranked.now[places]),
                *(scored.deviation[places], held.times_ms[places], scored.parts[places]),
            ]
        ).tolist()
        job_known = bool(scored.job.known[0])
        return [
            ApplicantScored(
                rank=rank + 1,
                application_id=held.application_ids[place],
                member_id=held.member_ids[place],
                application_time_ms=int(time_ms),
                log_odds=log_odds,
                probability=probability,
                probability_now=now,
                standard_deviation=deviation,
                parts=Parts(*parts),
                member_known=known,
                job_known=job_known,
                reasons=self._reasons(scored, place),
            )
            for rank, place, known, (log_odds, probability, now, deviation, time_ms, *parts) in zip(
                ranks, places.tolist(), scored.member.known[places].tolist(), numbers, strict=True
            )
        ]

    def _reasons(self, scored: _Scored, place: int) -> list[Reason]:
        found = scored.reasons.get(place)
        if found is None:
            found = scored.reasons[place] = _largest(*self._added(scored, place))
        return found

    def _added(self, scored: _Scored, place: int) -> tuple[_Floats, list[tuple[str, str]]]:
        """What each feature adds to a score (m,), with its effect and name.

        What the global model adds for everybody is left out; of a model that is not at hand, or was
        not asked, there is the whole score.
        """
        held = scored.held
        model, seen = self._scorer.store.model(held.models[place]), held.seen[place]
        if model is None or seen is None:
            of_global, names = held.global_score[place : place + 1], ["global_score"]
        else:
            asked = model.row(seen.global_, seen.history, seen.preferences)
            of_global = model.scorer.contributions(np.frombuffer(asked, "<f4"))[:-1]
            names = model.columns
        values = np.concatenate(
            [
                of_global,
                held.per_member[place] * scored.member.mean[place],
                held.per_job[place] * scored.job.mean[0],
            ]
        )
        return values, [*(("global", name) for name in names), *self._names]


_WHY = {ANSWERED: "it was answered", DECLINED: "it was declined"}


def _largest(values: _Floats, names: list[tuple[str, str]]) -> list[Reason]:
    """Return the few that are largest in size; none of nothing."""
    sizes = np.abs(values)
    order = np.argsort(-sizes, kind="stable")[:FEW].tolist()
    return [
        Reason(effect, name, values[at].item())
        for at in order
        if sizes[at]
        for effect, name in (names[at],)
    ]


def _best(by: _Floats, places: _Places, held: Held) -> _Places:
    """Order places, the best first; equal ones by member id, then by application id."""
    order = places[np.argsort(-by[places], kind="stable")]
    ranked = by[order]
    if not (ranked[1:] == ranked[:-1]).any():
        return order
    return np.array(
        sorted(
            order.tolist(),
            key=lambda at: (-by[at], held.member_ids[at], held.application_ids[at]),
        ),
        np.int64,
    )
