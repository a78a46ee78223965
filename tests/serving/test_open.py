"""Who is listed is who is open: from events through the worker's partitions to the service."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events.records import APPLICANTS, LABELS
from stream.events.structs import Application, Engagement
from stream.policy import DAY_MS
from tests import kit
from tests.serving.asking import Asked
from tests.stages.test_applicants import (
    EVENTS,
    ON,
    START,
    WINDOW_MS,
    Any_,
    by_brute_force,
    events_of,
    produce,
)


def decided(events: list[Any_]) -> set[tuple[str, str]]:
    """Applications that were answered or declined within their windows, by brute force."""
    return {
        (app.job_id, app.application_id)
        for app in events
        if isinstance(app, Application)
        and any(
            isinstance(event, Engagement)
            and (event.job_id, event.application_id) == (app.job_id, app.application_id)
            and 0 <= event.event_time_ms - app.event_time_ms <= WINDOW_MS
            for event in events
        )
    }


@settings(max_examples=20)  # of some 0.1 s each
@given(drawn=EVENTS, seed=st.integers(0, 999))
def test_who_is_listed_is_who_is_open(drawn: list[tuple[str, int, int]], seed: int) -> None:
    """Whatever the order of events and of the two topics; and where the service begins anew.

    Each of them is told its rank in that list, and nobody else is told one.
    """
    random, events = Random(seed), events_of(drawn)
    arriving = [*events, *random.choices(events, k=3)] if events else []
    random.shuffle(arriving)
    market = kit.Market(ON, 2)
    for event in arriving:
        produce(market, [event])
        if random.randrange(3) == 0:
            market.run()
    market.run()
    running, anew = Asked(kit.model(), ON), Asked(kit.model(), ON)
    left = {
        topic: [(each.key or b"", each.value) for each in market.sent if each.topic == topic]
        for topic in (APPLICANTS, LABELS)
    }
    for topic, messages in left.items():  # as a follower begins: applicants first
        newest = dict(messages) if topic == APPLICANTS else None
        anew.store.topics[topic](messages if newest is None else list(newest.items()))
    while any(left.values()):
        topic = random.choice([topic for topic, messages in left.items() if messages])
        most = random.randint(1, 4)
        running.store.topics[topic](left[topic][:most])
        del left[topic][:most]
    open_ = by_brute_force(events) - decided(events)
    applied = {(app.job_id, app.application_id) for app in events if isinstance(app, Application)}
    for asked in (running, anew):
        ranks: dict[tuple[str, str], int] = {}
        for job in ("j0", "j1", "j2"):
            at = f"at_ms={START + 9 * DAY_MS}"
            found = asked.ask(f"/v1/jobs/{job}/applicants?top=100&{at}").json()
            assert found["of"] == len(found["applicants"])
            ranks |= {(job, each["application_id"]): each["rank"] for each in found["applicants"]}
        assert set(ranks) == open_
        for job, name in applied:
            reply = asked.ask(f"/v1/jobs/{job}/applicants/{name}?{at}")
            assert reply.status == (200 if (job, name) in open_ else 404)
            if reply.status == 200:
                assert reply.json()["rank"] == ranks[job, name]
