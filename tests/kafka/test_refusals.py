"""Errors of Kafka: another try, or another setting."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from stream.errors import BrokerError, ConfigError
from stream.kafka.refusals import PERMANENT, TOO_LARGE, error_of, set_right


@pytest.mark.parametrize("code", sorted(PERMANENT))
def test_what_no_further_try_makes_good_says_what_does(code: int) -> None:
    """It is an error of configuration, in one line."""
    found = error_of(KafkaException(KafkaError(code)), "a partition cannot be read")
    assert isinstance(found, ConfigError)
    assert not found.retriable
    assert str(found).startswith("a partition cannot be read: ")
    assert str(found).endswith(PERMANENT[code])
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    "code",
    [
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        *TOO_LARGE,
    ],
)
def test_everything_else_may_be_tried_again(code: int) -> None:
    """A broker that is away comes back."""
    found = error_of(KafkaException(KafkaError(code)), "no")
    assert isinstance(found, BrokerError)
    assert found.retriable


def test_the_command_names_the_topic_and_what_it_needs() -> None:
    """It can be pasted."""
    assert set_right("labels", {"a": "1", "b": "2"}) == (
        "set it right: kafka-configs.sh --alter --entity-type topics --entity-name labels"
        " --add-config a=1,b=2"
    )
