"""Scores of n candidates, as the worker's stages would give them with what is known now.

Log-odds are the global score, plus z'θ of the member, plus z'θ of the job. A score's variance is
Σ z_k²·v_k over both, with the published marginal variances v: it takes coefficients as independent,
and the global model as certain (:mod:`stream.serving.belief` says what that is worth).

A model that takes histories reads those that are published with the coefficients. What a pair has
in common is not published: a pair counts as new. A model that takes preferences reads those that
are published of the job.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.effects import JOB, MEMBER, EffectSpec
from stream.histories.history import NOTHING, History, Summary
from stream.histories.preferences import Preferred
from stream.model.folder import GlobalModel
from stream.policy import Policy
from stream.serving.draws import normals
from stream.serving.intake import Batch, Floats, Floats32, take_in
from stream.serving.messages import ScoreQuestion
from stream.serving.models import Chosen
from stream.serving.store import Found, Store
from stream.serving.waiting import Waiting
from stream.updaters.folding import sigmoid

_T = TypeVar("_T", bound=np.generic)
_Any = TypeVar("_Any")


class Effect(msgspec.Struct, gc=False):
    """What one effect adds to n scores.

    ``found`` and ``features`` (float64) have a row of each candidate, or one of all; ``scores``
    (n,).
    """

    spec: EffectSpec
    ids: list[str]
    found: Found
    features: Floats
    scores: Floats

    def of_each(self, one_or_all: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Spread what is known of one over all candidates."""
        return np.broadcast_to(one_or_all, len(self.scores))

    def drawn(self, seed: int, version: str) -> Floats:
        """Scores with coefficients drawn from what is believed of them (n,)."""
        found = self.found
        noise = normals(seed, self.spec.name, self.ids, version, found.mean.shape[1])
        coefficients = found.mean + np.sqrt(found.variance.astype(np.float64)) * noise
        return products(self.features, coefficients, len(self.scores))


class Scores(msgspec.Struct, gc=False):
    """Scores of a batch; arrays (n,), of no meaning where the candidate has an error."""

    batch: Batch
    chosen: Chosen
    global_: Floats
    columns: list[Floats32] | None
    """What each of the chosen models was asked (n, d); None: nothing."""
    member: Effect
    job: Effect
    log_odds: Floats
    deviation: Floats
    ages_ms: Floats | None
    """Of open applications, NaN of others; None: there are none."""
    now: Floats | None
    """Probability that an answer still comes, NaN as above."""

    @property
    def probability(self) -> Floats:
        """Of an answer within the window, at application."""
        return sigmoid(self.log_odds)

    def drawn(self, seed: int, version: str) -> Floats:
        """Log-odds of a Thompson draw."""
        return self.global_ + self.member.drawn(seed, version) + self.job.drawn(seed, version)


