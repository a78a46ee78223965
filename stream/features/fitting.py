"""What a spec learns of the training rows: which texts are frequent, and how numbers are scaled.

A fitted spec is frozen with its model: from then on features are a function of it and of the
attributes (:mod:`stream.features.making`).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import log1p, sqrt
from typing import Any, Final

import msgspec

from stream.features.spec import (
    APPLIED,
    Category,
    Cross,
    Date,
    Feature,
    Match,
    Number,
    Scale,
    Spec,
    TermList,
    Text,
)
from stream.features.values import (
    LARGEST,
    as_items,
    as_number,
    as_set,
    as_text,
    as_time_ms,
    as_words,
)
from stream.policy import DAY_MS

Attributes = Mapping[str, Any]
Measure = Callable[[Any, int], "float | None"]
"""(attribute, time of the application in ms) → number, before it is standardised."""

Comparison = Callable[[Any, Any], "list[float | None]"]
"""(first attribute, second) → numbers, before they are standardised."""

MOST_COUNTED: Final = 50_000
"""Different texts of a feature that are counted; beyond, the rarer half is dropped."""

_NOTHING: Final[frozenset[str]] = frozenset()
_TOGETHER: Final = 4096  # numbers that are summed up together


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """A feature with what it has learned.

    ``frequent``: texts with a column of their own, in order. ``scales``: mean and standard
    deviation (1 where all are equal) of each of its numbers; 0 and 1 where it does not standardise.
    ``missing``, ``odd``: of the ``rows`` it was learned from, those without the attribute, and
    those with one of another type.
    """

    name: str
    feature: Feature
    frequent: tuple[str, ...] = ()
    scales: tuple[tuple[float, float], ...] = ()
    rows: int = 0
    missing: int = 0
    odd: int = 0


class FittedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All features of a model."""

    features: tuple[Fitted, ...]


def attribute(found: Any, names: Iterable[str]) -> Any:
    """Look up what stands under a name, and under another one in that; None: nothing does."""
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def measure_of(feature: Number | Date) -> Measure:
    """Return what makes a number of an attribute: the number, or a date's age in days."""
    number = _number(feature)
    if isinstance(feature, Number):
        return number

    def age(value: Any, time_ms: int) -> float | None:
        date_ms = as_time_ms(value)
        return None if date_ms is None else number((time_ms - date_ms) / DAY_MS, time_ms)

    return age


def comparison_of(feature: Match) -> Comparison:
    """Return what compares two attributes that are there, a number for each ``by``."""
    by = feature.by
    with_sets = set(by) != {"difference"}

    def compare(first: Any, second: Any) -> list[float | None]:
        one, other = (as_set(first), as_set(second)) if with_sets else (_NOTHING, _NOTHING)
        shared = len(one & other)
        found: list[float | None] = []
        for way in by:
            if way == "difference":
                found.append(_difference(first, second))
            elif not one or not other:
                found.append(None)
            elif way == "equal":
                found.append(float(one == other))
            else:
                found.append(shared / len(other if way == "overlap" else one | other))
        return found

    return compare


def texts_of(feature: Feature) -> Callable[[Any], Iterable[str]] | None:
    """Return how the texts of an attribute are read that a feature counts; None: it has none."""
    if isinstance(feature, Category):

        def category(value: Any) -> Iterable[str]:
            text = as_text(value)
            return () if text is None else (text,)

        return category
    if isinstance(feature, TermList):
        return as_items
    return as_words if isinstance(feature, Text) else None


class SpecFitter:
    """Learns a spec of rows, in memory that does not grow with their number."""

    def __init__(self, spec: Spec) -> None:
        self._learners = {name: _Learner(feature) for name, feature in spec.items()}

    def add(self, member: Attributes, job: Attributes, context: Attributes, time_ms: int) -> None:
        """Take an application in; ``time_ms``: when it was submitted."""
        sides: dict[str, Any] = {"member": member, "job": job, "context": context}
        sides[APPLIED] = time_ms
        for learner in self._learners.values():
            learner.add(sides, time_ms)

    def fitted(self) -> FittedSpec:
        """Return what was learned."""
        return FittedSpec(
            features=tuple(learner.fitted(name) for name, learner in self._learners.items())
        )


