"""The wire: round trips, and a reason for everything that cannot be used."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from stream.errors import EventError, InvalidFeaturesError
from stream.events import wire
from stream.events.structs import (
    Application,
    Clock,
    Coefficients,
    Engagement,
    Event,
    Features,
    Forget,
    JobEvent,
    Label,
    ScoredApplication,
    Watermark,
)
from stream.labels.changes import application_digest
from stream.text import BYTE_ORDER_MARK
from stream.units import MAX_TIME_MS
from tests import kit
from tests.kit import SPACE

GOOD = (
    '{"type":"application","application_id":"a1","member_id":"m1","job_id":"j1",'
    '"event_time_ms":1491021494000,'
    '"features":{"global":[0.5],"per_member":[1.0,0.2],"per_job":[1]}}'
)
ENGAGED = (
    '{"type":"engagement","engagement_id":"e1","application_id":"a1","member_id":"m1",'
    '"job_id":"j1","event_time_ms":1491121494000,"action":"message"}'
)

REFUSED: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "malformed"),
    ("not JSON", b"hello", "malformed"),
    ("half a message", GOOD[:50].encode(), "malformed"),
    ("not an object", b"[1]", "malformed"),
    ("not UTF-8", GOOD.replace("m1", "\xff").encode("latin-1"), "malformed"),
    ("half a surrogate", GOOD.replace('"m1"', '"\\ud800"').encode(), "malformed"),
    ("too deep", b'{"x":' * 40_000, "malformed"),
    ("no type", GOOD.replace('"type":"application",', "").encode(), "unknown_type"),
    ("another type", GOOD.replace('"application",', '"like",').encode(), "unknown_type"),
    ("a type that is no text", GOOD.replace('"application",', "3,").encode(), "unknown_type"),
    ("no action", ENGAGED.replace(',"action":"message"', "").encode(), "unknown_action"),
    ("an empty action", ENGAGED.replace('"message"', '""').encode(), "unknown_action"),
    ("no id", GOOD.replace('"member_id":"m1",', "").encode(), "invalid_id"),
    ("an empty id", GOOD.replace('"m1"', '""').encode(), "invalid_id"),
    ("a fraction as id", GOOD.replace('"m1"', "7.5").encode(), "invalid_id"),
    ("a truth value as id", GOOD.replace('"m1"', "true").encode(), "invalid_id"),
    ("no number as id", GOOD.replace('"m1"', "null").encode(), "invalid_id"),
    ("digits lost in an id", GOOD.replace('"m1"', "9007199254740993.0").encode(), "invalid_id"),
    ("an id of too many digits", GOOD.replace('"m1"', "9" * 257).encode(), "invalid_id"),
    ("an id of far too many digits", GOOD.replace('"m1"', "9" * 5_000).encode(), "invalid_id"),
    ("a long id", GOOD.replace('"m1"', f'"{"x" * 257}"').encode(), "invalid_id"),
    ("no time", GOOD.replace('"event_time_ms":1491021494000,', "").encode(), "invalid_time"),
    ("a negative time", GOOD.replace("1491021494000", "-1").encode(), "invalid_time"),
    ("a time beyond 9999", GOOD.replace("1491021494000", "9" * 18).encode(), "invalid_time"),
    ("a time as text", GOOD.replace("1491021494000", '"now"').encode(), "invalid_time"),
    ("half a millisecond", GOOD.replace("1491021494000", "1.5").encode(), "invalid_time"),
    ("a time that is true", GOOD.replace("1491021494000", "true").encode(), "invalid_time"),
    (
        "seconds with a fraction",
        GOOD.replace("1491021494000", "1491021494.5").encode(),
        "invalid_time",
    ),
    (
        "a time without a zone",
        GOOD.replace("1491021494000", '"2017-04-01T04:38:14"').encode(),
        "invalid_time",
    ),
    ("a day as time", GOOD.replace("1491021494000", '"2017-04-01"').encode(), "invalid_time"),
    ("digits as time", GOOD.replace("1491021494000", '"1491021494000"').encode(), "invalid_time"),
    (
        "text before 1970",
        GOOD.replace("1491021494000", '"1969-12-31T23:59Z"').encode(),
        "invalid_time",
    ),
    ("a whole float before 1970", GOOD.replace("1491021494000", "-1.0").encode(), "invalid_time"),
    (
        "an integer id, but no time",
        GOOD.replace('"m1"', "7").replace("1491021494000", "[]").encode(),
        "invalid_time",
    ),
    (
        "a whole float of a time, but no id",
        GOOD.replace('"m1"', "[]").replace("4000", "4000.0").encode(),
        "invalid_id",
    ),
    ("no features", GOOD.replace(',"features":', ',"other":').encode(), "invalid_features"),
    ("a block missing", GOOD.replace('"per_job":[1]', '"x":[1]').encode(), "invalid_features"),
    ("too few numbers", GOOD.replace("[1.0,0.2]", "[1.0]").encode(), "invalid_features"),
    ("too many numbers", GOOD.replace("[1.0,0.2]", "[1,2,3]").encode(), "invalid_features"),
    ("text among numbers", GOOD.replace("0.2", '"x"').encode(), "invalid_features"),
    ("NaN", GOOD.replace("0.2", "NaN").encode(), "invalid_features"),
    ("Infinity", GOOD.replace("0.2", "-Infinity").encode(), "invalid_features"),
    ("beyond float64", GOOD.replace("0.2", "1e400").encode(), "invalid_features"),
    ("beyond float32", GOOD.replace("0.2", "1e39").encode(), "invalid_features"),
    ("an unknown name", GOOD.replace("[1.0,0.2]", '{"m9":1}').encode(), "invalid_features"),
    ("no global block", GOOD.replace('"global":[0.5],', "").encode(), "invalid_features"),
    (
        "a score that is text",
        GOOD.replace('"features"', '"global_score":"x","features"').encode(),
        "invalid_features",
    ),
    (
        "attributes that are text",
        GOOD.replace('"features"', '"member":"x","features"').encode(),
        "invalid_features",
    ),
    (
        "attributes in a list",
        GOOD.replace('"features"', '"job":[{}],"features"').encode(),
        "invalid_features",
    ),
    (
        "a forget of nobody",
        b'{"type":"forget","event_time_ms":5}',
        "invalid_id",
    ),
    (
        "a forget of two",
        b'{"type":"forget","member_id":"m","job_id":"j","event_time_ms":5}',
        "invalid_id",
    ),
    ("a forget of an empty id", b'{"type":"forget","job_id":"","event_time_ms":5}', "invalid_id"),
    ("a clock without a time", b'{"type":"clock"}', "invalid_time"),
    ("a clock before 1970", b'{"type":"clock","event_time_ms":-1}', "invalid_time"),
    (
        "a job event without an id",
        b'{"type":"job","job_id":"j","event_time_ms":5,"action":"closed"}',
        "invalid_id",
    ),
    (
        "a job event with a long action",
        b'{"type":"job","job_event_id":"x","job_id":"j","event_time_ms":5,"action":"%s"}'
        % (b"x" * 257),
        "unknown_action",
    ),
    (
        "a channel that is no text",
        ENGAGED.replace('"action"', '"channel":3,"action"').encode(),
        "malformed",
    ),
    ("too large", GOOD.replace("m1", "m" * 300_000).encode(), "too_large"),
]


@pytest.mark.parametrize(
    ("raw", "reason"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_what_cannot_be_used_has_a_reason(raw: bytes, reason: str) -> None:
    """Malformed input raises an event error with the right reason and one short line."""
    with pytest.raises(EventError) as caught:
        wire.decode_event(raw, SPACE)
    assert caught.value.reason == reason
    assert len(str(caught.value)) <= 300
    assert "\n" not in str(caught.value)


def test_utf_16_in_the_midst_of_a_log_is_named() -> None:
    """Zero bytes between characters are those of another encoding; at an end they are damage."""
    for encoding in ("utf-16-le", "utf-16-be"):
        with pytest.raises(EventError, match="as UTF-16 has them: make") as error:
            wire.decode_raw(GOOD.encode(encoding))
        assert error.value.reason == "malformed"
    with pytest.raises(EventError, match="malformed"):
        wire.decode_raw(GOOD.encode() + bytes(9))


FRAME = b"\0\0\0\0\x07"


@pytest.mark.parametrize("between", [b"", b" ", BYTE_ORDER_MARK], ids=["", "space", "mark"])
@pytest.mark.parametrize("raw", [GOOD, ENGAGED, GOOD.replace('"m1"', "7")])
def test_an_event_behind_a_registrys_header_is_read(raw: str, between: bytes) -> None:
    """The five bytes of Confluent's serializers are no part of the event, whatever the schema."""
    for schema in (0, 7, 256, 123_456_789, 2**31 - 1):
        framed = struct.pack(">bI", 0, schema) + between + raw.encode()
        assert wire.decode_raw(framed) == wire.decode_raw(raw.encode())


