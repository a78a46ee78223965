"""A seeded marketplace whose truth is known: what ``hearback simulate`` writes.

Pure: a function of :class:`SimulationSettings`. The model is GLMix's own, so that a learner can be
held against the truth (Zhang et al., KDD 2016, equation 1): whether member m's application to job j
is ever answered within two weeks is a coin with

    logit p = x_global·β + z_member·θ_m + z_job·θ_j,    θ_m ~ N(0, I/λ_member), θ_j ~ N(0, I/λ_job)

where z_member describes the job (and the pair) and z_job the member (and the pair), each with a
constant 1 first. Where the settings say so, θ drifts from day to day, and recruiters prefer some of
what profiles say (:mod:`producers.terms`). Around that coin: members
search for weeks, in bursts; jobs open and close; recruiters (:mod:`producers.recruiters`) answer
late, many applicants in one sitting, decline some, take some of that back, and write notes. The
stream comes in arrival order: some events arrive late, some twice.

Days are drawn one at a time and events are kept only until they arrive, so memory does not grow
with the length of the log. Shapes: n applications of one day, M members, J jobs, d as in settings.
The same settings give the same bytes (with the same version of NumPy, whose draws they are).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from producers.attributes import Profiles
from producers.drift import Preferences
from producers.recruiters import ANSWERS, LATEST_ANSWER_MS, Recruiters
from producers.terms import CHANNELS, Terms
from producers.truth import (
    MINUTE_MS,
    START_MS,
    SimulationSettings,
    Truth,
    draw_truth,
    generator,
    global_columns,
    job_id,
    lively,
    member_id,
)
from stream.policy import DAY_MS, HOUR_MS

__all__ = [
    "ACTIONS",
    "START_MS",
    "SimulationSettings",
    "Truth",
    "draw_truth",
    "job_id",
    "lively",
    "member_id",
    "simulate",
]

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


ACTIONS: Final = (
    "view_profile", "message", "shortlist", "interview", "offer", "hire",  # answered
    "reject", "archive", "skip",  # declined
    "note", "forward",  # neither
)  # fmt: skip
"""All actions that appear, in the terms of the default label policy."""

_ACTION_NUMBER: Final = {action: number for number, action in enumerate(ACTIONS)}

_BURST_GOES_ON = 0.5  # a member who searched yesterday searches today
_SEARCHING = 0.25  # of the members, on an average day
_WEEKDAY: Final = (1.2, 1.25, 1.2, 1.1, 0.95, 0.6, 0.7)  # Monday to Sunday

_EVENT: Final = np.dtype(
    [
        ("arrival_ms", "i8"),
        ("kind", "i1"),
        ("number", "i8"),
        ("time_ms", "i8"),
        ("application", "i8"),
        ("member", "i8"),
        ("job", "i8"),
        ("action", "i1"),
        ("channel", "i1"),
    ]
)
_APPLICATION, _ENGAGEMENT, _JOB_EVENT = range(3)


def simulate(settings: SimulationSettings) -> Iterator[bytes]:
    """Give the log's lines (JSON, without line ends) in arrival order."""
    market = _Market(settings)
    arriving: dict[int, list[NDArray[np.void]]] = {}
    texts: list[bytes] = []  # of the applications that may still arrive, from number `base` on
    base = 0
    counts: list[int] = []  # applications of each day
    day = 0
    while day < settings.days or arriving:
        if day < settings.days:
            lines, events = market.draw_day(day)
            texts += lines
            counts.append(len(lines))
            for arrival_day, part in _by_arrival_day(events, settings.start_ms):
                arriving.setdefault(arrival_day, []).append(part)
        today = arriving.pop(day, None)
        if today:
            for event in _in_order(np.concatenate(today)):
                yield texts[event[2] - base] if event[1] == _APPLICATION else _line(event)
        if 4 <= day < len(counts) + 4:  # a repeat comes after less than three days
            del texts[: counts[day - 4]]
            base += counts[day - 4]
        day += 1


