"""``/openapi.json``: what can be asked, from the structs that are decoded and encoded."""

from __future__ import annotations

from typing import Any

import msgspec

from stream import VERSION
from stream.effects import EFFECT_NAMES
from stream.serving.job_routes import (
    APPLICANT,
    APPLICANTS,
    JOBS,
    ApplicantQuery,
    ApplicantsQuery,
    JobsQuery,
)
from stream.serving.messages import (
    Answer,
    ApplicantAnswer,
    ApplicantsAnswer,
    EntityAnswer,
    JobsAnswer,
    Problem,
    RankQuestion,
    ScoreQuestion,
)
from stream.serving.positions import AFTER

JSON = "application/json"
MSGPACK = "application/msgpack"

_STRUCTS = (
    *(ScoreQuestion, RankQuestion, Answer, EntityAnswer),
    *(JobsAnswer, ApplicantsAnswer, ApplicantAnswer, Problem),
)
_PROBLEMS = {
    "400": "The body cannot be read.",
    "401": "No token, or one that is not in the token file.",
    "408": "The body did not come in time.",
    "412": "Not all that was named in `Hearback-After` is in the scores yet: ask again.",
    "413": "The body is too large.",
    "415": "The body is of another type, or compressed.",
    "421": "There are no tokens, and `Host` is no name or address of a loopback interface.",
    "422": "The question cannot be answered as it is asked.",
    "503": "Not ready yet, or too many requests wait: try again after `Retry-After` seconds.",
}


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    refs, schemas = msgspec.json.schema_components(
        _STRUCTS, ref_template="#/components/schemas/{name}"
    )
    of = dict(zip((struct.__name__ for struct in _STRUCTS), refs, strict=True))

    after = {
        "name": AFTER,
        "in": "header",
        "required": False,
        "description": "Positions of applications and engagements, with commas between: the answer"
        " waits up to a second until all that they have led to is in lists and scores.",
        "schema": {"type": "string", "examples": ["applications/0:17,engagements/3:1234"]},
    }

    def asked(question: str, summary: str) -> dict[str, Any]:
        return {
            "post": {
                "summary": summary,
                "parameters": [after],
                "requestBody": {"required": True, "content": _content(of[question])},
                "responses": {
                    "200": {"description": "Scores.", "content": _content(of["Answer"])},
                    **_problems(of["Problem"], *_PROBLEMS),
                },
            }
        }

    def got(answer: str, summary: str, missing: str, *parameters: dict[str, Any]) -> dict[str, Any]:
        return {
            "get": {
                "summary": summary,
                "parameters": [*parameters, after],
                "responses": {
                    "200": {"description": summary, "content": _content(of[answer])},
                    "404": {"description": missing, "content": _json(of["Problem"])},
                    **_problems(of["Problem"], "401", "412", "421", "422", "503"),
                },
            }
        }

    text: dict[str, Any] = {"type": "string"}
    job, application = _parameter("job", text), _parameter("application", text)
    off = "Applicants are not held: the policy has no `[applicants] enabled = true`."
    return {
        "openapi": "3.1.0",
        "info": {"title": "hearback serve", "version": VERSION},
        "paths": {
            "/v1/score": asked("ScoreQuestion", "Score candidates."),
            "/v1/rank": asked("RankQuestion", "Score candidates; return the best, ranked."),
            "/v1/entities/{effect}/{id}": got(
                *("EntityAnswer", "What is known of one member or job.", "Nothing is known of it."),
                _parameter("effect", {"type": "string", "enum": list(EFFECT_NAMES)}),
                _parameter("id", text),
            ),
            JOBS: got("JobsAnswer", "Find jobs by a part of their id.", off, *_of(JobsQuery)),
            APPLICANTS: got(
                *("ApplicantsAnswer", "Rank the open applicants of a job.", off),
                *(job, *_of(ApplicantsQuery)),
            ),
            APPLICANT: got(
                *("ApplicantAnswer", "Where one applicant stands among those of the job."),
                "The application is not open, or applicants are not held.",
                *(job, application, *_of(ApplicantQuery)),
            ),
            "/healthz": {"get": _probe("Whether the process lives.", "200")},
            "/readyz": {"get": _probe("Whether all that was published is there.", "200", "503")},
            "/metrics": {"get": _probe("Metrics for Prometheus.", "200")},
            "/openapi.json": {"get": _probe("This document.", "200")},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _of(query: type[msgspec.Struct]) -> list[dict[str, Any]]:
    """Parameters of a query."""
    _, found = msgspec.json.schema_components([query])
    properties = found[query.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in properties.items()
    ]


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {JSON: {"schema": schema}, MSGPACK: {"schema": schema}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {JSON: {"schema": schema}}


def _problems(schema: dict[str, Any], *codes: str) -> dict[str, Any]:
    return {code: {"description": _PROBLEMS[code], "content": _json(schema)} for code in codes}


def _probe(summary: str, *codes: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {code: {"description": summary} for code in codes}}
