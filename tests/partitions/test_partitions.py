"""Partitions: routing, channels, dead letters and poison, in a market without a broker."""

from __future__ import annotations

import re
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import MisroutedProducerError, StateError
from stream.events import wire
from stream.events.partitioner import partition_of
from stream.events.records import (
    APPLICATIONS,
    APPLICATIONS_BY_JOB,
    COEFFICIENTS,
    DEAD_LETTERS,
    ENGAGEMENTS,
    LABELS,
    Read,
)
from stream.events.structs import Clock, Event, JobEvent, ScoredApplication, Source, Watermark
from stream.partitions.job import JobPartition
from stream.partitions.progress import load_identity
from stream.policy import FeaturePolicy, Policy
from stream.stages.job import JobStage, Steps
from stream.state.overlay import Overlay
from tests import kit, oracle
from tests.kit import Market, TestEvent, application, closing, engagement, last_labels
from tests.labels import bench
from tests.labels.bench import LATENESS, SKEW, W, arrivals

POLICY = Policy(labels=msgspec.structs.replace(bench.POLICY, orphan_ttl_ms=10_000))
AGED = Policy(labels=msgspec.structs.replace(bench.AGED, orphan_ttl_ms=10_000))


def reasons(market: Market) -> list[str]:
    """Reasons of the dead letters sent so far."""
    return [
        dict(message.headers)["reason"].decode()
        for message in market.sent
        if message.topic == DEAD_LETTERS
    ]


@given(
    arrivals(),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
    st.booleans(),
    st.sampled_from([POLICY, AGED]),
)
def test_final_labels_do_not_depend_on_the_interleaving(
    events: list[TestEvent], partitions: int, random: Random, restarts: bool, policy: Policy
) -> None:
    """Whoever runs when, and restarts in between: final labels are the oracle's, none repeated."""
    market = Market(policy, partitions)
    market.produce(events)
    market.clock(20_000)
    for _ in range(40):
        stage = random.choice(["member", "job"])
        number = random.randrange(partitions)
        topic = random.choice(market.partitions[stage, number].topics)
        market.now_ms += random.choice([0, 400, 1100])
        market.step(stage, number, topic, random.choice([1, 2, 5]))
        if random.random() < 0.3:
            market.tick(stage, number)
        if restarts and random.random() < 0.1:
            market.restart(stage, number)
    market.run()
    wanted = oracle.verdicts(events, window_ms=W, clock_skew_ms=SKEW, watermark_ms=20_000)
    labels = market.labels()
    assert last_labels(labels) == wanted
    emitted = [(x.job_id, x.application_id, x.kind, x.weight, x.final) for x in labels]
    assert len(emitted) == len(set(emitted))


def test_a_fast_member_partition_does_not_close_windows_for_a_slow_one() -> None:
    """Applications far ahead from one partition wait for the other's: nothing is late."""
    market = Market(POLICY, 2)
    members = {partition_of(f"m{n}".encode(), 2): f"m{n}" for n in range(20)}
    job = next(f"j{n}" for n in range(20) if partition_of(f"j{n}".encode(), 2) == 0)
    slow = application("slow", 0, job=job, member=members[0])
    fast = application("fast", 50_000, job=job, member=members[1])
    market.produce([slow, fast, engagement("e", "slow", 10, job=job, member=members[0])])
    market.step("member", 1, APPLICATIONS, 10)
    market.step("job", 0, APPLICATIONS_BY_JOB, 10)
    market.step("job", 0, ENGAGEMENTS, 10)
    market.step("member", 0, APPLICATIONS, 10)
    market.step("job", 0, APPLICATIONS_BY_JOB, 10)
    assert last_labels(market.labels()) == {(job, "slow"): (1, "positive", True, 1.0)}


def test_labels_go_back_to_the_partition_of_their_application() -> None:
    """A label lands in the partition its application was read from, and its member learns it."""
    market = Market(POLICY, 3)
    market.produce([application("a", 10, member="m7"), engagement("e", "a", 20, member="m7")])
    market.run()
    home = partition_of(b"m7", 3)
    assert len(market.topics[LABELS, home]) == 1
    keys = {message.key for message in market.sent if message.topic == COEFFICIENTS}
    controls = {f"control:per_member:{home}".encode(), b"control:per_job:2"}
    read = {f"control:read:job:{number}".encode() for number in range(3)}  # of bare watermarks
    read.add(f"control:read:member:{home}".encode())
    assert keys == {b"per_member:m7", b"per_job:j", *controls, *read}