class _ApplicationLine(msgspec.Struct, tag="application", tag_field="type", omit_defaults=True):
    application_id: str
    member_id: str
    job_id: str
    event_time_ms: int
    features: dict[str, object]
    global_score: float | None = None
    channel: str | None = None
    terms: dict[str, list[str]] | None = None
    member: dict[str, object] | None = None
    job: dict[str, object] | None = None
    context: dict[str, object] | None = None


class _EngagementLine(msgspec.Struct, tag="engagement", tag_field="type", omit_defaults=True):
    engagement_id: str
    application_id: str
    member_id: str
    job_id: str
    event_time_ms: int
    action: str
    channel: str | None = None


class _JobLine(msgspec.Struct, tag="job", tag_field="type"):
    job_event_id: str
    job_id: str
    event_time_ms: int
    action: str


_Event = tuple[int, int, int, int, int, int, int, int, int]


class _Market:
    """Members, jobs and recruiters, and who applies and answers on each day."""

    def __init__(self, settings: SimulationSettings) -> None:
        self.settings = settings
        self.preferences = Preferences(settings)
        self.rng = generator(settings, 2)
        self.applications_so_far = 0
        self._engagements_so_far = 0
        self._applied = np.empty(0, dtype=np.int64)  # member · J + job, of jobs still open, sorted
        rng = generator(settings, 1)
        members, jobs = settings.members, settings.jobs
        self._job_traits = rng.standard_normal((jobs, settings.d_member - 1))
        self._member_traits = rng.standard_normal((members, settings.d_job - 1))
        # Members: how eager, whether searching now.
        self._eagerness = rng.gamma(6.0, 1.0, members)
        self._searching = rng.random(members) < _SEARCHING
        self._terms = Terms(settings)
        self._has_terms = rng.random(members) < settings.terms_share
        self._search_begins, self._search_ends = self._draw_searches()
        # Jobs: live as long as typical, or as long as it takes for three to be open at any time.
        typical_ms = max(settings.job_life_ms, 3.0 * settings.days * DAY_MS / jobs)
        life_ms = typical_ms * np.clip(rng.lognormal(0.0, 0.5, jobs), 0.25, 3.0)
        span_ms = settings.days * DAY_MS + typical_ms
        opening = (np.arange(jobs) + rng.random(jobs)) / jobs * span_ms - typical_ms
        self._opened = settings.start_ms + opening.astype(np.int64)
        self._closed = self._opened + life_ms.astype(np.int64)
        self._says_closed = rng.random(jobs) < settings.close_share
        self._popularity = rng.lognormal(0.0, 0.5, jobs)
        self._profiles: Profiles | None = None
        if settings.attributes:
            self._profiles = Profiles(settings, self._terms.has, self._opened)
            self._has_terms &= self._terms.has is not None  # else of other titles and skills
        # Applicants are looked through every so often.
        every = rng.uniform(6 * HOUR_MS, 24 * HOUR_MS, jobs).astype(np.int64)
        self._recruiters = Recruiters(settings, every, (rng.random(jobs) * every).astype(np.int64))

    def draw_day(self, day: int) -> tuple[list[bytes], NDArray[np.void]]:
        """Draw all that has its cause on this day.

        Returns:
            The lines of the day's applications, and its events of dtype ``_EVENT``, repeats too.

        """
        self.preferences.go_to(day)
        applications, jobs_closed = self._draw_applications(day), self._job_events(day)
        lines, answer_chance = self._describe(applications)
        engagements = self._draw_engagements(applications, answer_chance)
        events = np.concatenate([applications, engagements, jobs_closed])
        return lines, self._on_its_way(events)

    def _draw_searches(self) -> tuple[_Ints, _Ints]:
        """Draw when each member's search begins and ends, (M,), in milliseconds."""
        settings = self.settings
        if settings.search_ms is None:
            always = np.zeros(settings.members, dtype=np.int64)
            return always, always + np.iinfo(np.int64).max
        rng = generator(settings, 5)
        length_ms = settings.search_ms * np.clip(
            rng.lognormal(0.0, 0.6, settings.members), 0.1, 4.0
        )
        # So that as many are searching on every day, the first and the last included.
        span_ms = settings.days * DAY_MS + length_ms
        begins = settings.start_ms - length_ms + rng.random(settings.members) * span_ms
        return begins.astype(np.int64), (begins + length_ms).astype(np.int64)

    def _draw_applications(self, day: int) -> NDArray[np.void]:
        settings, rng = self.settings, self.rng
        begin = settings.start_ms + day * DAY_MS
        chance = rng.random(settings.members)
        starts = _SEARCHING * (1 - _BURST_GOES_ON) / (1 - _SEARCHING)
        self._searching = chance < np.where(self._searching, _BURST_GOES_ON, starts)
        today = self._searching & (self._search_begins < begin + DAY_MS)
        today &= self._search_ends > begin
        eagerness = np.where(today, self._eagerness, 0.0)
        open_jobs = np.flatnonzero((self._opened < begin + DAY_MS) & (self._closed > begin))
        weekday = (begin // DAY_MS + 3) % 7  # 1970-01-01 was a Thursday
        mean = settings.members * settings.applications_per_member / settings.days
        wanted = int(rng.poisson(mean * _WEEKDAY[weekday]))
        if not wanted or not len(open_jobs) or not today.any():
            return np.empty(0, dtype=_EVENT)
        # More are drawn than wanted: a member applies to a job once, and only while it is open.
        n = wanted + wanted // 2 + 16
        member = _choose(rng, eagerness, n)
        job = open_jobs[_choose(rng, self._popularity[open_jobs], n)]
        sat_down = np.clip(rng.normal(15.0, 4.0, settings.members), 5.0, 21.0) * HOUR_MS
        minutes = np.minimum(rng.exponential(25.0, n), 150.0)
        time_ms = begin + (sat_down[member] + minutes * MINUTE_MS).astype(np.int64)
        pair = member * settings.jobs + job
        fits = (self._opened[job] <= time_ms) & (time_ms < self._closed[job])
        fits &= ~np.isin(pair, self._applied)
        _, first = np.unique(pair, return_index=True)
        once = np.zeros(n, dtype=bool)
        once[first] = True
        chosen = np.flatnonzero(fits & once)[:wanted]
        chosen = chosen[np.argsort(time_ms[chosen], kind="stable")]
        still_open = self._applied[self._closed[self._applied % settings.jobs] > begin]
        self._applied = np.sort(np.concatenate([still_open, pair[chosen]]))
        events = np.zeros(len(chosen), dtype=_EVENT)
        events["kind"] = _APPLICATION
        events["number"] = self.applications_so_far + np.arange(len(chosen))
        events["application"] = events["number"]
        events["time_ms"] = time_ms[chosen]
        events["member"] = member[chosen]
        events["job"] = job[chosen]
        events["channel"] = self._draw_channels(len(chosen))
        self.applications_so_far += len(chosen)
        return events

    def _describe(self, events: NDArray[np.void]) -> tuple[list[bytes], _Floats]:
        """Draw the features; return the lines (n) and the chances of being answered (n,)."""
        settings, rng, truth = self.settings, self.rng, self.preferences.today
        n = len(events)
        member, job = events["member"], events["job"]
        ones = np.ones((n, 1))
        own, shared = global_columns(settings)
        if self._profiles is None:
            half = math.sqrt(0.5)  # half of each feature is the entity's, half the pair's
            d_job, d_member = settings.d_member - 1, settings.d_job - 1
            of_job = half * (self._job_traits[job] + rng.standard_normal((n, d_job)))
            of_member = half * (self._member_traits[member] + rng.standard_normal((n, d_member)))
            of_pair = rng.standard_normal((n, own))
        else:
            of_job, of_member, of_pair = self._profiles.features(member, job, events["time_ms"])
        both = np.hstack([of_job, of_member])
        # What is sent is what decides: rounded once, here.
        z_member = np.hstack([ones, of_job]).round(4)
        z_job = np.hstack([ones, of_member]).round(4)
        x = np.hstack([ones, both[:, shared], of_pair]).round(4)
        fixed = (x @ truth.beta).round(6)
        logit = fixed + np.einsum("nd,nd->n", z_member, truth.per_member[member])
        logit += np.einsum("nd,nd->n", z_job, truth.per_job[job])
        logit += self._terms.log_odds(member, job, events["channel"])
        blocks = zip(x.tolist(), z_member.tolist(), z_job.tolist(), strict=True)
        names = tuple(truth.feature_names.values())
        encode = msgspec.json.Encoder().encode
        lines = []
        for event, (*vectors,), score in zip(events.tolist(), blocks, fixed.tolist(), strict=True):
            _, _, number, time_ms, _, m, j, _, channel = event
            features: list[object] = vectors
            if settings.named_features:
                features = [
                    dict(zip(*one, strict=True)) for one in zip(names, vectors, strict=True)
                ]
            line = _ApplicationLine(
                f"a{number:07d}",
                member_id(m),
                job_id(j),
                time_ms,
                dict(zip(("global", "per_member", "per_job"), features, strict=True)),
                score if settings.global_score else None,
                CHANNELS[channel - 1] if channel else None,
                self._terms.of(m) if self._has_terms[m] else None,
            )
            if self._profiles is not None:
                line.member, line.job = self._profiles.member(m), self._profiles.job(j)
                line.context = self._profiles.context(number)
            lines.append(encode(line))
        return lines, 1.0 / (1.0 + np.exp(-logit))

    def _draw_engagements(self, events: NDArray[np.void], chance: _Floats) -> NDArray[np.void]:
        """Draw all that recruiters will ever do about these applications."""
        settings, rng = self.settings, self.rng
        n = len(events)
        applied = events["time_ms"]
        answered = rng.random(n) < chance
        job, recruiters = events["job"], self._recruiters
        declined = ~answered & (rng.random(n) < recruiters.decline_shares(job))
        corrected = answered & (rng.random(n) < settings.correction_share)
        noted = rng.random(n) < settings.note_share
        first = recruiters.draw_times(rng, applied, job)
        note = recruiters.draw_times(rng, applied, job)
        # A correction comes within three days of the decline, and still counts.
        second = first + rng.integers(HOUR_MS, 3 * DAY_MS, n)
        second = np.minimum(second, applied + LATEST_ANSWER_MS + 2 * HOUR_MS - 1)
        # What follows an answer may take longer than anyone waits for a label.
        later = np.where(corrected, second, first) + (rng.exponential(2.0, n) * DAY_MS).astype(
            np.int64
        )
        latest = later + DAY_MS + (rng.exponential(4.0, n) * DAY_MS).astype(np.int64)
        goes_on = answered & (rng.random(n) < 0.5)
        ends_well = goes_on & (rng.random(n) < 0.3)
        decline = _pick(rng, n, reject=0.6, archive=0.25, skip=0.15)
        answer = _pick_each(rng, recruiters.answer_shares(job))
        parts = [
            (declined | corrected, first, decline),
            (corrected, second, _pick(rng, n, message=1.0)),
            (answered & ~corrected, first, answer),
            (goes_on, later, _pick(rng, n, message=0.6, interview=0.4)),
            (ends_well, latest, _pick(rng, n, offer=0.6, hire=0.4)),
            (noted, note, _pick(rng, n, note=0.8, forward=0.2)),
        ]
        engagements = np.concatenate([events[mask] for mask, _, _ in parts])
        engagements["kind"] = _ENGAGEMENT
        engagements["time_ms"] = np.concatenate([time[mask] for mask, time, _ in parts])
        engagements["action"] = np.concatenate([action[mask] for mask, _, action in parts])
        engagements["channel"] = self._draw_channels(len(engagements))
        engagements = engagements[np.argsort(engagements["time_ms"], kind="stable")]
        engagements["number"] = self._engagements_so_far + np.arange(len(engagements))
        self._engagements_so_far += len(engagements)
        return engagements

    def _job_events(self, day: int) -> NDArray[np.void]:
        begin = self.settings.start_ms + day * DAY_MS
        today = self._says_closed & (self._closed >= begin) & (self._closed < begin + DAY_MS)
        events = np.zeros(np.count_nonzero(today), dtype=_EVENT)
        events["kind"] = _JOB_EVENT
        events["job"] = events["number"] = np.flatnonzero(today)
        events["time_ms"] = self._closed[today]
        return events

    def _on_its_way(self, events: NDArray[np.void]) -> NDArray[np.void]:
        """Give each event its arrival: at once, late, or late and once more."""
        settings, rng = self.settings, self.rng
        n = len(events)
        late = rng.integers(1, settings.max_lateness_ms, n)
        late[rng.random(n) >= settings.out_of_order_share] = 0
        events["arrival_ms"] = events["time_ms"] + late
        again = events[rng.random(n) < settings.repeat_share]
        hours = np.minimum(rng.exponential(6.0, len(again)), 48.0)
        again["arrival_ms"] += (hours * HOUR_MS).astype(np.int64) + 1
        return np.concatenate([events, again])

    def _draw_channels(self, n: int) -> _Ints:
        known = self.rng.random(n) < self.settings.channel_share
        return np.where(known, self.rng.integers(1, len(CHANNELS) + 1, n), 0)


def _line(event: _Event) -> bytes:
    """Write an engagement or a job event."""
    _, kind, number, time_ms, application, member, job, action, channel = event
    if kind == _JOB_EVENT:
        return msgspec.json.encode(_JobLine(f"x{number:05d}", job_id(job), time_ms, "closed"))
    return msgspec.json.encode(
        _EngagementLine(
            f"e{number:07d}",
            f"a{application:07d}",
            member_id(member),
            job_id(job),
            time_ms,
            ACTIONS[action],
            CHANNELS[channel - 1] if channel else None,
        )
    )


def _by_arrival_day(
    events: NDArray[np.void], start_ms: int
) -> Iterator[tuple[int, NDArray[np.void]]]:
    days = (events["arrival_ms"] - start_ms) // DAY_MS
    for day in np.unique(days).tolist():
        yield day, events[days == day]


def _in_order(events: NDArray[np.void]) -> list[_Event]:
    order = np.lexsort((events["number"], events["kind"], events["arrival_ms"]))
    ordered: list[_Event] = events[order].tolist()
    return ordered


def _choose(rng: np.random.Generator, weights: _Floats, n: int) -> _Ints:
    """Draw n indices with the given weights, (n,)."""
    total = np.cumsum(weights)
    chosen: _Ints = np.searchsorted(total, rng.random(n) * total[-1], side="right")
    return chosen


def _pick(rng: np.random.Generator, n: int, **shares: float) -> _Ints:
    """Draw n actions, by number, with the given shares, (n,)."""
    numbers = np.array([_ACTION_NUMBER[action] for action in shares], dtype=np.int64)
    return numbers[_choose(rng, np.array(list(shares.values())), n)]


def _pick_each(rng: np.random.Generator, shares: _Floats) -> _Ints:
    """Draw an answer for each, by number, with its own shares (n, 3), (n,)."""
    total = np.cumsum(shares, axis=1)
    chosen = (total < (rng.random(len(shares)) * total[:, -1])[:, None]).sum(axis=1)
    numbers: _Ints = np.array([_ACTION_NUMBER[action] for action in ANSWERS])[chosen]
    return numbers
