"""The global models that workers score with, and which of them scores an application.

Partitions say in control records which models they go by, and from which application time on. The
models themselves come with the commands that roll them in, or with a snapshot; the first one is
given. One is let go when nobody can ask about an open application that it scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.effects import JOB
from stream.events.partitioner import partition_of
from stream.events.structs import Control
from stream.model.folder import GlobalModel
from stream.policy import Policy
from stream.stages.succession import check_fits

_NEVER_MS = np.iinfo(np.int64).max
_WINDOWS_KEPT = 2  # after its last application: partitions may be behind each other in event time


class Succession(msgspec.Struct, frozen=True, gc=False):
    """Models in order of time: each scores applications from its ``from_ms`` on."""

    from_ms: tuple[int, ...]
    versions: tuple[str, ...]

    def at(self, times_ms: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the place of the model that scores an application of each time (n,)."""
        return np.maximum(np.searchsorted(self.from_ms, times_ms, side="right") - 1, 0)


class Chosen(msgspec.Struct, frozen=True, gc=False):
    """The models of n candidates.

    Attributes:
        now: scores applications that are made now.
        models: that score some candidate. of: of each, its place in ``models`` (n,); None: 0.
        complete: false where workers score a candidate with a model that is not here; then
            the given one stands for it.

    """

    now: GlobalModel
    models: list[GlobalModel]
    of: NDArray[np.intp] | None
    complete: bool

    @property
    def takes_history(self) -> bool:
        """Whether any of them does."""
        return any(model.takes_history for model in self.models)

    @property
    def takes_preferences(self) -> bool:
        """Whether any of them does."""
        return any(model.takes_preferences for model in self.models)

    def place_of(self, at: int) -> int:
        """Return the place in ``models`` of a candidate's."""
        return 0 if self.of is None else int(self.of[at])

    def model_of(self, at: int) -> GlobalModel:
        """Return the model of a candidate."""
        return self.models[self.place_of(at)]


