"""The policy alone turns the product to other logs with delayed feedback: those of the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stream.errors import UnknownActionError
from stream.policy import DAY_MS, HOUR_MS, LabelPolicy
from tests import oracle
from tests.kit import TestEvent, application, closing, engagement, parse_policy
from tests.labels.bench import CONCLUSIVE, EXPLICIT, INFERRED, POSITIVE, Bench

PAGE = (Path(__file__).parents[2] / "docs" / "other-markets.md").read_text()
SILENT = (0, "negative_inferred", False, pytest.approx(0.9276, abs=1e-4))
CONTEST, COURSE, SHOP = (
    parse_policy(block).labels for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
)


@pytest.mark.parametrize(
    ("policy", "events", "until_ms", "expected"),
    [
        (CONTEST, [engagement("e", "a", HOUR_MS, "rate_high")], 0, POSITIVE),
        (CONTEST, [engagement("e", "a", HOUR_MS, "rate_low")], 0, EXPLICIT),
        (
            CONTEST,
            [application("b", 1), engagement("e", "b", HOUR_MS, "rate_low")],
            0,
            None,
        ),
        (COURSE, [engagement("e", "a", 59 * DAY_MS, "finished")], 0, POSITIVE),
        (COURSE, [engagement("e", "a", 61 * DAY_MS, "finished")], 0, None),
        (COURSE, [engagement("e", "a", DAY_MS, "lesson_done")], 59 * DAY_MS, SILENT),
        (COURSE, [engagement("e", "a", DAY_MS, "lesson_done")], 61 * DAY_MS, CONCLUSIVE),
        (COURSE, [application("b", 1), engagement("e", "b", DAY_MS, "finished")], 0, None),
        (COURSE, [closing("x", DAY_MS)], 0, INFERRED),
        (SHOP, [engagement("e", "a", 2 * DAY_MS, "bought")], 0, POSITIVE),
        (SHOP, [engagement("e", "a", HOUR_MS, "zoomed")], 4 * DAY_MS, CONCLUSIVE),
    ],
)
def test_the_policy_alone_decides(
    policy: LabelPolicy,
    events: list[TestEvent],
    until_ms: int,
    expected: oracle.Verdict | None,
) -> None:
    """Each market of the docs labels application ``a`` as its own rules say."""
    bench = Bench(policy)
    for event in (application("a", 0), *events):
        bench.apply(event)
    bench.move(until_ms)
    assert bench.label("a") == expected


def test_an_action_of_another_market_is_refused() -> None:
    """What is in none of a policy's lists is a dead letter, never a silent nothing."""
    bench = Bench(SHOP)
    bench.apply(application("a", 0))
    with pytest.raises(UnknownActionError):
        bench.apply(engagement("e", "a", 1, "message"))
