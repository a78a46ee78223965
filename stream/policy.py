"""Settings that decide what is learned and published: features, labels, the effects, the gate.

The structs declare the sections ``[features]``, ``[labels]``, ``[effects.NAME]`` and ``[gate]`` of
the policy file and of the configuration. A new setting is one more field here
(:class:`~stream.units.Setting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final, Literal

import msgspec

from stream.effects import EFFECTS, EffectSpec, Stage
from stream.errors import ConfigError, meant
from stream.units import Setting, format_duration, parse_duration_ms

DAY_MS = 86_400_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000

MAX_ENTITY_BYTES = 512 * 1024
"""Largest stored value of an entity, with ids of ordinary length."""

FOLD = 32
"""Examples folded at a time; so many more than the limits are kept in between."""

MOST_POINTS = 64
"""Points of a delay curve at most."""

MOST_FEATURE = 1e38
"""Largest ``max_feature``: features are float32."""

_EXAMPLE_BYTES = 96  # of a kept example besides its features: times, offset, ids
_FEWEST_EXAMPLES = 16


def is_curve(ages_ms: Sequence[int], shares: Sequence[float]) -> bool:
    """Whether ages (ms) and shares are a delay curve: see ``delay_curve``."""
    return (
        0 < len(ages_ms) == len(shares) <= MOST_POINTS
        and ages_ms[0] > 0
        and all(one < other for one, other in pairwise(ages_ms))
        and shares[0] >= 0.0
        and all(one <= other for one, other in pairwise(shares))
        and shares[-1] == 1.0
    )


class FeaturePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What an application may bring, and what is known of it besides."""

    max_feature: Annotated[
        float, Setting("an application with a larger feature or global score is a dead letter")
    ] = 1e6
    histories: Annotated[
        bool,
        Setting("count what has happened to members, jobs and pairs: inputs of a boosted model"),
    ] = True

    def __post_init__(self) -> None:
        """Refuse a limit that refuses everything, or that float32 does not have."""
        if not 0.0 < self.max_feature <= MOST_FEATURE:
            raise ConfigError(
                f"[features] max_feature must be above 0, and {MOST_FEATURE:g} at most"
            )


class LabelPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as an answer and how long one waits. Durations in milliseconds."""

    positive_actions: Annotated[frozenset[str], Setting("the recruiter answered")] = frozenset(
        {"view_profile", "message", "shortlist", "interview", "offer", "hire"}
    )
    negative_actions: Annotated[frozenset[str], Setting("the recruiter declined")] = frozenset(
        {"reject", "archive", "skip"}
    )
    neutral_actions: Annotated[
        frozenset[str], Setting("known, no evidence; any other action is a dead letter")
    ] = frozenset({"note", "forward"})
    window_ms: Annotated[int, Setting("after it, no engagement means no")] = 14 * DAY_MS
    aging: Annotated[
        tuple[float, ...],
        Setting("shares of the answers to come by which silence is a no, and weighs so much"),
    ] = (0.35, 0.7, 0.9)
    delay_curve: Annotated[
        frozenset[str],
        Setting(
            'ages and the shares of answers that have come by them, such as "1d:0.35"; none: the'
            " model's"
        ),
    ] = frozenset()
    later_response: Annotated[
        Literal["auto", "off", "full"],
        Setting("an answer to a later applicant is a no to the earlier ones; auto: without aging"),
    ] = "auto"
    min_age_ms: Annotated[int, Setting("... who have waited at least so long")] = 0
    job_closed: Annotated[
        Literal["off", "full"], Setting("the closing of the job is a no to all who wait")
    ] = "full"
    clock_skew_ms: Annotated[
        int,
        Setting("an engagement so much before its application counts as at the application's time"),
    ] = 5_000
    allowed_lateness_ms: Annotated[int, Setting("how far out of order events may arrive")] = HOUR_MS
    orphan_ttl_ms: Annotated[int, Setting("how long an engagement waits for its application")] = (
        DAY_MS
    )

    @property
    def infers_from_responses(self) -> bool:
        """Whether the rule ``later_response`` is on."""
        return self.later_response == "full" or (self.later_response == "auto" and not self.aging)

    def delays(self) -> list[tuple[int, float]]:
        """Ages (ms) and shares of ``delay_curve``, by age.

        Raises:
            ConfigError: one of them is not written as ``AGE:SHARE``, or they are no curve.

        """
        found = []
        for point in self.delay_curve:
            age, colon, share = point.partition(":")
            try:
                found.append((parse_duration_ms(age), float(share)))
            except ValueError:
                colon = ""
            if not colon:
                raise ConfigError(
                    f'[labels] delay_curve has {point!r}: write "AGE:SHARE" such as "1d:0.35"'
                )
        found.sort()
        if found and not is_curve([age_ms for age_ms, _ in found], [share for _, share in found]):
            raise ConfigError(
                f"[labels] delay_curve needs 1 to {MOST_POINTS} different ages above 0, and shares"
                " that do not fall with age and end with 1"
            )
        return found

    def past_everything_ms(self, largest_ms: int) -> int:
        """Return a watermark that closes every window and every wait, given the largest time."""
        return largest_ms + max(self.window_ms, self.orphan_ttl_ms) + 1

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        for one, other in (
            ("positive_actions", "negative_actions"),
            ("positive_actions", "neutral_actions"),
            ("negative_actions", "neutral_actions"),
        ):
            both = getattr(self, one) & getattr(self, other)
            if both:
                raise ConfigError(
                    f"[labels] {', '.join(sorted(both))} is in {one} and in {other}: keep one"
                )
        if not self.positive_actions:
            raise ConfigError("[labels] positive_actions is empty: nothing could be positive")
        if not all(0.0 < share < 1.0 for share in self.aging):
            raise ConfigError('[labels] aging has shares between 0 and 1, or is "off"')
        if self.window_ms <= 0:
            raise ConfigError("[labels] window must be longer than zero")
        delays = self.delays()
        if delays and delays[-1][0] < self.window_ms:
            raise ConfigError(
                f"[labels] delay_curve ends at {format_duration(delays[-1][0])}, before the window"
                f" of {format_duration(self.window_ms)}: let it go on up to there"
            )
        if self.orphan_ttl_ms < self.allowed_lateness_ms:
            raise ConfigError(
                "[labels] orphan_ttl is shorter than allowed_lateness: an engagement could expire"
                " before its application may arrive"
            )
        if self.orphan_ttl_ms < self.clock_skew_ms:
            raise ConfigError(
                "[labels] orphan_ttl is shorter than clock_skew: an engagement could expire before"
                " its application is read"
            )
        if self.min_age_ms > self.window_ms:
            raise ConfigError("[labels] min_age is longer than window: turn later_response off")


FEWEST_WINDOWS = 4
"""Label windows that an entity stays at least: by then its applications' labels are final."""


