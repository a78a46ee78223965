"""Scores for others: a store of all coefficients, the service over it, its client; one's belief."""

from __future__ import annotations

from stream.serving.client import AsyncClient, Client, ServiceError, columns_of, numbers
from stream.serving.messages import (
    Answer,
    Candidate,
    CandidateFeatures,
    Columns,
    Explore,
    Filters,
    RankQuestion,
    Scored,
    ScoreQuestion,
)

__all__ = [
    "Answer",
    "AsyncClient",
    "Candidate",
    "CandidateFeatures",
    "Client",
    "Columns",
    "Explore",
    "Filters",
    "RankQuestion",
    "ScoreQuestion",
    "Scored",
    "ServiceError",
    "columns_of",
    "numbers",
]
