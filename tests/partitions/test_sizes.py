"""Whatever is sent has a bound before it is sent."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ConfigError
from stream.events.records import (
    APPLICATIONS,
    APPLICATIONS_BY_JOB,
    COEFFICIENTS,
    DEAD_LETTERS,
    ENGAGEMENTS,
    LABELS,
    MAX_DEAD_LETTER_BYTES,
    MAX_DEAD_LETTER_KEY_BYTES,
    MAX_OUTPUT_BYTES,
    MAX_SENT_BYTES,
    PREFERENCES,
    Message,
    dead_letter_message,
    refused_message,
)
from stream.events.structs import DeadLetter, Source
from stream.events.wire import MAX_MESSAGE_BYTES
from stream.model.coefficients import Linear
from stream.model.folder import GlobalModel
from stream.policy import EffectSettings, LabelPolicy, Policy
from tests import kit
from tests.kit import Market, application, engagement

POLICY = Policy(labels=LabelPolicy(window_ms=20_000, allowed_lateness_ms=0, orphan_ttl_ms=10_000))
LONG = b"1e6"  # grows most: sent on, it is 1000000.0
FRAMING_BYTES = 1000


def size(message: Message) -> int:
    """Bytes of a message without compression."""
    headers = sum(len(name) + len(value) for name, value in message.headers)
    return len(message.key or b"") + len(message.value or b"") + headers


def largest() -> int:
    """The most features that an effect takes."""
    low, high = 1, 1 << 20
    while high - low > 1:
        middle = (low + high) // 2
        try:
            EffectSettings().fitted([f"{number}" for number in range(middle)])
            low = middle
        except ConfigError:
            high = middle
    return low


def model(features: int, global_features: int) -> GlobalModel:
    """A global model with so many features in either effect's block."""
    names = [f"{number}" for number in range(max(features, global_features))]
    manifest = msgspec.structs.replace(
        kit.model().manifest,
        features={
            "global": names[:global_features],
            "per_member": names[:features],
            "per_job": names[:features],
        },
    )
    return GlobalModel(manifest, Linear(np.zeros(global_features)))


