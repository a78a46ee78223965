"""SHELL: the topics as they have to be; makes them, and says what is wrong with others.

A topic that is there is never changed: an error names what is wrong, and the command that mends it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, TypeVar

import msgspec
from confluent_kafka import KafkaException

# Public, but not named in an __all__.
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewTopic,
)

from stream.errors import BrokerError, ConfigError
from stream.events.records import (
    APPLICANTS,
    COEFFICIENTS,
    CONSUMED,
    DEAD_LETTERS,
    INPUTS,
    MATCHES,
    MAX_SENT_BYTES,
    PLAIN,
    PREFERENCES,
    TOPICS,
    TopicNames,
)
from stream.kafka.cluster import (
    Cluster,
    client_settings,
    ids_of_topics,
    look_at_cluster,
    settings_of_topics,
)
from stream.kafka.reader import Reader
from stream.kafka.refusals import error_of, set_right
from stream.partitions.commands import control_of
from stream.worker.changelog import DELETE_RETENTION_MS, MAX_WRITE_BYTES, STAGES, changelog_of

_T = TypeVar("_T")

DEFAULT_PARTITIONS = 12
"""Many more than workers: Faust gives a worker as many as the others, or one more."""

_ANSWER_S = 10.0
_SEEN_S = 30.0  # until all brokers know a new topic
_MOST_REPLICAS = 3


class TopicPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How a topic has to be."""

    name: str
    compacted: bool
    settings: Mapping[str, str]
    same_count: bool = True
    """Whether it must have the partition count of the others."""
    consumed: bool = False
    """Whether workers read it."""


class Checked(NamedTuple):
    """Topics that are as they have to be."""

    partitions: int
    embedded: bool
    """Whether this is the embedded broker."""
    names: TopicNames


def plans(application_id: str, window_ms: int, names: TopicNames = PLAIN) -> list[TopicPlan]:
    """Return all topics of an application id.

    Args:
        application_id: names the changelogs.
        window_ms: the label policy's; what is read is kept for twice as long.
        names: what the topics are called.

    """
    kept = {"cleanup.policy": "delete", "retention.ms": str(2 * window_ms), "retention.bytes": "-1"}
    compacted = {"cleanup.policy": "compact"}
    sent = {"max.message.bytes": str(MAX_SENT_BYTES)}
    changelog = compacted | {
        "delete.retention.ms": str(DELETE_RETENTION_MS),
        "max.message.bytes": str(MAX_WRITE_BYTES),
    }
    return [
        *(
            TopicPlan(
                name=names.of(topic),
                compacted=False,
                settings=kept if topic in INPUTS else kept | sent,
                consumed=True,
            )
            for topic in CONSUMED
        ),
        TopicPlan(name=names.of(COEFFICIENTS), compacted=True, settings=compacted | sent),
        TopicPlan(name=names.of(PREFERENCES), compacted=True, settings=compacted | sent),
        TopicPlan(name=names.of(APPLICANTS), compacted=True, settings=compacted | sent),
        TopicPlan(name=names.of(MATCHES), compacted=False, settings=kept | sent),
        TopicPlan(
            name=names.of(DEAD_LETTERS), compacted=False, settings=kept | sent, same_count=False
        ),
        TopicPlan(
            name=control_of(application_id), compacted=True, settings=compacted, same_count=False
        ),
        *(
            TopicPlan(name=changelog_of(application_id, stage), compacted=True, settings=changelog)
            for stage in STAGES
        ),
    ]


