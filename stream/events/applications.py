"""Applications as they are sent, and where they enter: their feature blocks are packed, or made.

A model that has a spec makes the blocks of an application's attributes (:mod:`stream.features`) and
does not look at those that were sent; any other takes these. After that nobody knows attributes but
by their fingerprint, which tells a repeat from a conflict.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec

from stream.errors import InvalidFeaturesError
from stream.events.structs import Application, Features, Id, Name, TimeMs
from stream.features.blocks import FeatureSpace, RawBlock, check_size
from stream.features.making import Maker
from stream.histories.preferences import Terms

Attributes = dict[str, Any]
"""What is said of a member, a job or the occasion, as JSON: :mod:`stream.features` reads it."""

_FINGERPRINT_BYTES: Final = 8


_CANONICAL: Final = msgspec.json.Encoder(order="deterministic").encode


class RawFeatures(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, rename={"global_": "global"}
):
    """Feature blocks as sent: lists or objects, checked for numbers only."""

    global_: RawBlock | None = None
    per_member: RawBlock
    per_job: RawBlock


class ApplicationFields(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="type", tag="application"
):
    """What an application has on all its way."""

    application_id: Id
    member_id: Id
    job_id: Id
    event_time_ms: TimeMs
    features: RawFeatures | None = None
    global_score: float | None = None
    channel: Name | None = None
    terms: Terms | None = None


class RawApplication(ApplicationFields, frozen=True, gc=False, kw_only=True, tag="application"):
    """An application as sent; ``member``, ``job`` and ``context`` are attributes of any kind."""

    member: Attributes | None = None
    job: Attributes | None = None
    context: Attributes | None = None


def attributes_fingerprint(raw: RawApplication) -> bytes | None:
    """Bytes (8) that tell attributes from others; None: none were sent."""
    sent = raw.member, raw.job, raw.context
    if sent == (None, None, None):
        return None
    return blake2b(_CANONICAL(sent), digest_size=_FINGERPRINT_BYTES).digest()


def entered(raw: RawApplication, space: FeatureSpace) -> Application:
    """Make an application of one that was sent.

    Raises:
        InvalidFeaturesError: it does not have what the model takes.

    """
    attributes = attributes_fingerprint(raw)
    if space.maker is None:
        return packed(raw, space, attributes)
    return _made(raw, space.maker, space.limit, attributes)


def _made(
    raw: RawApplication, maker: Maker, limit: float | None, attributes: bytes | None
) -> Application:
    """Make an application whose blocks follow from its attributes; those sent are not looked at."""
    if attributes is None:
        raise InvalidFeaturesError(
            "no attributes (member, job, context), of which the model makes its features"
        )
    if raw.global_score is not None and limit is not None:
        check_size("global_score", (raw.global_score,), limit)
    member = raw.member or {}
    blocks = maker.blocks(member, raw.job or {}, raw.context or {}, raw.event_time_ms)
    terms = maker.terms(member)
    return Application(
        raw.application_id,
        raw.member_id,
        raw.job_id,
        raw.event_time_ms,
        Features(*blocks),
        raw.global_score,
        raw.channel,
        terms | (raw.terms or {}) if terms else raw.terms,
        attributes,
    )


def packed(raw: ApplicationFields, space: FeatureSpace, attributes: bytes | None) -> Application:
    """Pack the feature blocks that an application brings.

    Args:
        raw: the application. space: the blocks' names. attributes: its fingerprint.

    Raises:
        InvalidFeaturesError: a block is missing, or is not of the model's features.

    """
    features = raw.features
    if features is None:
        raise InvalidFeaturesError(
            "neither features, nor a model that makes them of attributes (hearback train --spec)"
            if attributes is not None
            else "no features are there"
        )
    packed_global: bytes | None = None
    if features.global_ is not None and space.global_ is not None:
        packed_global = space.global_.pack(features.global_)
    elif raw.global_score is None and space.global_ is not None:
        raise InvalidFeaturesError("neither features.global nor global_score is there")
    if raw.global_score is not None and space.limit is not None:
        check_size("global_score", (raw.global_score,), space.limit)
    return Application(
        raw.application_id,
        raw.member_id,
        raw.job_id,
        raw.event_time_ms,
        Features(
            packed_global,
            space.per_member.pack(features.per_member),
            space.per_job.pack(features.per_job),
        ),
        raw.global_score,
        raw.channel,
        raw.terms,
        attributes,
    )
