"""Scores as answers: in the order of the question, or ranked; one by one, or as columns.

A ranking is by the larger number; equal ones by member id, then by job id, then by place in the
question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import repeat

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from stream.errors import EventError, QuestionError
from stream.serving.intake import Batch, Floats
from stream.serving.messages import (
    Answer,
    CandidateError,
    Parts,
    RankQuestion,
    Scored,
    ScoredColumns,
    ScoreQuestion,
)
from stream.serving.models import Chosen
from stream.serving.scorer import Scorer, Scores
from stream.serving.store import Standing
from stream.updaters.folding import sigmoid

MOST_AGE_S = 30.0
"""What is known may be so old before an answer says that it is."""

_Places = NDArray[np.int64]


def degraded(standing: Standing, chosen: Chosen, now_ms: int) -> list[str]:
    """What keeps the scores of models from being what they should be."""
    age_s = standing.age_s(now_ms)
    found = list(standing.degraded)
    if not chosen.complete:
        found.append("other_model_in_force")
    if age_s is None or age_s > MOST_AGE_S:
        found.append("stale")
    return found


class Result(msgspec.Struct, frozen=True, gc=False):
    """An answer, and what is counted of it: candidates scored, entities unknown by effect."""

    answer: Answer
    scored: int
    unknown: dict[str, int]


def score(scorer: Scorer, question: ScoreQuestion, now_ms: int, *, packed: bool) -> Result:
    """Answer with scores in the order of the question.

    Args:
        scorer: what scores. question: as decoded. now_ms: the wall clock.
        packed: whether columns are answered as bytes.

    Raises:
        QuestionError: it cannot be answered at all.

    """
    scores = scorer.score(question, now_ms)
    return _answer(scorer, question, scores, now_ms, _Shape(packed=packed))


def rank(scorer: Scorer, question: RankQuestion, now_ms: int, *, packed: bool) -> Result:
    """Answer with the candidates that are wanted, the best first; arguments as of :func:`score`."""
    scores = scorer.score(question, now_ms)
    batch = scores.batch
    drawn = None
    log_odds = scores.log_odds
    if question.explore is not None:
        log_odds = drawn = scores.drawn(question.explore.seed, scores.chosen.now.version)
    by, probability = _ranked_by(scorer, question, scores, log_odds)
    wanted = ~np.isnan(by)
    wanted[list(batch.errors)] = False
    filters = question.filters
    if filters.min_probability:
        wanted &= probability >= filters.min_probability
    for effect in (scores.member, scores.job):
        if filters.known in {"both", effect.spec.kind}:
            wanted &= effect.of_each(effect.found.known)
    if filters.exclude:
        left_out = frozenset(filters.exclude)
        for ids in (batch.member_ids, batch.job_ids):
            wanted &= np.broadcast_to(
                np.array([each not in left_out for each in ids], dtype=np.bool_), batch.size
            )
    best = _best(by, np.flatnonzero(wanted), batch)[: question.top]
    return _answer(scorer, question, scores, now_ms, _Shape(packed=packed, best=best, drawn=drawn))


def _best(by: Floats, places: _Places, batch: Batch) -> _Places:
    """Order places, the best first."""
    order = places[np.argsort(-by[places], kind="stable")]
    ranked = by[order]
    if not (ranked[1:] == ranked[:-1]).any():
        return order
    ids = _taken(batch.member_ids, order), _taken(batch.job_ids, order)
    return np.array([at for *_, at in sorted(zip(-ranked, *ids, order, strict=True))], np.int64)


class _Shape:
    """How an answer is to look.

    ``best``: places of a ranking, best first; None: all, in their order. ``drawn``: what it is
    ranked by, where it explores.
    """

    def __init__(
        self, *, packed: bool, best: _Places | None = None, drawn: Floats | None = None
    ) -> None:
        self.packed = packed
        self.best = best
        self.drawn = drawn


def _ranked_by(
    scorer: Scorer, question: RankQuestion, scores: Scores, log_odds: Floats
) -> tuple[Floats, Floats]:
    """By what candidates are ranked, and the probability that a filter means (n,)."""
    if question.by == "probability":
        return log_odds, sigmoid(log_odds)
    if scores.ages_ms is None:
        raise QuestionError(f"by {question.by} takes candidates with an application_time_ms")
    if question.by == "next" and question.job_id is None:
        raise QuestionError("by next ranks the applicants of one job: give a job_id for all")
    ages_ms, later = scores.ages_ms, scores.batch.later
    for at in np.flatnonzero(np.isnan(ages_ms)).tolist():
        missing = EventError(f"application_time_ms is needed to rank by {question.by}")
        scores.batch.errors.setdefault(at, missing)
    now = scorer.waiting.probabilities(log_odds, ages_ms, later)
    if question.by == "probability_now":
        return np.where(np.isnan(ages_ms), np.nan, now), now
    return scorer.waiting.orders(log_odds, ages_ms, later), now


def _answer(
    scorer: Scorer, question: ScoreQuestion, scores: Scores, now_ms: int, shape: _Shape
) -> Result:
    standing = scorer.store.standing()
    errors = scores.batch.errors
    columns: ScoredColumns | None = None
    candidates: list[Scored] | None = None
    if question.columns is not None:
        columns = _columns(scorer, question, scores, shape)
    else:
        candidates = _one_by_one(scorer, question, scores, shape)
    answer = Answer(
        model_version=scores.chosen.now.version,
        staleness_s=standing.age_s(now_ms),
        degraded=degraded(standing, scores.chosen, now_ms),
        candidates=UNSET if candidates is None else candidates,
        columns=UNSET if columns is None else columns,
        errors=[CandidateError(at, why.reason, str(why)) for at, why in sorted(errors.items())],
    )
    unknown = {
        effect.spec.name: len(effect.ids) - int(effect.found.known.sum())
        for effect in (scores.member, scores.job)
    }
    return Result(answer, scores.batch.size - len(errors), unknown)


def _columns(
    scorer: Scorer, question: ScoreQuestion, scores: Scores, shape: _Shape
) -> ScoredColumns:
    best = shape.best
    errors = scores.batch.errors

    def told(numbers: Floats) -> list[float | None] | bytes:
        if best is not None:
            numbers = numbers[best]
        elif errors:
            numbers = numbers.copy()
            numbers[list(errors)] = np.nan
        if shape.packed:
            return numbers.astype("<f8", copy=False).tobytes()
        listed: list[float | None] = numbers.tolist()
        if np.isnan(numbers).any():
            listed = [None if value != value else value for value in listed]  # noqa: PLR0124
        return listed

    def flags(known: NDArray[np.bool_]) -> list[bool]:
        found = known if best is None else known[best]
        listed: list[bool] = found.tolist()
        return listed

    places = range(scores.batch.size) if best is None else best.tolist()
    versions = _versions(scores.chosen, places)
    explained: list[dict[str, dict[str, float]] | None] | UnsetType = UNSET
    if question.explain:
        explained = [None if at in errors else scorer.explanation(scores, at) for at in places]
    return ScoredColumns(
        at=UNSET if best is None else best.tolist(),
        log_odds=told(scores.log_odds),
        probability=told(scores.probability),
        probability_now=UNSET if scores.now is None else told(scores.now),
        standard_deviation=told(scores.deviation),
        global_=told(scores.global_),
        member=told(scores.member.scores),
        job=told(scores.job.scores),
        member_known=flags(scores.member.of_each(scores.member.found.known)),
        job_known=flags(scores.job.of_each(scores.job.found.known)),
        drawn=UNSET if shape.drawn is None else told(shape.drawn),
        model_version=UNSET if versions is None else versions,
        explanation=explained,
    )


def _one_by_one(
    scorer: Scorer, question: ScoreQuestion, scores: Scores, shape: _Shape
) -> list[Scored]:
    batch, best = scores.batch, shape.best
    places = np.arange(batch.size) if best is None else best
    if best is None:
        places = np.array([at for at in range(batch.size) if at not in batch.errors], np.int64)
    now = np.full(batch.size, np.nan) if scores.now is None else scores.now
    drawn = np.full(batch.size, np.nan) if shape.drawn is None else shape.drawn
    numbers = np.column_stack(
        [
            *(scores.log_odds, scores.probability, now, scores.deviation, drawn),
            *(scores.global_, scores.member.scores, scores.job.scores),
        ]
    )[places].tolist()
    known = [
        effect.of_each(effect.found.known)[places].tolist()
        for effect in (scores.member, scores.job)
    ]
    versions = _versions(scores.chosen, places.tolist())
    rows = zip(
        places.tolist(),
        _taken(batch.member_ids, places),
        _taken(batch.job_ids, places),
        numbers,
        *known,
        repeat(UNSET, len(places)) if versions is None else versions,
        strict=True,
    )
    return [
        Scored(
            at=at,
            rank=UNSET if best is None else rank,
            member_id=member_id,
            job_id=job_id,
            log_odds=row[0],
            probability=row[1],
            probability_now=_or_unset(row[2]),
            standard_deviation=row[3],
            drawn=_or_unset(row[4]),
            parts=Parts(*row[5:]),
            member_known=member_known,
            job_known=job_known,
            model_version=version,
            explanation=scorer.explanation(scores, at) if question.explain else UNSET,
        )
        for rank, (at, member_id, job_id, row, member_known, job_known, version) in enumerate(
            rows, 1
        )
    ]


def _versions(chosen: Chosen, places: Sequence[int]) -> list[str] | None:
    """Versions of the models of candidates; None: all are of the one of now."""
    if chosen.models == [chosen.now]:
        return None
    return [chosen.model_of(at).version for at in places]


def _taken(ids: Sequence[str], places: _Places) -> list[str]:
    return list(ids) * len(places) if len(ids) == 1 else [ids[at] for at in places.tolist()]


def _or_unset(value: float) -> float | UnsetType:
    return UNSET if math.isnan(value) else value