@pytest.mark.parametrize(
    ("raw", "reason", "says"),
    [
        (FRAME + b"\x04a1\x04m1\x04j1", "malformed", "schema 7.*Avro, Protobuf or"),
        (FRAME + b"\0\n\x02a1\x12\x02m1", "malformed", "schema 7.*Avro, Protobuf or"),
        (FRAME, "malformed", "JSON"),
        (FRAME[:3], "malformed", "JSON"),
        (FRAME * 2 + GOOD.encode(), "malformed", "no JSON"),
        (FRAME + GOOD.encode()[:-1], "malformed", "truncated"),
        (FRAME + GOOD.replace('"m1"', '""').encode(), "invalid_id", "member_id"),
        (FRAME + GOOD.replace("m1", "m" * 300_000).encode(), "too_large", "the limit"),
    ],
)
def test_what_is_behind_a_registrys_header_and_no_event(raw: bytes, reason: str, says: str) -> None:
    """Another encoding than JSON is named; JSON is refused as it is without a header."""
    with pytest.raises(EventError, match=says) as error:
        wire.decode_raw(raw)
    assert error.value.reason == reason


@pytest.mark.parametrize("number", ["1e6", "-1e6", "1000000.01", "-1e7", "1e38"])
@pytest.mark.parametrize(
    ("part", "with_number"),
    [
        ('"global":[0.5]', '"global":[{}]'),
        ("[1.0,0.2]", "[1.0,{}]"),
        ("[1.0,0.2]", '{{"m1":{}}}'),
        ('"per_job":[1]', '"per_job":{{"j0":{}}}'),
        ('"features"', '"global_score":{},"features"'),
    ],
)
def test_numbers_beyond_the_limit_do_not_enter(part: str, with_number: str, number: str) -> None:
    """They are refused in every block, in either form, and as global_score; the limit is not."""
    raw = GOOD.replace(part, with_number.format(number)).encode()
    wire.decode_event(raw, SPACE)  # what was checked before is not checked again
    if abs(float(number)) <= 1e6:
        wire.decode_event(raw, SPACE.limited(1e6))
        return
    with pytest.raises(InvalidFeaturesError, match="beyond max_feature"):
        wire.decode_event(raw, SPACE.limited(1e6))


