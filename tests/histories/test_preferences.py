"""Preferences: observed over expected, exactly reversible, as of first sight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.events.partitioner import partition_of
from stream.events.records import COEFFICIENTS, ENGAGEMENTS, PREFERENCES
from stream.events.structs import Application, Engagement, Forget
from stream.events.wire import (
    decode_coefficients,
    decode_label,
    decode_preferences,
    decode_whole_label,
    encode,
    encode_label,
)
from stream.histories.preferences import (
    COUNTS,
    MOST_BYTES,
    MOST_CHANNELS,
    MOST_KEPT,
    MOST_TERMS,
    MOST_TYPES,
    NEGATIVE,
    POSITIVE,
    WEIGHTS,
    Preferences,
    Preferred,
)
from stream.labels.changes import Scores
from stream.state import codec
from tests import oracle
from tests.bootstrap.test_split import Sink, replayed
from tests.histories.test_first_sight import POLICY, ordered
from tests.kit import SPACE, Market, TestEvent, application, engagement
from tests.labels.bench import SKEW, W, logs

SCALE = 14 * 24 * 3_600_000 // W
TYPES = ("skill", "title")
PROFILES: list[dict[str, list[str]] | None] = [
    None,
    {"skill": ["sql", "go", "sql"], "title": ["analyst"]},
    {"skill": ["sql"]},
    {"title": ["intern", "analyst"], "skill": []},
    {"skill": ["go", "python"], "title": ["intern"]},
]
CHANNELS = [None, "search", "applicants"]


class Seen(Sink):
    """A replay's results, with the preferences of each application's first sight."""

    def __init__(self) -> None:
        super().__init__()
        self.preferred: dict[tuple[str, str], Preferred | None] = {}

    def scored(self, app: Application, scores: Scores) -> None:
        """Keep the preferences."""
        self.preferred[app.job_id, app.application_id] = scores.preferences


def with_terms(events: Sequence[TestEvent], shift: int) -> list[TestEvent]:
    """The same log; each application has a profile and a channel."""

    def of(event: TestEvent) -> Any:
        if not isinstance(event, Application):
            return event
        number = ord(event.application_id) + shift
        return msgspec.structs.replace(
            event,
            terms=PROFILES[number % len(PROFILES)],
            channel=CHANNELS[number % len(CHANNELS)],
        )

    return [of(event) for event in events]


def wanted(events: Sequence[TestEvent]) -> dict[tuple[str, str], Preferred | None]:
    """Preferences at each first sight, by brute force from all that was read before it."""
    found: dict[tuple[str, str], Preferred | None] = {}
    for at, event in enumerate(events):
        if not isinstance(event, Application):
            continue
        if not event.terms:
            found[event.job_id, event.application_id] = None
            continue
        own = [e for e in events[:at] if isinstance(e, Application | Engagement)]
        verdicts = oracle.verdicts(
            own, window_ms=W * SCALE, clock_skew_ms=SKEW * SCALE, later_response=False
        )
        rated = [
            (app, (verdicts[app.job_id, app.application_id] or (0, None))[1])
            for app in own
            if isinstance(app, Application) and app.job_id == event.job_id and app.terms
        ]
        here = [(app, kind) for app, kind in rated if app.channel == event.channel]
        counts: list[float] = []
        for among in (rated, here):
            kinds = [kind for _, kind in among]
            counts += [len(among), kinds.count("positive"), kinds.count("negative_explicit")]
        weights = {}
        for kind, terms in event.terms.items():
            sums = []
            for among in (rated, here):
                for rating in ("positive", "negative_explicit"):
                    total = 0.0
                    for term in set(terms):
                        have = [r for app, r in among if term in (app.terms or {}).get(kind, ())]
                        n = sum(r == rating for _, r in among)
                        share = len(have) / len(among) if among else 0.0
                        total += math.log((have.count(rating) + 1) / (n * share + 1))
                    sums.append(total)
            weights[kind] = tuple(sums)
        found[event.job_id, event.application_id] = Preferred(tuple(counts), weights)  # type: ignore[arg-type]
    return found


def check(found: Preferred | None, right: Preferred | None) -> None:
    """Compare, to the decimals that are carried."""
    if right is None or found is None:
        assert found is right is None
        return
    assert found.counts == right.counts
    assert found.weights.keys() == right.weights.keys()
    for kind, sums in right.weights.items():
        assert found.weights[kind] == pytest.approx(sums, abs=1e-6)


@given(logs(), st.integers(1, 3), st.integers(0, 9))
def test_weights_are_those_of_all_that_was_read_before(
    events: list[TestEvent], members: int, shift: int
) -> None:
    """At first sight, counts and sums of weights equal the brute-force ones; labels carry them."""
    log = with_terms(ordered(events, members), shift)
    sink = Seen()
    replayed(log, POLICY, sink=sink, close=True)
    right = wanted(log)
    assert sink.preferred.keys() == right.keys()
    for key, found in sink.preferred.items():
        check(found, right[key])
    for label in sink.labels:
        assert label.preferences == sink.preferred[label.job_id, label.application_id]
        assert decode_whole_label(encode_label(label), SPACE) == label


RATED = st.lists(
    st.tuples(
        st.sampled_from(PROFILES[1:]),
        st.sampled_from(CHANNELS),
        st.sampled_from([(), (POSITIVE,), (NEGATIVE,), (NEGATIVE, POSITIVE)]),
    ),
    max_size=12,
)


@given(RATED, st.randoms(use_true_random=False))
def test_corrections_leave_no_trace(rated: list[Any], random: Random) -> None:
    """Ratings and corrections in any order give the counts of the last ratings alone."""
    mixed, plain = Preferences(), Preferences()
    steps: list[tuple[int, int]] = []
    for number, (terms, channel, ratings) in enumerate(rated):
        mixed.count(channel, terms)
        plain.count(channel, terms)
        steps += [(number, at) for at in range(len(ratings))]
        if ratings:
            plain.rate(channel, terms, ratings[-1], 1)
    order = sorted(random.sample(steps, len(steps)), key=lambda step: step[1])
    for number, at in order:
        terms, channel, ratings = rated[number]
        if at:
            mixed.rate(channel, terms, ratings[at - 1], -1)
        mixed.rate(channel, terms, ratings[at], 1)
    for terms in PROFILES[1:]:
        for channel in CHANNELS:
            assert mixed.read(channel, terms or {}) == plain.read(channel, terms or {})
    assert codec.PREFERENCES.decode(codec.PREFERENCES.encode(mixed)) == mixed


def test_an_example_by_hand() -> None:
    """Two of four know SQL, and the one who was answered does: ln((1 + 1) / (1·2/4 + 1))."""
    preferences = Preferences()
    for skill in ("sql", "sql", "go", "go"):
        assert preferences.count(None, {"skill": [skill]}) == 0
    preferences.rate(None, {"skill": ["sql"]}, POSITIVE, 1)
    found = preferences.read(None, {"skill": ["sql", "rust"]})
    weight = round(math.log(2 / 1.5), 6)
    assert found == Preferred((4, 1, 0, 4, 1, 0), {"skill": (weight, 0, weight, 0)})
    first, last = preferences.by_weight()
    assert (first.term, first.applications, first.positives) == ("sql", 2, 1)
    assert (last.term, last.positive, last.negative) == ("go", math.log(1 / 1.5), 0)
    assert preferences.read("mail", {"skill": ["sql"]}).weights["skill"] == (weight, 0, 0, 0)
    assert (len(COUNTS), len(WEIGHTS)) == (6, 4)


def test_a_job_keeps_so_many_terms() -> None:
    """More terms of an application, more or longer ones of a job, more channels: not counted."""
    preferences = Preferences()
    many = [f"t{number}" for number in range(MOST_TERMS + 5)]
    assert preferences.count("c", {"skill": many}) == 0
    assert preferences.size == MOST_TERMS
    assert preferences.read("c", {"skill": many[MOST_TERMS:]}).weights["skill"] == (0, 0, 0, 0)
    for number in range(MOST_KEPT):
        refused = preferences.count("c", {"skill": [f"u{number}"]})
        assert refused == (preferences.size == MOST_KEPT and number >= MOST_KEPT - MOST_TERMS)
    assert preferences.size == MOST_KEPT
    before = preferences.read("c", {"skill": ["u1999"]})
    preferences.rate("c", {"skill": ["u1999"]}, POSITIVE, 1)
    after = preferences.read("c", {"skill": ["u1999"]})
    assert after.weights == before.weights
    for number in range(MOST_CHANNELS + 3):
        preferences.count(f"c{number}", {"skill": ["t1"]})
    assert len(preferences.channels) == MOST_CHANNELS
    assert preferences.read("c10", {"skill": ["t1"]}).counts[3:] == (0, 0, 0)
    long = Preferences()
    assert long.count(None, {"skill": ["x" * 257], "y" * 257: ["z"]}) == 0
    assert long.size == 0
    refusals = [long.count(None, {"k": [f"{number:0250}"]}) for number in range(400)]
    assert sum(refusals) == 400 - long.size > 0
    assert long.text_bytes <= MOST_BYTES
    types = {f"type{number:02}": ["x"] for number in range(MOST_TYPES + 1)}
    assert list(Preferences().read(None, types).weights) == sorted(types)[:MOST_TYPES]


def test_partitions_keep_them_with_the_job() -> None:
    """Live, through a restart: terms are counted once, ratings corrected, all of it published.

    A job that is forgotten takes its preferences along.
    """
    market = Market(POLICY, 2)
    terms = {"skill": ["sql"]}
    one, other = (
        msgspec.structs.replace(application(name, at, member="m"), terms=terms, channel="mail")
        for name, at in (("a", 10), ("b", 20))
    )
    market.produce([one, one, engagement("e", "a", 12, "reject", member="m")])
    market.run()
    for place in list(market.partitions):
        market.restart(*place)
    market.produce([engagement("f", "a", 13, member="m"), other])
    market.run()
    market.produce([engagement("g", "b", 21, member="m")])
    market.run()
    found = [label.preferences for label in market.labels() if label.application_id == "b"]
    assert found == [Preferred((1, 1, 0, 1, 1, 0), {"skill": (0, 0, 0, 0)})]
    assert decode_label(encode_label(market.labels()[-1]), SPACE).preferences == found[0]
    sent = [message for message in market.sent if message.topic == PREFERENCES]
    assert {message.key for message in sent} == {b"j"}
    totals = [decode_preferences(message.value or b"").totals for message in sent]
    assert totals == [[1, 0, 1] * 2, [1, 1, 0] * 2, [2, 1, 0] * 2, [2, 2, 0] * 2]
    last = decode_preferences(sent[-1].value or b"")
    assert (last.job_id, last.channels, last.terms["skill"]["sql"]) == (
        "j",
        ["mail"],
        [2, 2, 0] * 2,
    )
    histories = {
        message.key: decode_coefficients(message.value).history
        for message in market.sent
        if message.topic == COEFFICIENTS
        and message.value is not None
        and not (message.key or b"").startswith(b"control:")
    }
    assert histories.keys() == {b"per_member:m", b"per_job:j"}
    for history in histories.values():
        assert history
        assert (history.applications, history.answers, history.positives) == (2, 2, 2)
        assert (history.newest_ms, history.answered_ms, history.positive_ms) == (20, 21, 21)
    value = encode(Forget(job_id="j", event_time_ms=30))
    market.append(ENGAGEMENTS, partition_of(b"j", 2), b"j", value)
    market.run()
    left = market.sent[-3:]
    assert [message.value for message in left if message.topic == PREFERENCES] == [None]
    assert not list(market.stores["job", partition_of(b"j", 2)].scan(b"k", b"l"))
