"""All that is published, in this process: one writer takes messages in, any thread reads.

The writer enters some rows at a time and readers copy theirs, each while the other waits, so that
nobody sees half of a row. What takes long (decoding, larger arrays) is done before.

**Which model.** Coefficients say which global model they are of. Those of another than the given
one are held, but not served, unless the partitions' control records name both models: then one was
rolled in for the other, and what was learned goes on. Control records may come after the
coefficients that they are about.

**The gate.** While a partition's gate is shut, what it has published of the effect is older than
what it knows, and has made scores worse. Its entities count as not known until it opens.

**Preferences** are kept once there is a model that takes them, as the bytes that were published: as
objects a job's counts take five times as much memory, and a question asks for few jobs. The few
that were asked for last are kept as objects too: to read one of 2,000 terms takes 0.9 ms.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import lru_cache
from threading import Lock

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import EventError, QuestionError
from stream.events.partitioner import partition_of
from stream.events.records import COEFFICIENTS, PREFERENCES
from stream.events.structs import CONTROL, MAX_ID_CHARS, Coefficients, Control
from stream.events.wire import decode_coefficients, decode_preferences
from stream.histories.preferences import Preferences
from stream.model.folder import GlobalModel
from stream.policy import Policy
from stream.serving.applicants import Applicants, Records
from stream.serving.models import Chosen, Models
from stream.serving.positions import Position, Waits
from stream.serving.store import Found, Standing
from stream.serving.table import Places, Table

_AT_ONCE = 64  # rows that are entered while readers wait: some 100 µs
_MOST_COUNTS = 32  # jobs' preferences that are kept decoded: 20 MB if all have the most terms
_MOST_VERSIONS = 1000  # of models; their numbers are kept in two bytes

_Newest = dict[str, dict[str, Coefficients | None]]


class EmbeddedStore:
    """A :class:`~stream.serving.store.Store`, and what its only writer does with it.

    Args:
        model: that workers score with, or did before another was rolled in.
        policy: the effects' settings. What is believed of an unknown entity is their prior, or
            what control records say of it.

    Attributes:
        tables: by effect. versions: of the models whose coefficients have come, the first is that
            of the given model. controls: the newest by entity id. preferences: by job id.
        models: that score. waits: those who wait for what they have written.
        partitions: how many the topic of coefficients has; the writer knows.
        applicants: of open jobs; None where the policy does not have them.
        changes: how often anything of the coefficients has changed.

    Raises:
        ConfigError: settings do not fit the model's features.

    """

    def __init__(self, model: GlobalModel, policy: Policy) -> None:
        self.version = model.version
        self.versions = {model.version: 0}
        self.tables: dict[str, Table] = {}
        self.controls: dict[str, Control] = {}
        self.models = Models(model, policy)
        self.preferences: dict[str, bytes] = {}
        self.waits = Waits()
        self.partitions = 1
        self.changes = 0
        self.applicants: Applicants | None = None
        if policy.applicants.enabled:
            self.applicants = Applicants(model.space, policy)
        for spec in policy.declared:
            names = model.space.block(spec.block).names
            precisions = policy.effects[spec.name].fitted(names).precisions(names)
            self.tables[spec.name] = Table(len(names), 1.0 / np.array(precisions))
        self._counts = lru_cache(_MOST_COUNTS)(_counts)
        self._lock = Lock()
        self._left_out: Counter[str] = Counter()
        self._served = {model.version}
        self._shut: dict[str, frozenset[int]] = {}
        self._degraded: tuple[str, ...] = ()
        self._ready = False
        self._current_ms: int | None = None
        self._why_not: str | None = "starting"

    @property
    def topics(self) -> dict[str, Callable[[Records], None]]:
        """Which it is fed from, by plain name, and what takes their messages in."""
        topics: dict[str, Callable[[Records], None]] = {COEFFICIENTS: self.apply}
        if self.models.takes_preferences:
            topics[PREFERENCES] = self.apply_preferences
        if self.applicants is not None:
            topics |= self.applicants.topics
        return topics

    def find(self, effect: str, ids: Sequence[str], *, histories: bool = False) -> Found:
        """Return what is known of entities."""
        shut = self._shut.get(effect)
        left_out = [self._is_shut(each, shut) for each in ids] if shut else None
        with self._lock:
            table = self.tables[effect]
            slots, mean, variance = table.rows(ids, left_out)
            summaries = table.summaries(slots) if histories else []
        return Found(slots > 0, mean, variance, summaries)

    def finder(self, effect: str, ids: Sequence[str]) -> Callable[[], Found]:
        """Return what finds the same entities again and again: it keeps where their rows are."""
        places = Places(ids)

        def find() -> Found:
            if self._shut.get(effect):
                return self.find(effect, ids)
            with self._lock:
                slots, mean, variance = self.tables[effect].rows_at(places)
            return Found(slots > 0, mean, variance, [])

        return find

    def preferences_of(self, job_id: str) -> Preferences:
        """Return a job's preferences; without any count where nothing is known."""
        message = self.preferences.get(job_id)
        return Preferences() if message is None else self._counts(message)

    def entity(self, effect: str, entity_id: str) -> Coefficients | None:
        """Return one entity's coefficients; None: it is not known."""
        with self._lock:
            table = self.tables[effect]
            slots, mean, variance = table.rows([entity_id])
            (slot,) = slots.tolist()
            if slot == 0:
                return None
            event_time_ms, examples, version = table.told(slot)
            (summary,) = table.summaries(slots)
        return Coefficients(
            effect=effect,
            entity_id=entity_id,
            model_version=list(self.versions)[version],
            mean=mean[0].tolist(),
            variance=variance[0].tolist(),
            examples=examples,
            event_time_ms=event_time_ms,
            history=summary or msgspec.UNSET,
        )

    def wait(self, positions: Sequence[Position]) -> Future[None]:
        """Return what is done when all that inputs have led to is here.

        Raises:
            QuestionError: their topics have no such partition.

        """
        for topic, number, _ in positions:
            if number >= self.partitions:  # all topics have as many
                last = self.partitions - 1
                raise QuestionError(f"there is no {topic}/{number}: the last is {topic}/{last}")
        return self.waits.ask(positions)

    def standing(self) -> Standing:
        """Tell how it stands."""
        entities = {name: len(table) for name, table in self.tables.items()}
        left_out = dict(self._left_out)  # a copy: the writer counts on
        if self.applicants is not None:
            for reason, count in dict(self.applicants.left_out).items():
                left_out[reason] = left_out.get(reason, 0) + count
        return Standing(
            *(self._ready, self._current_ms, entities, left_out),
            *(self._why_not, self._degraded),
        )

    def choose(
        self, job_ids: Sequence[str], times_ms: NDArray[np.float64] | None, at_ms: int
    ) -> Chosen:
        """Return which global models score candidates."""
        return self.models.choose(job_ids, times_ms, at_ms, self.partitions)

    def model(self, version: str) -> GlobalModel | None:
        """Return the global model of a version; None: it is not at hand."""
        return self.models.of(version)

    def stands(self, why_not: str | None, *, ready: bool, current_ms: int | None = None) -> None:
        """Note how it stands; ``current_ms`` None: as before."""
        self._ready = ready
        self._why_not = why_not
        if current_ms is not None:
            self._current_ms = current_ms
            if self.applicants is not None:
                self.applicants.settle()

    def clear(self) -> None:
        """Forget everybody."""
        for effect, table in self.tables.items():
            empty = Table(table.size, table.variance[0])
            with self._lock:
                self.tables[effect] = empty
        self.controls.clear()
        self.preferences.clear()
        self._counts.cache_clear()
        self.waits.read.clear()
        self.heed_controls()
        if self.applicants is not None:
            self.applicants.clear()

    def apply(self, records: Records) -> None:
        """Take messages of ``coefficients`` in, in their order."""
        newest: _Newest = {effect: {} for effect in self.tables}
        before = len(self.versions)
        controlled = [self._enter(key, value, newest) for key, value in records]
        if any(controlled) or len(self.versions) > before:
            self.heed_controls()
        for effect, entities in newest.items():
            removed = [entity_id for entity_id, found in entities.items() if found is None]
            found = [each for each in entities.values() if each is not None]
            newest_ms = max((each.event_time_ms for each in found), default=0)
            # An event of the future, from a wrong clock, ends nobody's window.
            self.models.reached(min(newest_ms, time.time_ns() // 1_000_000))
            table = self.tables[effect]
            for first in range(0, len(removed), _AT_ONCE):
                with self._lock:
                    for entity_id in removed[first : first + _AT_ONCE]:
                        table.remove(entity_id)
            id_bytes = sum(len(each.entity_id.encode()) for each in found)
            larger = table.grown(len(found), id_bytes)
            if larger is not None:
                with self._lock:
                    table.take(larger)
            for first in range(0, len(found), _AT_ONCE):
                with self._lock:
                    table.put(found[first : first + _AT_ONCE], self.versions)
        self.changes += 1

    def apply_preferences(self, records: Records) -> None:
        """Take messages of ``preferences`` in, in their order."""
        for key, value in records:
            job_id = key.decode(errors="replace")
            if value is None:
                self.preferences.pop(job_id, None)
                continue
            try:
                decode_preferences(value)  # now rather than in the middle of a question
            except EventError as error:
                self._left_out[error.reason] += 1
            else:
                self.preferences[job_id] = value

    def heed_controls(self) -> None:
        """Do as control records say: which models score and whose rows count, gates, priors."""
        served = {self.version}
        shut: dict[str, set[int]] = {}
        for control in self.controls.values():
            versions = [each.model_version for each in control.models]
            if self.version in versions:
                served.update(versions)
            if control.gate == "shut":
                shut.setdefault(control.effect, set()).add(control.partition)
            table = self.tables.get(control.effect)
            if table is not None and len(control.prior_precision) == table.size:
                with self._lock:
                    table.set_prior(1.0 / np.array(control.prior_precision))
        self._served = served
        hidden = np.array([version not in served for version in self.versions])
        with self._lock:
            for table in self.tables.values():
                table.hidden = hidden if hidden.any() else None
        self._shut = {effect: frozenset(numbers) for effect, numbers in shut.items()}
        self._degraded = tuple(f"gate_shut:{effect}" for effect in sorted(shut))
        self.models.heed(self.controls.values())
        self.changes += 1

    def _is_shut(self, entity_id: str, shut: frozenset[int]) -> bool:
        return partition_of(entity_id.encode(), self.partitions) in shut

    def _enter(self, key: bytes, value: bytes | None, newest: _Newest) -> bool:
        """Take one message in; return whether it is a control record."""
        effect, _, entity_id = key.decode(errors="replace").partition(":")
        if value is None:
            if effect in newest:
                newest[effect][entity_id] = None
            return effect == CONTROL and self.controls.pop(entity_id, None) is not None
        try:
            found = decode_coefficients(value)
        except EventError as error:
            self._left_out[error.reason] += 1
            return False
        if found.effect == CONTROL and found.read:
            self.waits.read |= found.read
            return False
        if found.effect == CONTROL and isinstance(found.control, Control):
            self.controls[found.entity_id] = found.control
            return True
        entities = newest.get(found.effect)
        if entities is None:
            self._left_out["other_effect"] += 1
        elif (
            not len(found.mean) == len(found.variance) == self.tables[found.effect].size
            or len(found.entity_id) > MAX_ID_CHARS
        ):
            self._left_out["malformed"] += 1
        elif found.model_version not in self.versions and len(self.versions) >= _MOST_VERSIONS:
            self._left_out["other_model"] += 1
        else:
            self._left_out["other_model"] += found.model_version not in self._served
            self.versions.setdefault(found.model_version, len(self.versions))
            entities[found.entity_id] = found
        return False


def _counts(message: bytes) -> Preferences:
    """What a message says of a job."""
    return decode_preferences(message).counts()
