"""Entities go when their time is over, and not before; they come back as new."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream import wire
from stream.entities import Entities
from stream.events import Label
from stream.policy import EffectSettings, LabelPolicy, Policy
from stream.records import COEFFICIENTS
from stream.state.overlay import Overlay
from stream.state.posteriors import StoredPosteriors, all_posteriors
from stream.state.store import MemoryStore
from stream.updaters.effect import Effect
from tests.conftest import thorough
from tests.kit import ONE, TWO, Market, application, engagement

W = 1_000
TTL = 4 * W
LABELS = LabelPolicy(window_ms=W, allowed_lateness_ms=0, orphan_ttl_ms=W)
KEEPING = Policy(labels=LABELS)
LEAVING = Policy(
    labels=LABELS,
    per_member=EffectSettings(entity_ttl_ms=TTL),
    per_job=EffectSettings(entity_ttl_ms=TTL),
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


def of_members(overlay: Overlay, settings: EffectSettings) -> tuple[Effect, Entities]:
    """Members in an overlay."""
    effect = Effect("per_member", 2, settings, "v", StoredPosteriors("per_member", overlay))
    return effect, Entities(effect, overlay, settings)


STEPS = st.one_of(
    st.tuples(st.just("learn"), st.sampled_from(NAMES), st.integers(0, 40)),
    st.tuples(st.just("leave"), st.none(), st.integers(0, 60)),
    st.tuples(st.sampled_from(["flush", "restart"]), st.none(), st.just(0)),
    st.tuples(st.sampled_from(["off", "on"]), st.none(), st.just(0)),
)


@thorough
@given(st.lists(STEPS, max_size=60))
def test_who_is_there_is_who_learned_lately(steps: list[tuple[str, str | None, int]]) -> None:
    """Over flushes, restarts, and entity_ttl turned off and on: who left is who had to."""
    kept, leaving = EffectSettings(), EffectSettings(entity_ttl_ms=10)
    settings = leaving
    store = MemoryStore()
    overlay = Overlay(store)
    effect, entities = of_members(overlay, settings)
    newest: dict[str, int] = {}
    for number, (step, member, time_ms) in enumerate(steps):
        if member is not None:
            entities.learn(label(number, member, time_ms))
            newest[member] = max(time_ms, newest.get(member, 0))
        elif step == "leave":
            went = {entity_id for entity_id in entities.leave(time_ms) if entity_id}
            over = {each for each, at in newest.items() if at + 10 < time_ms}
            assert went == (over if settings is leaving else set())
            newest = {each: at for each, at in newest.items() if each not in went}
        else:
            effect.flush()
            overlay.flush()
            if step != "flush":
                settings = {"off": kept, "on": leaving}.get(step, settings)
                overlay = Overlay(store)
                effect, entities = of_members(overlay, settings)
                overlay.flush()
    effect.flush()
    overlay.flush()
    assert {each: found.time_ms for each, found in all_posteriors(store, "per_member")} == newest


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
