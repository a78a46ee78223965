"""What members and jobs say of themselves, and the features that follow from it.

``hearback simulate --attributes``: who decides looks at what is said. The features that an
application carries are those by which it is decided, made of its attributes alone, so that a model
of the attributes can be held against one of the true features.

A member says title, skills, years, city and since when (``joined``); a job title, skills and years
asked for, pay, city and the day on which it was posted; the occasion says the device. Some say
nothing of their years, their city or their pay: these count as the average. Device, joining date
and a job's language decide nothing.

Shapes: M members, J jobs; n applications. Every feature has a mean near 0 and a variance near 1.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from producers.terms import SKILLS, TITLES
from producers.truth import SimulationSettings, generator
from stream.policy import DAY_MS

CITIES: Final = ("Berlin", "Hamburg", "Munich", "Cologne", "Leipzig", "Bremen", "Dresden", "Essen")
DEVICES: Final = ("phone", "laptop", "tablet")
LANGUAGES: Final = ("de", "en")

_SILENT = 0.04  # of those who could say something
_FEWEST_SKILLS, _MOST_SKILLS = 2, 5
_TOWNSHIP = 0.6  # of members and jobs who are in one of the two largest cities

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


class Profiles:
    """All profiles of a market.

    Args:
        settings: the market's.
        terms: titles and skills (M, T) of its members, where recruiters prefer some of them.
        opened: when its jobs were posted (J,), in milliseconds.

    """

    def __init__(
        self, settings: SimulationSettings, terms: NDArray[np.bool_] | None, opened: _Ints
    ) -> None:
        rng = generator(settings, 7)
        members, jobs = settings.members, settings.jobs
        self._titles = rng.integers(0, len(TITLES), members)
        self._asked_titles = rng.integers(0, len(TITLES), jobs)
        self._skills = _some_skills(rng, members)
        self._asked_skills = _some_skills(rng, jobs)
        if terms is not None:
            self._titles = terms[:, : len(TITLES)].argmax(axis=1)
            self._skills = terms[:, len(TITLES) :]
        self._years = _or_silent(rng, rng.gamma(2.0, 3.5, members).round())
        self._asked_years = _or_silent(rng, rng.gamma(2.0, 2.0, jobs).round())
        self._pay = _or_silent(rng, (rng.lognormal(math.log(45_000), 0.35, jobs) / 500).round())
        self._pay *= 500
        self._cities = _or_silent(rng, _some_cities(rng, members))
        self._asked_cities = _or_silent(rng, _some_cities(rng, jobs))
        self._posted = opened // DAY_MS
        joined = settings.start_ms // DAY_MS - rng.integers(0, 1_000, members)
        self._joined = [_date(day) for day in joined.tolist()]
        self._languages = rng.integers(0, len(LANGUAGES), jobs)
        self._seed = settings.seed
        # What nobody says: what a skill is worth, how much a city is in demand.
        self._worth = rng.standard_normal(len(SKILLS))
        self._demand = _standard(rng.permutation(len(CITIES)).astype(np.float64))

    def features(
        self, member: _Ints, job: _Ints, time_ms: _Ints
    ) -> tuple[_Floats, _Floats, _Floats]:
        """Features of the jobs (n, 3), the members (n, 3) and both (n, 3).

        In the order of :data:`producers.truth.ATTRIBUTE_FEATURES`.
        """
        age_days = np.maximum(time_ms / DAY_MS - self._posted[job], 0.0)
        same_city = self._cities[member] == self._asked_cities[job]
        shared = (self._skills[member] & self._asked_skills[job]).sum(axis=1)
        beyond = self._years[member] - self._asked_years[job]
        city = np.nan_to_num(self._cities[member], nan=-1.0).astype(np.int64)
        demand = np.append(self._demand, 0.0)[city]  # nothing said: the last
        worth = _standard(self._skills @ self._worth)[member]
        of_job = [
            np.nan_to_num((np.log(self._pay[job]) - math.log(45_000)) / 0.35),
            (same_city - 0.2) / 0.4,
            (np.log1p(age_days) - 2.2) / 0.8,
        ]
        of_member = [
            np.nan_to_num((np.log1p(self._years[member]) - 1.9) / 0.7),
            (shared / self._asked_skills[job].sum(axis=1) - 0.39) / 0.25,
            ((self._titles[member] == self._asked_titles[job]) - 1 / 7) / 0.35,
        ]
        of_both = [worth, demand, np.nan_to_num((beyond - 3.0) / 5.7)]
        return np.column_stack(of_job), np.column_stack(of_member), np.column_stack(of_both)

    def member(self, number: int) -> dict[str, object]:
        """What a member says."""
        return _said(
            title=TITLES[self._titles[number]],
            skills=[SKILLS[at] for at in np.flatnonzero(self._skills[number])],
            years=_whole(self._years[number]),
            city=_city(self._cities[number]),
            joined=self._joined[number],
        )

    def job(self, number: int) -> dict[str, object]:
        """What a job says."""
        return _said(
            title=TITLES[self._asked_titles[number]],
            skills=[SKILLS[at] for at in np.flatnonzero(self._asked_skills[number])],
            years=_whole(self._asked_years[number]),
            pay=_whole(self._pay[number]),
            city=_city(self._asked_cities[number]),
            posted=_date(int(self._posted[number])),
            language=LANGUAGES[self._languages[number]],
        )

    def context(self, application: int) -> dict[str, object]:
        """What is said of the occasion of an application."""
        return {"device": DEVICES[crc32(f"{self._seed} {application}".encode()) % len(DEVICES)]}


def _some_skills(rng: np.random.Generator, count: int) -> NDArray[np.bool_]:
    """Draw who has which skill (count, S): the first so many in an order of their own."""
    order = rng.random((count, len(SKILLS))).argsort(axis=1).argsort(axis=1)
    sizes = rng.integers(_FEWEST_SKILLS, _MOST_SKILLS + 1, count)
    has: NDArray[np.bool_] = order < sizes[:, None]
    return has


def _some_cities(rng: np.random.Generator, count: int) -> _Floats:
    """Draw cities by number (count,), the first two more often."""
    large = rng.random(count) < _TOWNSHIP
    return np.where(large, rng.integers(0, 2, count), rng.integers(2, len(CITIES), count)) * 1.0


def _or_silent(rng: np.random.Generator, values: _Floats) -> _Floats:
    """Let some say nothing: NaN."""
    return np.where(rng.random(len(values)) < _SILENT, np.nan, values)


def _standard(values: _Floats) -> _Floats:
    scaled: _Floats = (values - values.mean()) / max(values.std(), 1e-9)
    return scaled


def _said(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _whole(value: float) -> int | None:
    return None if math.isnan(value) else int(value)


def _city(value: float) -> str | None:
    return None if math.isnan(value) else CITIES[int(value)]


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_MS / 1000, UTC).date().isoformat()