_LABEL = Label(
    application_id="a",
    member_id="m",
    job_id="j",
    label=1,
    kind="positive",
    previous="negative_inferred",
    rule="job_closed",
    final=True,
    weight=0.5,
    application_time_ms=1,
    evidence_time_ms=None,
    label_time_ms=2,
    model_version="v",
    per_member=kit.TWO,
    per_job=kit.ONE,
    global_score=-1.5,
    member_score=math.pi,
    job_score=1e-300,
    channel="mail",
    terms={"title": ["x"]},
    previous_weight=0.25,
)
_COEFFICIENTS = Coefficients(
    effect="per_member",
    entity_id="m",
    model_version="v",
    mean=[0.1],
    variance=[0.2],
    examples=3,
    event_time_ms=4,
)
_SENT: list[tuple[bytes, bytes]] = [
    (
        wire.encode_by_job(
            ScoredApplication(
                Application(
                    "a",
                    "m",
                    "j",
                    5,
                    Features(kit.ONE, kit.TWO, kit.ONE),
                    None,
                    "search",
                    {"skill": ["sql"]},
                ),
                0.25,
                3,
                None,
            )
        ),
        b'{"type":"application","application_id":"a","member_id":"m","job_id":"j",'
        b'"event_time_ms":5,"features":{"global":[1.0],"per_member":[1.0,0.5],"per_job":[1.0]},'
        b'"global_score":null,"channel":"search","terms":{"skill":["sql"]},"member_score":0.25,'
        b'"partition":3,"watermark_ms":null}',
    ),
    (
        wire.encode_by_job(
            ScoredApplication(
                Application("a", "m", "j", 5, Features(None, kit.TWO, kit.ONE), -1.5), 0.25, 3, 99
            )
        ),
        b'{"type":"application","application_id":"a","member_id":"m","job_id":"j",'
        b'"event_time_ms":5,"features":{"global":null,"per_member":[1.0,0.5],"per_job":[1.0]},'
        b'"global_score":-1.5,"channel":null,"terms":null,"member_score":0.25,"partition":3,'
        b'"watermark_ms":99}',
    ),
    (
        wire.encode(Watermark(3, None, False)),
        b'{"type":"watermark","partition":3,"watermark_ms":null,"idle":false}',
    ),
    (
        wire.encode(Watermark(0, 7, True)),
        b'{"type":"watermark","partition":0,"watermark_ms":7,"idle":true}',
    ),
    (wire.encode(Clock(5)), b'{"type":"clock","event_time_ms":5}'),
    (
        wire.encode(Forget(member_id="m", event_time_ms=5)),
        b'{"type":"forget","member_id":"m","event_time_ms":5}',
    ),
    (
        wire.encode(Forget(job_id="j", event_time_ms=5)),
        b'{"type":"forget","job_id":"j","event_time_ms":5}',
    ),
    (
        wire.encode_label(_LABEL),
        b'{"type":"label","application_id":"a","member_id":"m","job_id":"j","label":1,'
        b'"kind":"positive","previous":"negative_inferred","rule":"job_closed","final":true,'
        b'"weight":0.5,'
        b'"application_time_ms":1,"evidence_time_ms":null,"label_time_ms":2,"model_version":"v",'
        b'"features":{"per_member":[1.0,0.5],"per_job":[1.0],"history":null},"global_score":-1.5,'
        b'"member_score":3.141592653589793,"job_score":1e-300,"channel":"mail",'
        b'"terms":{"title":["x"]},"previous_weight":0.25}',
    ),
    (
        wire.encode(_COEFFICIENTS),
        b'{"type":"coefficients","effect":"per_member","entity_id":"m","model_version":"v",'
        b'"mean":[0.1],"variance":[0.2],"examples":3,"event_time_ms":4}',
    ),
]


