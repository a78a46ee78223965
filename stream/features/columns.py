"""The columns of each kind of feature: their names, and what fills them.

A step is made once, of a fitted feature and the place of its first column; it is called with a row
of zeros and sets what is not 0. Numbers are finite: each is held within bounds.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from math import copysign, sqrt
from typing import Any, Final, NamedTuple
from zlib import crc32

from stream.errors import ConfigError
from stream.features.fitting import Fitted, comparison_of, measure_of
from stream.features.spec import Category, Cross, Date, Match, Number, Scale, TermList, Text
from stream.features.values import as_items, as_text, as_time_ms, as_words
from stream.policy import DAY_MS

WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

MOST_DEVIATIONS: Final = 10.0
"""A standardised number lies within so many standard deviations."""

MOST: Final = 1e6
"""... and any other number within this: the default of ``max_feature``."""

MOST_COLUMNS: Final = 4096
"""Of a cross."""

Step = Callable[["array[float]", Any, Any, int], None]
"""(row, first attribute, second, time of the application in ms)."""
CrossStep = Callable[["array[float]"], None]

_THURSDAY: Final = 3  # 1970-01-01 was one


class Place(NamedTuple):
    """Where a feature's columns stand in a row, and their names."""

    at: int
    names: list[str]


def column_names(one: Fitted, places: Mapping[str, Place]) -> list[str]:
    """Return the names of a feature's columns, in order.

    Args:
        one: the feature. places: of those before it, which it may cross.

    Raises:
        ConfigError: a cross has too many.

    """
    name, feature = one.name, one.feature
    missing: list[str] = []
    if isinstance(feature, Scale | Category) and feature.missing:
        missing = [f"{name}.missing"]
    frequent = [f"{name}={text}" for text in one.frequent]
    match feature:
        case Number():
            return [name, *missing]
        case Date():
            age = [f"{name}.age"] if "age" in feature.parts else []
            days = WEEKDAYS if "weekday" in feature.parts else ()
            return [*age, *(f"{name}.{day}" for day in days), *missing]
        case Category():
            return [*frequent, f"{name}.other", *missing]
        case TermList() | Text():
            return [*frequent, *(f"{name}.hash{k}" for k in range(feature.hashed))]
        case Match():
            return [f"{name}.{by}" for by in feature.by]
        case Cross():
            first, second = (places[of].names for of in feature.of)
            if len(first) * len(second) > MOST_COLUMNS:
                raise ConfigError(
                    f"[features.{name}] would have {len(first)} x {len(second)} columns, more than"
                    f" {MOST_COLUMNS}: cross features that have fewer (most, hashed)"
                )
            return [f"{name}:{one_}*{other}" for one_ in first for other in second]


def step_of(one: Fitted, at: int) -> Step:
    """Return what fills a feature's columns, the first of which has a place; not of a cross."""
    feature = one.feature
    frequent = {text: at + k for k, text in enumerate(one.frequent)}
    after = at + len(frequent)
    match feature:
        case Number():
            return _scaled(one, feature, at, at + 1 if feature.missing else None)
        case Date():
            return _date(one, feature, at)
        case Category():
            return _category(frequent, after, after + 1 if feature.missing else None)
        case TermList():
            return _terms(frequent, after, feature.hashed)
        case Text():
            return _text(frequent, after, feature.hashed)
        case Match():
            return _match(one, feature, at)
        case Cross():
            raise ConfigError(f"{one.name} is a cross")


def cross_step(at: int, first: Place, second: Place) -> CrossStep:
    """Return what fills the columns of a cross, once those that it crosses are filled."""
    lines = slice(first.at, first.at + len(first.names))
    width = len(second.names)
    columns = slice(second.at, second.at + width)

    def step(row: array[float]) -> None:
        others = [(k, other) for k, other in enumerate(row[columns]) if other]
        for line, value in enumerate(row[lines]):
            if value:
                for k, other in others:
                    row[at + line * width + k] = min(max(value * other, -MOST), MOST)

    return step


def _scaled(one: Fitted, feature: Number | Date, at: int, missing_at: int | None) -> Step:
    """Fill one column with what a feature measures, scaled."""
    measure, ((mean, deviation),) = measure_of(feature), one.scales
    most = MOST_DEVIATIONS if feature.standardise else MOST

    def step(row: array[float], value: Any, _other: Any, time_ms: int) -> None:
        found = measure(value, time_ms)
        if found is not None:
            found = (found - mean) / deviation
            row[at] = found if -most <= found <= most else copysign(most, found)
        elif missing_at is not None:
            row[missing_at] = 1.0

    return step


def _date(one: Fitted, feature: Date, at: int) -> Step:
    with_age, with_day = "age" in feature.parts, "weekday" in feature.parts
    first_day = at + with_age
    missing_at = first_day + len(WEEKDAYS) * with_day if feature.missing else None
    age = _scaled(one, feature, at, None)

    def step(row: array[float], value: Any, other: Any, time_ms: int) -> None:
        date_ms = as_time_ms(value)
        if date_ms is None:
            if missing_at is not None:
                row[missing_at] = 1.0
            return
        if with_age:
            age(row, value, other, time_ms)
        if with_day:
            row[first_day + (date_ms // DAY_MS + _THURSDAY) % len(WEEKDAYS)] = 1.0

    return step


def _category(frequent: dict[str, int], other_at: int, missing_at: int | None) -> Step:
    def step(row: array[float], value: Any, _other: Any, _time_ms: int) -> None:
        at = frequent.get(value) if type(value) is str else None
        if at is not None:
            row[at] = 1.0
            return
        text = as_text(value)
        if text is not None:
            row[frequent.get(text, other_at)] = 1.0
        elif missing_at is not None:
            row[missing_at] = 1.0

    return step


def _terms(frequent: dict[str, int], hashed_at: int, hashed: int) -> Step:
    def step(row: array[float], value: Any, _other: Any, _time_ms: int) -> None:
        for item in as_items(value):
            at = frequent.get(item)
            if at is not None:
                row[at] = 1.0
            elif hashed:
                row[hashed_at + crc32(item.encode("utf-8", "surrogatepass")) % hashed] = 1.0

    return step


def _text(frequent: dict[str, int], hashed_at: int, hashed: int) -> Step:
    def step(row: array[float], value: Any, _other: Any, _time_ms: int) -> None:
        counts: dict[int, int] = {}
        for word in as_words(value):
            at = frequent.get(word)
            if at is None:
                if not hashed:
                    continue
                at = hashed_at + crc32(word.encode("utf-8", "surrogatepass")) % hashed
            counts[at] = counts.get(at, 0) + 1
        length = sqrt(sum(count * count for count in counts.values()))
        for at, count in counts.items():
            row[at] = count / length

    return step


def _match(one: Fitted, feature: Match, at: int) -> Step:
    compare = comparison_of(feature)

    def step(row: array[float], value: Any, other: Any, _time_ms: int) -> None:
        if value is None or other is None:
            return
        columns = enumerate(zip(compare(value, other), one.scales, strict=True), at)
        for column, (found, (mean, deviation)) in columns:
            if found is not None:
                scaled = (found - mean) / deviation
                row[column] = min(max(scaled, -MOST_DEVIATIONS), MOST_DEVIATIONS)

    return step
