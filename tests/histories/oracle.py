"""Histories by brute force, from all events read so far. Shares no code with what keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stream.events.structs import Application, Engagement, JobEvent
from tests.oracle import NEGATIVE, POSITIVE

WEEK_MS = 7 * 24 * 3_600_000
Numbers = tuple[float, ...]


class Known(NamedTuple):
    """An application, and when it was answered."""

    time_ms: int
    answers: Sequence[int]
    positives: Sequence[int]


def numbers(known: Sequence[Known], at_ms: int) -> Numbers:
    """The twelve numbers of what is known, as of an application at a time."""
    now = max([at_ms, *(each.time_ms for each in known)])
    n = r = p = 0
    n7 = r7 = p7 = 0.0
    for each in known:
        weight = 0.5 ** ((now - each.time_ms) / WEEK_MS)
        n, n7 = n + 1, n7 + weight
        if each.answers:
            r, r7 = r + 1, r7 + weight
        if each.positives:
            p, p7 = p + 1, p7 + weight
    rates = (p + 0.2) / (r + 1), (p + 0.2) / (n + 1)
    recent = (p7 + 0.2) / (r7 + 1), (p7 + 0.2) / (n7 + 1)
    since = [
        max(now - max(firsts), 0) / 3_600_000 if firsts else -1.0
        for firsts in (
            [min(each.answers) for each in known if each.answers],
            [min(each.positives) for each in known if each.positives],
        )
    ]
    return (n, r, p, *rates, n7, r7, *recent, n - r, *since)


def known_of(
    of: Application, engagements: Iterable[Engagement], *, window_ms: int, skew_ms: int
) -> Known:
    """What is known of an application by some engagements, others' among them."""
    times: dict[bool, list[int]] = {True: [], False: []}
    for each in engagements:
        ids = each.job_id, each.application_id, each.member_id
        if ids != (of.job_id, of.application_id, of.member_id):
            continue
        last = of.event_time_ms + window_ms
        inside = of.event_time_ms - skew_ms <= each.event_time_ms <= last
        if inside and each.action in POSITIVE | NEGATIVE:
            at = max(each.event_time_ms, of.event_time_ms)
            times[each.action in POSITIVE].append(at)
    return Known(of.event_time_ms, times[True] + times[False], times[True])


def first_sights(
    events: Iterable[Application | Engagement | JobEvent],
    *,
    window_ms: int,
    skew_ms: int,
    lateness_ms: int,
) -> dict[tuple[str, str], Numbers]:
    """The 36 numbers of every application (job, id) that is read in time."""
    read: list[Application] = []
    engagements: list[Engagement] = []
    dead: set[tuple[str, str]] = set()  # applications of pairs that have expired since
    found: dict[tuple[str, str], Numbers] = {}
    largest = None
    for event in events:
        watermark = float("-inf") if largest is None else largest - lateness_ms
        for one in read:
            mine = [x for x in read if (x.member_id, x.job_id) == (one.member_id, one.job_id)]
            if watermark > max(x.event_time_ms for x in mine) + 2 * window_ms:
                dead |= {(x.job_id, x.application_id) for x in mine}
        largest = event.event_time_ms if largest is None else max(largest, event.event_time_ms)
        if isinstance(event, Engagement):
            engagements.append(event)
        if not isinstance(event, Application):
            continue
        key = event.job_id, event.application_id
        if key in found or watermark > event.event_time_ms + window_ms:
            continue

        def known(of: Application) -> Known:
            return known_of(of, engagements, window_ms=window_ms, skew_ms=skew_ms)

        parts = (
            [x for x in read if x.member_id == event.member_id],
            [x for x in read if x.job_id == event.job_id],
            [
                x
                for x in read
                if (x.member_id, x.job_id) == (event.member_id, event.job_id)
                and (x.job_id, x.application_id) not in dead
            ],
        )
        found[key] = tuple(
            number
            for part in parts
            for number in numbers([known(x) for x in part], event.event_time_ms)
        )
        read.append(event)
    return found