def create_topics(
    broker: str,
    application_id: str,
    window_ms: int,
    *,
    partitions: int | None = None,
    replication: int | None = None,
    names: TopicNames | None = None,
) -> dict[str, bool]:
    """Create the topics that are missing, after checking those that are there.

    Args:
        broker: ``host:port``.
        application_id: names the changelogs. window_ms: the label policy's.
        partitions: of each topic; None: as those that are there, else 12.
        replication: copies of each; None: 3, or as many as there are brokers.
        names: what they are called; None: as those that are there.

    Returns:
        Topic → whether it was made now.

    Raises:
        BrokerError: the broker does not answer or refuses.
        ConfigError: a topic is not as it has to be, or was deleted while others stayed.

    """
    cluster = look_at_cluster(broker, _ANSWER_S)
    wanted = plans(
        application_id, window_ms, names or TopicNames.among(application_id, cluster.partitions)
    )
    if cluster.embedded:  # it has made them itself, or a worker could not use it
        check_topics(broker, application_id, window_ms)
        return {plan.name: False for plan in wanted}
    count = _partition_count(cluster, wanted, partitions)
    client = AdminClient(client_settings(broker))
    there = [plan for plan in wanted if plan.name in cluster.partitions]
    problems = _problems(broker, there)
    if problems:
        raise ConfigError("; ".join(problems))
    missing = [plan for plan in wanted if plan.name not in cluster.partitions]
    _check_no_earlier_life(broker, application_id, cluster, missing)
    copies = replication or min(_MOST_REPLICAS, cluster.brokers)
    in_sync = {"min.insync.replicas": "2"} if copies >= _MOST_REPLICAS else {}
    making = [NewTopic(p.name, count, copies, config={**p.settings, **in_sync}) for p in missing]
    if making:
        for name, future in client.create_topics(making, request_timeout=_ANSWER_S).items():
            _result(future, f"topic {name} cannot be created")
        _wait_until(broker, [plan.name for plan in missing], seen=True)
    return {plan.name: plan in missing for plan in wanted}


def check_topics(broker: str, application_id: str, window_ms: int) -> Checked:
    """Look at the topics before a worker starts.

    Raises:
        BrokerError: no broker answers.
        ConfigError: a topic is missing or not as it has to be.

    """
    cluster = look_at_cluster(broker, _ANSWER_S)
    names = TopicNames.among(application_id, cluster.partitions)
    wanted = plans(application_id, window_ms, names)
    if cluster.embedded:
        cluster = _make_on_first_use(broker, cluster, wanted)
    missing = [plan.name for plan in wanted if not cluster.partitions.get(plan.name)]
    if missing:
        how = (
            f"start it with hearback broker --app-id {application_id}"
            if cluster.embedded
            else f"hearback topics create --broker {broker} --app-id {application_id}"
        )
        named = ", ".join(missing)
        raise ConfigError(f"there is no topic {named} at {broker}, or none for this user: {how}")
    count = _partition_count(cluster, wanted, None)
    if not cluster.embedded:
        problems = _problems(broker, wanted)
        if problems:
            raise ConfigError("; ".join(problems))
    return Checked(count, cluster.embedded, names)


def ids_of_application(broker: str, application_id: str, names: TopicNames) -> dict[str, str]:
    """Ask what Kafka calls the topics of an application id: by plain name, changelogs by theirs.

    Raises:
        BrokerError: it does not answer, or there is no such topic.

    """
    called = {topic: names.of(topic) for topic in CONSUMED}
    called |= {name: name for name in (changelog_of(application_id, each) for each in STAGES)}
    ids = ids_of_topics(broker, called.values(), _ANSWER_S)
    return {topic: ids[name] for topic, name in called.items()}


def remove_topics(broker: str, names: Sequence[str]) -> None:
    """Delete topics, and wait until they are gone.

    Raises:
        BrokerError: the broker does not answer, or refuses.

    """
    client = AdminClient(client_settings(broker))
    for name, future in client.delete_topics(list(names), request_timeout=_ANSWER_S).items():
        _result(future, f"topic {name} cannot be deleted")
    _wait_until(broker, names, seen=False)