class _Learner:
    """Learns one feature."""

    def __init__(self, feature: Feature) -> None:
        self._feature = feature
        paths = () if isinstance(feature, Cross) else feature.paths
        self._paths = [path.split(".") for path in paths]
        self._texts = texts_of(feature)
        self._counts: Counter[str] = Counter()
        self._measure = self._compare = None
        self._moments: list[_Moments] = []
        if isinstance(feature, Match):
            self._compare = comparison_of(feature)
            self._moments = [_Moments() for _ in feature.by]
        elif isinstance(feature, Number | Date):
            self._measure = measure_of(feature)
            self._moments = [_Moments()]
        self._rows = self._missing = self._odd = 0

    def add(self, sides: Mapping[str, Any], time_ms: int) -> None:
        if not self._paths:
            return
        values = [attribute(sides, path) for path in self._paths]
        self._rows += 1
        if any(value is None or value == "" for value in values):
            self._missing += 1
        elif self._texts is not None:
            self._odd += not (self._count(self._texts(values[0])) or values[0] == [])
        else:
            found = self._measured(values, time_ms)
            for moments, number in zip(self._moments, found, strict=True):
                if number is not None:
                    moments.add(number)
            self._odd += None in found

    def fitted(self, name: str) -> Fitted:
        feature = self._feature
        frequent: list[str] = []
        if isinstance(feature, Category | TermList | Text):
            often = _most(self._counts, feature.most)
            frequent = sorted(text for text, count in often if count >= feature.least)
        standardised = not isinstance(feature, Scale) or feature.standardise
        return Fitted(
            name=name,
            feature=feature,
            frequent=tuple(frequent),
            scales=tuple(one.scale() if standardised else (0.0, 1.0) for one in self._moments),
            rows=self._rows,
            missing=self._missing,
            odd=self._odd,
        )

    def _measured(self, values: list[Any], time_ms: int) -> list[float | None]:
        if self._compare is not None:
            return self._compare(*values)
        return [] if self._measure is None else [self._measure(values[0], time_ms)]

    def _count(self, texts: Iterable[str]) -> bool:
        """Count texts; return whether there are any."""
        different = set(texts)
        self._counts.update(different)
        if len(self._counts) > MOST_COUNTED:
            self._counts = Counter(dict(_most(self._counts, MOST_COUNTED // 2)))
        return bool(different)


class _Moments:
    """Mean and spread of numbers that come one by one (Chan, Golub and LeVeque, 1979)."""

    def __init__(self) -> None:
        self._waiting = array("d")
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, number: float) -> None:
        self._waiting.append(number)
        if len(self._waiting) == _TOGETHER:
            self._sum_up()

    def scale(self) -> tuple[float, float]:
        """Mean and standard deviation; 0 and 1 where there is nothing to scale by."""
        self._sum_up()
        spread = sqrt(self._squares / self._count) if self._count else 0.0
        return self._mean, spread if spread > 1e-9 * max(abs(self._mean), 1e-9) else 1.0

    def _sum_up(self) -> None:
        waiting, self._waiting = self._waiting, array("d")
        if not waiting:
            return
        mean = sum(waiting) / len(waiting)
        squares = sum((number - mean) ** 2 for number in waiting)
        total, step = self._count + len(waiting), mean - self._mean
        self._mean += step * len(waiting) / total
        self._squares += squares + step * step * self._count * len(waiting) / total
        self._count = total


def _most(counts: Counter[str], most: int) -> list[tuple[str, int]]:
    """Return the most frequent texts, the first by alphabet of those that are as frequent."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]


def _number(feature: Scale) -> Measure:
    """Return what makes a number of a value, clipped and as a logarithm if so declared."""
    low, high = feature.clip or (-LARGEST, LARGEST)
    logs = feature.log1p

    def number(value: Any, _time_ms: int) -> float | None:
        # Most of what is done to an application is done here: no call that can be spared.
        kind = type(value)
        if (kind is not float and kind is not int) or not -LARGEST <= value <= LARGEST:
            value = as_number(value)
            if value is None:
                return None
        if value < low:
            value = low
        elif value > high:
            value = high
        if logs:
            value = log1p(value) if value >= 0.0 else -log1p(-value)
        return value  # type: ignore[no-any-return]

    return number


def _difference(first: Any, second: Any) -> float | None:
    """First less second, of numbers or in days of dates."""
    one, other = as_number(first), as_number(second)
    if one is not None and other is not None:
        return one - other
    if type(first) is not str or type(second) is not str:
        return None
    one_ms, other_ms = as_time_ms(first), as_time_ms(second)
    return None if one_ms is None or other_ms is None else (one_ms - other_ms) / DAY_MS
