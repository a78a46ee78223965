"""What topics take at once, as the broker says it."""

from __future__ import annotations

import pytest

from stream.errors import ConfigError
from stream.events.records import DEAD_LETTERS, LABELS, WRITTEN, Message, TopicNames
from stream.worker import limits as limits_module
from stream.worker.limits import TopicLimits

OWN = TopicNames.own("id")
CHANGELOG = "id-job-changelog"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """Settings that the broker tells, to be changed by a test."""
    settings = {
        name: {"max.message.bytes": "5000000", "segment.bytes": "1073741824"}
        for name in (*map(OWN.of, WRITTEN), CHANGELOG)
    }
    monkeypatch.setattr(limits_module, "settings_of_topics", lambda *_: settings)
    return settings


def message(size: int) -> Message:
    """One of ``labels``."""
    return Message(LABELS, b"k", b"v" * size, 0, 1)


def test_nothing_is_left_out_before_the_broker_was_asked(told: dict[str, dict[str, str]]) -> None:
    """Nor after, where topics take what they should."""
    limits = TopicLimits("k:9092", OWN, [CHANGELOG])
    told["id-labels"]["max.message.bytes"] = "1000"
    assert limits.refused([message(900_000)]) == {}
    told["id-labels"]["max.message.bytes"] = "1000000"
    limits.ask()
    assert limits.refused([message(900_000)]) == {}
    assert limits.at_once == 1_000_000


@pytest.mark.parametrize("setting", ["max.message.bytes", "segment.bytes"])
def test_what_a_tight_topic_cannot_take_is_left_out(
    told: dict[str, dict[str, str]], setting: str
) -> None:
    """Whatever of its settings it is; batches stay below it; and no more once it takes more."""
    told["id-labels"][setting] = "1000"
    limits = TopicLimits("k:9092", OWN, [CHANGELOG])
    limits.ask()
    assert limits.at_once == 1000
    unit = [message(800), message(1001), Message(DEAD_LETTERS, None, b"v" * 5000, 0, 1)]
    refused = limits.refused(unit)
    assert refused.keys() == {1}
    assert f"--entity-name id-labels --add-config {setting}=1000000" in refused[1]
    told["id-labels"][setting] = "1000000"
    assert limits.refused(unit).keys() == {1}  # asked a moment ago
    limits._asked_s -= 60.0
    assert limits.refused(unit) == {}
    assert limits.at_once == 1_000_000


@pytest.mark.parametrize("name", [CHANGELOG, "id-dead-letters"])
def test_what_cannot_be_done_without_is_an_error(
    told: dict[str, dict[str, str]], name: str
) -> None:
    """State and dead letters have nowhere else to go."""
    told[name]["max.message.bytes"] = "10000"
    with pytest.raises(ConfigError, match=rf"{name} takes no more than 10000 .* --add-config max"):
        TopicLimits("k:9092", OWN, [CHANGELOG]).ask()
