"""SHELL: one entity's coefficients, from a run, a stopped worker's folder or the topic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import msgspec

from stream.effects import JOB, EffectSpec
from stream.errors import BrokerError, StateError
from stream.events.partitioner import partition_of
from stream.events.records import COEFFICIENTS, PREFERENCES, TopicNames
from stream.events.structs import Coefficients
from stream.events.wire import coefficients_key, decode_coefficients, decode_preferences
from stream.histories.history import Summary
from stream.histories.preferences import Preferences
from stream.kafka.cluster import look_at_cluster
from stream.kafka.reader import Reader
from stream.model.folder import GlobalModel
from stream.partitions.progress import load_identity
from stream.replay.run_folder import state_of
from stream.serving.belief import Belief
from stream.stages.succession import Succession
from stream.state import codec, keys
from stream.state.entities import StoredPosteriors
from stream.state.overlay import Overlay
from stream.state.store import RocksStore
from stream.units import format_time
from stream.updaters.effect import Effect

_ANSWER_S = 10.0
_CLEAR = 2.0  # standard errors beyond which a coefficient is told in words


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one member or job, by feature name."""

    coefficients: Coefficients
    names: list[str]
    kind: str
    """``member`` or ``job``."""
    preferences: Preferences | None = None
    """Of a job whose candidates have terms."""

    @property
    def history(self) -> Summary | None:
        """What had happened to it; None: that is not known."""
        return self.coefficients.history or None

    @property
    def standard_errors(self) -> list[float]:
        """Square roots of the marginal variances, shape (d,)."""
        return [math.sqrt(variance) for variance in self.coefficients.variance]

    def in_words(self) -> str:
        """Tell in one or two sentences."""
        known = self.coefficients
        plural = "s" if known.examples != 1 else ""
        start = (
            f"{self.kind} {known.entity_id}: {known.examples} application{plural} learned,"
            f" the last of {format_time(known.event_time_ms)[:10]}."
        )
        ratios = sorted(
            (
                (abs(mean) / error, name, mean, error)
                for name, mean, error in zip(
                    self.names, known.mean, self.standard_errors, strict=True
                )
            ),
            reverse=True,
        )
        clear = [(name, mean, error) for ratio, name, mean, error in ratios if ratio >= _CLEAR]
        if not clear:
            _, name, mean, error = ratios[0]
            return (
                f"{start} Nothing sure yet beyond the global model; most likely {name}"
                f" ({mean:+.2f} ± {error:.2f} log-odds)."
            )
        told = ", ".join(
            f"{name} {'raises' if mean > 0 else 'lowers'} the odds ×{math.exp(mean):.2f}"
            f" ({mean:+.2f} ± {error:.2f})"
            for name, mean, error in clear[:3]
        )
        return f"{start} Per unit, {told}."


def from_run(path: Path, effect: EffectSpec, entity_id: str) -> Entity | None:
    """Look an entity up in a replay's folder; None when it never learned.

    Raises:
        StateError: the folder holds no run.

    """
    return _from_store(state_of(path, entity_id), effect, entity_id)


def belief_from_run(path: Path, effect: EffectSpec, entity_id: str) -> Belief | None:
    """Whole Gaussian of an entity in a replay's folder, for joint draws; None: never learned.

    Raises:
        StateError: the folder holds no run.

    """
    with closing(RocksStore(state_of(path, entity_id), read_only=True)) as store:
        identity = load_identity(store)
        posterior = StoredPosteriors(effect.name, Overlay(store)).load(entity_id)
    if identity is None or posterior is None:
        return None
    names = identity.features[effect.block]
    return Belief.of_state(posterior, identity.effects[effect.name].fitted(names))


def from_data(path: Path, effect: EffectSpec, entity_id: str) -> Entity | None:
    """Look an entity up in a stopped worker's data folder; None when it never learned.

    Raises:
        StateError: the folder holds no state.

    """
    found = sorted(path.glob(f"{effect.stage}-*"))
    if not found:
        raise StateError(f"{path} holds no state of a worker")
    for folder in found:
        entity = _from_store(folder, effect, entity_id)
        if entity is not None:
            return entity
    return None


def from_topic(
    broker: str,
    effect: EffectSpec,
    entity_id: str,
    *,
    model: GlobalModel | None,
    application_id: str = "hearback",
) -> Entity | None:
    """Look an entity up in the ``coefficients`` topic; None when nothing was published.

    Args:
        broker: ``host:port``.
        effect: of the entity. entity_id: the member's or job's id.
        model: gives the features their names; without one they are numbered.
        application_id: whose topic.

    Raises:
        BrokerError: the broker does not answer or lacks the topic.

    """
    there = look_at_cluster(broker, _ANSWER_S).partitions
    topics = TopicNames.among(application_id, there)
    name = topics.of(COEFFICIENTS)
    if not there.get(name):
        raise BrokerError(f"there is no topic {name} at {broker}")
    with Reader(broker) as reader:
        value = _newest(reader, there, name, coefficients_key(effect.name, entity_id))
        if value is None:
            return None
        preferred = None
        if effect == JOB:
            preferred = _newest(reader, there, topics.of(PREFERENCES), entity_id.encode())
    coefficients = decode_coefficients(value)
    names = [f"{effect.name}[{i}]" for i in range(len(coefficients.mean))]
    if model is not None and model.version == coefficients.model_version:
        names = list(model.manifest.features[effect.block])
    preferences = None if preferred is None else decode_preferences(preferred).counts()
    return Entity(coefficients=coefficients, names=names, kind=effect.kind, preferences=preferences)


def _newest(reader: Reader, there: Mapping[str, int], topic: str, key: bytes) -> bytes | None:
    """Value of a key in a compacted topic; None where there is none, or no such topic."""
    value: bytes | None = None
    if there.get(topic):
        for chunk in reader.to_end(topic, partition_of(key, there[topic])):
            for _, found, found_value in chunk.records:
                if found == key:
                    value = found_value
    return value


def _from_store(folder: Path, effect: EffectSpec, entity_id: str) -> Entity | None:
    with closing(RocksStore(folder, read_only=True)) as store:
        identity = load_identity(store)
        if identity is None:
            return None
        names = identity.features[effect.block]
        coefficients = Effect(
            effect,
            len(names),
            settings=identity.effects[effect.name].fitted(names),
            model_version=identity.model_version,
            book=StoredPosteriors(effect.name, Overlay(store)),
        ).coefficients(entity_id)
        history = store.get(keys.key(keys.HISTORY, effect.kind, entity_id))
        preferred = store.get(keys.PREFERENCES + entity_id.encode()) if effect == JOB else None
        succession = Succession(Overlay(store), identity.model_version)
    if coefficients is None:
        return None
    version = succession.version_at(coefficients.event_time_ms)
    coefficients = msgspec.structs.replace(coefficients, model_version=version)
    if history is not None:
        summary = codec.HISTORY.decode(history).summary()
        coefficients = msgspec.structs.replace(coefficients, history=summary)
    return Entity(
        coefficients=coefficients,
        names=names,
        kind=effect.kind,
        preferences=None if preferred is None else codec.PREFERENCES.decode(preferred),
    )