class Models:
    """All models that are at hand; to be used from any thread.

    Args:
        given: what the service was started with; it is never let go.
        policy: for how long an application is open, and what models may take.

    Attributes:
        takes_preferences: whether any does, or did.

    """

    def __init__(self, given: GlobalModel, policy: Policy) -> None:
        self.given = given
        self.takes_preferences = given.takes_preferences
        self._policy = policy
        self._lock = Lock()
        self._held = {given.version: given}
        self._successions: dict[int, Succession] = {}
        self._different: tuple[Succession, ...] = ()
        self._newest_ms = 0
        self._let_go_ms: int = _NEVER_MS
        """The time of an application at which another model is not needed any more."""

    @property
    def rolled(self) -> list[GlobalModel]:
        """Those at hand besides the given one."""
        return [model for model in self._held.values() if model is not self.given]

    @property
    def lacking(self) -> frozenset[str]:
        """Versions of the newest models of partitions that are not at hand."""
        named = {succession.versions[-1] for succession in self._different}
        return frozenset(named - self._held.keys())

    def of(self, version: str) -> GlobalModel | None:
        """Return the one of a version; None: it is not at hand."""
        return self._held.get(version)

    def take(self, model: GlobalModel) -> None:
        """Hold a model that was rolled in.

        Raises:
            ConfigError: it cannot follow the given one.

        """
        if model.version == self.given.version:
            return
        check_fits(model, self.given, self._policy)
        model.warm_up()
        with self._lock:
            self._held = self._held | {model.version: model}
            self.takes_preferences |= model.takes_preferences
            self._plan()

    def heed(self, controls: Iterable[Control]) -> None:
        """Go by what the job partitions say: they score."""
        self._successions = {
            each.partition: Succession(
                tuple(model.from_ms for model in each.models),
                tuple(model.model_version for model in each.models),
            )
            for each in controls
            if each.effect == JOB.name and each.models
        }
        self._different = tuple(set(self._successions.values()))
        with self._lock:
            self._plan()

    def reached(self, newest_ms: int) -> None:
        """Note the time of an application; let go of models that no open one needs."""
        if newest_ms <= self._newest_ms:
            return
        self._newest_ms = newest_ms
        if newest_ms >= self._let_go_ms:
            with self._lock:
                self._plan()

    def choose(
        self,
        job_ids: Sequence[str],
        times_ms: NDArray[np.float64] | None,
        at_ms: int,
        partitions: int,
    ) -> Chosen:
        """Return who scores candidates.

        Args:
            job_ids: of each candidate, or one of all; empty: of no candidate, but all partitions.
            times_ms: when they applied (n,), NaN: they did not; None: nobody did.
            at_ms: now. partitions: how many there are.

        """
        held, different = self._held, self._different
        common = different[0] if len(different) == 1 else None
        if not different:
            return Chosen(self.given, [self.given], None, True)
        now = self._now(held, different, at_ms)
        if not job_ids:
            in_force = {_at(each, at_ms)[1] for each in different}
            return Chosen(now, [now], None, in_force <= held.keys())
        if times_ms is None:
            times_ms = np.full(1 if common is not None else len(job_ids), float(at_ms))
        else:
            times_ms = np.where(np.isnan(times_ms), at_ms, times_ms)
        versions: Sequence[str]
        if common is not None:
            versions, places = common.versions, common.at(times_ms)
        else:
            versions, places = self._of_each(different, job_ids, times_ms, partitions)
        if len(places) == 1 or (places == places[:1]).all():
            model = held.get(versions[places[0]]) if len(places) else now
            return Chosen(now, [model or self.given], None, model is not None)
        used, of = np.unique(places, return_inverse=True)
        found = [held.get(versions[place]) for place in used]
        complete = all(model is not None for model in found)
        return Chosen(now, [model or self.given for model in found], of, complete)

    def _now(
        self, held: dict[str, GlobalModel], different: tuple[Succession, ...], at_ms: int
    ) -> GlobalModel:
        """Return the newest model in force that is at hand."""
        found = [_at(each, at_ms) for each in different]
        version = max(found)[1] if found else self.given.version
        return held.get(version, self.given)

    def _of_each(
        self,
        different: tuple[Succession, ...],
        job_ids: Sequence[str],
        times_ms: NDArray[np.float64],
        partitions: int,
    ) -> tuple[list[str], NDArray[np.intp]]:
        """Versions, and the place of each candidate's, where partitions do not say the same.

        One that says nothing has published nothing: it will go by what was rolled in last.
        """
        versions: dict[str, int] = {}
        newest = max(different, key=lambda each: each.from_ms[-1])
        size = max(len(times_ms), len(job_ids))
        places = np.zeros(size, np.intp)
        of_jobs = [partition_of(each.encode(), partitions) for each in job_ids]
        numbers = np.broadcast_to(np.array(of_jobs), size)
        times_ms = np.broadcast_to(times_ms, size)
        for number in set(of_jobs):
            succession = self._successions.get(number, newest)
            own = np.array(
                [versions.setdefault(each, len(versions)) for each in succession.versions]
            )
            there = numbers == number
            places[there] = own[succession.at(times_ms[there])]
        return list(versions), places

    def _plan(self) -> None:
        """Let go of what is over, and note what is next; with the lock."""
        kept_ms = _WINDOWS_KEPT * self._policy.labels.window_ms
        over_ms: dict[str, int] = {}
        for succession in self._different:
            ends_ms = *(at_ms + kept_ms for at_ms in succession.from_ms[1:]), _NEVER_MS
            for version, end_ms in zip(succession.versions, ends_ms, strict=True):
                over_ms[version] = max(over_ms.get(version, 0), end_ms)
        over_ms.pop(self.given.version, None)
        over = {version for version, end_ms in over_ms.items() if end_ms <= self._newest_ms}
        self._held = {name: model for name, model in self._held.items() if name not in over}
        left = (over_ms[version] for version in self._held if version in over_ms)
        self._let_go_ms = min(left, default=_NEVER_MS)


def _at(succession: Succession, at_ms: int) -> tuple[int, str]:
    """Return since when a model is in force at a time, and its version."""
    (place,) = succession.at(np.array([float(at_ms)])).tolist()
    return succession.from_ms[place], succession.versions[place]
