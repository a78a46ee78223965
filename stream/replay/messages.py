"""What the processes of one replay say to each other: MessagePack of arrays, never pickles.

========  ==============  =====================================================================
from      to              what
========  ==============  =====================================================================
parent    worker          ``Batch``: events up to the next barrier; ``Finish``
worker    worker          scores and histories that were asked for, in the order of the asking
worker    worker          ``Labels`` of the other's members
worker    parent          ``Output``: lines of the files; ``Saved``; ``Finished``, then ``Lines``
                          until an empty one for each effect; ``Failed`` in the place of any
========  ==============  =====================================================================

``sequence`` numbers count the events and dead letters of the log in the order of their application;
they decide in which order what comes from several workers is learned and written.
"""

from __future__ import annotations

import msgspec

from stream.events.structs import Application, Engagement, Forget, JobEvent, Label, Source
from stream.model.folder import Manifest
from stream.policy import Policy
from stream.replay.run_folder import RunCounts


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event of the jobs of a share, with the whole log's watermark before it.

    A ``Forget`` is of a job. ``owner`` is the share of an application's member.
    """

    sequence: int
    watermark_ms: int | None
    source: Source
    owner: int
    event: Application | Engagement | JobEvent | Forget


class Asked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The score of a member is asked for, with float32 features of shape (d,), and its history.

    The rest is the application's, and the whole log's watermark before it.
    """

    member_id: str
    z: bytes
    job_id: str
    application_id: str
    event_time_ms: int
    watermark_ms: int | None


class Batch(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The events of one share between two barriers.

    ``asked`` are by the share that asks; ``forgotten`` are (member, time), of all shares.
    ``sequence`` and ``watermark_ms`` are those after the last event of all shares. ``flush``: write
    the state then.
    ``state`` is where a copy of it goes then, and ``judged`` where the scores whose truth is known
    (None: no checkpoint).
    """

    items: list[Item]
    asked: list[list[Asked]]
    forgotten: list[tuple[str, int]]
    sequence: int
    watermark_ms: int | None
    flush: bool
    state: str | None = None
    judged: str | None = None


class Finish(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The log has ended; sum up and send the coefficients."""


class Labels(msgspec.Struct, frozen=True, array_like=True):
    """Labels of another share's members; ``more``: this barrier has another round."""

    more: bool
    sequences: list[int]
    labels: list[Label]


class Output(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Lines of the files, each with its sequence number; ``more``: of this barrier come more."""

    more: bool
    labels: tuple[list[int], list[bytes]]
    scores: tuple[list[int], list[bytes]]
    dead_letters: tuple[list[int], list[bytes]]


class Saved(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A share is in the checkpoint, with so many judged rows."""

    counts: RunCounts
    judged: int


class Finished(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What a share has counted, and its judged rows (of ``Prequential``)."""

    counts: RunCounts
    rows: bytes


class Lines(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Coefficients in order of their entities; none: those of the effect are all sent."""

    keys: list[bytes]
    lines: list[bytes]


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A worker cannot go on; one line that says why."""

    message: str


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told first.

    ``state`` is the folder of its state, there already when the replay goes on; then ``counts`` and
    ``rows`` are what it had counted. ``model`` is the manifest of the global model, None where
    there is none, and ``arrays`` what its file holds; ``rolls`` are those that follow it.
    """

    share: int
    shares: int
    state: str
    model: Manifest | None
    arrays: bytes
    rolls: list[tuple[Manifest, bytes, int]]
    policy: Policy
    per_member: list[str]
    per_job: list[str]
    score_from_ms: int
    counts: RunCounts | None = None
    rows: bytes = b""


ToWorker = Setup | Batch | Finish
FromWorker = Output | Saved | Finished | Lines | Failed

encode = msgspec.msgpack.Encoder().encode
setup_decoder = msgspec.msgpack.Decoder(Setup)
to_worker = msgspec.msgpack.Decoder(Batch | Finish)
from_worker = msgspec.msgpack.Decoder(FromWorker)
labels_decoder = msgspec.msgpack.Decoder(Labels)
