"""Entities go when their time is over, and not before; they come back as new."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.effects import MEMBER
from stream.events import wire
from stream.events.partitioner import partition_of
from stream.events.records import APPLICATIONS, APPLICATIONS_BY_JOB, COEFFICIENTS, ENGAGEMENTS
from stream.events.records import LABELS as LABELS_TOPIC
from stream.events.structs import Forget, Label
from stream.policy import EffectSettings, LabelPolicy, Policy
from stream.stages.entities import Entities
from stream.state import codec, keys
from stream.state.census import Census
from stream.state.entities import Forgotten, StoredPosteriors, all_posteriors
from stream.state.overlay import Overlay
from stream.state.store import MemoryStore
from stream.updaters.effect import Effect
from tests.conftest import thorough
from tests.kit import NOW_MS, ONE, TWO, Market, application, engagement, opcodes

W = 1_000
TTL = 4 * W
LABELS = LabelPolicy(window_ms=W, clock_skew_ms=0, allowed_lateness_ms=0, orphan_ttl_ms=W)
KEEPING = Policy(labels=LABELS)
LEAVING = Policy(
    labels=LABELS,
    effects={
        "per_member": EffectSettings(entity_ttl_ms=TTL),
        "per_job": EffectSettings(entity_ttl_ms=TTL),
    },
)
NAMES = ("m", "mm", "n")


def label(number: int, member: str, time_ms: int) -> Label:
    """A final label of a member's application."""
    return Label(
        application_id=f"a{number}",
        member_id=member,
        job_id="j",
        label=1,
        kind="positive",
        previous=None,
        rule=None,
        final=True,
        weight=1.0,
        application_time_ms=time_ms,
        evidence_time_ms=time_ms,
        label_time_ms=time_ms,
        model_version="v",
        per_member=TWO,
        per_job=ONE,
        global_score=0.0,
        member_score=0.0,
        job_score=0.0,
        channel=None,
        terms=None,
    )


def of_members(overlay: Overlay, settings: EffectSettings) -> tuple[Effect, Entities, Census]:
    """Members in an overlay."""
    policy = Policy(
        labels=LabelPolicy(window_ms=2, allowed_lateness_ms=0), effects={"per_member": settings}
    )
    effect = Effect(
        MEMBER, 2, settings=settings, model_version="v", book=StoredPosteriors(MEMBER.name, overlay)
    )
    census = Census(overlay)
    return effect, Entities(effect, overlay, policy, census), census


STEPS = st.one_of(
    st.tuples(st.just("learn"), st.sampled_from(NAMES), st.integers(0, 40)),
    st.tuples(st.just("leave"), st.none(), st.integers(0, 60)),
    st.tuples(st.sampled_from(["flush", "restart"]), st.none(), st.just(0)),
    st.tuples(st.sampled_from(["off", "on"]), st.none(), st.just(0)),
)


@thorough
@given(st.lists(STEPS, max_size=60))
def test_who_is_there_is_who_learned_lately(steps: list[tuple[str, str | None, int]]) -> None:
    """Over flushes, restarts, and entity_ttl turned off and on: who left is who had to.

    The census counts those who are there.
    """
    kept, leaving = EffectSettings(), EffectSettings(entity_ttl_ms=10)
    settings = leaving
    store = MemoryStore()
    overlay = Overlay(store)
    effect, entities, census = of_members(overlay, settings)
    newest: dict[str, int] = {}
    for number, (step, member, time_ms) in enumerate(steps):
        if member is not None:
            entities.learn(label(number, member, time_ms))
            newest[member] = max(time_ms, newest.get(member, 0))
        elif step == "leave":
            went = {entity_id for entity_id in entities.expire(time_ms) if entity_id}
            over = {each for each, at in newest.items() if at + 10 < time_ms}
            assert went == (over if settings is leaving else set())
            newest = {each: at for each, at in newest.items() if each not in went}
            assert census.counts.entities == len(newest)
        else:
            effect.flush()
            overlay.flush()
            if step != "flush":
                settings = {"off": kept, "on": leaving}.get(step, settings)
                overlay = Overlay(store)
                effect, entities, census = of_members(overlay, settings)
                overlay.flush()
    effect.flush()
    overlay.flush()
    assert {each: found.time_ms for each, found in all_posteriors(store, "per_member")} == newest
    assert census.counts.entities == len(newest)


def test_the_stages_let_entities_go() -> None:
    """By the stage's own watermark: state gone, tombstone sent; a later label is a new start."""
    market = Market(LEAVING, 2)
    market.produce(
        [
            application("a", 10_000, member="old"),
            engagement("e", "a", 10_001, member="old"),
            application("b", 12_000, job="k", member="young"),
            engagement("f", "b", 12_001, job="k", member="young"),
        ]
    )
    market.clock(10_000 + TTL)
    market.run()
    assert entities_of(market) == {"old", "young", "j", "k"}
    market.clock(10_000 + TTL + 1)
    market.run()
    assert entities_of(market) == {"young", "k"}
    for place in list(market.partitions):
        market.restart(*place)
    gone = {
        message.key
        for message in market.sent
        if message.topic == COEFFICIENTS and message.value is None
    }
    assert gone == {
        wire.coefficients_key("per_member", "old"),
        wire.coefficients_key("per_job", "j"),
    }
    market.produce(
        [application("c", 15_000, member="old"), engagement("g", "c", 15_001, member="old")]
    )
    market.clock(15_000 + TTL)
    market.run()
    assert entities_of(market) == {"old", "j"}
    (found,) = [
        wire.decode_coefficients(message.value)
        for message in market.sent[::-1]
        if message.key == wire.coefficients_key("per_member", "old") and message.value
    ][:1]
    assert found.examples == 1


