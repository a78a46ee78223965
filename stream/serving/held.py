"""What is held of applications: one of them, as it is kept, and all of a job, as they are read.

Shapes: n applicants of one job; d features of a block.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.histories.preferences import Preferred

OPEN, DECLINED, ANSWERED = 0, 1, 2
"""States of an application; labels only ever raise them."""


class Seen(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What the global model was asked: float32 bytes of its features, history, preferences."""

    global_: bytes
    history: bytes | None = None
    preferences: Preferred | None = None


class Row(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One application, as it is held.

    Blocks are float32 bytes; ``seen``: None where a ``global_score`` was sent. Without a member it
    is what a label has said of an application that has not come yet.
    """

    application_id: str
    member_id: str
    job_id: str
    time_ms: int
    model_version: str
    global_score: float
    per_member: bytes
    per_job: bytes
    seen: Seen | None
    state: int = OPEN


class Held(msgspec.Struct, frozen=True, gc=False):
    """The applicants of a job as of one moment.

    Attributes:
        version: of the job's applicants: another one after each change.
        slots: where each is (n,) int64. application_ids, member_ids: of each.
        models: versions of those that scored them. global_score, times_ms: (n,) float64.
        states: (n,). seen: what the global model was asked.

    """

    version: int
    slots: NDArray[np.int64]
    application_ids: list[str]
    member_ids: list[str]
    models: list[str]
    global_score: NDArray[np.float64]
    times_ms: NDArray[np.float64]
    states: NDArray[np.int8]
    seen: list[Seen | None]