def full(features: int, global_features: int) -> bytes:
    """An application of the largest size that is taken, its ids and numbers the longest."""
    member, job = "\U0001f600" * 256, "\U0001f4bc" * 256
    app = application("\x01" * 256, 10, member=member, job=job)
    event = msgspec.json.decode(kit.to_json(app))
    event["features"] = {"global": [7] * global_features}
    event["features"] |= {block: [7] * features for block in ("per_member", "per_job")}
    event["terms"] = {"skill": [""]}
    raw: bytes = msgspec.json.encode(event).replace(b"7,", LONG + b",").replace(b"7]", LONG + b"]")
    room = MAX_MESSAGE_BYTES - len(raw)
    return raw.replace(b'[""]', b'["' + b"\\u0001" * (room // 6) + b'"]')


def test_the_largest_event_makes_messages_that_every_topic_takes() -> None:
    """Labels and coefficients too, with as many features as an effect can have."""
    features = largest()
    assert features > 1000
    raw = full(features, 0)
    assert MAX_MESSAGE_BYTES - 10 < len(raw) <= MAX_MESSAGE_BYTES
    event = msgspec.json.decode(raw)
    market = Market(POLICY, 1, global_model=model(features, 0))
    market.append(APPLICATIONS, 0, event["member_id"].encode(), raw)
    of = {"job": event["job_id"], "member": event["member_id"]}
    market.produce([engagement("\x02" * 256, "\x01" * 256, 20, **of)])
    market.clock(100_000)
    market.run()
    sent = {message.topic for message in market.sent}
    assert sent == {APPLICATIONS_BY_JOB, LABELS, COEFFICIENTS, PREFERENCES}
    assert max(len(message.value or b"") for message in market.sent) < MAX_OUTPUT_BYTES
    assert max(map(size, market.sent)) > MAX_MESSAGE_BYTES


def test_what_grows_beyond_the_bound_on_its_way_costs_that_event() -> None:
    """Features by name may leave out what is zero; sent on, each of 300,000 takes four bytes."""
    app = application("a", 10)
    event = msgspec.json.decode(kit.to_json(app))
    event["features"] = {"global": {"7": 1}, "per_member": [1, 1], "per_job": [1, 1]}
    market = Market(POLICY, 1, global_model=model(2, 300_000))
    market.append(APPLICATIONS, 0, app.member_id.encode(), msgspec.json.encode(event))
    market.run()
    letter, read = market.sent
    assert read.key == b"control:read:member:0"
    assert dict(letter.headers)["reason"] == b"too_large"
    assert market.partitions["member", 0].position(APPLICATIONS) == 1
    assert market.partitions["member", 0].clock.own_mark_ms is None


def test_a_foreign_record_between_the_stages_is_bounded() -> None:
    """A record of ``applications-by-job`` that no worker can have written makes no label."""
    market = Market(POLICY, 1)
    market.produce([application("a", 10)])
    market.run()
    ours = market.topics[APPLICATIONS_BY_JOB, 0][0]
    terms = b'"terms":{"t":["%s"]}' % (b"x" * 950_000)
    grown = (ours.value or b"").replace(b'"terms":null', terms)
    market.append(APPLICATIONS_BY_JOB, 0, ours.key, grown.replace(b'"a"', b'"b"'))
    market.run()
    letters = [message for message in market.sent if message.topic == DEAD_LETTERS]
    assert [dict(letter.headers)["reason"] for letter in letters] == [b"too_large"]


@pytest.mark.parametrize("topic", [APPLICATIONS, ENGAGEMENTS])
def test_large_keys_and_names_are_cut(topic: str) -> None:
    """A key of 1 MB, and an unknown feature whose name fills the message, are small letters."""
    market = Market(POLICY, 1)
    market.append(topic, 0, b"k" * 1_000_000, kit.to_json(application("a", 10)))
    raw = kit.to_json(application("b", 10)).replace(b"[1.0,0.5]", b'{"%s":1}' % (b"n" * 250_000))
    market.append(topic, 0, b"m-b", raw)
    market.run()
    letters = [message for message in market.sent if message.topic == DEAD_LETTERS]
    assert len(letters) == 2
    for letter in letters:
        assert size(letter) < MAX_DEAD_LETTER_BYTES + MAX_DEAD_LETTER_KEY_BYTES + 2000
    assert letters[0].key == b"k" * MAX_DEAD_LETTER_KEY_BYTES
    assert dict(letters[0].headers)["truncated"] == b"true"
    assert dict(letters[1].headers)["truncated"] == b"true"


@given(
    st.text(max_size=3000) | st.just("é" * 5000) | st.just("\ud800"),
    st.binary(max_size=3000) | st.none(),
    st.integers(0, 10**9),
)
def test_a_dead_letter_is_bounded_and_readable_whatever_it_says(
    said: str, key: bytes | None, length: int
) -> None:
    """Key and message keep their beginnings; the message stays UTF-8."""
    source = Source("engagements", 1, 2, length, b"x" * min(length, MAX_DEAD_LETTER_BYTES), key)
    letter = dead_letter_message(DeadLetter("malformed", said, source), 5)
    assert size(letter) < MAX_DEAD_LETTER_BYTES + MAX_DEAD_LETTER_KEY_BYTES + 2000
    headers = dict(letter.headers)
    assert said.encode(errors="replace").decode().startswith(headers["message"].decode())
    assert letter.key == (None if key is None else key[:MAX_DEAD_LETTER_KEY_BYTES])
    whole = length <= MAX_DEAD_LETTER_BYTES and (key is None or len(key) <= 1024)
    assert headers["truncated"] == (b"false" if whole else b"true")


def test_a_refused_message_becomes_a_dead_letter_that_fits() -> None:
    """It says what was read when it was made, and keeps the beginning of what was to be sent."""
    refused = Message(LABELS, b"m" * 2000, b"v" * MAX_OUTPUT_BYTES, 3, 17)
    cause = Source("engagements", 3, 99, 0, b"")
    letter = refused_message(refused, "too_large", "labels takes less", cause)
    headers = dict(letter.headers)
    assert (letter.topic, letter.timestamp_ms) == (DEAD_LETTERS, 17)
    assert letter.value == b"v" * MAX_DEAD_LETTER_BYTES
    del headers["reason"], headers["message"]
    assert list(headers.values()) == [b"engagements", b"3", b"99", b"900000", b"true"]
    assert size(letter) + FRAMING_BYTES < MAX_SENT_BYTES
