"""Scores for others: a store of all coefficients, the service over it, its client; one's belief."""

from __future__ import annotations

from stream.serving.client import (
    AsyncClient,
    Client,
    ServiceError,
    columns_of,
    numbers,
    position_of,
)
from stream.serving.messages import (
    Answer,
    ApplicantAnswer,
    ApplicantsAnswer,
    Candidate,
    CandidateFeatures,
    Columns,
    Explore,
    Filters,
    JobsAnswer,
    RankQuestion,
    Scored,
    ScoreQuestion,
)

__all__ = [
    "Answer",
    "ApplicantAnswer",
    "ApplicantsAnswer",
    "AsyncClient",
    "Candidate",
    "CandidateFeatures",
    "Client",
    "Columns",
    "Explore",
    "Filters",
    "JobsAnswer",
    "RankQuestion",
    "ScoreQuestion",
    "Scored",
    "ServiceError",
    "columns_of",
    "numbers",
    "position_of",
]
