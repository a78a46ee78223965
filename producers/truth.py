"""What is true in a simulated marketplace: its settings and its coefficients.

Pure; :mod:`producers.simulate` decides by these coefficients, and they are written next to its log.
Two kinds of market: in the calm one, the defaults, preferences never change and everybody searches
all the time, which is what a learner is held against; the lively one (:func:`lively`) is what
hiring is said to be like (job searches and job postings are transient, and personal models go stale
without updates: Salomatin et al., *Quality matches via personalized AI*, LinkedIn Engineering,
2020). Shapes: M members, J jobs, d as in the settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError
from stream.policy import DAY_MS, HOUR_MS

_Floats = NDArray[np.float64]

START_MS: Final = 1_704_067_200_000
"""2024-01-01T00:00:00Z: fixed and past, so that a log can be closed two weeks after its end."""

ATTRIBUTE_FEATURES: Final = (
    ("pay", "same_city", "age_of_the_posting"),
    ("years", "skills_asked_for", "same_title"),
    ("worth_of_the_skills", "demand_in_the_city", "years_beyond_those_asked_for"),
)
"""What attributes make of the job, of the member, and of both (:mod:`producers.attributes`)."""

MINUTE_MS: Final = HOUR_MS // 60
WEEK_MS: Final = 7 * DAY_MS


class SimulationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate. Shares lie between 0 and 1.

    ``days`` is how long members apply; answers follow for some weeks more. ``d_*`` are the sizes of
    the feature blocks, their constant included. ``global_sd`` is the standard deviation of the
    global score, ``precision_*`` the λ of each random effect (3 is the product's own prior).
    ``answer_rate`` is the share of applications that are answered, ``reject_share`` that of the
    others which are declined in so many words, ``correction_share`` that of the answered which were
    declined first. ``max_lateness_ms`` bounds how much later than its time an event arrives.

    ``search_ms`` is how long a member searches, typically, once (None: all the time);
    ``job_life_ms`` how long a job is open. ``drift_*_ms`` are half-lives of preferences: after so
    long the correlation of an entity's coefficients with what they were is ½ (None: they stay).
    With ``attributes`` the features follow from what members and jobs say of themselves, and
    applications carry that too (:mod:`producers.attributes`).
    ``preference_sd`` is how much one term of a profile matters to a job (:mod:`producers.terms`).
    With ``habits`` recruiters have ``jobs_per_recruiter`` jobs, own hours, an own pace and own
    ways (:mod:`producers.recruiters`).
    """

    seed: int = 1
    members: int = 2_000
    jobs: int = 400
    days: int = 30
    start_ms: int = START_MS
    applications_per_member: float = 20.0
    d_global: int = 8
    d_member: int = 4
    d_job: int = 4
    global_sd: float = 0.8
    precision_member: float = 3.0
    precision_job: float = 3.0
    answer_rate: float = 0.3
    reject_share: float = 0.3
    correction_share: float = 0.08
    note_share: float = 0.08
    close_share: float = 0.8
    out_of_order_share: float = 0.1
    max_lateness_ms: int = 50 * MINUTE_MS
    repeat_share: float = 0.01
    channel_share: float = 0.7
    terms_share: float = 0.5
    preference_sd: float = 0.0
    named_features: bool = False
    attributes: bool = False
    global_score: bool = False
    search_ms: int | None = None
    job_life_ms: int = 14 * DAY_MS
    drift_member_ms: int | None = None
    drift_job_ms: int | None = None
    habits: bool = False
    jobs_per_recruiter: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense, in one line."""
        for name in ("members", "jobs", "days", "d_global", "d_member", "d_job"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        for name in (
            "global_sd",
            "precision_member",
            "precision_job",
            "applications_per_member",
            "jobs_per_recruiter",
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a positive number")
        for name in self.__struct_fields__:
            if name.endswith("_share") and not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie between 0 and 1")
        if not 0.0 <= self.preference_sd <= 10.0:
            raise ConfigError("preference_sd must lie between 0 and 10")
        if not 0.001 <= self.answer_rate <= 0.999:
            raise ConfigError("answer_rate must lie between 0.001 and 0.999")
        for name in ("search_ms", "job_life_ms", "drift_member_ms", "drift_job_ms"):
            value = getattr(self, name)
            if value is not None and value < HOUR_MS:
                raise ConfigError(f"{name.removesuffix('_ms')} must be at least 1h")
        if self.attributes and (self.d_global, self.d_member, self.d_job) != (8, 4, 4):
            raise ConfigError("attributes make 8 global, 4 member and 4 job features: leave these")
        if self.seed < 0:
            raise ConfigError("seed must not be negative")
        if not 0 <= self.start_ms <= 4_102_444_800_000 or self.days > 36_525:
            raise ConfigError("the marketplace must start between 1970 and 2100, for 100 years")
        if not MINUTE_MS <= self.max_lateness_ms < HOUR_MS:
            raise ConfigError("max_lateness must be at least 1m and shorter than 1h")
        if self.applications_per_member > self.jobs / 2:
            raise ConfigError(
                f"{self.jobs} jobs are too few for {self.applications_per_member:g} applications "
                "per member, who applies to a job only once: give at least twice as many jobs"
            )


def lively(**changes: Any) -> SimulationSettings:
    """Describe a market in which preferences drift, people come and go, and recruiters have habits.

    Chosen so that what the effects gain halves within about three weeks when updates stop, and the
    job's sooner than the member's, and that about 30 % of first answers come within a day
    (docs/backtest.md has the figures and the command).
    """
    return SimulationSettings(
        **{
            "members": 1_500,
            "jobs": 600,
            "days": 120,
            "applications_per_member": 25.0,
            "precision_member": 1.2,
            "precision_job": 2.5,
            "search_ms": 14 * WEEK_MS,
            "job_life_ms": 18 * DAY_MS,
            "drift_member_ms": 120 * DAY_MS,
            "drift_job_ms": 45 * DAY_MS,
            "habits": True,
            "jobs_per_recruiter": 4.0,
        }
        | changes
    )


@dataclass(frozen=True, slots=True)
class Truth:
    """The coefficients that decided: ``beta`` (d_global,), the effects (M, d_member), (J, d_job).

    Entity k's row is row k, its id :func:`member_id` or :func:`job_id`. ``feature_names`` has the
    names of each block in order: ``global``, ``per_member``, ``per_job``. Where preferences drift,
    these are the effects of one day (:mod:`producers.drift`).
    """

    settings: SimulationSettings
    feature_names: dict[str, list[str]]
    beta: _Floats
    per_member: _Floats
    per_job: _Floats

    def to_json(
        self, over_time: list[dict[str, object]] | None = None, preferences: object = None
    ) -> bytes:
        """Write it as one JSON object, coefficients by entity id.

        With those of other days and the preferences for terms, if given.
        """
        document: dict[str, object] = {
            "settings": self.settings,
            "feature_names": self.feature_names,
            "global": self.beta.tolist(),
            **self.effects(),
        }
        if over_time is not None:
            document["over_time"] = over_time
        if preferences is not None:
            document["preferences"] = preferences
        return msgspec.json.encode(document) + b"\n"

    def effects(self) -> dict[str, dict[str, list[float]]]:
        """Give both effects' coefficients by entity id."""
        return {
            "per_member": _by_id(member_id, self.per_member),
            "per_job": _by_id(job_id, self.per_job),
        }


