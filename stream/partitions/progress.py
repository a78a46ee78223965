"""What a store says of itself: whose it is, and how far its partition has read."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stream.errors import StateError
from stream.features.blocks import FeatureSpace
from stream.partitions.clock import Channel, EventTime
from stream.policy import EffectSettings, Policy
from stream.state import keys
from stream.state.codec import Codec
from stream.state.facts import Count
from stream.state.overlay import Overlay
from stream.state.store import Store

FORMAT = 1
"""Version of a store's keys as a whole (values have their own)."""

_IDENTITY = keys.own("identity")
_PROGRESS = keys.own("progress")

LAST_OF_UNIT = frozenset({_IDENTITY, _PROGRESS})
"""Keys of which each unit of work writes one or both, and sends them last."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which model and features a store was learned with."""

    format: int
    model_version: str
    features: dict[str, list[str]]
    effects: dict[str, EffectSettings]
    partitions: int | None = None
    topic_ids: dict[str, str] = {}
    """What Kafka calls the topics of this life of theirs; empty where the broker has no ids."""


class Progress(msgspec.Struct, array_like=True, kw_only=True):
    """How far a partition has read: next offsets by topic, and its event time."""

    positions: dict[str, Count]
    event_time: EventTime


IDENTITY = Codec[Identity](Identity, unversioned=msgspec.json.Decoder(Identity))


class _Earlier(msgspec.Struct, array_like=True):
    """A progress of earlier releases: of each channel a mark, and whether it was idle."""

    positions: dict[str, Count]
    channels: tuple[list[int | None], list[bool], int | None]


def _sound(progress: Progress) -> bool:
    """There are channels, and marks that wait are sorted."""
    channels = progress.event_time.channels
    waiting = [channel.jumps.waiting for channel in channels if channel.jumps is not None]
    return bool(channels) and all(marks == sorted(marks) for marks in waiting)


PROGRESS = Codec[Progress](Progress, version=2, sound=_sound)
_EARLIER = Codec[_Earlier](_Earlier, unversioned=msgspec.msgpack.Decoder(_Earlier))


def save_identity(
    overlay: Overlay,
    model_version: str,
    space: FeatureSpace,
    policy: Policy,
    *,
    partitions: int | None = None,
    topic_ids: Mapping[str, str] | None = None,
) -> None:
    """Say in the store whose it is, if it does not say the same already."""
    identity = Identity(
        format=FORMAT,
        model_version=model_version,
        features={spec.block: list(space.block(spec.block).names) for spec in policy.declared},
        effects=policy.effects,
        partitions=partitions,
        topic_ids=dict(topic_ids or {}),
    )
    known = overlay.get(_IDENTITY)
    if known is None or IDENTITY.decode(known) != identity:
        overlay.put(*identity_entry(identity))


def identity_entry(identity: Identity) -> tuple[bytes, bytes]:
    """Key and value of an identity."""
    return _IDENTITY, IDENTITY.encode(identity)


def load_identity(store: Store) -> Identity | None:
    """Read whose a store is; None for an empty one.

    Raises:
        StateError: it is of another format, or damaged.

    """
    value = store.get(_IDENTITY)
    if value is None:
        return None
    identity = IDENTITY.decode(value)
    if identity.format != FORMAT:
        raise StateError(
            f"the state has format {identity.format}, this release reads {FORMAT}:"
            " use the release that wrote it, or start from an empty folder"
        )
    return identity


def save_progress(overlay: Overlay, encoded: bytes) -> None:
    """Say in the store how far its partition has read."""
    overlay.put(_PROGRESS, encoded)


def progress_entry(progress: Progress) -> tuple[bytes, bytes]:
    """Key and value of a progress."""
    return _PROGRESS, PROGRESS.encode(progress)


def decode_progress(value: bytes) -> Progress:
    """Bytes → progress; that an earlier release took a channel for idle is not believed."""
    if value[:1] == PROGRESS.prefix:
        return PROGRESS.decode(value)
    earlier = _EARLIER.decode(value)
    marks, _, watermark_ms = earlier.channels
    channels = [Channel(mark_ms, mark_ms) for mark_ms in marks]
    return Progress(positions=earlier.positions, event_time=EventTime(channels, watermark_ms))


def load_progress(store: Store) -> Progress | None:
    """Read how far a partition has read; None for an empty store."""
    value = store.get(_PROGRESS)
    return None if value is None else decode_progress(value)
