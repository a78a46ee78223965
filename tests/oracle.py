"""The labels by brute force, from all events at once. Shares no code with the machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stream.events.structs import Application, Engagement, JobEvent

POSITIVE = {"view_profile", "message", "shortlist", "interview", "offer", "hire"}
NEGATIVE = {"reject", "archive", "skip"}

Verdict = tuple[int, str, bool, float]


def verdicts(
    events: Iterable[Application | Engagement | JobEvent],
    *,
    window_ms: int,
    min_age_ms: int = 0,
    later_response: bool = True,
    job_closed: bool = True,
    steps: Sequence[tuple[int, float]] = (),
    clock_skew_ms: int = 5_000,
    watermark_ms: float = float("-inf"),
) -> dict[tuple[str, str], Verdict | None]:
    """(label, kind, final, weight) of every application, None while it has none."""
    events = list(events)
    apps = {(e.job_id, e.application_id): e for e in events if isinstance(e, Application)}
    evidence: list[tuple[Application, int, bool]] = []
    for e in events:
        if not isinstance(e, Engagement) or e.action not in POSITIVE | NEGATIVE:
            continue
        app = apps.get((e.job_id, e.application_id))
        if app is None or app.member_id != e.member_id:
            continue
        if app.event_time_ms - clock_skew_ms <= e.event_time_ms <= app.event_time_ms + window_ms:
            counted_ms = max(e.event_time_ms, app.event_time_ms)
            evidence.append((app, counted_ms, e.action in POSITIVE))
    result: dict[tuple[str, str], Verdict | None] = {}
    for key, app in apps.items():
        start, end = app.event_time_ms, app.event_time_ms + window_ms
        own = [positive for of, _, positive in evidence if of is app]
        closed = watermark_ms > end
        if any(own):
            result[key] = (1, "positive", True, 1.0)
        elif own:
            result[key] = (0, "negative_explicit", closed, 1.0)
        elif closed:
            result[key] = (0, "negative_conclusive", True, 1.0)
        elif any(
            later_response
            and of.job_id == app.job_id
            and of.event_time_ms > start
            and start + min_age_ms <= time_ms <= end
            for of, time_ms, _ in evidence
        ) or any(
            isinstance(e, JobEvent) and e.job_id == app.job_id and start <= e.event_time_ms <= end
            for e in events
            if job_closed
        ):
            result[key] = (0, "negative_inferred", False, 1.0)
        else:
            reached = [weight for age_ms, weight in steps if watermark_ms > start + age_ms]
            result[key] = (0, "negative_inferred", False, max(reached)) if reached else None
    return result
