"""Open applications as they are published: a function of the set of events, by brute force."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.events.applicants import Applicant, decode_applicant, decode_applicants_key
from stream.events.partitioner import partition_of
from stream.events.records import APPLICANTS, APPLICATIONS, ENGAGEMENTS
from stream.events.structs import Application, Forget, JobEvent
from stream.events.wire import encode, numbers
from stream.policy import DAY_MS, ApplicantSettings, LabelPolicy, Policy
from stream.state import keys
from tests import kit
from tests.kit import TestEvent, application, closing, engagement

START = kit.NOW_MS // DAY_MS * DAY_MS - 60 * DAY_MS
OFF = Policy(labels=LabelPolicy(aging=()))
ON = msgspec.structs.replace(OFF, applicants=ApplicantSettings(enabled=True))
WINDOW_MS = ON.labels.window_ms
Any_ = TestEvent | Forget


def published(market: kit.Market) -> dict[tuple[str, str], Applicant]:
    """What a reader of the compacted topic has."""
    found: dict[tuple[str, str], Applicant] = {}
    for message in market.sent:
        if message.topic == APPLICANTS:
            ids = decode_applicants_key(message.key or b"")
            assert message.partition == partition_of(ids[0].encode(), market.count)
            if message.value is None:
                found.pop(ids, None)
            else:
                found[ids] = decode_applicant(message.value)
                assert ids == (found[ids].job_id, found[ids].application_id)
    return found


def produce(market: kit.Market, events: Sequence[Any_]) -> None:
    """Write events into the inputs, what is to be forgotten too."""
    for event in events:
        if isinstance(event, Forget):
            topic = APPLICATIONS if event.job_id is None else ENGAGEMENTS
            key = (event.job_id or event.member_id or "").encode()
            market.append(topic, partition_of(key, market.count), key, encode(event))
        else:
            market.produce([event])


def by_brute_force(events: Sequence[Any_], until_ms: int = 0) -> set[tuple[str, str]]:
    """Open applications, of all events, once the watermark is at a time."""
    return {
        (app.job_id, app.application_id)
        for app in events
        if isinstance(app, Application)
        and app.event_time_ms + WINDOW_MS >= until_ms
        and not any(
            isinstance(event, JobEvent | Forget)
            and (event.job_id == app.job_id or getattr(event, "member_id", None) == app.member_id)
            and event.event_time_ms >= app.event_time_ms
            for event in events
        )
    }


DAYS = st.integers(0, 8)
EVENTS = st.lists(
    st.one_of(
        *(st.tuples(st.just("apply"), st.integers(0, 9), DAYS) for _ in range(4)),
        st.tuples(st.sampled_from(["message", "reject"]), st.integers(0, 9), DAYS),
        st.tuples(
            st.sampled_from(["close", "forget member", "forget job"]), st.integers(0, 3), DAYS
        ),
    ),
    max_size=25,
)


def events_of(drawn: Sequence[tuple[str, int, int]]) -> list[Any_]:
    """Events of what was drawn; the same application always comes with the same content."""
    found: list[Any_] = []
    for number, (what, of, day) in enumerate(drawn):
        time_ms = START + day * DAY_MS + number
        job, member = f"j{of % 3}", f"m{of % 4}"
        match what:
            case "apply":
                submitted_ms = START + of * DAY_MS // 2
                found.append(
                    application(f"a{of}", submitted_ms, job=job, member=member, score=of / 8)
                )
            case "message" | "reject":
                found.append(
                    engagement(f"e{number}", f"a{of}", time_ms, what, job=job, member=member)
                )
            case "close":
                found.append(closing(f"c{number}", time_ms, job=f"j{of % 3}"))
            case "forget member":
                found.append(Forget(member_id=f"m{of}", event_time_ms=time_ms))
            case _:
                found.append(Forget(job_id=f"j{of % 3}", event_time_ms=time_ms))
    return found


@given(drawn=EVENTS, seed=st.integers(0, 999), end=st.integers(14, 24))
def test_what_is_published_is_what_is_open(
    drawn: list[tuple[str, int, int]], seed: int, end: int
) -> None:
    """In any order, repeated, with crashes: all but what is over, closed or forgotten."""
    random, events = Random(seed), events_of(drawn)
    arriving = [*events, *random.choices(events, k=3)] if events else []
    random.shuffle(arriving)
    market = kit.Market(ON, 2)
    produce(market, arriving)
    for _ in range(20):
        stage, number = random.choice([*market.partitions])
        topic = random.choice(market.partitions[stage, number].topics)
        crash, before = random.randrange(3) == 0, len(market.sent)
        market.step(stage, number, topic, random.randint(1, 5), crash=crash)
        if crash:  # its transaction was aborted: nobody reads what was sent
            del market.sent[before:]
    market.run()
    found = published(market)
    assert set(found) == by_brute_force(events)
    for applicant in found.values():
        assert applicant.global_score == int(applicant.application_id[1:]) / 8
        assert applicant.features.per_member == numbers(kit.TWO)
    until_ms = START + end * DAY_MS
    market.clock(until_ms)
    late = [event for event in events if not isinstance(event, Forget)]
    produce(market, late)  # repeats, of what is over too
    market.run()
    assert set(published(market)) == by_brute_force(events, until_ms)


def test_a_late_application_is_not_published() -> None:
    """One that comes after its window was never open; one of a job that is closed neither."""
    market = kit.Market(ON, 1)
    market.produce([application("a", START + 20 * DAY_MS), closing("c", START + 21 * DAY_MS)])
    market.clock(START + 20 * DAY_MS)
    market.run()
    assert published(market) == {}
    market.produce(
        [
            application("b", START),
            application("c", START + 20 * DAY_MS + 1),
            application("d", START + 22 * DAY_MS),
        ]
    )
    market.run()
    assert set(published(market)) == {("j", "d")}


def test_what_the_state_had_before_is_published_too() -> None:
    """Whether it came while nothing was published, or ended then; once, whatever crashes."""
    first = [application(f"a{at}", START + at * DAY_MS, job=f"j{at % 2}") for at in range(8)]
    then = [application(f"b{at}", START + 9 * DAY_MS + at) for at in range(3)]
    market = kit.Market(OFF, 1)
    market.produce(first)
    market.run()
    assert published(market) == {}

    def switch(policy: Policy) -> None:
        market.policy = policy
        market.restart("job", 0)

    switch(ON)
    market.run()
    assert set(published(market)) == by_brute_force(first)
    switch(OFF)
    market.produce(then)
    market.clock(START + 17 * DAY_MS)
    market.run()
    assert set(published(market)) == by_brute_force(first)
    switch(ON)
    market.run()
    assert set(published(market)) == by_brute_force([*first, *then], START + 17 * DAY_MS)
    before = len(market.sent)
    market.restart("job", 0)
    market.run()
    assert [each for each in market.sent[before:] if each.topic == APPLICANTS] == []


@pytest.mark.parametrize("units", range(1, 5))
def test_catching_up_goes_on_after_a_crash(units: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some at a time; what was sent and not stored is sent again."""
    monkeypatch.setattr("stream.partitions.job.MOST_STEPS", 3)
    first = [application(f"a{at}", START + at) for at in range(8)]
    market = kit.Market(OFF, 1)
    market.produce(first)
    market.run()
    market.policy = ON
    market.restart("job", 0)
    work = market.partitions["job", 0].tick(market.now_ms, market.now_ms, 0)
    for _ in range(units - 1):
        market.deliver("job", 0, [next(work)])
    market.deliver("job", 0, [next(work)], flush=False)
    market.restart("job", 0)
    market.run()
    assert set(published(market)) == by_brute_force(first)


def test_without_being_asked_nothing_is_kept_or_sent() -> None:
    """Off is the default; the state is what it was without any of this."""
    events = [application(f"a{at}", START + at) for at in range(5)]
    market = kit.Market(OFF, 1)
    market.produce([*events, closing("c", START + 2)])
    market.run()
    assert published(market) == {}
    store = market.stores["job", 0]
    assert list(store.scan(keys.PUBLISHED, keys.after(keys.PUBLISHED))) == []
    assert store.get(keys.own("applicants")) is None
    assert Policy().applicants.enabled is False