class Scorer:
    """Scores candidates with a model and a store.

    Args:
        model: the global model that workers score with, or did before another was rolled in: it
            says how long answers take. policy: labels and effects as the worker has them.
        store: what is known of members and jobs, and which models score.

    Raises:
        ConfigError: model and policy do not fit.

    """

    def __init__(self, model: GlobalModel, policy: Policy, store: Store) -> None:
        model.check(policy)
        self.model = model
        self.space = model.space.limited(policy.features.max_feature)
        self.store = store
        self.effects = {spec.name: spec for spec in (MEMBER, JOB)}
        self.waiting = Waiting(model, policy.labels)

    def score(self, question: ScoreQuestion, now_ms: int) -> Scores:
        """Score what is asked.

        Args:
            question: candidates. now_ms: the wall clock, where the question does not say.

        Raises:
            QuestionError: it cannot be answered at all.

        """
        at_ms = now_ms if question.at_ms is None else question.at_ms
        batch = take_in(question, self.space, at_ms)
        chosen = self.store.choose(batch.job_ids, batch.times_ms, at_ms)
        histories = chosen.takes_history
        member = self._effect(MEMBER, batch.member_ids, batch, histories=histories)
        job = self._effect(JOB, batch.job_ids, batch, histories=histories)
        global_, columns = self._global(chosen, batch, member.found, job.found, at_ms)
        log_odds = global_ + member.scores + job.scores
        variance = _variance(member) + _variance(job)
        ages_ms = now = None
        if batch.times_ms is not None:
            ages_ms = np.maximum(at_ms - batch.times_ms, 0.0)
            now = self.waiting.probabilities(log_odds, ages_ms, batch.later)
            now[np.isnan(ages_ms)] = np.nan
        deviation = np.sqrt(variance)
        return Scores(
            *(batch, chosen, global_, columns, member, job, log_odds, deviation, ages_ms, now)
        )

    def explanation(self, scores: Scores, at: int) -> dict[str, dict[str, float]]:
        """What each feature adds to a candidate's log-odds, by effect; all of it sums to them."""
        given = scores.batch.global_score
        if given is not None and not np.isnan(given[at]):
            told = {"global": {"global_score": given[at].item()}}
        elif scores.columns is not None:
            columns = scores.columns[scores.chosen.place_of(at)]
            added = scores.chosen.model_of(at).contributions(_row(columns, at))
            told = {"global": {name or "constant": value for name, value in added}}
        else:
            told = {}
        for effect in (scores.member, scores.job):
            mean = effect.found.mean
            parts = _row(effect.features, at) * _row(mean, at)
            names = self.space.block(effect.spec.block).names
            told[effect.spec.name] = dict(zip(names, parts.tolist(), strict=True))
        return told

    def _effect(self, spec: EffectSpec, ids: list[str], batch: Batch, *, histories: bool) -> Effect:
        found = self.store.find(spec.name, ids, histories=histories)
        features = batch.blocks[spec.block].astype(np.float64)
        scores = products(features, found.mean, batch.size)
        return Effect(spec, ids, found, features, scores)

    def _global(
        self, chosen: Chosen, batch: Batch, member: Found, job: Found, at_ms: int
    ) -> tuple[Floats, list[Floats32] | None]:
        """Log-odds of the global models (n,), and the columns that they were asked."""
        if batch.global_ is None:
            return np.zeros(0) if batch.global_score is None else batch.global_score, None
        histories = _histories(batch, member, job, at_ms) if chosen.takes_history else None
        preferred = self._preferred(batch) if chosen.takes_preferences else None
        columns = [
            _columns(model, batch.global_, batch.size, histories, preferred)
            for model in chosen.models
        ]
        asked = zip(chosen.models, columns, strict=True)
        found = [_spread_over(model.scorer.score_all(x), batch.size) for model, x in asked]
        scores = found[0]
        if chosen.of is not None:
            scores = np.array(found)[chosen.of, np.arange(batch.size)]
        if batch.global_score is not None:
            scores = np.where(np.isnan(batch.global_score), scores, batch.global_score)
        return scores, columns

    def _preferred(self, batch: Batch) -> list[Preferred | None]:
        """What the jobs' recruiters have preferred of the candidates' terms."""
        jobs = {job_id: self.store.preferences_of(job_id) for job_id in set(batch.job_ids)}
        return [
            jobs[job_id].read(channel, terms) if terms else None
            for job_id, channel, terms in zip(
                _spread(batch.job_ids, batch.size),
                _spread(batch.channels, batch.size),
                _spread(batch.terms, batch.size),
                strict=True,
            )
        ]


def _columns(
    model: GlobalModel,
    global_: Floats32,
    size: int,
    histories: list[bytes] | None,
    preferred: list[Preferred | None] | None,
) -> Floats32:
    """What a model is asked of n candidates (n, d), or (1, d) of all."""
    if not model.takes_further:
        return global_
    nothing: list[None] = [None] * size
    rows = [
        model.row(b"", history, of_terms)
        for history, of_terms in zip(histories or nothing, preferred or nothing, strict=True)
    ]
    shape = size, len(model.columns) - global_.shape[1]
    further = np.frombuffer(b"".join(rows), "<f4").reshape(shape)
    return np.hstack([np.broadcast_to(global_, (size, global_.shape[1])), further])


def _spread_over(scores: Floats, size: int) -> Floats:
    return scores if len(scores) == size else np.full(size, scores[0])


def products(features: Floats, coefficients: Floats, size: int) -> Floats:
    """z'θ of each candidate (n,); both are (n, d), or (1, d) of all."""
    if len(coefficients) == 1:
        found = features @ coefficients[0]
    elif len(features) == 1:
        found = coefficients @ features[0]
    else:
        found = np.einsum("ij,ij->i", features, coefficients)
    return np.asarray(found) if len(found) == size else np.full(size, found[0])


def _row(rows: NDArray[_T], at: int) -> NDArray[_T]:
    """A candidate's row, or that of all."""
    return np.asarray(rows[at if len(rows) > 1 else 0])


def _variance(effect: Effect) -> Floats:
    variance = effect.found.variance.astype(np.float64)
    return products(effect.features * effect.features, variance, len(effect.scores))


def _histories(batch: Batch, member: Found, job: Found, at_ms: int) -> list[bytes]:
    """Histories of the candidates, each float32 bytes of shape (36,)."""
    times = np.full(batch.size, float(at_ms)) if batch.times_ms is None else batch.times_ms
    return [
        _read(of_member, time_ms) + _read(of_job, time_ms) + NOTHING
        for of_member, of_job, time_ms in zip(
            _spread(member.summaries, batch.size),
            _spread(job.summaries, batch.size),
            np.where(np.isnan(times), at_ms, times).astype(np.int64).tolist(),
            strict=True,
        )
    ]


def _read(summary: Summary | None, time_ms: int) -> bytes:
    return NOTHING if summary is None else History.of(summary).read(time_ms)


def _spread(one_or_each: list[_Any], size: int) -> list[_Any]:
    return one_or_each * size if len(one_or_each) == 1 else one_or_each
