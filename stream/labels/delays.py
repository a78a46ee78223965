"""How long answers take, and what silence is worth (docs/labels.md).

F(a) is the share of the answers that are to come which have come by an application's age a. An
application that is still silent at that age is a negative with the weight F(a): the probability
that an answer, if there was one to come, would have come by now. Labels do not move with every
tick of the clock: they climb in steps, at the ages at which F reaches the quantiles of the setting
``aging``.

Sources: Chapelle, Modeling delayed feedback in display advertising, KDD 2014; Ktena et al.,
Addressing delayed feedback for continuous training, RecSys 2019. (They weigh or repeat examples
and correct in expectation; here a later label replaces the earlier one, so nothing is left of it.)
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

import msgspec

from stream.errors import ConfigError
from stream.policy import DAY_MS, MOST_POINTS, LabelPolicy, is_curve
from stream.units import format_duration

LEAST_ANSWERS = 50
"""Answers that it takes to tell how long they take."""

MOST_ANSWERS = 2_000
"""Answers that a live curve is of."""

_MEAN_DELAY_MS = 2.5 * DAY_MS  # of the documented default


class AgeStep(msgspec.Struct, frozen=True, gc=False, array_like=True, order=True):
    """Once it is older than ``age_ms``, a silent application is a negative of this weight."""

    age_ms: int
    weight: float


Steps = tuple[AgeStep, ...]
"""In order of age; weights grow and lie between 0 and 1."""


class DelayCurve(msgspec.Struct, frozen=True):
    """F at some ages, in between by linear interpolation, from 0 at age 0.

    ``ages_ms`` grow and end with the window, ``shares`` do not fall and end with 1.
    """

    ages_ms: tuple[int, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what is no curve."""
        if not is_curve(self.ages_ms, self.shares):
            raise ConfigError(
                f"a delay curve has 1 to {MOST_POINTS} growing ages and shares that rise to 1"
            )

    @property
    def window_ms(self) -> int:
        """The age at which all answers that count have come."""
        return self.ages_ms[-1]

    def at(self, age_ms: float) -> float:
        """F at an age (ms)."""
        if age_ms <= 0:
            return 0.0
        if age_ms >= self.window_ms:
            return 1.0
        at = bisect_right(self.ages_ms, age_ms)
        before_ms, before = (self.ages_ms[at - 1], self.shares[at - 1]) if at else (0, 0.0)
        after_ms, after = self.ages_ms[at], self.shares[at]
        return before + (after - before) * (age_ms - before_ms) / (after_ms - before_ms)

    def age_ms(self, share: float) -> int:
        """Return the first age at which F has reached a share."""
        return self.ages_ms[bisect_left(self.shares, share)]

    def within(self, window_ms: int) -> DelayCurve:
        """Return the curve of a window that is not longer: F(a) / F(W').

        Raises:
            ConfigError: it is longer, or no answer comes within it.

        """
        if window_ms == self.window_ms:
            return self
        if window_ms > self.window_ms:
            raise ConfigError(
                f"the delay curve ends at {format_duration(self.window_ms)}, before the label"
                f" window of {format_duration(window_ms)}: train with that window, or set"
                " delay_curve"
            )
        whole = self.at(window_ms)
        if whole <= 0.0:
            raise ConfigError(
                f"the delay curve has no answer within {format_duration(window_ms)}: set"
                " delay_curve, or aging to off"
            )
        inside = bisect_left(self.ages_ms, window_ms)
        shares = (min(share / whole, 1.0) for share in self.shares[:inside])
        return DelayCurve((*self.ages_ms[:inside], window_ms), (*shares, 1.0))

    def steps(self, quantiles: Sequence[float]) -> Steps:
        """Return the ages at which F reaches the quantiles; the window's end is no step."""
        found = {}
        for quantile in quantiles:
            at = bisect_left(self.shares, quantile)
            if at < len(self.shares) - 1:
                found[self.ages_ms[at]] = self.shares[at]
        return tuple(AgeStep(age_ms, share) for age_ms, share in sorted(found.items()))


