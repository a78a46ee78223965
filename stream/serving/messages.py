"""What is asked of the service and what it answers: the structs that its OpenAPI document shows.

Candidates come one by one (``candidates``), or as ``columns`` for volume: a list for each field,
and of a block a row of numbers for each candidate, or all rows as little-endian float32 bytes
(MessagePack's *bin*; base64 in JSON). The answer has the form of the question. In MessagePack the
numbers of columns are answered as little-endian float64 bytes, with NaN for a candidate that has an
error; in JSON as lists, with null.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from stream.events.applications import Attributes
from stream.events.structs import Name, TimeMs
from stream.features.blocks import RawBlock
from stream.histories.history import Summary
from stream.histories.preferences import Terms

MOST_CANDIDATES = 10_000

By = Literal["probability", "probability_now", "next"]
"""What is ranked by; ``next``: who of a job's applicants is likeliest to be answered next."""

_Rows = list[RawBlock] | bytes
_Numbers = list[float] | bytes
_Answered = list[float | None] | bytes


class CandidateFeatures(
    msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, rename={"global_": "global"}
):
    """Feature blocks: lists in the order of the model's names, or objects by name."""

    global_: RawBlock | None = None
    per_member: RawBlock | None = None
    per_job: RawBlock | None = None


class Candidate(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One application that was made, or could be.

    Attributes:
        member_id, job_id: one of them may stand in the question, for all.
        features: of the application. Blocks of effects may only be left out where the model has no
            features in them; ``global`` where there is a ``global_score``.
        member, job, context: attributes, of which a model with a spec makes the features; each may
            stand in the question, for all. Where any is there, ``features`` is not looked at.
        global_score: the fixed effect's log-odds; None: the model scores ``features.global``.
        application_time_ms: when it was submitted, if it is open; None: it is not made yet.
        later: how many who applied later to the same job were answered since.
        terms, channel: of the application, for a model that takes preferences; each may stand in
            the question, for all.

    """

    member_id: str | None = None
    job_id: str | None = None
    features: CandidateFeatures = CandidateFeatures()
    global_score: float | None = None
    application_time_ms: int | None = None
    later: int = 0
    member: Attributes | None = None
    job: Attributes | None = None
    context: Attributes | None = None
    terms: Terms | None = None
    channel: Name | None = None


class Columns(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"global_": "global"}
):
    """The fields of all candidates; each column has as many entries as the others, or is null.

    A block may have a single row, of all candidates: what describes the one job or member.
    """

    member_id: list[str] | None = None
    job_id: list[str] | None = None
    global_: _Rows | None = None
    per_member: _Rows | None = None
    per_job: _Rows | None = None
    global_score: _Numbers | None = None
    application_time_ms: list[int | None] | None = None
    later: list[int] | None = None
    terms: list[Terms | None] | None = None
    channel: list[Name | None] | None = None


class ScoreQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One job and its candidates, one member and its jobs, or pairs.

    ``at_ms``: as of when ages count; None: now. ``explain``: what each feature adds. ``member``,
    ``job``, ``context``: attributes of all ``candidates``. ``terms``, ``channel``: of all that have
    none of their own.
    """

    member_id: str | None = None
    job_id: str | None = None
    candidates: list[Candidate] | None = None
    columns: Columns | None = None
    at_ms: TimeMs | None = None
    explain: bool = False
    member: Attributes | None = None
    job: Attributes | None = None
    context: Attributes | None = None
    terms: Terms | None = None
    channel: Name | None = None


class Explore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rank by a draw from what is believed (Thompson sampling) in place of the mean."""

    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Filters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is left out of a ranking.

    ``min_probability``: of what it is ranked by. ``known``: only candidates of whom both effects,
    or this one, know something. ``exclude``: ids of members or of jobs.
    """

    min_probability: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    known: Literal["any", "member", "job", "both"] = "any"
    exclude: list[str] = []


class RankQuestion(ScoreQuestion, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question, and who of the candidates is wanted.

    ``by``: ``probability``; ``probability_now`` and ``next`` (who is likeliest to be answered next)
    take candidates with an ``application_time_ms``, of one job.
    """

    top: Annotated[int, Meta(ge=1)] | None = None
    by: By = "probability"
    filters: Filters = Filters()
    explore: Explore | None = None


class CandidateError(msgspec.Struct, frozen=True, gc=False):
    """Why a candidate cannot be scored; ``at``: its place in the question, from 0."""

    at: int
    reason: str
    message: str


class Parts(msgspec.Struct, frozen=True, gc=False, rename={"global_": "global"}):
    """Log-odds that sum to the score."""

    global_: float
    member: float
    job: float


class Scored(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One candidate's score.

    Attributes:
        at: its place in the question, from 0. rank: from 1, in a ranking.
        log_odds, probability: of an answer within the window, at application.
        probability_now: that one still comes; of open applications.
        standard_deviation: of the log-odds, as the members' and jobs' models have it.
        member_known, job_known: false: the prior stands for what is not known.
        drawn: the log-odds that it is ranked by, of a ranking that explores.
        model_version: of the global model that scored it; absent: of the answer's.
        explanation: by effect and feature name, what each adds to the log-odds.

    """

    at: int
    rank: int | UnsetType = UNSET
    member_id: str
    job_id: str
    log_odds: float
    probability: float
    probability_now: float | UnsetType = UNSET
    standard_deviation: float
    parts: Parts
    member_known: bool
    job_known: bool
    drawn: float | UnsetType = UNSET
    model_version: str | UnsetType = UNSET
    explanation: dict[str, dict[str, float]] | UnsetType = UNSET


class ScoredColumns(msgspec.Struct, frozen=True, kw_only=True, rename={"global_": "global"}):
    """Scores by field; ``at``, in a ranking: the places in the question, best first."""

    at: list[int] | UnsetType = UNSET
    log_odds: _Answered
    probability: _Answered
    probability_now: _Answered | UnsetType = UNSET
    standard_deviation: _Answered
    global_: _Answered
    member: _Answered
    job: _Answered
    member_known: list[bool]
    job_known: list[bool]
    drawn: _Answered | UnsetType = UNSET
    model_version: list[str] | UnsetType = UNSET
    explanation: list[dict[str, dict[str, float]] | None] | UnsetType = UNSET


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Scores in the order of the question, or ranked.

    Attributes:
        model_version: of the global model that scores applications of now (``at_ms``).
        staleness_s: how old what is known may be; null: it was never all there.
        degraded: what keeps these scores from being what they should be; empty: nothing.
        candidates, columns: whichever was asked with.
        errors: candidates that could not be scored.

    """

    model_version: str
    staleness_s: float | None
    degraded: list[str]
    candidates: list[Scored] | UnsetType = UNSET
    columns: ScoredColumns | UnsetType = UNSET
    errors: list[CandidateError] = []


class Reason(msgspec.Struct, frozen=True, gc=False):
    """What one feature adds to an applicant's log-odds; ``effect`` may be ``global``."""

    effect: str
    feature: str
    contribution: float


class ApplicantScored(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An open applicant of a job.

    Attributes:
        rank: from 1, among those who are open.
        log_odds, probability: of an answer within the window, with what is known now.
        probability_now: that one still comes.
        standard_deviation: of the log-odds, as the members' and jobs' models have it.
        member_known, job_known: false: the prior stands for what is not known.
        reasons: the features with the largest contributions of either sign, the largest first,
            without the global model's constant, which is the same for everybody.

    """

    rank: int
    application_id: str
    member_id: str
    application_time_ms: int
    log_odds: float
    probability: float
    probability_now: float
    standard_deviation: float
    parts: Parts
    member_known: bool
    job_known: bool
    reasons: list[Reason]


class ApplicantsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The open applicants of a job, the best first.

    ``as_of_ms``: when ages count. ``of``: how many are open, however many are told of. The others
    are those of an :class:`Answer`.
    """

    job_id: str
    as_of_ms: int
    model_version: str
    staleness_s: float | None
    degraded: list[str]
    of: int
    applicants: list[ApplicantScored]


class ApplicantAnswer(ApplicantScored, frozen=True, gc=False, kw_only=True, rename={"for_": "for"}):
    """One open applicant among those of the job: the member's view.

    ``percentile``: of 100 of the open applicants, how many stand no higher. ``for``, ``against``:
    features that add most, and that take most. The others are those of
    :class:`ApplicantsAnswer`.
    """

    job_id: str
    as_of_ms: int
    model_version: str
    staleness_s: float | None
    degraded: list[str]
    of: int
    percentile: float
    for_: list[Reason]
    against: list[Reason]


class JobFound(msgspec.Struct, frozen=True, gc=False):
    """A job: how many applicants are open, of how many that are held, and the newest one's time."""

    job_id: str
    open: int
    applicants: int
    newest_ms: int


class JobsAnswer(msgspec.Struct, frozen=True):
    """Jobs whose id has a text in it, those with most open applicants first."""

    jobs: list[JobFound]


class EntityAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one member or job."""

    effect: str
    entity_id: str
    model_version: str
    coefficients: dict[str, float]
    standard_errors: dict[str, float]
    examples: int
    event_time_ms: int
    history: Summary | None = None


class Problem(msgspec.Struct, frozen=True):
    """Why there is no answer."""

    reason: str
    message: str