def _by_id(name: Callable[[int], str], rows: _Floats) -> dict[str, list[float]]:
    return {name(number): row for number, row in enumerate(rows.tolist())}


def member_id(number: int) -> str:
    """Name a member: ``m000123``."""
    return f"m{number:06d}"


def job_id(number: int) -> str:
    """Name a job: ``j00042``."""
    return f"j{number:05d}"


def draw_truth(settings: SimulationSettings) -> Truth:
    """Draw the true coefficients; :func:`simulate` decides by the same ones."""
    rng = generator(settings, 0)
    beta = rng.standard_normal(settings.d_global)
    if settings.d_global > 1:
        beta[1:] *= settings.global_sd / np.linalg.norm(beta[1:])
    beta[0] = _intercept(settings)
    per_member = rng.standard_normal((settings.members, settings.d_member))
    per_job = rng.standard_normal((settings.jobs, settings.d_job))
    own, shared = global_columns(settings)
    member_names = [f"job_{k}" for k in range(1, settings.d_member)]
    job_names = [f"member_{k}" for k in range(1, settings.d_job)]
    pair_names = [f"pair_{k + 1}" for k in range(own)]
    if settings.attributes:
        member_names, job_names, pair_names = map(list, ATTRIBUTE_FEATURES)
    both = member_names + job_names
    return Truth(
        settings,
        {
            "global": [
                "intercept",
                *(both[k] for k in shared),
                *pair_names,
            ],
            "per_member": ["intercept", *member_names],
            "per_job": ["intercept", *job_names],
        },
        # What is written is what decides: rounded once, here.
        beta.round(6),
        (per_member / math.sqrt(settings.precision_member)).round(6),
        (per_job / math.sqrt(settings.precision_job)).round(6),
    )


def global_columns(settings: SimulationSettings) -> tuple[int, list[int]]:
    """Choose the fixed effect's features: how many of the pair's own, and which of the entities'.

    About two thirds of them are the job's and the member's own features, alternating.
    """
    of_job, of_member = settings.d_member - 1, settings.d_job - 1
    alternating = [
        column
        for k in range(max(of_job, of_member))
        for column in ([k] if k < of_job else []) + ([of_job + k] if k < of_member else [])
    ]
    shared = alternating[: (settings.d_global - 1) * 2 // 3]
    return settings.d_global - 1 - len(shared), shared


_TERMS_SPREAD = 20 / 7  # of a title of seven and three skills of nine: the sum of their variances


def _intercept(settings: SimulationSettings) -> float:
    """Find the constant for which a share ``answer_rate`` is answered, over all coefficients."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    variance = settings.d_member / settings.precision_member
    variance += settings.d_job / settings.precision_job
    variance += settings.global_sd**2 if settings.d_global > 1 else 0.0
    variance += settings.preference_sd**2 * _TERMS_SPREAD
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        rate = weights @ (1 / (1 + np.exp(-(middle + math.sqrt(variance) * nodes)))) / weights.sum()
        low, high = (middle, high) if rate < settings.answer_rate else (low, middle)
    return low


def generator(settings: SimulationSettings, stream: int) -> np.random.Generator:
    """Make one of the independent generators.

    0 truth, 1 the entities, 2 what happens, 3 drift, 4 recruiters, 5 searches, 6 terms,
    7 attributes.
    """
    return np.random.default_rng(np.random.SeedSequence([settings.seed, stream]))
