"""Whether records are where murmur2 puts their id: one by one, and their producer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import MisroutedError, MisroutedProducerError
from stream.events.partitioner import partition_of
from stream.events.routing import LAPSES_MS, Routing

HERE = next(f"m{n}" for n in range(99) if partition_of(b"m%d" % n, 2) == 0)
THERE = next(f"m{n}" for n in range(99) if partition_of(b"m%d" % n, 2) == 1)

RECORDS: dict[str, tuple[bytes | None, str]] = {
    "right": (HERE.encode(), HERE),
    "no key": (None, HERE),
    "another key": (b"x", HERE),
    "another partition": (THERE.encode(), THERE),
}
RUNS = st.lists(
    st.tuples(st.sampled_from(sorted(RECORDS)), st.integers(1, 60)), min_size=1, max_size=12
)


def outcome(routing: Routing, record: str) -> str:
    """What becomes of a record."""
    try:
        routing.check(*RECORDS[record])
    except MisroutedError:
        return "dead letter"
    except MisroutedProducerError:
        return "stop"
    return "taken"


@given(RUNS, st.booleans())
def test_the_share_is_that_of_the_newest_hundred(
    runs: list[tuple[str, int]], goes_on: bool
) -> None:
    """Thirty of them make a complaint, and stop what is new to it among its first hundred."""
    routing = Routing("applications", 0, 2)
    if goes_on:
        routing.go_on()
    read: list[bool] = []
    for record in (record for record, times in runs for _ in range(times)):
        read.append(record != "right")
        many = sum(read[-100:]) >= 30
        wanted = "dead letter" if read[-1] else "taken"
        if many and read[-1] and len(read) <= 100 and not goes_on:
            wanted = "stop"
        assert outcome(routing, record) == wanted
        assert (routing.complaint is not None) == many
        if wanted == "stop":
            return


def test_the_complaint_says_what_the_producer_must_do() -> None:
    """By which id, and with which partitioner."""
    for topic, identity in (("applications", "member_id"), ("engagements", "job_id")):
        routing = Routing(topic, 0, 2)
        for _ in range(29):
            assert outcome(routing, "no key") == "dead letter"
        assert routing.complaint is None
        with pytest.raises(
            MisroutedProducerError, match=rf"{topic}-0 .* key by {identity} and use"
        ):
            routing.check(None, "m")


def test_a_complaint_lapses_where_nothing_misrouted_comes_any_more() -> None:
    """Also in a partition that is quiet; the next misrouted record makes it again."""
    routing = Routing("applications", 0, 2)
    routing.go_on()
    for _ in range(40):
        assert outcome(routing, "no key") == "dead letter"
    begin = 5_000
    assert routing.complaint_at(begin)
    assert outcome(routing, "right") == "taken"
    assert routing.complaint_at(begin + LAPSES_MS - 1)
    assert routing.complaint_at(begin + LAPSES_MS) is None
    assert outcome(routing, "right") == "taken"
    assert routing.complaint_at(begin + LAPSES_MS + 1) is None
    assert outcome(routing, "no key") == "dead letter"
    assert routing.complaint_at(begin + LAPSES_MS + 2)
    assert routing.complaint_at(begin + 2 * LAPSES_MS + 2) is None