@pytest.mark.parametrize(("sent", "line"), _SENT)
def test_each_message_has_its_bytes(sent: bytes, line: bytes) -> None:
    """Field names, their order and what is null are the same in every release."""
    assert sent == line


READ: list[tuple[str, Event]] = [
    (ENGAGED, Engagement("e1", "a1", "m1", "j1", 1491121494000, "message")),
    (
        ENGAGED.replace('"action"', '"channel":"mail","action"'),
        Engagement("e1", "a1", "m1", "j1", 1491121494000, "message", "mail"),
    ),
    (
        '{"type":"job","job_event_id":"x","job_id":"j","event_time_ms":5,"action":"closed"}',
        JobEvent("x", "j", 5, "closed"),
    ),
    ('{"event_time_ms":5,"type":"clock"}', Clock(5)),
    (
        '{"type":"forget","member_id":"m","event_time_ms":5}',
        Forget(member_id="m", event_time_ms=5),
    ),
    (
        '{"type":"forget","member_id":null,"job_id":"j","event_time_ms":5}',
        Forget(job_id="j", event_time_ms=5),
    ),
]


@pytest.mark.parametrize(("line", "event"), READ)
def test_events_are_read_from_their_lines(line: str, event: Event) -> None:
    """A line as a producer sends it is the event that it says; fields may come in any order."""
    assert wire.decode_event(line.encode(), SPACE) == event


