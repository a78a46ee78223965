"""What the machine gives (:data:`Step`), labels made of it, and fingerprints that tell a repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from stream.errors import ConflictError
from stream.events.ladder import KINDS, NAMES, Kind, target
from stream.events.structs import (
    Application,
    DeadLetter,
    Engagement,
    FurtherScores,
    JobEvent,
    Label,
    Scored,
)
from stream.histories.preferences import Preferred
from stream.state.facts import Deadline, Facts
from stream.state.waiting import Waits

_DIGEST_BYTES = 16
_CANONICAL = msgspec.msgpack.Encoder(order="deterministic").encode


class Scores(msgspec.Struct, Scored, frozen=True, gc=False):
    """Log-odds of an application as of its first sight, and what had happened by then.

    ``history`` is float32 bytes of shape (36,), ``preferences`` are the job's among its terms;
    ``model`` is the number of the global model that scored it.
    """

    global_score: float
    member_score: float
    job_score: float
    further_scores: FurtherScores | None = None
    history: bytes | None = None
    preferences: Preferred | None = None
    model: int = 0


class Change(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An application's label climbed, or its window closed.

    ``facts`` are those after the change; ``previous_weight`` is what the label before it counted.
    ``label`` is False for the one closing that says nothing new: that of a positive. ``closed``
    says that the window has closed: the label is the truth. ``declined_time_ms``: when it had been
    declined before it was answered, where both were read before it was.
    """

    job_id: str
    application_id: str
    facts: Facts
    previous: Kind = Kind.PENDING
    previous_rule: str | None = None
    previous_weight: float = 1.0
    final: bool
    evidence_time_ms: int | None
    label_time_ms: int
    label: bool = True
    closed: bool = False
    declined_time_ms: int | None = None

    @property
    def kind(self) -> Kind:
        """The kind after the change."""
        return KINDS[self.facts.kind]


class Entered(msgspec.Struct, frozen=True, gc=False):
    """An application is new and in time: these are its scores."""

    application: Application
    scores: Scores

    @property
    def waits(self) -> Waits:
        """Return what of it is ranked."""
        app, scores = self.application, self.scores
        fixed = scores.global_score + sum((scores.further_scores or {}).values())
        return Waits(app.event_time_ms, fixed, scores.member_score, app.features.per_job)


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The watermark has ended something that has no label and is no dead letter.

    ``marker``: the deadline of an application of which nothing is known any more.
    """

    marker: Deadline | None = None


class Ignored(msgspec.Struct, frozen=True, gc=False):
    """Something that changes no label was read; it is counted under ``reason``."""

    reason: str


Step = Change | DeadLetter | Ended | Ignored | Entered
"""What the machine gives, in the order in which it happens."""

Decide = Callable[[str, str, Waits, int], None]
"""Is told of a decision: job, application, how that one is ranked, and the answer's time (ms)."""


def unscored(_: Application) -> Scores:
    """Scores of an application where labels are all that is wanted."""
    return Scores(0.0, 0.0, 0.0)


def unheeded(_job_id: str, _application_id: str, _answered: Waits, _at_ms: int) -> None:
    """A decision is of no interest."""


def label_of(change: Change, versions: Sequence[str]) -> Label:
    """Self-contained training example of a change; ``versions`` of the models, by number."""
    facts, previous = change.facts, change.previous
    kind = facts.kind
    return Label(  # in order: 20 names cost 1.1 µs more, 3 % of what an event costs the label stage
        change.application_id,
        facts.member_id,
        change.job_id,
        target(kind),
        NAMES[kind],
        NAMES[previous] if previous else None,
        facts.rule,
        change.final,
        facts.weight,
        facts.event_time_ms,
        change.evidence_time_ms,
        change.label_time_ms,
        versions[facts.model],
        facts.per_member,
        facts.per_job,
        facts.global_score,
        facts.member_score,
        facts.job_score,
        facts.channel,
        facts.terms,
        facts.further_scores,
        change.previous_weight if previous else None,
        facts.history,
        facts.preferences,
        versions[0] if facts.model else None,
        facts.global_,
        change.declined_time_ms,
    )


def application_digest(app: Application) -> bytes:
    """Fingerprint of the producer's fields, 16 bytes; scores attached on the way don't count."""
    features = app.features
    content: tuple[object, ...] = (
        app.application_id,
        app.member_id,
        app.job_id,
        app.event_time_ms,
        features.global_,
        features.per_member,
        features.per_job,
        app.global_score,
        app.channel,
        app.terms,
    )
    # States of earlier releases have the fingerprints of applications without attributes.
    return _digest(content if app.attributes is None else (*content, app.attributes))


def event_digest(event: Engagement | JobEvent) -> bytes:
    """Fingerprint of an event's content, 16 bytes."""
    return _digest(msgspec.structs.astuple(event))


def _digest(content: tuple[object, ...]) -> bytes:
    return hashlib.blake2b(_CANONICAL(content), digest_size=_DIGEST_BYTES).digest()


def check_repeat(what: str, name: str, job_id: str, known: bytes, digest: bytes) -> None:
    """Refuse an event that was read before with other content."""
    if known != digest:
        raise ConflictError(f"{what} {name} of job {job_id} was read before with other content")
