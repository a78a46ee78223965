"""What the transport leans on inside Faust, mode and aiokafka, and a check that it is there."""

from __future__ import annotations

import inspect
from importlib import metadata

import aiokafka
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState, TopicPartitionState
from faust.serializers.schemas import Schema
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as faust_driver
from mode.threads import QueueServiceThread, ServiceThread

from stream.errors import ConfigError

_METHODS: tuple[tuple[type, str, str], ...] = (
    (Schema, "compile", "self app on_key_decode_error on_value_decode_error default_propagate"),
    (faust_driver.AIOKafkaConsumerThread, "_create_worker_consumer", "self transport"),
    (faust_driver.AIOKafkaConsumerThread, "_ensure_consumer", "self"),
    (faust_driver.AIOKafkaConsumerThread, "on_start", "self"),
    (faust_driver.AIOKafkaConsumerThread, "_commit", "self offsets"),
    (faust_driver.AIOKafkaConsumerThread, "commit", "self offsets"),
    (faust_driver.AIOKafkaConsumerThread, "on_thread_stop", "self"),
    (faust_driver.AIOKafkaConsumerThread, "subscribe", "self topics"),
    (faust_driver.AIOKafkaConsumerThread, "seek_wait", "self partitions"),
    (faust_driver.Consumer, "_new_consumer_thread", "self"),
    (faust_consumer.ThreadDelegateConsumer, "_commit", "self offsets"),
    (faust_consumer.Consumer, "_drain_messages", "self fetcher"),
    (faust_consumer.Consumer, "perform_seek", "self"),
    (faust_consumer.Consumer, "force_commit", "self topics start_new_transaction"),
    (faust_consumer.Consumer, "commit", "self topics start_new_transaction"),
    (faust_consumer.Consumer, "wait_empty", "self"),
    (faust_consumer.Consumer, "on_partitions_revoked", "self revoked"),
    (faust_consumer.Consumer, "on_partitions_assigned", "self assigned generation_id"),
    (faust_consumer.Consumer, "on_buffer_full", "self tp"),
    (faust_consumer.Consumer, "on_buffer_drop", "self tp"),
    (faust_consumer.Consumer, "resume_partitions", "self tps"),
    (faust_consumer.Consumer, "stop_flow", "self"),
    (faust_consumer.Consumer, "resume_flow", "self"),
    (faust_consumer.Consumer, "verify_event_path", "self now tp"),
    (faust_consumer.Fetcher, "_fetcher", ""),
    (QueueServiceThread, "call_thread", "self fun args kwargs"),
    (ServiceThread, "on_crash", "self msg fmt kwargs"),
    (Fetcher, "_create_fetch_waiter", "self"),
    (Fetcher, "_notify", "self future"),
    (Fetcher, "_proc_fetch_request", "self assignment node_id request"),
    (FetchResult, "check_assignment", "self tp"),
    (FetchResult, "getall", "self max_records"),
    (FetchResult, "has_more", "self"),
    (GroupCoordinator, "check_errors", "self"),
    (PartitionRecords, "_consumer_record", "self tp record"),
    (SubscriptionState, "is_assigned", "self tp"),
    (SubscriptionState, "fetch_context", "self"),
    (aiokafka.AIOKafkaConsumer, "committed", "self partition"),
    (aiokafka.AIOKafkaConsumer, "commit", "self offsets"),
)
"""What is overridden or called: class, name, parameters; no parameters means that it exists."""

_ATTRIBUTES: tuple[tuple[type, str], ...] = (
    (faust_consumer.Consumer, "_acked _acked_index app callback"),
    (faust_consumer.ThreadDelegateConsumer, "_thread"),
    (faust_consumer.ConsumerThread, "consumer transport"),
    (ServiceThread, "thread_loop"),
    (
        aiokafka.AIOKafkaConsumer,
        "_isolation_level _auto_offset_reset _fetch_max_wait_ms _max_poll_records _fetcher "
        "_coordinator _subscription _closed",
    ),
    (GroupCoordinator, "_coordination_task"),
    (Fetcher, "_records _subscriptions _fetch_waiters _wait_consume_future _closed"),
    (FetchResult, "_partition_records _assignment"),
    (TopicPartitionState, "highwater _position"),
)
"""What is read or set on instances: class, names that its ``__init__`` assigns."""


def check_faust_internals() -> None:
    """Check that what the transport leans on is there in the installed Faust and aiokafka.

    Raises:
        ConfigError: something is missing or takes other parameters; the message names it.

    """
    for owner, name, parameters in _METHODS:
        found = getattr(owner, name, None)
        if found is None:
            raise _changed(owner, name, "is not there")
        if parameters and tuple(inspect.signature(found).parameters) != tuple(parameters.split()):
            raise _changed(owner, name, f"takes {inspect.signature(found)}, not ({parameters})")
    for owner, names in _ATTRIBUTES:
        assigned = owner.__init__.__code__.co_names  # type: ignore[misc]  # the class's own
        for name in names.split():
            if name not in assigned:
                raise _changed(owner, name, "is not assigned by __init__")


def _changed(owner: type, name: str, how: str) -> ConfigError:
    have = ", ".join(f"{dist} {metadata.version(dist)}" for dist in ("faust-streaming", "aiokafka"))
    return ConfigError(
        f"hearback cannot work with the installed {have}: {owner.__module__}.{owner.__qualname__}."
        f"{name} {how}; install the versions that hearback asks for"
    )