def test_every_reason_is_in_the_docs() -> None:
    """The docs list every reason that a dead letter can have, and each class has its own."""
    classes: list[type[EventError]] = [EventError, *EventError.__subclasses__()]
    reasons = [cls.reason for cls in classes]
    page = Path("docs/events.md").read_text(encoding="utf-8")
    assert [reason for reason in reasons if f"`{reason}`" not in page] == []
    assert len(reasons) == len(set(reasons)) > 10


def test_lists_and_names_are_the_same_vector() -> None:
    """A block by names equals the list in the model's order; absent names are 0."""
    by_list = wire.decode_event(GOOD.replace("[1.0,0.2]", "[0,0.2]").encode(), SPACE)
    by_name = wire.decode_event(GOOD.replace("[1.0,0.2]", '{"m1":0.2}').encode(), SPACE)
    assert by_list == by_name
    assert isinstance(by_list, Application)
    assert wire.numbers(by_list.features.per_member) == [0.0, float(np.float32(0.2))]


def test_a_global_score_stands_in_for_the_global_block() -> None:
    """With ``global_score`` the global block may be absent."""
    event = wire.decode_event(
        GOOD.replace('"global":[0.5],', "")
        .replace('"features"', '"global_score":-1.5,"features"')
        .encode(),
        SPACE,
    )
    assert isinstance(event, Application)
    assert (event.global_score, event.features.global_) == (-1.5, None)


def with_attributes(text: str) -> Application:
    """Read an application that carries attributes."""
    event = wire.decode_event(GOOD.replace('"features"', f'{text},"features"').encode(), SPACE)
    assert isinstance(event, Application)
    return event


def test_attributes_are_content() -> None:
    """Other attributes are another fingerprint; names in another order, or null ones, are none."""
    first = with_attributes('"member":{"years":4,"city":"Bonn"},"job":{"deep":[{"b":1,"a":null}]}')
    same = with_attributes('"job":{"deep":[{"a":null,"b":1}]},"member":{"city":"Bonn","years":4}')
    others = [
        with_attributes('"member":{"years":5,"city":"Bonn"},"job":{"deep":[{"b":1,"a":null}]}'),
        with_attributes('"job":{"years":4,"city":"Bonn"},"member":{"deep":[{"b":1,"a":null}]}'),
        with_attributes('"context":{"number":123456789012345678901234567890}'),
        with_attributes('"context":{}'),
    ]
    assert first == same
    assert application_digest(first) == application_digest(same)
    none = wire.decode_event(GOOD.encode(), SPACE)
    assert isinstance(none, Application)
    assert with_attributes('"member":null') == none
    assert len({application_digest(app) for app in (first, none, *others)}) == 6


def test_the_fingerprint_of_attributes_travels() -> None:
    """The job stage knows it, and not the attributes themselves."""
    app = with_attributes('"member":{"years":4,"name":"private"}')
    sent = wire.encode_by_job(ScoredApplication(app, 0.25, 3, None))
    assert b"private" not in sent
    scored = wire.decode_by_job(sent, SPACE)
    assert isinstance(scored, ScoredApplication)
    assert scored.application == app
    with pytest.raises(EventError, match="hexadecimal"):
        wire.decode_by_job(sent.replace(b'"attributes":"', b'"attributes":"xy'), SPACE)