def test_stray_records_are_misrouted() -> None:
    """No key, another key, another partition: dead letters, the rest goes on."""
    market = Market(POLICY, 2)
    raw = kit.to_json(application("a", 10))
    home = partition_of(b"m-a", 2)
    market.append(APPLICATIONS, home, None, raw)
    market.append(APPLICATIONS, home, b"a", raw)
    market.append(APPLICATIONS, 1 - home, b"m-a", raw)
    market.append(APPLICATIONS, home, b"m-a", raw)
    market.run()
    assert reasons(market) == ["misrouted"] * 3
    assert sum(p.events["application"] for p in market.partitions.values()) == 2  # both stages


@pytest.mark.parametrize("keyed", [True, False])
def test_a_producer_with_another_partitioner_stops_the_worker(keyed: bool) -> None:
    """Thirty stray records of the first hundred stop the partition in words, nothing is lost."""
    market = misrouted(keyed)
    with pytest.raises(MisroutedProducerError, match=r"murmur2_random.*kafka-delete-records"):
        market.step("member", 0, APPLICATIONS, 1000)
    assert market.sent == []
    assert market.partitions["member", 0].position(APPLICATIONS) is None


@pytest.mark.parametrize("keyed", [True, False])
def test_one_that_has_learned_goes_on_without_misrouted_records(keyed: bool) -> None:
    """Each is a dead letter; the complaint lasts until under thirty of the newest hundred are."""
    market = misrouted(keyed)
    strays = sum(keyed is False or partition_of(b"m-a%d" % n, 2) == 1 for n in range(100))
    partition = market.partitions["member", 0]
    with pytest.raises(MisroutedProducerError):
        market.step("member", 0, APPLICATIONS, 1000)
    partition.go_on_misrouted()
    market.run()
    assert reasons(market) == ["misrouted"] * strays
    assert partition.position(APPLICATIONS) == 100
    said = [partition.routing.complaint]
    right = [number for number in range(400) if partition_of(b"m-b%d" % number, 2) == 0]
    for first, end in ((0, 10), (10, 100)):
        market.produce(application(f"b{number}", 200 + number) for number in right[first:end])
        market.run()
        said.append(partition.routing.complaint)
    assert f"{strays} of the newest 100 records of applications-0 are" in str(said[0])
    assert "of the newest 100 records of applications-0 are" in str(said[1])
    assert said[2] is None
    assert reasons(market) == ["misrouted"] * strays


def test_a_clock_has_no_key_and_is_not_misrouted() -> None:
    """Only what should have a key counts, and clocks need not."""
    market = Market(POLICY, 2)
    for number in range(100):
        market.clock(number)
    market.run()
    assert reasons(market) == []
    assert all(partition.routing.complaint is None for partition in market.partitions.values())


def misrouted(keyed: bool) -> Market:
    """A hundred applications in one partition of two, as another partitioner would put them."""
    market = Market(POLICY, 2)
    for number in range(100):
        app = application(f"a{number}", number)
        market.append(APPLICATIONS, 0, app.member_id.encode() if keyed else None, kit.to_json(app))
    return market


def test_what_does_not_belong_is_a_dead_letter() -> None:
    """Wrong types for the topic, far futures and tombstones have reasons."""
    market = Market(POLICY, 1)
    ahead = kit.NOW_MS + 25 * 3_600_000
    market.append(APPLICATIONS, 0, b"j", kit.to_json(engagement("e", "a", 10)))
    market.append(ENGAGEMENTS, 0, b"m-a", kit.to_json(application("a", 10)))
    market.append(APPLICATIONS, 0, b"m-b", kit.to_json(application("b", ahead)))
    market.append(APPLICATIONS, 0, None, wire.encode(Clock(ahead)))
    market.append(APPLICATIONS, 0, b"m-c", None)
    market.run()
    assert sorted(reasons(market)) == [
        "invalid_time",
        "invalid_time",
        "malformed",
        "unknown_type",
        "unknown_type",
    ]


def test_features_beyond_the_limit_are_dead_letters() -> None:
    """An application at max_feature is taken, one beyond it or with a huge global score is not."""
    market = Market(msgspec.structs.replace(POLICY, features=FeaturePolicy(max_feature=7.1)), 1)
    for name, number in (("a", b"7.1"), ("b", b"7.2"), ("c", b"-1e38")):
        raw = kit.to_json(application(name, 10))
        assert b"[1.0,0.5]" in raw
        market.append(APPLICATIONS, 0, b"m-" + name.encode(), raw.replace(b"0.5]", number + b"]"))
    raw = kit.to_json(application("d", 10, score=1e308))
    market.append(APPLICATIONS, 0, b"m-d", raw)
    market.run()
    assert reasons(market) == ["invalid_features"] * 3
    assert market.partitions["job", 0].events["application"] == 1