PRIOR_PRECISION: Final = 3.0
"""λ of a coefficient of which nothing else is said."""


class EffectSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one random effect.

    ``prior_precision``: λ of all coefficients, or by feature name; what is not named has
    :data:`PRIOR_PRECISION`. ``half_life_ms`` None: nothing is forgotten. ``entity_ttl_ms``: how
    long an entity stays, by event time, after its newest application; None: for ever.
    """

    prior_precision: Annotated[
        float | dict[str, float],
        Setting(
            "λ: a coefficient's prior is N(0, 1/λ); or by feature, { NAME = λ }, 3 where not named"
        ),
    ] = PRIOR_PRECISION
    half_life_ms: Annotated[
        int | None, Setting('an example loses half of its weight in this time; "off": never')
    ] = 30 * DAY_MS
    capacity: Annotated[
        int, Setting("final examples kept of an entity before the oldest are folded")
    ] = 128
    open_limit: Annotated[int, Setting("provisional examples kept of an entity")] = 1024
    full_up_to: Annotated[
        int, Setting("up to so many features the folded part is a full matrix, else a diagonal")
    ] = 32
    coupled: Annotated[bool, Setting("the other effect's score is part of the offset")] = True
    entity_ttl_ms: Annotated[
        int | None, Setting("a quiet entity expires after so long, 4 label windows at least")
    ] = None

    def __post_init__(self) -> None:
        """Refuse settings outside the range that the solver was proven on."""
        each = self.prior_precision
        values = list(each.values()) if isinstance(each, dict) else [each]
        if not values:
            raise ConfigError("prior_precision names no feature: give a number, or name some")
        if not all(1e-6 <= value <= 1e6 for value in values):
            raise ConfigError("prior_precision must lie between 1e-6 and 1e6")
        if self.half_life_ms is not None and self.half_life_ms <= 0:
            raise ConfigError('half_life must be longer than zero, or "off"')
        if self.capacity < 1 or self.open_limit < 1:
            raise ConfigError("capacity and open_limit must be at least 1")
        if self.entity_ttl_ms is not None and self.entity_ttl_ms <= 0:
            raise ConfigError('entity_ttl must be longer than zero, or "off"')
        if self.full_up_to < 0:
            raise ConfigError("full_up_to must not be negative")

    def precisions(self, names: Sequence[str]) -> list[float]:
        """Return λ of each feature, (d,).

        Raises:
            ConfigError: ``prior_precision`` names something else.

        """
        each = self.prior_precision
        if not isinstance(each, dict):
            return [each] * len(names)
        for name in each:
            if name not in names:
                raise ConfigError(
                    f"prior_precision names {name!r}, which is no feature{meant(name, names)}"
                )
        return [each.get(name, PRIOR_PRECISION) for name in names]

    def fitted(self, names: Sequence[str]) -> EffectSettings:
        """Return the settings for an effect with these features.

        An entity stays under 512 KiB: limits are lowered. ``prior_precision`` by name has all of
        the names, in their order; where all have the same λ it is that number.

        Raises:
            ConfigError: fewer than 16 examples fit; or ``prior_precision`` names something else.

        """
        fitted = self._limited(len(names))
        each = self.precisions(names)
        if isinstance(self.prior_precision, dict):
            same = len(set(each)) == 1
            prior = each[0] if same else dict(zip(names, each, strict=True))
            fitted = msgspec.structs.replace(fitted, prior_precision=prior)
        return fitted

    def _limited(self, size: int) -> EffectSettings:
        example_bytes = 4 * size + _EXAMPLE_BYTES
        folded_bytes = 8 * size * (size if size <= self.full_up_to else 1)
        fit = (MAX_ENTITY_BYTES - 16 * size - folded_bytes) // example_bytes - 2 * FOLD
        if fit < _FEWEST_EXAMPLES:
            raise ConfigError(
                f"{size} features are too many for one effect: an entity would keep fewer than"
                f" {_FEWEST_EXAMPLES} examples within {MAX_ENTITY_BYTES // 1024} KiB"
            )
        if self.capacity + self.open_limit <= fit:
            return self
        share = fit / (self.capacity + self.open_limit)
        return msgspec.structs.replace(
            self,
            capacity=max(int(self.capacity * share), 1),
            open_limit=max(int(self.open_limit * share), 1),
        )


class GateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When an effect's coefficients are held back (:mod:`stream.quality.gate`)."""

    enabled: Annotated[bool, Setting("false: judge and tell, but publish everything")] = True
    age_ms: Annotated[
        int, Setting("labels are judged as known at this age of the application, and when final")
    ] = 2 * DAY_MS
    applications: Annotated[
        int, Setting("the newest so many of a partition are judged together")
    ] = 1000
    margin: Annotated[
        float, Setting("nats by which an effect must worsen the mean log loss to be held back")
    ] = 0.01
    bucket_ms: Annotated[int, Setting("applications of so much time are judged at once")] = (
        6 * HOUR_MS
    )
    rankings: Annotated[
        bool, Setting("hold jobs' coefficients back, too, that clearly make rankings worse")
    ] = False

    def __post_init__(self) -> None:
        """Refuse settings that judge nothing."""
        if self.age_ms <= 0:
            raise ConfigError("[gate] age must be longer than zero")
        if self.bucket_ms < HOUR_MS:
            raise ConfigError("[gate] bucket must be an hour at least")
        if self.applications < 1:
            raise ConfigError("[gate] applications must be at least 1")
        if not 0.0 <= self.margin <= 1.0:
            raise ConfigError("[gate] margin must lie between 0 and 1")


class MatchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which applications are told as matches (:mod:`stream.stages.matches`)."""

    enabled: Annotated[
        bool, Setting("tell the topic matches of applications that a recruiter should see at once")
    ] = False
    p_min: Annotated[float, Setting("probability of an answer that a match has at least")] = 0.3
    top: Annotated[
        float, Setting("a match is in this share of its job's applicants so far, by score")
    ] = 0.1
    per_day: Annotated[int, Setting("matches of a job in a day of event time (UTC)")] = 3

    def __post_init__(self) -> None:
        """Refuse settings under which nothing could be a match, or that are no shares."""
        if not 0.0 <= self.p_min < 1.0:
            raise ConfigError("[matches] p_min must lie between 0 and 1")
        if not 0.0 < self.top <= 1.0:
            raise ConfigError("[matches] top must be above 0, and 1 at most")
        if self.per_day < 1:
            raise ConfigError("[matches] per_day must be at least 1; enabled = false tells nothing")


class ApplicantSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Whether open applications are published (:mod:`stream.events.applicants`)."""

    enabled: Annotated[
        bool,
        Setting("publish open applications, and let hearback serve hold and rank those of a job"),
    ] = False


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    features: FeaturePolicy = FeaturePolicy()
    labels: LabelPolicy = LabelPolicy()
    declared: tuple[EffectSpec, ...] = EFFECTS
    """The effects that are learned."""
    effects: dict[str, EffectSettings] = {}
    """By name; every effect is there, with its defaults where nothing was given."""
    gate: GateSettings = GateSettings()
    matches: MatchSettings = MatchSettings()
    applicants: ApplicantSettings = ApplicantSettings()

    def __post_init__(self) -> None:
        """Complete the effects; refuse to let entities go whose labels are still coming."""
        effects = {spec.name: EffectSettings() for spec in self.declared} | self.effects
        msgspec.structs.force_setattr(self, "effects", effects)
        least_ms = FEWEST_WINDOWS * self.labels.window_ms
        for name, effect in self.effects.items():
            if effect.entity_ttl_ms is not None and effect.entity_ttl_ms < least_ms:
                raise ConfigError(
                    f"[effects.{name}] entity_ttl must be at least {FEWEST_WINDOWS} label windows,"
                    f' {format_duration(least_ms)}, or "off"'
                )

    def of_stage(self, stage: Stage) -> tuple[EffectSpec, ...]:
        """Effects that a stage scores and learns, its own first."""
        return tuple(spec for spec in self.declared if spec.stage == stage)