def test_unknown_fields_are_ignored() -> None:
    """Top-level fields that nobody knows change nothing."""
    assert wire.decode_event(GOOD.replace('"type"', '"new":{"x":[1]},"type"').encode(), SPACE) == (
        wire.decode_event(GOOD.encode(), SPACE)
    )


@pytest.mark.parametrize(
    ("written", "digits"),
    [
        ("7", "7"),
        ("-7", "-7"),
        ("0", "0"),
        ("7.0", "7"),
        ("7e2", "700"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
def test_whole_numbers_are_ids(written: str, digits: str) -> None:
    """An id that is a whole number is that of its digits, in every kind of event."""
    events = [
        (GOOD, ("a1", "m1", "j1")),
        (ENGAGED, ("e1", "a1", "m1", "j1")),
        (
            '{"type":"job","job_event_id":"x1","job_id":"j1","event_time_ms":5,"action":"closed"}',
            ("x1", "j1"),
        ),
        ('{"type":"forget","member_id":"m1","event_time_ms":5}', ("m1",)),
        ('{"type":"forget","job_id":"j1","event_time_ms":5}', ("j1",)),
    ]
    for line, ids in events:
        usual = numbered = line
        for one in ids:
            usual = usual.replace(f'"{one}"', f'"{digits}"')
            numbered = numbered.replace(f'"{one}"', written)
        assert usual != numbered
        assert wire.decode_event(numbered.encode(), SPACE) == (
            wire.decode_event(usual.encode(), SPACE)
        )


@pytest.mark.parametrize(
    "written",
    [
        "1491021494000.0",
        "1.491021494e12",
        '"2017-04-01T04:38:14Z"',
        '"2017-04-01t04:38:14.0009z"',
        '"2017-04-01 04:38:14 UTC"',
        '"2017-04-01 06:38:14+02:00"',
        '"20170401T043814Z"',
    ],
)
def test_times_without_doubt_are_read(written: str) -> None:
    """A whole float, and ISO 8601 with a zone, are the milliseconds that they mean."""
    events = [GOOD, ENGAGED.replace("1491121494000", "1491021494000")]
    events += [
        '{"type":"job","job_event_id":"x","job_id":"j","event_time_ms":1491021494000,'
        '"action":"closed"}',
        '{"type":"clock","event_time_ms":1491021494000}',
        '{"type":"forget","member_id":"m","event_time_ms":1491021494000}',
    ]
    for line in events:
        other = line.replace("1491021494000", written).encode()
        assert wire.decode_event(other, SPACE) == wire.decode_event(line.encode(), SPACE)


def test_a_refused_time_says_what_is_accepted() -> None:
    """The message of a time that cannot be read tells how to write one."""
    raw = GOOD.replace("1491021494000", '"2017-04-01T04:38:14"').encode()
    with pytest.raises(EventError, match=r"event_time_ms.*ISO 8601 with a zone"):
        wire.decode_raw(raw)


def test_a_byte_order_mark_before_an_event_is_no_part_of_it() -> None:
    """An event that begins with a byte order mark is read as without it."""
    for line in (GOOD, GOOD.replace('"m1"', "7")):
        marked = b"\xef\xbb\xbf" + line.encode()
        assert wire.decode_event(marked, SPACE) == wire.decode_event(line.encode(), SPACE)


@pytest.mark.parametrize("value", ['"x"', "7", "-1", "null", "true", "[1]", '{"a":1}', "0.5"])
def test_fields_of_our_own_messages_are_unknown_in_events(value: str) -> None:
    """What the worker writes elsewhere may be a producer's own field, of any type, in any event."""
    internal = {
        *Watermark.__struct_fields__,
        *Label.__struct_fields__,
        *Coefficients.__struct_fields__,
        *ScoredApplication.__struct_fields__,
        "closes",
        "sure",
    }
    lines = [
        GOOD,
        ENGAGED,
        '{"type":"job","job_event_id":"x","job_id":"j","event_time_ms":5,"action":"closed"}',
        '{"type":"clock","event_time_ms":5}',
        '{"type":"forget","member_id":"m","event_time_ms":5}',
    ]
    for line in lines:
        mine = set(msgspec.json.decode(line)) | {"global_score", "channel", "terms", "job_id"}
        own = "".join(f'"{name}":{value},' for name in sorted(internal - mine))
        assert "partition" in own
        extended = "{" + own + line[1:]
        assert wire.decode_event(extended.encode(), SPACE) == (
            wire.decode_event(line.encode(), SPACE)
        )


def test_channel_and_terms_are_carried() -> None:
    """Channel and terms arrive in the event and travel on."""
    raw = GOOD.replace('"features"', '"channel":"search","terms":{"skill":["sql"]},"features"')
    event = wire.decode_event(raw.encode(), SPACE)
    assert isinstance(event, Application)
    scored = ScoredApplication(event, 0.25, 3, 99)
    back = wire.decode_by_job(wire.encode_by_job(scored), SPACE)
    assert back == scored
    assert isinstance(back, ScoredApplication)
    assert (back.application.channel, back.application.terms) == ("search", {"skill": ["sql"]})


@given(
    st.builds(
        kit.application,
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
        st.integers(0, MAX_TIME_MS),
        job=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
        member=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
        score=st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
    )
)
def test_events_survive_the_wire(event: Application) -> None:
    """Any application is read back as it was sent."""
    assert wire.decode_event(kit.to_json(event), SPACE) == event


def test_clock_watermark_label_and_coefficients_survive_the_wire() -> None:
    """Every message of our own is read back as it was sent."""
    assert wire.decode_event(wire.encode(Clock(5)), SPACE) == Clock(5)
    for mark in (Watermark(3, None, False), Watermark(0, 7, True)):
        assert wire.decode_by_job(wire.encode(mark), SPACE) == mark
    assert wire.decode_label(wire.encode_label(_LABEL), SPACE) == _LABEL
    rolled = msgspec.structs.replace(
        _LABEL, first_model="u", further_scores={"pair": 0.5}, declined_time_ms=0
    )
    assert wire.decode_label(wire.encode_label(rolled), SPACE) == rolled
    assert wire.decode_coefficients(wire.encode(_COEFFICIENTS)) == _COEFFICIENTS
    assert wire.coefficients_key("per_member", "m") == b"per_member:m"


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_event_errors(raw: bytes) -> None:
    """Random bytes are refused as events, never with another exception."""
    with pytest.raises(EventError):
        wire.decode_event(raw, SPACE)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"type":"watermark","partition":-1,"watermark_ms":1,"idle":false}', "malformed"),
        (b'{"type":"watermark","partition":1,"idle":false}', "malformed"),
        (b'{"type":"clock","event_time_ms":5}', "unknown_type"),
        (GOOD.encode(), "malformed"),
    ],
)
def test_what_cannot_come_by_job_has_a_reason(raw: bytes, reason: str) -> None:
    """Of our own messages too, what cannot be read raises an event error."""
    with pytest.raises(EventError) as caught:
        wire.decode_by_job(raw, SPACE)
    assert caught.value.reason == reason