@pytest.mark.parametrize("most", [1, 1000])
def test_whom_a_late_label_brings_back_goes_at_once(most: int) -> None:
    """Where the members' stage is through with its input before labels come; in any batches."""
    market = Market(LEAVING, 1)
    market.produce(
        [
            application("a", 10_000, member="old"),
            application("b", 10_000 + 20 * W, member="young", job="k"),
            engagement("e", "b", 10_001 + 20 * W, job="k", member="young"),
        ]
    )
    market.clock(10_000 + 20 * W + 1)
    for stage, topic in (("member", APPLICATIONS), ("job", APPLICATIONS_BY_JOB)):
        drain(market, stage, topic)
        market.now_ms += 1_001  # past the idle time-out
        market.tick("member", 0)
    drain(market, "job", ENGAGEMENTS)
    drain(market, "job", APPLICATIONS_BY_JOB)
    market.tick("job", 0)
    drain(market, "member", LABELS_TOPIC, most)
    assert entities_of(market) == {"young", "k"}
    old = wire.coefficients_key("per_member", "old")
    assert [message.value for message in market.sent if message.key == old][-1:] == [None]


def drain(market: Market, stage: str, topic: str, most: int = 1000) -> None:
    """Let a stage read a topic to its end."""
    while market.step(stage, 0, topic, most):
        pass


def test_without_a_limit_everybody_stays() -> None:
    """Off by default: nothing is written by age, and nobody goes."""
    market = Market(KEEPING, 1)
    market.produce([application("a", 10), engagement("e", "a", 11)])
    market.clock(1_000_000)
    market.run()
    assert entities_of(market) == {"m-a", "j"}
    for store in market.stores.values():
        assert not list(store.scan(b"t", b"u"))


def entities_of(market: Market) -> set[str]:
    """Who is there, in both stages."""
    found = set()
    for (stage, _), store in market.stores.items():
        found |= {entity_id for entity_id, _ in all_posteriors(store, f"per_{stage}")}
    return found


def forget(
    market: Market, until_ms: int, member: str | None = None, job: str | None = None
) -> None:
    """Ask for a member or a job to be forgotten, as the command does."""
    key = (member or job or "").encode()
    topic = APPLICATIONS if member else ENGAGEMENTS
    value = wire.encode(Forget(member_id=member, job_id=job, event_time_ms=until_ms))
    market.append(topic, partition_of(key, market.count), key, value)


def test_the_forgotten_stay_forgotten() -> None:
    """State and coefficients go; labels of earlier applications bring nothing back, later ones do.

    Restarts change nothing, and after two windows the marker goes.
    """
    market = Market(KEEPING, 2)
    market.produce(
        [
            application("a", 10_000, member="m"),
            engagement("e", "a", 10_001, "reject", member="m"),
            application("b", 10_002, member="other"),
            engagement("f", "b", 10_003, "reject", member="other"),
        ]
    )
    market.run()
    assert entities_of(market) == {"m", "other", "j"}
    forget(market, 10_500, member="m")
    forget(market, 10_500, job="j")
    market.run()
    assert entities_of(market) == {"other"}
    for place in list(market.partitions):
        market.restart(*place)
    market.produce(
        [
            engagement("g", "a", 10_600, member="m"),
            engagement("h", "b", 10_600, member="other"),
        ]
    )
    market.run()
    assert {label.kind for label in market.labels()} == {"negative_explicit", "positive"}
    assert entities_of(market) == {"other"}
    assert {message.key for message in market.sent if message.value is None} >= {
        wire.coefficients_key("per_member", "m"),
        wire.coefficients_key("per_job", "j"),
    }
    market.produce([application("c", 10_700, member="m"), engagement("i", "c", 10_701, member="m")])
    market.run()
    assert entities_of(market) == {"m", "other", "j"}
    assert markers(market) == {"m", "j"}
    market.clock(10_500 + 2 * W)
    market.run()
    assert markers(market) == {"m", "j"}
    market.clock(10_500 + 2 * W + 1)
    market.run()
    assert not markers(market)


def test_markers_stay_for_two_windows_of_both_clocks() -> None:
    """Event time that runs ahead of the wall clock runs ahead of the labels that come back."""
    effect, entities, _ = of_members(Overlay(MemoryStore()), EffectSettings())
    entities.forget("m", 10, now_ms=1_000)
    for watermark_ms, now_ms, learned in ((9_999, 1_004, False), (14, 1_005, False)):
        list(entities.expire(watermark_ms, now_ms))
        entities.learn(label(1, "m", 10))
        assert (effect.newest_ms("m") is not None) is learned
    list(entities.expire(15, 1_005))
    entities.learn(label(1, "m", 10))
    assert effect.newest_ms("m") == 10


