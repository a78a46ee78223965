"""All coefficients in this process: one writer takes messages in, any thread reads.

The writer enters some rows at a time and readers copy theirs, each while the other waits, so that
nobody sees half of a row. What takes long (decoding, larger arrays) is done before.

A message of another model than the one that scores is left out and counted: its numbers belong to
other features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from threading import Lock

import msgspec
import numpy as np

from stream.errors import EventError
from stream.events.structs import Coefficients
from stream.events.wire import decode_coefficients
from stream.model.folder import GlobalModel
from stream.policy import Policy
from stream.serving.store import Found, Standing
from stream.serving.table import Table

_AT_ONCE = 64  # rows that are entered while readers wait: some 100 µs

Records = Sequence[tuple[bytes, bytes | None]]
"""Key and value of each; a tombstone has no value."""


class EmbeddedStore:
    """A :class:`~stream.serving.store.Store`, and what its only writer does with it.

    Args:
        model: whose coefficients they are.
        policy: the effects' settings; what is believed of an unknown entity is their prior.

    Attributes:
        tables: by effect. For the writer: others use the methods of :class:`Store`.

    Raises:
        ConfigError: settings do not fit the model's features.

    """

    def __init__(self, model: GlobalModel, policy: Policy) -> None:
        self.version = model.version
        self.tables: dict[str, Table] = {}
        for spec in policy.declared:
            names = model.space.block(spec.block).names
            precisions = policy.effects[spec.name].fitted(names).precisions(names)
            self.tables[spec.name] = Table(
                len(names), 1.0 / np.array(precisions), summaries=model.takes_history
            )
        self._lock = Lock()
        self._left_out: Counter[str] = Counter()
        self._ready = False
        self._current_ms: int | None = None
        self._why_not: str | None = "starting"

    def find(self, effect: str, ids: Sequence[str]) -> Found:
        """Return what is known of entities."""
        with self._lock:
            table = self.tables[effect]
            slots, mean, variance = table.rows(ids)
            summaries = table.summaries(slots)
        return Found(slots > 0, mean, variance, summaries)

    def entity(self, effect: str, entity_id: str) -> Coefficients | None:
        """Return one entity's coefficients; None: it is not known."""
        with self._lock:
            table = self.tables[effect]
            found = table.find(entity_id)
            if found is None:
                return None
            slots, mean, variance = table.rows([entity_id])
            (summary,) = table.summaries(slots)
        _, examples, event_time_ms = found
        return Coefficients(
            effect=effect,
            entity_id=entity_id,
            model_version=self.version,
            mean=mean[0].tolist(),
            variance=variance[0].tolist(),
            examples=examples,
            event_time_ms=event_time_ms,
            history=summary or msgspec.UNSET,
        )

    def standing(self) -> Standing:
        """Tell how it stands."""
        entities = {name: len(table) for name, table in self.tables.items()}
        return Standing(
            self._ready, self._current_ms, entities, dict(self._left_out), self._why_not
        )

    def stands(self, why_not: str | None, *, ready: bool, current_ms: int | None = None) -> None:
        """Note how it stands; ``current_ms`` None: as before."""
        self._ready = ready
        self._why_not = why_not
        if current_ms is not None:
            self._current_ms = current_ms

    def clear(self) -> None:
        """Forget everybody."""
        for effect, table in self.tables.items():
            empty = Table(table.size, table.variance[0], summaries=bool(len(table.summary)))
            with self._lock:
                self.tables[effect] = empty

    def apply(self, records: Records) -> None:
        """Take messages of ``coefficients`` in, in their order."""
        newest = {effect: dict[str, Coefficients | None]() for effect in self.tables}
        for key, value in records:
            self._enter(key, value, newest)
        for effect, entities in newest.items():
            removed = [entity_id for entity_id, found in entities.items() if found is None]
            found = [each for each in entities.values() if each is not None]
            table = self.tables[effect]
            for first in range(0, len(removed), _AT_ONCE):
                with self._lock:
                    for entity_id in removed[first : first + _AT_ONCE]:
                        table.remove(entity_id)
            larger = table.grown(len(found))
            if larger is not None:
                with self._lock:
                    table.take(larger)
            for first in range(0, len(found), _AT_ONCE):
                with self._lock:
                    table.put(found[first : first + _AT_ONCE])

    def _enter(
        self,
        key: bytes,
        value: bytes | None,
        newest: Mapping[str, dict[str, Coefficients | None]],
    ) -> None:
        if value is None:
            effect, colon, entity_id = key.decode(errors="replace").partition(":")
            if colon and effect in newest:
                newest[effect][entity_id] = None
            return
        try:
            found = decode_coefficients(value)
        except EventError as error:
            self._left_out[error.reason] += 1
            return
        entities = newest.get(found.effect)
        if entities is None:
            self._left_out["other_effect"] += 1
        elif found.model_version != self.version:
            self._left_out["other_model"] += 1
        elif not len(found.mean) == len(found.variance) == self.tables[found.effect].size:
            self._left_out["malformed"] += 1
        else:
            entities[found.entity_id] = found
