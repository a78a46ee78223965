"""What the service answers under ``/v1/jobs``: jobs, their applicants, one applicant."""

from __future__ import annotations

from typing import Annotated, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from msgspec import Meta

from stream.errors import QuestionError
from stream.events.structs import TimeMs
from stream.serving.applicants import Applicants
from stream.serving.messages import ApplicantAnswer, ApplicantsAnswer, By, JobsAnswer
from stream.serving.rankings import Rankings
from stream.serving.scorer import Scorer

JOBS = "/v1/jobs"
APPLICANTS = "/v1/jobs/{job}/applicants"
APPLICANT = "/v1/jobs/{job}/applicants/{application}"

_JOBS = JOBS.encode()
_T = TypeVar("_T")


class JobsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``search``: what is in the ids of the jobs that are wanted; ``limit``: so many."""

    search: str = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 20


class ApplicantQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``by``: what is ranked by; ``at_ms``: when ages count, left out: now."""

    by: By = "probability"
    at_ms: TimeMs | None = None


class ApplicantsQuery(ApplicantQuery, frozen=True, forbid_unknown_fields=True):
    """The same, and how many applicants are told of."""

    top: Annotated[int, Meta(ge=1, le=10_000)] = 20


class JobRoutes:
    """Answers requests for jobs and their applicants.

    Args:
        scorer: what they are scored with. applicants: who is held.

    """

    def __init__(self, scorer: Scorer, applicants: Applicants) -> None:
        self._applicants = applicants
        self._rankings = Rankings(scorer, applicants)

    def answer(
        self, route: str, ids: list[str], query: bytes, now_ms: int
    ) -> JobsAnswer | ApplicantsAnswer | ApplicantAnswer:
        """Answer a request.

        Args:
            route, ids: as :func:`route_of` gives them. query: what follows the question mark.
            now_ms: the wall clock.

        Raises:
            QuestionError: the query is none of this route.
            NotOpenError: the application is not open.

        """
        if route == JOBS:
            jobs = _query(query, JobsQuery)
            at_ms = self._applicants.as_of_ms(now_ms)
            return JobsAnswer(self._applicants.search(jobs.search, jobs.limit, at_ms))
        if route == APPLICANTS:
            asked = _query(query, ApplicantsQuery)
            return self._rankings.of_job(
                ids[0], top=asked.top, by=asked.by, at_ms=asked.at_ms, now_ms=now_ms
            )
        one = _query(query, ApplicantQuery)
        return self._rankings.of_application(*ids, by=one.by, at_ms=one.at_ms, now_ms=now_ms)


def route_of(raw_path: bytes) -> tuple[str, list[str]] | None:
    """Which route a path takes, and the ids in it; None: none of these."""
    if raw_path == _JOBS:
        return JOBS, []
    if not raw_path.startswith(_JOBS + b"/"):
        return None
    job, *rest = (
        unquote_to_bytes(part).decode(errors="replace")
        for part in raw_path[len(_JOBS) + 1 :].split(b"/")
    )
    if rest == ["applicants"]:
        return APPLICANTS, [job]
    if len(rest) == 2 and rest[0] == "applicants":
        return APPLICANT, [job, rest[1]]
    return None


def _query(raw: bytes, kind: type[_T]) -> _T:
    """Read a query string."""
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, strict_parsing=bool(raw))
        given = dict(pairs)
        if len(given) < len(pairs):
            raise QuestionError("the query: give each parameter once")
        return msgspec.convert(given, kind, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise QuestionError(f"the query: {error}") from None