def test_a_dead_letter_keeps_bytes_and_origin() -> None:
    """A dead letter carries key, at most 64 KiB of the value, and where it was read."""
    market = Market(POLICY, 1)
    market.append(ENGAGEMENTS, 0, b"k", b"x" * 300_000)
    market.run()
    (letter,) = [message for message in market.sent if message.topic == DEAD_LETTERS]
    assert (letter.key, letter.value) == (b"k", b"x" * 65536)
    headers = dict(letter.headers)
    assert headers.pop("message")
    assert headers == {
        "reason": b"too_large",
        "topic": b"engagements",
        "partition": b"0",
        "offset": b"0",
        "size": b"300000",
        "truncated": b"true",
    }


@pytest.mark.parametrize("together", [False, True])
def test_a_poisonous_record_is_set_aside_alone(
    together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record on which a stage raises becomes a dead letter; its neighbours are unharmed.

    So is what was read of the other topic with it.
    """
    original = JobStage.apply

    def explode(
        self: JobStage, event: ScoredApplication | Event, source: Source, mark: int | None
    ) -> Steps:
        if isinstance(event, ScoredApplication) and event.application.application_id == "b":
            raise ZeroDivisionError("boom")
        return original(self, event, source, mark)

    monkeypatch.setattr(JobStage, "apply", explode)
    market = Market(POLICY, 1)
    market.produce([application(name, 10) for name in "abc"])
    market.produce([engagement(f"e{name}", name, 20) for name in "ac"])
    market.clock(20_000)
    read = [APPLICATIONS_BY_JOB]
    if together:
        market.step("member", 0, APPLICATIONS, 10)
        read = [ENGAGEMENTS, APPLICATIONS_BY_JOB]
        market.step("job", 0, read, 10)
    market.run()
    assert reasons(market) == ["poison"]
    assert last_labels(market.labels()).keys() == {("j", "a"), ("j", "c")}
    job = market.partitions["job", 0]
    assert job.events == {"application": 2, "engagement": 2, "clock": 1}
    assert job.dead_letters == {"poison": 1}
    assert load_identity(market.stores["job", 0]) is not None
    assert [(topic, offset) for topic, offset, _ in job.redone] == [(topic, 0) for topic in read]
    for _, _, error in job.redone:
        assert repr(error) == "ZeroDivisionError('boom')"
        assert error.__traceback__ is not None


def test_what_failed_first_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stops the worker when a batch is done again says why that was, and undoes its part."""
    raised: list[Exception] = []

    def explode(*_: object) -> Steps:
        error = StateError("found out later") if raised else ZeroDivisionError("boom")
        raised.append(error)
        raise error from ValueError("a reason") if len(raised) > 1 else None

    monkeypatch.setattr(JobStage, "apply", explode)
    market = Market(POLICY, 1)
    market.produce([engagement("e", "a", 20), engagement("f", "a", 21)])
    with pytest.raises(StateError, match="found out later") as caught:
        market.step("job", 0, ENGAGEMENTS, 10)
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__cause__ is raised[0]
    assert [error for _, _, error in market.partitions["job", 0].redone] == raised[:1]


def test_a_rollback_takes_back_what_was_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strays and expired orphans of a batch that is redone count once."""
    original = JobStage.apply

    def explode(
        self: JobStage, event: ScoredApplication | Event, source: Source, mark: int | None
    ) -> Steps:
        steps = original(self, event, source, mark)
        if isinstance(event, JobEvent):
            raise ZeroDivisionError("boom")
        return steps

    monkeypatch.setattr(JobStage, "apply", explode)
    market = Market(POLICY, 1)
    for number in range(20):
        stray = engagement(f"s{number}", "a", 10)
        market.append(ENGAGEMENTS, 0, b"stray", kit.to_json(stray))
    market.produce([engagement("orphan", "nobody", 10), application("a", 20)])
    market.produce([closing("x", 20)])
    market.run()
    market.clock(30_000)
    market.run()
    assert sorted(reasons(market)) == ["misrouted"] * 20 + ["poison", "unmatched"]


def test_a_partition_that_gets_nothing_follows_the_others_and_alone_it_waits() -> None:
    """While others read on, windows close behind them; when all is silent nothing moves."""
    market = Market(POLICY, 2, idle_timeout_ms=5_000)
    busy, quiet = (
        next(f"m{n}" for n in range(9) if partition_of(b"m%d" % n, 2) == at) for at in (0, 1)
    )
    job = market.partitions["job", partition_of(b"j", 2)]
    market.produce([application("q", 1000, member=quiet), engagement("e", "q", 1100, member=quiet)])
    for number in range(12):
        market.produce([application(f"a{number}", 1000 + 100 * number, member=busy)])
        market.run()
        market.now_ms += 2_000
    assert job.watermark_ms is not None
    assert 1000 - LATENESS < job.watermark_ms <= 2100 - LATENESS
    for _ in range(20):
        market.now_ms += 5_000
        market.run()
    settled_ms, sent = job.watermark_ms, len(market.sent)
    for _ in range(50):
        market.now_ms += 1_000
        market.run()
    assert job.watermark_ms == settled_ms
    assert all(
        message.topic == APPLICATIONS_BY_JOB or (message.key or b"").startswith(b"control:read:")
        for message in market.sent[sent:]
    )


def test_a_refused_application_brings_its_partitions_watermark() -> None:
    """A conflict is set aside, but the watermark that it travelled with counts."""
    market = Market(POLICY, 1)
    market.produce([application("a", 100)])
    market.produce([application("a", 5000)])
    market.append(ENGAGEMENTS, 0, None, wire.encode(Clock(20_000)))
    for topic, stage in (
        (APPLICATIONS, "member"),
        (APPLICATIONS_BY_JOB, "job"),
        (ENGAGEMENTS, "job"),
    ):
        market.step(stage, 0, topic, 100)
    assert reasons(market) == ["conflict"]
    assert market.partitions["job", 0].watermark_ms == 5000 - LATENESS


def test_labels_of_another_model_are_set_aside() -> None:
    """A label that another model's worker left in the topic is not learned."""
    market = Market(POLICY, 1)
    market.produce([application("a", 10), engagement("e", "a", 20)])
    market.run()
    old = market.topics[LABELS, 0][0]
    value = (old.value or b"").replace(b"test-model", b"elder-model")
    market.append(LABELS, 0, old.key, value)
    market.run()
    assert reasons(market) == ["other_model"]


def test_messages_of_our_own_may_grow() -> None:
    """An application near the limit grows on its way and arrives; one far too large does not."""
    market = Market(POLICY, 1)
    raw = kit.to_json(application("a", 10)).replace(
        b'"terms":null', b'"terms":{"skill":["' + b"x" * 261_000 + b'"]}'
    )
    market.append(APPLICATIONS, 0, b"m-a", raw)
    market.produce([engagement("e", "a", 20)])
    market.run()
    assert reasons(market) == []
    assert len(market.labels()) == 1


def test_records_below_the_position_are_skipped() -> None:
    """A batch that is delivered again changes nothing and sends nothing."""
    market = Market(POLICY, 1)
    market.produce([application("a", 10)])
    records = market.topics[APPLICATIONS, 0]
    market.step("member", 0, APPLICATIONS, 10)
    sent = len(market.sent)
    market.restart("member", 0)
    units = list(
        market.partitions["member", 0].process([Read(APPLICATIONS, records, 1)], kit.NOW_MS)
    )
    assert units == []
    assert len(market.sent) == sent


def test_the_first_position_is_state_even_without_records() -> None:
    """A group that has read an aborted transaction has state that says so; later ones can wait."""
    market = Market(POLICY, 1)
    member = market.partitions["member", 0]
    units = list(member.process([Read(LABELS, [], 1)], kit.NOW_MS))
    assert len(units) == 1
    market.deliver("member", 0, units)
    assert not list(member.process([Read(LABELS, [], 2)], kit.NOW_MS))
    assert member.position(LABELS) == 2


def test_a_backlog_after_a_long_silence_is_read_in_full() -> None:
    """A month that is written after idle hours: nothing is late, nothing is unmatched."""
    market = Market(POLICY, 2, idle_timeout_ms=5_000)
    for _ in range(60):
        market.now_ms += 1_000
        market.run()
    members = [f"m{number}" for number in range(40)]
    market.produce(
        application(f"a{at}", 1000 + 500 * at, member=member) for at, member in enumerate(members)
    )
    market.produce(
        engagement(f"e{at}", f"a{at}", 1100 + 500 * at, member=member)
        for at, member in enumerate(members)
    )
    market.run()
    market.clock(100_000)
    market.run()
    last = last_labels(market.labels())
    assert last == {("j", f"a{at}"): (1, "positive", True, 1.0) for at in range(40)}
    assert reasons(market) == []


def test_a_restarted_partition_is_not_idle_at_once() -> None:
    """After a restart idleness is to be seen anew; the watermark stays where it was."""
    market = Market(POLICY, 1, idle_timeout_ms=5_000)
    market.produce([application("a", 1000), engagement("e", "a", 1500)])
    market.run()
    before = market.partitions["job", 0].watermark_ms
    market.now_ms += 10**9
    market.restart("job", 0)
    market.tick("job", 0)
    assert market.partitions["job", 0].watermark_ms == before == 940


def test_bare_watermarks_are_sent_once_a_second_and_only_when_new() -> None:
    """A job partition that was not written to for a second is told how far its source is."""
    market = Market(POLICY, 2)
    market.produce([application("a", 1000, member="m0")])
    number = partition_of(b"m0", 2)
    market.step("member", number, APPLICATIONS, 10)
    told = partition_of(b"j", 2)
    market.now_ms += 999
    market.tick("member", number)
    market.tick("member", number)
    bare = market.topics[APPLICATIONS_BY_JOB, 1 - told]
    assert [wire.decode_by_job(r.value or b"", kit.SPACE) for r in bare] == [
        Watermark(number, 940, False)
    ]


@pytest.mark.parametrize("what", ["model", "partitions"])
def test_a_state_of_another_model_or_partition_count_is_refused(what: str) -> None:
    """State that was learned with another model, or for another count, is refused in words."""
    market = Market(POLICY, 1)
    market.produce([application("a", 10)])
    market.run()
    overlay = Overlay(market.stores["job", 0])
    other = kit.model("other" if what == "model" else "test-model")
    with pytest.raises(StateError, match="other" if what == "model" else "partitions"):
        JobPartition(
            0,
            partitions=2 if what == "partitions" else 1,
            overlay=overlay,
            model=other,
            policy=POLICY,
            idle_timeout_ms=1000,
        )


def test_unknown_member_partition_is_a_dead_letter() -> None:
    """An application that claims a member partition that does not exist is set aside."""
    market = Market(POLICY, 1)
    market.append(APPLICATIONS_BY_JOB, 0, None, wire.encode(Watermark(7, 1, False)))
    market.run()
    assert reasons(market) == ["malformed"]


@pytest.mark.parametrize("fraction", [b"", b".0"])
def test_events_with_integer_ids_and_other_times_are_labelled(fraction: bytes) -> None:
    """Numbers as ids, ISO times and a producer's own fields: the labels are those of strings."""
    events: list[TestEvent] = [
        application("1", 1_000, job="7", member="3"),
        engagement("2", "1", 5_000, job="7", member="3"),
        application("4", 2_000, job="8", member="5"),
        closing("6", 9_000, job="8"),
    ]
    usual, other = Market(POLICY, 4), Market(POLICY, 4)
    usual.produce(events)
    own = b'{"partition":"north","member_score":[1],"watermark_ms":"x","job_score":{},'
    for (topic, number), records in usual.topics.items():
        for record in records:
            value = re.sub(rb'_id":"(\d)"', rb'_id":\1' + fraction, record.value or b"")
            value = re.sub(
                rb'"event_time_ms":(\d)000', rb'"event_time_ms":"1970-01-01T00:00:0\1Z"', value
            )
            other.append(topic, number, record.key, own + value.removeprefix(b"{"))
    for market in (usual, other):
        market.clock(5_000_000)
        market.run()
        assert reasons(market) == []
    assert other.labels() == usual.labels()
    assert len(last_labels(other.labels())) == 2


def test_events_behind_a_registrys_header_are_labelled() -> None:
    """Messages of a registry's JSON serializer give the same labels; Avro is set aside."""
    events: list[TestEvent] = [application("a", 1_000), engagement("e", "a", 5_000)]
    markets = Market(POLICY, 1), Market(POLICY, 1)
    for market, header in zip(markets, (b"", b"\0\0\0\0\x07"), strict=True):
        market.append(APPLICATIONS, 0, b"m-a", header + kit.to_json(events[0]))
        market.append(ENGAGEMENTS, 0, b"j", header + kit.to_json(events[1]))
        market.clock(5_000_000)
        market.run()
        assert reasons(market) == []
    plain, framed = markets
    assert framed.labels() == plain.labels()
    assert framed.labels()
    avro = b"\0\0\0\0\x07\x02b\x02m\x02j"
    framed.append(APPLICATIONS, 0, b"m-b", avro)
    framed.run()
    assert reasons(framed) == ["malformed"]
    assert [message.value for message in framed.sent if message.topic == DEAD_LETTERS] == [avro]