def _partition_count(cluster: Cluster, wanted: Sequence[TopicPlan], asked: int | None) -> int:
    """Return the one partition count.

    Raises:
        ConfigError: there are several, or another one was asked for.

    """
    counts = {
        plan.name: cluster.partitions[plan.name]
        for plan in wanted
        if plan.same_count and plan.name in cluster.partitions
    }
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ConfigError(
            f"the topics' partition counts differ: {listed}; all must have the same, from the"
            " beginning: partitions that are added later move keys away from their state. Make"
            " topics anew, with a new --app-id, and play the events into them"
        )
    found = next(iter(counts.values()), None)
    if found is not None and asked not in {None, found}:
        raise ConfigError(
            f"the topics have {found} partitions, not {asked}: their number cannot be changed,"
            " keys would move away from their state; make topics anew, with a new --app-id"
        )
    return found or asked or DEFAULT_PARTITIONS


def _problems(broker: str, there: Sequence[TopicPlan]) -> list[str]:
    """Tell what is wrong with the settings of topics, and how to mend it."""
    found = settings_of_topics(broker, [plan.name for plan in there], _ANSWER_S)
    problems = []
    for plan in there:
        has = found[plan.name]
        wrong = {
            name: value
            for name, value in plan.settings.items()
            if not _is_enough(name, has[name], value)
        }
        if wrong:
            listed = ", ".join(f"{name}={has[name]}" for name in wrong)
            problems.append(f"topic {plan.name} has {listed}; {set_right(plan.name, wrong)}")
    return problems


def _is_enough(name: str, has: str, wanted: str) -> bool:
    if name == "cleanup.policy":
        return has == wanted
    unlimited = -1
    return int(has) == unlimited or (int(wanted) != unlimited and int(has) >= int(wanted))


def _check_no_earlier_life(
    broker: str, application_id: str, cluster: Cluster, missing: Sequence[TopicPlan]
) -> None:
    """Refuse to recreate a topic under a state that knows its earlier life."""
    gone = [plan.name for plan in missing if plan.consumed]
    if not gone:
        return
    for stage in STAGES:
        changelog = changelog_of(application_id, stage)
        if has_records(broker, changelog, cluster.partitions.get(changelog, 0)):
            raise ConfigError(
                f"there is no topic {', '.join(gone)}, but {changelog} has state of its earlier"
                " life: a topic that is recreated begins at offset 0 again. Start over under"
                " another --app-id, or delete the changelogs and data folders too"
            )


def has_records(broker: str, topic: str, partitions: int) -> bool:
    """Tell whether a topic holds anything, if only the trace of an aborted transaction.

    Raises:
        BrokerError: it cannot be read.

    """
    with Reader(broker) as reader:
        spans = (reader.span(topic, number) for number in range(partitions))
        return any(end > start for start, end in spans)


def _make_on_first_use(broker: str, cluster: Cluster, wanted: Sequence[TopicPlan]) -> Cluster:
    """Name the changelogs to the embedded broker, which makes topics that are asked for."""
    client = AdminClient(client_settings(broker))
    found = dict(cluster.partitions)
    for plan in wanted:
        if plan.name not in found and plan.name not in TOPICS:
            topics = client.list_topics(plan.name, timeout=_ANSWER_S).topics
            found |= {name: len(topic.partitions) for name, topic in topics.items()}
    return Cluster(found, cluster.embedded, cluster.brokers)


def _wait_until(broker: str, names: Sequence[str], *, seen: bool) -> None:
    deadline = time.monotonic() + _SEEN_S
    while len(look_at_cluster(broker, _ANSWER_S).partitions.keys() & names) != seen * len(names):
        if time.monotonic() > deadline:
            how = "created, but are not seen" if seen else "deleted, but are still seen"
            raise BrokerError(f"the topics {', '.join(names)} were {how}")
        time.sleep(0.1)


def _result(future: Future[_T], what: str) -> _T:
    try:
        return future.result(_ANSWER_S)
    except KafkaException as error:
        raise error_of(error, what) from None
    except TimeoutError:
        raise BrokerError(f"{what}: the broker does not answer") from None
