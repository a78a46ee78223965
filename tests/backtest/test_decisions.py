"""Decisions of a rehearsal, against a brute force over all events."""

from __future__ import annotations

import numpy as np

from producers.simulate import simulate
from producers.truth import SimulationSettings
from stream.backtest.decisions import Watch
from stream.backtest.rehearsal import record, rehearse
from stream.events.structs import Application, Engagement
from stream.events.wire import decode_event
from stream.logs.files import LogLine
from stream.policy import Policy
from stream.replay.reader import first_look
from tests.oracle import NEGATIVE, POSITIVE

SETTINGS = SimulationSettings(
    seed=3, members=80, jobs=25, days=20, applications_per_member=8, global_score=True
)


def test_decisions_are_first_answers_among_those_who_wait() -> None:
    """As many, in the same jobs, with the same newest-first AUC as from the events alone."""
    lines = [LogLine("log", at, line) for at, line in enumerate(simulate(SETTINGS), 1)]
    read, space = first_look(lines, None)
    rehearsal = record(read, Policy(), None, space)
    watch = Watch(rehearsal, 0)
    rehearse(rehearsal, Policy(), watch=watch)
    found = watch.decisions.quality()
    assert found is not None

    window_ms = Policy().labels.window_ms
    waiting: dict[tuple[str, str], Application] = {}
    done: set[tuple[str, str]] = set()
    seen: set[str] = set()
    aucs: list[float] = []
    orphans: dict[tuple[str, str], list[Engagement]] = {}
    for line in lines:
        event = decode_event(line.raw, space)
        if isinstance(event, Application):
            key = event.job_id, event.application_id
            if key in waiting or key in done:
                continue
            waiting[key] = event
            acted = orphans.pop(key, [])
        elif isinstance(event, Engagement) and event.engagement_id + event.job_id not in seen:
            seen.add(event.engagement_id + event.job_id)
            key = event.job_id, event.application_id
            if key not in waiting and key not in done:
                orphans.setdefault(key, []).append(event)
                continue
            acted = [event]
        else:
            continue
        app = waiting.get(key)
        if app is None:
            continue
        kinds = {
            each.action in POSITIVE
            for each in acted
            if each.action in POSITIVE | NEGATIVE
            and app.event_time_ms - 5_000 <= each.event_time_ms <= app.event_time_ms + window_ms
        }
        if not kinds:
            continue
        del waiting[key]
        done.add(key)
        if True in kinds:
            others = [
                other.event_time_ms
                for (job_id, _), other in waiting.items()
                if job_id == app.job_id
                and other.event_time_ms + window_ms >= max(e.event_time_ms for e in acted)
            ]
            if others:
                newer = np.array(others)
                aucs.append(
                    float(
                        np.mean(newer < app.event_time_ms) + np.mean(newer == app.event_time_ms) / 2
                    )
                )
    assert abs(found.decisions - len(aucs)) <= 0.02 * len(aucs)
    newest = found.orders["newest_first"]["auc"].value
    assert abs(newest - np.mean(aucs)) < 0.01
    assert found.orders["random"]["auc"].value == 0.5
