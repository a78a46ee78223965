"""Whose state is it? It is only gone on with where models, topics and effects are the same."""

from __future__ import annotations

from collections.abc import Mapping

from stream import effects
from stream.errors import StateError
from stream.model.folder import GlobalModel
from stream.partitions.progress import Identity, load_identity, save_identity
from stream.policy import Policy
from stream.stages.succession import Succession
from stream.state.overlay import Overlay


def check_identity(
    overlay: Overlay,
    policy: Policy,
    stage: effects.Stage,
    *,
    model: GlobalModel,
    partitions: int,
    topic_ids: Mapping[str, str],
) -> None:
    """Refuse a state of another model, another partition count or other topics; else say whose.

    Args:
        overlay: the state of a partition. policy: labels and effects. stage: the partition's.
        model: the global model that a worker was started with: the one that the state began with,
            or one that was rolled in since. partitions: how many there are.
        topic_ids: what Kafka calls its topics, by name; empty where the broker has no ids.

    Raises:
        StateError: it belongs to something else.

    """
    identity = load_identity(overlay.store)
    if identity is not None:
        first = identity.model_version
        if model.version not in Succession(overlay, first).versions:
            raise StateError(
                f"the state was learned with model {first}, this is"
                f" {model.version}: start with that model, and roll this one in (hearback model"
                " roll), or start with an empty data folder under another --app-id"
            )
        if model.version != first:
            _check_priors(identity, policy, stage, model)
        if identity.partitions != partitions:
            raise StateError(
                f"the state was made with {identity.partitions} partitions, the topics have"
                f" {partitions}: start with an empty data folder under another --app-id"
            )
        for topic, topic_id in topic_ids.items():
            if identity.topic_ids.get(topic, topic_id) != topic_id:
                raise StateError(
                    f"topic {topic} was deleted and made anew since the state was learned:"
                    " its offsets mean other records now; start with an empty data folder"
                    " under another --app-id"
                )
        for spec in policy.of_stage(stage):
            if spec.name not in identity.effects:
                continue  # it begins now
            learned = identity.effects[spec.name].full_up_to
            now = policy.effects[spec.name]
            size = len(identity.features[spec.block])
            if (size <= learned) != (size <= now.full_up_to):
                raise StateError(
                    f"the state of {spec.name} was learned with full_up_to ="
                    f" {learned}: keep it, or start with an empty data folder under another"
                    " --app-id"
                )
    # Anew, because the policy may have changed.
    save_identity(
        *(overlay, model.version if identity is None else first, model.space, policy),
        partitions=partitions,
        topic_ids=topic_ids,
    )


def _check_priors(
    identity: Identity, policy: Policy, stage: effects.Stage, model: GlobalModel
) -> None:
    """Refuse a prior that a model brings along, where the state began with another model's."""
    brought = model.manifest.prior_precision
    for spec in policy.of_stage(stage):
        known = identity.effects.get(spec.name)
        if known is None or brought is None or known.prior_precision == brought:
            continue
        if policy.effects[spec.name].prior_precision == brought:
            raise StateError(
                f"model {model.version} was rolled into this state and brings prior_precision ="
                f" {brought:g} for {spec.name}: start with model {identity.model_version}, or set"
                f" the state's own, {known.prior_precision}"
            )
