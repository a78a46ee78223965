"""When recruiters answer in a simulated marketplace, and in which way.

Pure; :mod:`producers.simulate` asks it for every application. Whether an application is answered is
not decided here: that is the truth's coin. Two kinds of recruiters:

- without habits, each job is looked through every so often, around the clock;
- with habits, a recruiter has several jobs, sits at the desk at fixed hours of the own working
  days, is quick or slow, declines often or hardly ever, and has a favourite way to answer.

Shapes: n applications, J jobs, R recruiters.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from producers.truth import MINUTE_MS, SimulationSettings, generator
from stream.policy import DAY_MS, HOUR_MS

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


# The latest first answer, after its application: inside the default window of 14 days.
LATEST_ANSWER_MS: Final = 14 * DAY_MS - 2 * HOUR_MS

ANSWERS: Final = ("view_profile", "message", "shortlist")
_ANSWER_SHARES: Final = (0.5, 0.3, 0.2)
_FAVOURITE = 0.6  # of a recruiter's answers are given in the favourite way

_SOON = 0.31  # of the answers are meant for the same day
_SOON_WITH_HABITS = 0.38  # nights and weekends come in between: 30 % are left within a day
_PACE_SD = 0.4  # of the logarithm of how much longer or shorter a recruiter takes
_DECLINE_SPREAD = 2.0  # sum of the beta distribution's parameters: some decline nearly all
_TWICE_A_DAY = 0.6  # of the recruiters sit down in the afternoon too
_ON_SATURDAYS = 0.15
_DAYS_OFF = 0.15  # chance that a weekday is none of a part-timer's
_PART_TIME = 0.3


class Recruiters:
    """Who looks after each job, and how.

    Args:
        settings: of the marketplace.
        every, at: how often the applicants of each job are looked through, and from when on (J,),
            in milliseconds; used without habits.

    """

    def __init__(self, settings: SimulationSettings, every: _Ints, at: _Ints) -> None:
        self._settings = settings
        self._every, self._at = every, at
        rng = generator(settings, 4)
        jobs = settings.jobs
        count = max(round(jobs / settings.jobs_per_recruiter), 1)
        self.of_job: _Ints = rng.integers(0, count, jobs)
        self.pace: _Floats = rng.lognormal(0.0, _PACE_SD, count)
        mean = min(max(settings.reject_share, 1e-6), 1 - 1e-6)
        self.declines: _Floats = rng.beta(
            _DECLINE_SPREAD * mean, _DECLINE_SPREAD * (1 - mean), count
        )
        self.favourite: _Ints = rng.choice(len(ANSWERS), count, p=_ANSWER_SHARES)
        works = np.ones((count, 7), dtype=bool)  # Monday to Sunday
        works[:, :5] = rng.random((count, 5)) > np.where(
            rng.random((count, 1)) < _PART_TIME, _DAYS_OFF, 0.0
        )
        works[~works[:, :5].any(axis=1), 0] = True
        works[:, 5] = rng.random(count) < _ON_SATURDAYS
        works[:, 6] = False
        self.works: NDArray[np.bool_] = works
        morning = np.clip(rng.normal(9.5, 1.0, count), 7.0, 12.0)
        afternoon = np.clip(rng.normal(15.5, 1.0, count), 13.0, 18.0)
        twice = rng.random(count) < _TWICE_A_DAY
        hours = np.stack([morning, np.where(twice, afternoon, morning)], axis=1)
        self.desk_ms: _Ints = (hours * HOUR_MS).astype(np.int64)

    def decline_shares(self, job: _Ints) -> _Floats | float:
        """Give the share of unanswered applications declined in so many words, (n,) or for all."""
        if not self._settings.habits:
            return self._settings.reject_share
        return self.declines[self.of_job[job]]

    def answer_shares(self, job: _Ints) -> _Floats:
        """Give the shares of :data:`ANSWERS`, (n, 3)."""
        shares = np.tile(np.array(_ANSWER_SHARES), (len(job), 1))
        if self._settings.habits:
            shares *= 1 - _FAVOURITE
            shares[np.arange(len(job)), self.favourite[self.of_job[job]]] += _FAVOURITE
        return shares

    def draw_times(self, rng: np.random.Generator, applied: _Ints, job: _Ints) -> _Ints:
        """Draw when recruiters get round to applications of these times and jobs, (n,)."""
        delay = self._draw_delays(rng, job)
        n = len(job)
        ready = applied + delay
        sits = self._desk(ready, job) if self._settings.habits else self._round(ready, job)
        sits += rng.integers(0, 30 * MINUTE_MS, n)
        return np.where(sits - applied <= LATEST_ANSWER_MS, sits, ready)

    def _draw_delays(self, rng: np.random.Generator, job: _Ints) -> _Ints:
        """Draw how long recruiters take, (n,): with the sittings, a third within a day."""
        n = len(job)
        soon = rng.exponential(5.0, n) * HOUR_MS
        late = (0.5 + 12.5 * rng.beta(1.0, 2.0, n)) * DAY_MS
        share: float | _Floats = _SOON
        if self._settings.habits:
            pace = self.pace[self.of_job[job]]
            late *= pace
            # The slow ones seldom answer on the same day.
            share = _SOON_WITH_HABITS / pace**0.5
        delay = np.where(rng.random(n) < share, soon, late).astype(np.int64)
        return np.clip(delay, MINUTE_MS, LATEST_ANSWER_MS)

    def _round(self, ready: _Ints, job: _Ints) -> _Ints:
        """Move times on to the next look through the job's applicants, (n,)."""
        every, at = self._every[job], self._at[job]
        return at - (at - ready) // every * every  # the next multiple, rounded up

    def _desk(self, ready: _Ints, job: _Ints) -> _Ints:
        """Move times on to when the recruiter next sits at the desk, (n,)."""
        who = self.of_job[job]
        found = np.full(len(ready), -1, dtype=np.int64)
        for later in range(8):  # everybody works on one day of the week
            day = ready // DAY_MS + later
            works = self.works[who, (day + 3) % 7]  # 1970-01-01 was a Thursday
            for desk in range(self.desk_ms.shape[1]):
                at = day * DAY_MS + self.desk_ms[who, desk]
                found = np.where((found < 0) & works & (at >= ready), at, found)
        return np.where(found < 0, ready, found)