@pytest.mark.parametrize("count", [11, 13])
def test_histories_travel_whole(count: int) -> None:
    """A member's twelve numbers, and a label's 36, arrive as they were; others are refused."""
    numbers = np.arange(48, dtype="<f4") / 3
    label = msgspec.structs.replace(_LABEL, history=numbers[:36].tobytes())
    assert wire.decode_label(wire.encode_label(label), SPACE) == label
    app = kit.application("a", 5)
    scored = ScoredApplication(app, 0.25, 3, 99, history=numbers[:12].tobytes())
    assert wire.decode_by_job(wire.encode_by_job(scored), SPACE) == scored
    wrong = msgspec.structs.replace(label, history=numbers[: 3 * count].tobytes())
    with pytest.raises(InvalidFeaturesError, match="a history"):
        wire.decode_label(wire.encode_label(wrong), SPACE)
    wrong_scored = msgspec.structs.replace(scored, history=numbers[:count].tobytes())
    with pytest.raises(InvalidFeaturesError, match="a history"):
        wire.decode_by_job(wire.encode_by_job(wrong_scored), SPACE)


@pytest.mark.parametrize("damaged", [np.nan, np.inf, -np.inf])
def test_a_history_that_is_no_number_is_refused(damaged: float) -> None:
    """Neither a label nor an application brings one into a state."""
    numbers = np.arange(36, dtype="<f4")
    numbers[7] = damaged
    label = msgspec.structs.replace(_LABEL, history=numbers.tobytes())
    with pytest.raises(EventError, match="history"):
        wire.decode_label(wire.encode_label(label), SPACE)
    scored = ScoredApplication(kit.application("a", 5), 0.25, 3, 99, None, numbers[:12].tobytes())
    with pytest.raises(InvalidFeaturesError, match="12 finite numbers"):
        wire.decode_by_job(wire.encode_by_job(scored), SPACE)


