"""What an error of Kafka asks for: another try, or another setting, and which."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from confluent_kafka import KafkaError, KafkaException

from stream.errors import BrokerError, ConfigError

_GRANT = "grant this user what docs/operations.md lists under TLS and SASL"
_NEWER = "a Kafka of release 2.5 or later is needed"

PERMANENT = MappingProxyType(
    {
        KafkaError.INVALID_TRANSACTION_TIMEOUT: (
            "set the brokers' transaction.max.timeout.ms to 60000 or more"
        ),
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: _GRANT,
        KafkaError.TOPIC_AUTHORIZATION_FAILED: _GRANT,
        KafkaError.GROUP_AUTHORIZATION_FAILED: _GRANT,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED: _GRANT,
        KafkaError.SASL_AUTHENTICATION_FAILED: "check [kafka] username and password",
        KafkaError.UNSUPPORTED_SASL_MECHANISM: "check [kafka] sasl_mechanism",
        KafkaError.ILLEGAL_SASL_STATE: "check [kafka] security and sasl_mechanism",
        KafkaError.SECURITY_DISABLED: "check the brokers' security settings",
        KafkaError.UNSUPPORTED_VERSION: _NEWER,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT: _NEWER,
        KafkaError._UNSUPPORTED_FEATURE: _NEWER,
        KafkaError.INVALID_CONFIG: "check the settings of brokers and topics",
        KafkaError.POLICY_VIOLATION: "check the brokers' policies",
        KafkaError.INVALID_RECORD: "check the topic's settings",
        KafkaError.INVALID_TIMESTAMP: "remove message.timestamp.* from the topic's settings",
    }
)
"""Errors that no further try makes good, and what does."""

TOO_LARGE = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
    }
)
"""Errors of messages, and of all that is sent with them: sent again, they are refused again."""


def error_of(error: KafkaException, what: str) -> BrokerError | ConfigError:
    """Return what to raise for an error of Kafka.

    Args:
        error: of a client of librdkafka. what: could not be done.

    Returns:
        A ConfigError where trying again does not help, else a BrokerError.

    """
    found: KafkaError = error.args[0]
    mend = PERMANENT.get(found.code())
    if mend is not None:
        return ConfigError(f"{what}: {found.str()}: {mend}")
    return BrokerError(f"{what}: {found.str()}")


def set_right(topic: str, settings: Mapping[str, str]) -> str:
    """Return the command that gives a topic these settings."""
    added = ",".join(f"{name}={value}" for name, value in settings.items())
    return (
        "set it right: kafka-configs.sh --alter --entity-type topics"
        f" --entity-name {topic} --add-config {added}"
    )
