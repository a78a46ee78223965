"""The jobs whose applicants are held: where these are, and how many of them are open.

What is open is counted as it changes, so that finding jobs takes the writer's lock only for as long
as it takes to copy a number of each. All that is here is done with that lock held, but for
:func:`with_most`.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest
from typing import Final

import numpy as np
from numpy.typing import NDArray

_FIRST_JOBS: Final = 1024
_NONE: Final = -1


class Job:
    """Slots by application.

    Attributes:
        number: its place in arrays. version: the number of the last change.
        newest_ms: the largest time of its applications; None: it has to be looked for.

    """

    __slots__ = ("newest_ms", "number", "slots", "version")

    def __init__(self, number: int) -> None:
        self.number = number
        self.slots: dict[str, int] = {}
        self.version = 0
        self.newest_ms: int | None = 0

    def newest(self, times_ms: NDArray[np.int64]) -> int:
        """Return the largest time of its applications, given those of all slots."""
        if self.newest_ms is None:
            slots = np.fromiter(self.slots.values(), np.int64, len(self.slots))
            self.newest_ms = int(times_ms[slots].max())
        return self.newest_ms


class Jobs:
    """All of them.

    Attributes:
        by_id: each. open: how many applications are, by number (j,); -1 where there is no job.

    """

    def __init__(self) -> None:
        self.by_id: dict[str, Job] = {}
        self.open = np.full(_FIRST_JOBS, _NONE, np.int32)
        self._ids: list[str] = []
        self._free: list[int] = []

    def add(self, job_id: str) -> Job:
        """Make room for a job."""
        if self._free:
            number = self._free.pop()
            self._ids[number] = job_id
        else:
            number = len(self._ids)
            self._ids.append(job_id)
            if number == len(self.open):
                self.open = np.concatenate([self.open, np.full_like(self.open, _NONE)])
        self.open[number] = 0
        job = self.by_id[job_id] = Job(number)
        return job

    def remove(self, job_id: str) -> None:
        """Forget a job."""
        number = self.by_id.pop(job_id).number
        self.open[number] = _NONE
        self._ids[number] = ""
        self._free.append(number)

    def counted(self) -> tuple[list[str], NDArray[np.int32]]:
        """Copy ids and how many are open, by number."""
        return self._ids.copy(), self.open[: len(self._ids)].copy()


def with_most(
    ids: Sequence[str], open_: NDArray[np.int32], text: str, limit: int
) -> list[tuple[str, int]]:
    """Return the jobs whose id has a text in it, and how many are open of each.

    Args:
        ids, open_: as :meth:`Jobs.counted` gives them. text: what is looked for.
        limit: so many, those with most open ones; of equals the first by id.

    """
    at = np.flatnonzero(open_ != _NONE)
    if text:
        at = at[np.array([text in ids[number] for number in at.tolist()], bool)]
    counts = open_[at]
    least = int(np.partition(counts, -limit)[-limit]) if limit < len(at) else _NONE
    more = counts > least
    above = sorted(
        (-count, ids[number])
        for count, number in zip(counts[more].tolist(), at[more].tolist(), strict=True)
    )
    equal = (ids[number] for number in at[counts == least].tolist())
    found = [(job_id, -fewer) for fewer, job_id in above]
    return found + [(job_id, least) for job_id in nsmallest(limit - len(found), equal)]
