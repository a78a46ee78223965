"""JSON Schemas of all messages, made from the structs that decode them.

A schema says what one message must be by itself, in the spelling that we write. Beyond it, inputs
may spell ids as integers and times as :mod:`stream.events.lenient` says; sizes of feature blocks
are the model's; and a forget names either a member or a job.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

from stream.errors import ConfigError, meant
from stream.events.applicants import Applicant
from stream.events.applications import RawApplication
from stream.events.records import (
    APPLICANTS,
    APPLICATIONS,
    APPLICATIONS_BY_JOB,
    COEFFICIENTS,
    ENGAGEMENTS,
    LABELS,
    MATCHES,
    PREFERENCES,
)
from stream.events.structs import (
    Clock,
    Coefficients,
    Engagement,
    Forget,
    JobEvent,
    Match,
    Watermark,
)
from stream.events.wire import AllFeatures, ApplicationByJob, LabelMessage
from stream.histories.preferences import JobPreferences

_DRAFT = "https://json-schema.org/draft/2020-12/schema"  # what msgspec writes
_ROLE = re.compile(r":\w+:`~?([^`]*)`")
_MARKUP = re.compile(r"``([^`]*)``")


class Described(NamedTuple):
    """A message: its struct, its topics, and what it is."""

    struct: Any  # a generic struct is no type
    topics: tuple[str, ...]
    meaning: str


MESSAGES: Final = {
    "application": Described(RawApplication, (APPLICATIONS,), "A member applied for a job"),
    "engagement": Described(Engagement, (ENGAGEMENTS,), "A recruiter acted on an application"),
    "job": Described(JobEvent, (ENGAGEMENTS,), "Something happened to a job as a whole"),
    "clock": Described(Clock, (APPLICATIONS, ENGAGEMENTS), "Nothing earlier will follow here"),
    "forget": Described(
        Forget,
        (APPLICATIONS, ENGAGEMENTS, APPLICATIONS_BY_JOB),
        "What was learned of a member or job is to go",
    ),
    "application-by-job": Described(
        ApplicationByJob, (APPLICATIONS_BY_JOB,), "An application with the member's score"
    ),
    "watermark": Described(
        Watermark, (APPLICATIONS_BY_JOB,), "How far a partition of applications is"
    ),
    "label": Described(LabelMessage[AllFeatures], (LABELS,), "A training example"),
    "coefficients": Described(
        Coefficients, (COEFFICIENTS,), "What is believed of a member or job; a control record"
    ),
    "preferences": Described(JobPreferences, (PREFERENCES,), "A job's counts of terms"),
    "applicant": Described(
        Applicant, (APPLICANTS,), "An application that may still be decided, as of first sight"
    ),
    "match": Described(Match, (MATCHES,), "An application that should be seen at once"),
}
"""All messages by name; dead letters are bytes as they were received."""


def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a message.

    Raises:
        ConfigError: there is no such message.

    """
    if name not in MESSAGES:
        raise ConfigError(f"there is no message {name}{meant(name, MESSAGES)}")
    (top,), parts = msgspec.json.schema_components(
        (MESSAGES[name].struct,), ref_template="#/$defs/{name}"
    )
    own = parts.pop(top["$ref"].rpartition("/")[2])
    found = {"$schema": _DRAFT, **own, "title": name, "description": MESSAGES[name].meaning}
    whole: dict[str, Any] = _plain(found | ({"$defs": parts} if parts else {}))
    return whole


def _plain(part: Any) -> Any:
    """Take the markup of docstrings out of descriptions."""
    if isinstance(part, list):
        return [_plain(one) for one in part]
    if not isinstance(part, dict):
        return part
    found = {key: _plain(one) for key, one in part.items()}
    text = found.get("description")
    if isinstance(text, str):
        first = text.split("\n\n")[0].replace("\n", " ")
        found["description"] = _MARKUP.sub(r"\1", _ROLE.sub(r"\1", first))
    return found


def text(name: str) -> str:
    """Return a schema as a file has it."""
    return msgspec.json.format(msgspec.json.encode(schema(name)), indent=2).decode() + "\n"