def test_histories_in_digits_are_read() -> None:
    """Applications that were on their way to the job had lists of numbers."""
    numbers = np.arange(36, dtype="<f4") / 3
    scored = ScoredApplication(kit.application("a", 5), 0.25, 3, 99, None, numbers[:12].tobytes())
    old = json.loads(wire.encode_by_job(scored))
    old["history"] = numbers[:12].astype(float).tolist()
    assert wire.decode_by_job(json.dumps(old).encode(), SPACE) == scored


@given(arrays(np.float32, 40, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_numbers_of_labels_have_the_fewest_digits(values: NDArray[np.float32]) -> None:
    """Read again as float32 they are the same; NumPy's own shortest digits are no shorter."""
    written = json.loads(bytes(wire.digits(values.tobytes())))
    assert np.array(written, "<f4").tobytes() == values.tobytes()
    for number, value in zip(written, values, strict=True):
        assert number == float(np.format_float_scientific(value, unique=True))


def test_a_member_is_forgotten_by_the_job() -> None:
    """What is forgotten travels to the jobs too; a job has no business there."""
    message = Forget(member_id="m", event_time_ms=5)
    assert wire.decode_by_job(wire.encode(message), SPACE) == message
    with pytest.raises(EventError):
        wire.decode_by_job(wire.encode(Forget(job_id="j", event_time_ms=5)), SPACE)


def test_a_label_of_an_earlier_release_is_read() -> None:
    """Labels that were on their way before they had a previous weight or a history have none."""
    raw = wire.encode_label(_LABEL).replace(b',"previous_weight":0.25', b"")
    raw = raw.replace(b',"history":null', b"")
    wanted = msgspec.structs.replace(_LABEL, previous_weight=None)
    assert wire.decode_label(raw, SPACE) == wanted


def test_a_label_brings_what_was_scored_to_who_trains() -> None:
    """Stages that learn from labels pass it over; its number of features is anybody's."""
    label = msgspec.structs.replace(_LABEL, global_=kit.TWO + kit.ONE, first_model="u")
    raw = wire.encode_label(label)
    assert b'"features":{"global":[1.0,0.5,1.0],"per_member":[1.0,0.5],' in raw
    assert wire.decode_whole_label(raw, SPACE) == label
    assert wire.decode_label(raw, SPACE) == msgspec.structs.replace(label, global_=None)
    assert wire.decode_whole_label(wire.encode_label(_LABEL), SPACE) == _LABEL


@pytest.mark.parametrize(
    "change", [{"weight": 0.0}, {"weight": -1.0}, {"application_time_ms": -1}], ids=str
)
def test_a_label_that_cannot_be_stored_is_refused(change: dict[str, float]) -> None:
    """What would be damage in the state does not enter it."""
    label = msgspec.structs.replace(_LABEL, **change)
    with pytest.raises(EventError):
        wire.decode_label(wire.encode_label(label), SPACE)
