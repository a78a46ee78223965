"""Times, durations and speeds in the spellings that people use."""

from __future__ import annotations

import calendar
import math
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ConfigError
from stream.units import (
    MAX_DURATION_MS,
    format_duration,
    format_time,
    parse_duration_ms,
    parse_speed,
    parse_time_ms,
)

LAST_MS = 253_402_300_799_999


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01", 0),
        ("2024-01-01", 1_704_067_200_000),
        ("2024-01-01T00:00:00Z", 1_704_067_200_000),
        ("2024-01-01 00:00", 1_704_067_200_000),
        ("2024-01-01T02:00:00+02:00", 1_704_067_200_000),
        ("2024-01-01T00:00:00.5", 1_704_067_200_500),
        ("2024-01-01T00:00:00.0009", 1_704_067_200_000),
        ("2024-01-01T00:00:00.123456789Z", 1_704_067_200_123),
        ("2024-01-01t00:00z", 1_704_067_200_000),
        ("2024-01-01 00:00:00 UTC", 1_704_067_200_000),
        ("2024-01-01T00", 1_704_067_200_000),
        ("2023-12-31T19:00-05:00", 1_704_067_200_000),
        ("20240101", 1_704_067_200_000),
        ("20170501", 1_493_596_800_000),
        ("20170501T120000Z", 1_493_640_000_000),
        ("20170501T120000", 1_493_640_000_000),
        ("20170501T1200+0200", 1_493_632_800_000),
        ("20170501120000", 1_493_640_000_000),
        ("1491021494", 1_491_021_494_000),
        ("1000000000", 1_000_000_000_000),
        ("2000000000", 2_000_000_000_000),
        ("9999999999", 9_999_999_999_000),
        ("1491021494123", 1_491_021_494_123),
        ("9999999999999", 9_999_999_999_999),
        ("1491021494123999", 1_491_021_494_123),
        ("1491021494123999999", 1_491_021_494_123),
        ("9999999999999999999", 9_999_999_999_999),
        (" 1704067200001 ", 1_704_067_200_001),
    ],
)
def test_times_are_what_a_person_means(text: str, ms: int) -> None:
    """A time is ISO 8601, in UTC unless it says otherwise, or digits whose number says what."""
    assert parse_time_ms(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        *("0", "5", "2017", "201705", "2017-05", "2017121", "99999999", "20171301", "20170230"),
        *("149102149", "14910214940", "149102149400", "201705011200", "14910214941230"),
        *(
            "2017050112",
            "1999123123",
            "1491021494.5",
            "1491021494.0",
            "1,491,021,494",
            "+1491021494",
        ),
        *("20170501T250000Z", "01.05.2017", "05/01/2017", "2017/05/01", "1491021494s", "٢٠١٧٠٥٠١"),
    ],
)
def test_what_leaves_a_doubt_is_refused(text: str) -> None:
    """A year alone, a number of another length, or one that may be either, is never 1970."""
    with pytest.raises(
        ConfigError, match=r"give a date such as 2024-01-31, .* seconds \(10 digits"
    ):
        parse_time_ms(text)


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2024-13-01", "-5", "1969-12-31", "12:00", "1e12", "9" * 18, "9" * 5_000],
)
def test_what_is_no_time_is_refused_in_one_line(text: str) -> None:
    """Anything else is a configuration error of one line that says what is accepted."""
    with pytest.raises(ConfigError, match=r"ISO 8601 .* or seconds") as caught:
        parse_time_ms(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 280


@given(st.integers(0, LAST_MS))
def test_written_times_are_read_back(ms: int) -> None:
    """Every time that is written is read back as it was."""
    assert parse_time_ms(format_time(ms)) == ms


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)))
def test_times_are_those_of_the_calendar(moment: datetime) -> None:
    """What is read is what the calendar says, to the millisecond below."""
    ms = calendar.timegm(moment.timetuple()) * 1_000 + moment.microsecond // 1_000
    assert parse_time_ms(moment.isoformat()) == ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("500ms", 500),
        ("30s", 30_000),
        ("15m", 900_000),
        ("1h", 3_600_000),
        ("14d", 1_209_600_000),
        ("2w", 1_209_600_000),
        ("1.5h", 5_400_000),
        ("0.1s", 100),
        (" 1 d ", 86_400_000),
        ("0", 0),
        ("0d", 0),
        ("36525d", MAX_DURATION_MS),
    ],
)
def test_durations_have_a_unit(text: str, ms: int) -> None:
    """A duration is a number with its unit."""
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize(
    "text",
    ["", "14", "d", "-1h", "1h30m", "1 day", "0.5ms", "36526d", "1e3s", "nan", "1" * 5_000 + "s"],
)
def test_what_is_no_duration_is_refused_in_one_line(text: str) -> None:
    """Anything else is a configuration error of one line that says what is accepted."""
    with pytest.raises(ConfigError, match="with its unit, one of ms, s, m, h, d, w") as caught:
        parse_duration_ms(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 280


@given(st.integers(0, MAX_DURATION_MS))
def test_written_durations_are_read_back(ms: int) -> None:
    """Every duration that is written is read back as it was."""
    assert parse_duration_ms(format_duration(ms)) == ms


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0s"), (1_209_600_000, "14d"), (5_400_000, "90m"), (3_600_000, "1h"), (1_001, "1001ms")],
)
def test_durations_are_written_in_their_largest_whole_unit(ms: int, text: str) -> None:
    """A duration is written as a whole number of the largest unit, days at most."""
    assert format_duration(ms) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (1_704_067_200_000, "2024-01-01T00:00:00Z"),
        (1_704_067_200_007, "2024-01-01T00:00:00.007Z"),
        (-1_000, "1969-12-31T23:59:59Z"),
        (10**18, "1000000000000000000"),
    ],
)
def test_times_are_written_in_utc(ms: int, text: str) -> None:
    """A time is written in UTC, with milliseconds only where there are some; none fails."""
    assert format_time(ms) == text


@pytest.mark.parametrize(
    ("text", "speed"), [("60x", 60.0), ("60", 60.0), ("0.5x", 0.5), ("max", math.inf)]
)
def test_speeds_are_factors_or_max(text: str, speed: float) -> None:
    """A speed is a positive factor, or max."""
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "0", "0x", "-1x", "fast", "inf", "nan", "x", "1x1"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    """Anything else is a configuration error that says what is accepted."""
    with pytest.raises(ConfigError, match="60x, or max"):
        parse_speed(text)