def default_curve(window_ms: int) -> DelayCurve:
    """Return the curve where nothing is known: exponential, 2.5 days in the mean."""
    whole = -math.expm1(-window_ms / _MEAN_DELAY_MS)
    ages_ms = sorted({window_ms * at // MOST_POINTS for at in range(1, MOST_POINTS)} - {0})
    shares = (-math.expm1(-age_ms / _MEAN_DELAY_MS) / whole for age_ms in ages_ms)
    return DelayCurve((*ages_ms, window_ms), (*shares, 1.0))


def curve_of(policy: LabelPolicy, learned: DelayCurve | None) -> DelayCurve:
    """Return the curve in force: the policy's, else the model's, else the default.

    Raises:
        ConfigError: it is shorter than the window.

    """
    if policy.delay_curve:
        ages_ms, shares = zip(*policy.delays(), strict=True)
        return DelayCurve(ages_ms, shares).within(policy.window_ms)
    return default_curve(policy.window_ms) if learned is None else learned.within(policy.window_ms)


def steps_of(policy: LabelPolicy, learned: DelayCurve | None = None) -> Steps:
    """Return the steps in force; none where ``aging`` is off.

    Args:
        policy: the label policy. learned: the curve of the model folder.

    Raises:
        ConfigError: the policy's curve gives none though aging is on, or is too short.

    """
    if not policy.aging:
        return ()
    steps = curve_of(policy, learned).steps(policy.aging)
    if policy.delay_curve and not steps:
        raise ConfigError(
            f"[labels] delay_curve reaches {min(policy.aging):g} only when the window ends, so no"
            ' silence would be counted before: give it an earlier age, or set aging = "off"'
        )
    return steps


class LiveDelays:
    """How long answers take now, against the curve that is in force.

    Of the newest answers: at :data:`MOST_ANSWERS` the past is halved. Answers are counted when they
    come. That gives the curve where as many people apply as before; where a log begins, quick
    answers come first, so nothing should be counted before the first window has closed.

    Args:
        curve: in force.

    """

    def __init__(self, curve: DelayCurve) -> None:
        self._ages_ms, self._shares = curve.ages_ms, curve.shares
        self._counts = array("d", bytes(8 * len(curve.ages_ms)))  # by the first age not exceeded
        self._answers = 0.0

    def observe(self, delay_ms: int) -> None:
        """Take in how long an answer took."""
        at = min(bisect_left(self._ages_ms, delay_ms), len(self._counts) - 1)
        self._counts[at] += 1.0
        self._answers += 1.0
        if self._answers >= MOST_ANSWERS:
            self._counts = array("d", (count / 2.0 for count in self._counts))
            self._answers /= 2.0

    @staticmethod
    def distance(of: Iterable[LiveDelays]) -> float | None:
        """Largest difference between the curve and the share of answers that came by an age.

        Kolmogorov's and Smirnov's statistic, at the ages of the curve.

        Args:
            of: all with the same curve, counted together.

        Returns:
            A share; None where there are fewer than :data:`LEAST_ANSWERS`.

        """
        several = list(of)
        answers = sum(one._answers for one in several)
        if answers < LEAST_ANSWERS:
            return None
        counts = map(sum, zip(*(one._counts for one in several), strict=True))
        live = accumulate(count / answers for count in counts)
        then = several[0]._shares
        return max(abs(share - at_first) for share, at_first in zip(live, then, strict=True))


def fitted(delays_ms: Sequence[int], censored_ms: Sequence[int], window_ms: int) -> DelayCurve:
    """Estimate the curve: F(a) = (1 − S(a)) / (1 − S(W)), S by Kaplan and Meier (1958).

    Args:
        delays_ms: from application to the first answer, of those answered in their window.
        censored_ms: how long the others were seen to be silent; the window at most.
        window_ms: W.

    Returns:
        The curve at up to 64 ages, chosen so that F grows about equally between them.

    Raises:
        ConfigError: there is no answer.

    """
    if not delays_ms:
        raise ConfigError("no answer: there is no delay to learn")
    events = sorted((min(max(delay, 1), window_ms), 0) for delay in delays_ms)
    events += [(min(max(age, 0), window_ms), 1) for age in censored_ms]
    events.sort()  # an answer comes before whoever is censored at its age
    silent, at_risk = 1.0, len(events)
    ages: list[int] = []
    answered: list[float] = []
    at = 0
    while at < len(events):
        age_ms, came, gone = events[at][0], 0, 0
        while at < len(events) and events[at][0] == age_ms:
            came += events[at][1] == 0
            gone += 1
            at += 1
        if came:
            silent *= 1.0 - came / at_risk
            ages.append(age_ms)
            answered.append(1.0 - silent)
        at_risk -= gone
    whole = answered[-1]
    points: dict[int, float] = {}
    for point in range(1, MOST_POINTS):
        found = bisect_left(answered, whole * point / MOST_POINTS)
        if found < len(ages) and ages[found] < window_ms:
            points[ages[found]] = min(answered[found] / whole, 1.0)
    points[window_ms] = 1.0
    return DelayCurve(tuple(points), tuple(points.values()))
