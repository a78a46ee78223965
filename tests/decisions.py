"""Decisions by brute force over all events: shares no code with the machine or the rankings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from stream.events.structs import Application, Engagement
from stream.events.wire import decode_event
from stream.features.blocks import FeatureSpace
from stream.logs.files import LogLine
from tests.oracle import NEGATIVE, POSITIVE

_SKEW_MS = 5_000


class Decision(NamedTuple):
    """A first answer, its time, and who else waited."""

    answered: Application
    at_ms: int
    of_job: list[Application]
    of_member: list[Application]


def decisions(lines: Iterable[LogLine], space: FeatureSpace, window_ms: int) -> list[Decision]:
    """Look, at each first positive answer, through all that was read before."""
    found: list[Decision] = []
    apps: dict[tuple[str, str], Application] = {}
    acts: dict[tuple[str, str], list[Engagement]] = {}  # by application, in order of reading
    seen: set[tuple[str, str]] = set()

    def counts(app: Application, act: Engagement) -> bool:
        return app.event_time_ms - _SKEW_MS <= act.event_time_ms <= app.event_time_ms + window_ms

    def acted(key: tuple[str, str], actions: frozenset[str] | set[str]) -> list[int]:
        app = apps[key]
        return [
            max(act.event_time_ms, app.event_time_ms)
            for act in acts.get(key, [])
            if act.action in actions and counts(app, act)
        ]

    for line in lines:
        event = decode_event(line.raw, space)
        if isinstance(event, Application):
            key = event.job_id, event.application_id
            if key in apps:
                continue
            apps[key] = event
        elif isinstance(event, Engagement) and (event.job_id, event.engagement_id) not in seen:
            seen.add((event.job_id, event.engagement_id))
            key = event.job_id, event.application_id
            acts.setdefault(key, []).append(event)
            if key not in apps or event.action not in POSITIVE or not counts(apps[key], event):
                continue
            if len(acted(key, POSITIVE)) > 1:
                continue
        else:
            continue
        answers = acted(key, POSITIVE)
        if not answers:
            continue
        at_ms, answered = min(answers), apps[key]
        waiting = [
            app
            for other, app in apps.items()
            if other != key
            and app.event_time_ms <= at_ms <= app.event_time_ms + window_ms
            and not acted(other, POSITIVE | NEGATIVE)
        ]
        found.append(
            Decision(
                answered,
                at_ms,
                [app for app in waiting if app.job_id == answered.job_id],
                [app for app in waiting if app.member_id == answered.member_id],
            )
        )
    return found


def newest_first(decision: Decision, others: list[Application]) -> float:
    """Share of the others who applied earlier; at the same time: half."""
    mine = decision.answered.event_time_ms
    below = sum((app.event_time_ms < mine) + (app.event_time_ms == mine) / 2 for app in others)
    return below / len(others)
