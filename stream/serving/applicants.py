"""The applicants of open jobs in this process: one writer takes messages in, any thread reads.

Rows are held in arrays, with a slot for each application; a tombstone frees it. As in
:class:`~stream.serving.embedded.EmbeddedStore` the writer enters some rows at a time, and readers
copy theirs, each while the other waits.

Labels and applicants come from two topics, so a label may be read before the application that it is
about. It waits then, until twice all was read that had been written (:meth:`Applicants.settle`):
by then its application is there, or none is held. Most labels of a topic are of nobody who is open
any more; its reader says where none has to wait (:attr:`Applicants.expects`).

Shapes: n applicants of one job; d features of a block.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.errors import EventError, StateError
from stream.events.applicants import (
    Applicant,
    Decision,
    decode_applicant,
    decode_applicants_key,
    decode_decision,
)
from stream.events.ladder import Kind
from stream.events.records import APPLICANTS, LABELS
from stream.events.wire import packed_numbers
from stream.features.blocks import FeatureSpace
from stream.histories.history import NAMES
from stream.partitions.jumps import JumpGuard, Jumps, max_jump_ms
from stream.policy import Policy
from stream.serving.held import ANSWERED, DECLINED, OPEN, Held, Row, Seen
from stream.serving.jobs import Job, Jobs, with_most
from stream.serving.messages import JobFound

_FREE: Final = -1
_STATES = {Kind.NEGATIVE_EXPLICIT.wire: DECLINED, Kind.POSITIVE.wire: ANSWERED}
_FIRST_ROWS = 1024
_ARRAYS = ("times_ms", "global_score", "numbers", "states", "counted", "per_member", "per_job")
_AT_ONCE = 64  # rows that are entered while readers wait
_COUNTED_AT_ONCE = 1 << 16  # slots, while all wait: a tenth of a millisecond

Records = Sequence[tuple[bytes, bytes | None]]
"""Key and value of each; a tombstone has no value."""

_Floats32 = NDArray[np.float32]


class Applicants:
    """Open jobs' applicants.

    Args:
        space: the model's blocks. policy: the window, and how far event time may jump.

    Attributes:
        window_ms: W. left_out: messages that were not taken, by reason.
        expects: whether labels may come before their applications; the writer knows.
        newest_ms: the largest event time read; None: nothing was. A time that is far ahead of all
            others counts when others confirm it (:mod:`stream.partitions.jumps`).

    """

    def __init__(self, space: FeatureSpace, policy: Policy) -> None:
        self._space = space
        self.window_ms = policy.labels.window_ms
        self._guard = JumpGuard(max_jump_ms(policy))
        self._lock = Lock()
        self._search = Lock()
        self._open_from_ms: int = np.iinfo(np.int64).min
        """Applications of this time or later are counted as open, if they are not decided."""
        self._changes = 0
        self.left_out: Counter[str] = Counter()
        self.expects = True
        self.clear()

    def clear(self) -> None:
        """Forget everybody."""
        with self._lock:
            self._jobs = Jobs()
            self._used = 0  # slots; those from here on were never used
            self._free: list[int] = []
            self._early: dict[tuple[str, str], int] = {}
            self._earlier: dict[tuple[str, str], int] = {}
            self._jumps = Jumps()
            self.newest_ms: int | None = None
            self._member_ids: list[str] = []
            self._models: list[str] = []
            self._seen: list[Seen | None] = []
            self._times_ms = np.zeros(_FIRST_ROWS, np.int64)
            self._global_score = np.zeros(_FIRST_ROWS)
            self._numbers = np.zeros(_FIRST_ROWS, np.int32)
            self._states = np.full(_FIRST_ROWS, _FREE, np.int8)
            self._counted = np.zeros(_FIRST_ROWS, np.bool_)  # as open
            self._per_member = np.zeros((_FIRST_ROWS, self._space.per_member.size), np.float32)
            self._per_job = np.zeros((_FIRST_ROWS, self._space.per_job.size), np.float32)

    def __len__(self) -> int:
        """How many applications are held."""
        return self._used - len(self._free)

    # -- what the writer does ----------------------------------------------------------------

    @property
    def topics(self) -> dict[str, Callable[[Records], None]]:
        """Which they are fed from, by plain name, and what takes their messages in.

        Ends are asked for in this order: the application of a label that was there by then was.
        """
        return {
            LABELS: lambda records: self.decide(records, _now_ms()),
            APPLICANTS: lambda records: self.apply(records, _now_ms()),
        }

    def apply(self, records: Records, now_ms: int) -> None:
        """Take messages of ``applicants`` in, in their order; ``now_ms``: the wall clock."""
        found: list[Row | tuple[str, str]] = []
        for key, value in records:
            try:
                job_id, application_id = decode_applicants_key(key)
                if value is None:
                    found.append((job_id, application_id))
                    continue
                applicant = decode_applicant(value)
                if (applicant.job_id, applicant.application_id) != (job_id, application_id):
                    raise EventError("key and value are of two applications")
                found.append(self._row(applicant))
            except EventError as error:
                self.left_out[error.reason] += 1
        for row in found:
            if isinstance(row, Row):
                self._observe(row.time_ms, now_ms)
        for first in range(0, len(found), _AT_ONCE):
            with self._lock:
                for row in found[first : first + _AT_ONCE]:
                    if isinstance(row, Row):
                        self._put(row)
                    else:
                        self._remove(*row)

    def decide(self, records: Records, now_ms: int) -> None:
        """Take messages of ``labels`` in: who was answered, or declined."""
        decided: list[tuple[Decision, int]] = []
        for _, value in records:
            try:
                label = decode_decision(value or b"")
            except EventError as error:
                self.left_out[error.reason] += 1
                continue
            self._observe(label.label_time_ms, now_ms)
            state = _STATES.get(label.kind)
            if state is not None:
                decided.append((label, state))
        for first in range(0, len(decided), _AT_ONCE):
            with self._lock:
                for label, state in decided[first : first + _AT_ONCE]:
                    self._raise(label, state)

    def settle(self) -> None:
        """Note that all was read that had been written: labels of nobody are let go in time."""
        self._earlier, self._early = self._early, {}

    def restore(self, rows: Sequence[Row], newest_ms: int | None) -> None:
        """Enter rows that :meth:`rows` has given.

        Raises:
            StateError: they do not fit the model.

        """
        sizes = [4 * self._space.per_member.size, 4 * self._space.per_job.size]
        with self._lock:
            for row in rows:
                if not row.member_id:
                    self._early[row.job_id, row.application_id] = row.state
                    continue
                if [len(row.per_member), len(row.per_job)] != sizes:
                    raise StateError("applicants have other features")
                self._put(row)
        self.newest_ms = newest_ms

    # -- what anybody may ask ----------------------------------------------------------------

    def of_job(self, job_id: str) -> Held | None:
        """Copy the applicants of a job, without their features; None: none is held."""
        with self._lock:
            job = self._jobs.by_id.get(job_id)
            if job is None:
                return None
            slots = np.fromiter(job.slots.values(), np.int64, len(job.slots))
            return Held(
                job.version,
                slots,
                list(job.slots),
                list(map(self._member_ids.__getitem__, job.slots.values())),
                list(map(self._models.__getitem__, job.slots.values())),
                self._global_score[slots],
                self._times_ms[slots].astype(np.float64),
                self._states[slots],
                list(map(self._seen.__getitem__, job.slots.values())),
            )

    def blocks(self, job_id: str, held: Held) -> tuple[_Floats32, _Floats32] | None:
        """Copy the features of a job's applicants, both blocks (n, d); None: they have changed."""
        with self._lock:
            if self.version_of(job_id) != held.version:
                return None
            return self._per_member.take(held.slots, axis=0), self._per_job.take(held.slots, axis=0)

    def version_of(self, job_id: str) -> int | None:
        """Return the version of a job's applicants; None: none is held."""
        job = self._jobs.by_id.get(job_id)
        return None if job is None else job.version

    def search(self, text: str, limit: int, at_ms: int) -> list[JobFound]:
        """Find the jobs whose id has a text in it: those with most open applicants, by id."""
        with self._search:
            self._count(at_ms - self.window_ms)
            with self._lock:
                ids, open_ = self._jobs.counted()
        found = with_most(ids, open_, text, limit)
        told: list[JobFound] = []
        for first in range(0, len(found), _AT_ONCE):
            with self._lock:
                for job_id, count in found[first : first + _AT_ONCE]:
                    job = self._jobs.by_id.get(job_id)
                    if job is not None:
                        newest_ms = job.newest(self._times_ms)
                        told.append(JobFound(job_id, count, len(job.slots), newest_ms))
        return told

    def rows(self) -> Iterator[Row]:
        """Give all that is held, as the writer has it."""
        for job_id, job in self._jobs.by_id.items():
            for application_id, slot in job.slots.items():
                yield Row(
                    application_id,
                    self._member_ids[slot],
                    job_id,
                    int(self._times_ms[slot]),
                    self._models[slot],
                    float(self._global_score[slot]),
                    self._per_member[slot].tobytes(),
                    self._per_job[slot].tobytes(),
                    self._seen[slot],
                    int(self._states[slot]),
                )
        for (job_id, application_id), state in (self._earlier | self._early).items():
            yield Row(application_id, "", job_id, 0, "", 0.0, b"", b"", None, state)

    def as_of_ms(self, now_ms: int) -> int:
        """When ages count where nobody says: now, or, in a market of the past, its own now.

        A market is one of the past where by the wall clock all windows are over. Now is the second.
        """
        newest_ms = self.newest_ms
        if newest_ms is not None and newest_ms < now_ms - self.window_ms:
            return newest_ms
        return now_ms - now_ms % 1000

    # -- slots -------------------------------------------------------------------------------

    def _row(self, applicant: Applicant) -> Row:
        space, features = self._space, applicant.features
        seen = None
        if space.global_ is not None and isinstance(features.global_, list):
            seen = Seen(
                space.global_.pack(features.global_),
                packed_numbers(features.history, len(NAMES)),
                features.preferences or None,
            )
        return Row(
            applicant.application_id,
            applicant.member_id,
            applicant.job_id,
            applicant.application_time_ms,
            applicant.model_version,
            applicant.global_score,
            space.per_member.pack(features.per_member),
            space.per_job.pack(features.per_job),
            seen,
        )

    def _observe(self, time_ms: int, now_ms: int) -> None:
        newest_ms = self._guard.take(self._jumps, self.newest_ms, time_ms, now_ms)
        if newest_ms is not None and (self.newest_ms is None or newest_ms > self.newest_ms):
            self.newest_ms = newest_ms

    def _put(self, row: Row) -> None:
        job = self._jobs.by_id.get(row.job_id) or self._jobs.add(row.job_id)
        slot = job.slots.get(row.application_id)
        state = row.state
        if slot is None:
            slot = job.slots[row.application_id] = self._slot()
            name = row.job_id, row.application_id
            early = self._early.pop(name, OPEN), self._earlier.pop(name, OPEN)
            state = max(state, *early)
        else:
            state = max(state, int(self._states[slot]))
            self._leave(job, slot)
        self._member_ids[slot] = row.member_id
        self._models[slot] = row.model_version
        self._seen[slot] = row.seen
        self._times_ms[slot] = row.time_ms
        self._global_score[slot] = row.global_score
        self._numbers[slot] = job.number
        self._states[slot] = state
        self._per_member[slot] = np.frombuffer(row.per_member, "<f4")
        self._per_job[slot] = np.frombuffer(row.per_job, "<f4")
        if job.newest_ms is not None:
            job.newest_ms = max(job.newest_ms, row.time_ms)
        if state == OPEN and row.time_ms >= self._open_from_ms:
            self._counted[slot] = True
            self._jobs.open[job.number] += 1
        self._changed(job)

    def _leave(self, job: Job, slot: int) -> None:
        """Count what is in a slot no more, neither as open nor as the newest."""
        if self._counted[slot]:
            self._counted[slot] = False
            self._jobs.open[job.number] -= 1
        if job.newest_ms == self._times_ms[slot]:
            job.newest_ms = None

    def _remove(self, job_id: str, application_id: str) -> None:
        job = self._jobs.by_id.get(job_id)
        slot = None if job is None else job.slots.pop(application_id, None)
        if job is None or slot is None:
            return
        self._leave(job, slot)
        self._states[slot] = _FREE
        self._member_ids[slot] = self._models[slot] = ""
        self._seen[slot] = None
        self._free.append(slot)
        self._changed(job)
        if not job.slots:
            self._jobs.remove(job_id)

    def _raise(self, label: Decision, state: int) -> None:
        job = self._jobs.by_id.get(label.job_id)
        slot = None if job is None else job.slots.get(label.application_id)
        if job is None or slot is None:
            if self.expects:
                name = label.job_id, label.application_id
                self._early[name] = max(state, self._early.get(name, OPEN))
        elif state > self._states[slot] and label.label_time_ms >= self._times_ms[slot]:
            # An earlier label is of one with the same id that was forgotten.
            self._leave(job, slot)
            self._states[slot] = state
            self._changed(job)

    def _changed(self, job: Job) -> None:
        self._changes += 1
        job.version = self._changes

    def _count(self, from_ms: int) -> None:
        """Count as open what is of a time or later, a part of the slots at once."""
        if from_ms == self._open_from_ms:
            return
        with self._lock:
            self._open_from_ms = from_ms
        for first in range(0, self._used, _COUNTED_AT_ONCE):
            with self._lock:
                part = slice(first, min(first + _COUNTED_AT_ONCE, self._used))
                open_ = (self._states[part] == OPEN) & (self._times_ms[part] >= from_ms)
                changed = np.flatnonzero(open_ != self._counted[part])
                np.add.at(
                    self._jobs.open,
                    self._numbers[part][changed],
                    np.where(open_[changed], np.int32(1), np.int32(-1)),
                )
                self._counted[part] = open_

    def _slot(self) -> int:
        if self._free:
            return self._free.pop()
        slot = self._used
        self._used += 1
        self._member_ids.append("")
        self._models.append("")
        self._seen.append(None)
        if slot == len(self._states):
            for name in _ARRAYS:
                setattr(self, f"_{name}", _larger(getattr(self, f"_{name}")))
            self._states[slot:] = _FREE
        return slot


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _larger(array: NDArray[np.generic]) -> NDArray[np.generic]:
    larger = np.zeros((2 * len(array), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