def test_who_is_forgotten_in_a_backfill_stays_so() -> None:
    """Where records have the times of their events, the wall clock is still the one on the wall.

    The members' stage is through with months of applications before the first label comes back.
    """
    market = Market(KEEPING, 1)
    for event in (application("a", 10_000, member="m"), application("b", 10_000 + 9 * W)):
        market.now_ms = event.event_time_ms
        market.produce([event])
        if event.application_id == "a":
            forget(market, 10_500, member="m")
            forget(market, 10_500, job="j")
    market.now_ms = 10_600
    market.produce([engagement("e", "a", 10_600, member="m")])
    market.now_ms = NOW_MS
    market.clock(10_000 + 20 * W)
    market.run()
    assert {label.kind for label in market.labels()} == {"positive", "negative_conclusive"}
    assert entities_of(market) == {"m-b", "j"}
    assert markers(market) == {"m", "j"}
    market.now_ms += 2 * W
    market.clock(10_001 + 20 * W)
    market.run()
    assert not markers(market)


MARKS = st.one_of(
    st.tuples(st.just("forget"), st.sampled_from(NAMES), st.integers(0, 30)),
    st.tuples(st.just("expire"), st.integers(0, 40), st.integers(0, 40)),
    st.tuples(st.sampled_from(["flush", "discard", "restart"]), st.none(), st.just(0)),
)


@given(st.lists(MARKS, max_size=40))
def test_a_marker_goes_when_both_its_times_have_passed(
    steps: list[tuple[str, str | int | None, int]],
) -> None:
    """Whatever is flushed, undone or started again between, and whichever clock is set back."""
    store = MemoryStore()
    overlay = Overlay(store)
    forgotten = Forgotten("per_member", overlay)
    now: dict[str, tuple[int, int]] = {}
    flushed = dict(now)
    for step, what, time_ms in steps:
        if isinstance(what, str):
            forgotten.enter(what, time_ms, time_ms // 2)
            if time_ms > now.get(what, (-1, 0))[0]:
                now[what] = time_ms, time_ms // 2
        elif isinstance(what, int):
            forgotten.strike_before(what, time_ms)
            now = {
                each: (until, asked)
                for each, (until, asked) in now.items()
                if until >= what or asked >= time_ms
            }
        elif step == "flush":
            overlay.flush()
            flushed = dict(now)
        else:
            now = dict(flushed)
            overlay.discard()
            if step == "restart":
                overlay = Overlay(store)
                forgotten = Forgotten("per_member", overlay)
        for name in NAMES:
            until = now.get(name, (-1, 0))[0]
            assert forgotten.counts(name, until + 1)
            assert forgotten.counts(name, until) is (name not in now)
    overlay.flush()
    found = {
        keys.parts(key)[1].decode(): codec.FORGOTTEN.decode(value)
        for key, value in store.scan(b"g", b"h")
    }
    assert found == now


def test_markers_cost_events_nothing() -> None:
    """An application, a clock and a record that is undone take as many steps with 3,000 markers."""

    def steps(many: int) -> int:
        market = Market(KEEPING, 1)
        for stage in ("member", "job"):
            market.stores[stage, 0].write(
                {
                    keys.key(keys.FORGOTTEN, f"per_{stage}", f"gone{each}"): codec.FORGOTTEN.encode(
                        # Of some the first time has passed, of others the second, of none both.
                        (each % 2 and NOW_MS, each % 2 or 2 * NOW_MS)
                    )
                    for each in range(many)
                }
            )
            market.restart(stage, 0)
        market.produce([application("a", 10_000)])
        market.clock(10_100)
        market.run()  # once for what is done once
        market.produce([application("b", 10_000 + 10 * W), engagement("e", "b", 10_001 + 10 * W)])
        market.clock(10_100 + 20 * W)
        return opcodes(market.run)

    assert steps(3_000) < 1.02 * steps(1)


def test_who_is_unknown_can_be_forgotten() -> None:
    """And what asks for it in the wrong place, or for nobody, is a dead letter."""
    market = Market(KEEPING, 1)
    forget(market, 10_500, member="nobody")
    market.append(APPLICATIONS, 0, b"j", wire.encode(Forget(job_id="j", event_time_ms=5)))
    market.append(ENGAGEMENTS, 0, b"m", wire.encode(Forget(member_id="m", event_time_ms=5)))
    market.append(ENGAGEMENTS, 0, b"m", wire.encode(Forget(event_time_ms=5)))
    market.run()
    assert [partition.dead_letters for partition in market.partitions.values()] == [
        {"invalid_id": 1},
        {"invalid_id": 2},
    ]
    assert {partition.watermark_ms for partition in market.partitions.values()} == {None}


def markers(market: Market) -> set[str]:
    """Whose markers are there."""
    return {
        keys.parts(key)[1].decode()
        for store in market.stores.values()
        for key, _ in store.scan(b"g", b"h")
    }
