"""The label machine: every rule by a table, then random logs against the brute-force oracle."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from itertools import islice
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ConflictError, MismatchError, UnknownActionError, UnmatchedError
from stream.events.structs import DeadLetter, JobEvent
from stream.labels.changes import Change
from stream.policy import LabelPolicy
from stream.state import codec, keys
from stream.state.facts import DeadlineKind, Waiting
from tests import kit, oracle
from tests.conftest import thorough
from tests.kit import TestEvent, application, closing, engagement
from tests.labels.bench import (
    AGED,
    CONCLUSIVE,
    EXPLICIT,
    EXPLICIT_FINAL,
    INFERRED,
    LATENESS,
    POLICY,
    POSITIVE,
    SKEW,
    STEPS,
    Bench,
    W,
    arrivals,
    with_settings,
)

A, B = application("a", 10_000), application("b", 10_100)

TABLE: list[tuple[str, list[TestEvent | int], oracle.Verdict | None]] = [
    ("no evidence is no label", [A], None),
    ("an answer is positive", [A, engagement("e", "a", 10_010)], POSITIVE),
    ("an answer at exactly A counts", [A, engagement("e", "a", 10_000)], POSITIVE),
    ("an answer at exactly A+W counts", [A, engagement("e", "a", 11_000)], POSITIVE),
    ("an answer at A+W+1 does not", [A, engagement("e", "a", 11_001)], None),
    ("an answer within the clock skew counts", [A, engagement("e", "a", 9_980)], POSITIVE),
    ("an answer before that does not", [A, engagement("e", "a", 9_979)], None),
    (
        "an answer within the clock skew counts when it is read first",
        [engagement("e", "a", 9_980), A],
        POSITIVE,
    ),
    (
        "an answer before that does not, read first",
        [engagement("e", "a", 9_979), A],
        None,
    ),
    (
        "a decline within the clock skew is explicit",
        [A, engagement("e", "a", 9_999, "reject")],
        EXPLICIT,
    ),
    (
        "a later applicant's answer within the clock skew infers as at their application's time",
        [A, B, engagement("e", "b", 10_090)],
        INFERRED,
    ),
    (
        "it infers though it lies before the earlier one's application",
        [A, application("b", 10_001), engagement("e", "b", 9_990)],
        INFERRED,
    ),
    (
        "it settles nothing that was submitted when it counts",
        [A, application("b", 10_000), engagement("e", "b", 9_990)],
        None,
    ),
    (
        "it settles nothing whose window is over when it counts",
        [A, application("b", 11_001), engagement("e", "b", 10_990)],
        None,
    ),
    ("a decline is explicit", [A, engagement("e", "a", 10_010, "reject")], EXPLICIT),
    ("a note says nothing", [A, engagement("e", "a", 10_010, "note")], None),
    (
        "an answer after a decline is positive",
        [A, engagement("e", "a", 10_010, "reject"), engagement("f", "a", 10_020)],
        POSITIVE,
    ),
    (
        "a decline after an answer changes nothing",
        [A, engagement("f", "a", 10_020), engagement("e", "a", 10_030, "reject")],
        POSITIVE,
    ),
    ("a later applicant's answer infers", [A, B, engagement("e", "b", 10_200)], INFERRED),
    (
        "a later applicant's decline infers too",
        [A, B, engagement("e", "b", 10_200, "skip")],
        INFERRED,
    ),
    (
        "an earlier applicant's answer infers nothing",
        [application("z", 9_999), A, engagement("e", "z", 10_200)],
        None,
    ),
    (
        "an applicant of the same instant infers nothing",
        [application("z", 10_000), A, engagement("e", "z", 10_200)],
        None,
    ),
    (
        "a later applicant's answer after A+W infers nothing",
        [A, application("b", 10_900), engagement("e", "b", 11_001)],
        None,
    ),
    (
        "another job's answer infers nothing",
        [A, application("b", 10_100, job="k"), engagement("e", "b", 10_200, job="k")],
        None,
    ),
    (
        "inferred turns positive",
        [A, B, engagement("e", "b", 10_200), engagement("f", "a", 10_300)],
        POSITIVE,
    ),
    ("a closing infers", [A, closing("x", 10_500)], INFERRED),
    ("a closing at exactly A infers", [A, closing("x", 10_000)], INFERRED),
    ("a closing at exactly A+W infers", [A, closing("x", 11_000)], INFERRED),
    ("a closing before A infers nothing", [closing("x", 9_999), A], None),
    ("a closing after A+W infers nothing", [A, closing("x", 11_001)], None),
    ("a closing read before the application infers", [closing("x", 10_500), A], INFERRED),
    (
        "a job closed twice infers once",
        [A, closing("x", 10_500), closing("y", 10_600)],
        INFERRED,
    ),
    (
        "an answer read before an older application infers",
        [B, engagement("e", "b", 10_200), A],
        INFERRED,
    ),
    ("an answer read before its application counts", [engagement("e", "a", 10_010), A], POSITIVE),
    (
        "an answer and its application read before an older one infer",
        [engagement("e", "b", 10_200), A, B],
        INFERRED,
    ),
    ("the watermark at A+W closes nothing", [A, 11_000], None),
    ("the watermark past A+W concludes", [A, 11_001], CONCLUSIVE),
    ("inferred is concluded", [A, B, engagement("e", "b", 10_200), 11_001], CONCLUSIVE),
    (
        "explicit is made final",
        [A, engagement("e", "a", 10_010, "reject"), 11_001],
        EXPLICIT_FINAL,
    ),
    (
        "an answer read after closing changes nothing",
        [A, 11_001, engagement("e", "a", 10_500)],
        CONCLUSIVE,
    ),
    ("an application read after its window is not labelled", [B, 11_001, A], None),
    (
        "a repeat changes nothing",
        [A, engagement("e", "a", 10_010, "reject"), A, engagement("e", "a", 10_010, "reject")],
        EXPLICIT,
    ),
]


@pytest.mark.parametrize(
    ("events", "expected"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_rules(events: list[TestEvent | int], expected: oracle.Verdict | None) -> None:
    """Each row of the table of rules gives the label of application ``a``."""
    bench = Bench()
    for event in events:
        if isinstance(event, int):
            bench.move(event)
        else:
            bench.apply(event)
    assert bench.label("a") == expected


def test_min_age_spares_young_applications() -> None:
    """A response infers only for applications that were at least ``min_age`` old."""
    bench = Bench(with_settings(min_age_ms=200, orphan_ttl_ms=10**6, allowed_lateness_ms=0))
    bench.apply(A)
    bench.apply(B)
    bench.apply(engagement("e", "b", 10_199))
    assert bench.label("a") is None
    bench.apply(engagement("f", "b", 10_200))
    assert bench.label("a") == INFERRED


def test_switched_off_rules_infer_nothing() -> None:
    """With both rules off, neither a later response nor a closing labels anything."""
    bench = Bench(with_settings(later_response="off", job_closed="off"))
    for event in (A, B, engagement("e", "b", 10_200), closing("x", 10_300)):
        bench.apply(event)
    assert bench.label("a") is None


def test_label_says_what_decided_it() -> None:
    """A change carries the rule, the evidence's time and the time of the label."""
    bench = Bench()
    bench.apply(A)
    bench.apply(B)
    inferred, own = bench.apply(engagement("e", "b", 10_200))
    assert (own.application_id, own.facts.rule, own.evidence_time_ms) == ("b", None, 10_200)
    assert (inferred.application_id, inferred.facts.rule) == ("a", "later_response")
    assert inferred.evidence_time_ms == inferred.label_time_ms == 10_200
    closed = bench.move(11_001)[0]
    assert (closed.evidence_time_ms, closed.label_time_ms) == (None, 11_001)
    assert closed.previous_rule == "later_response"


def test_refusals_leave_the_state_untouched() -> None:
    """Conflicts, mismatches, unknown actions and unmatched engagements change nothing."""
    bench = Bench()
    bench.apply(A)
    bench.apply(engagement("e", "a", 10_010, "note"))
    bench.move(10_005)
    bench.overlay.flush()
    refused: list[tuple[TestEvent, type[Exception]]] = [
        (application("a", 10_001), ConflictError),
        (application("a", 10_000, score=1.0), ConflictError),
        (engagement("e", "a", 10_011, "note"), ConflictError),
        (engagement("f", "a", 10_011, member="other"), MismatchError),
        (engagement("f", "a", 10_011, "dance"), UnknownActionError),
        (
            JobEvent(job_event_id="x", job_id="j", event_time_ms=1, action="sold"),
            UnknownActionError,
        ),
        (engagement("f", "unknown", 9_904), UnmatchedError),
    ]
    for event, error in refused:
        with pytest.raises(error):
            bench.apply(event)
    assert not bench.overlay.drain()


def test_orphan_waits_until_its_time_and_becomes_a_dead_letter() -> None:
    """An engagement without application expires strictly past t + orphan_ttl, bytes and all."""
    bench = Bench()
    bench.apply(engagement("e", "a", 10_000))
    bench.move(10_100)
    assert not bench.dead
    bench.move(10_101)
    assert [(letter.reason, letter.source.raw) for letter in bench.dead] == [("unmatched", b"raw")]
    assert bench.ignored["orphans"] == 1
    bench.overlay.flush()
    assert not list(bench.store.scan(b"", b"\xff"))


def test_orphan_of_another_member_is_a_mismatch() -> None:
    """An orphan that names another member than its application becomes a dead letter."""
    bench = Bench()
    bench.apply(engagement("e", "a", 10_010, member="other"))
    bench.apply(A)
    assert [letter.reason for letter in bench.dead] == ["mismatch"]
    assert bench.label("a") is None


def test_what_expires_is_the_orphan_of_its_own_application() -> None:
    """A mismatch of one application that is sent again for another waits its own time."""
    bench = Bench(with_settings(orphan_ttl_ms=10_000, allowed_lateness_ms=0))
    bench.apply(engagement("e", "b", 10_010, member="other"))
    bench.apply(B)
    bench.move(12_200)  # b is over and forgotten
    bench.apply(engagement("f", "b", 12_300))
    bench.apply(engagement("e", "c", 12_400))
    bench.move(20_011)  # past the first deadline
    assert [letter.reason for letter in bench.dead] == ["mismatch"]
    bench.move(30_000)
    assert [letter.reason for letter in bench.dead] == ["mismatch", "unmatched", "unmatched"]
    bench.overlay.flush()
    assert not list(bench.store.scan(b"", b"\xff"))


def test_a_mismatch_is_a_dead_letter_once_wherever_the_work_is_cut() -> None:
    """Begun again after a crash past any step that was written, each stranger is set aside once."""
    for cut in range(1, 6):
        bench = Bench()
        for name, member in (("e", "other"), ("f", None), ("g", "another")):
            bench.apply(engagement(name, "a", 10_010, member=member))
        bench.overlay.flush()
        seen = list(islice(bench.machine.apply(A, kit.source(), None), cut))
        bench.overlay.flush()
        bench.restart()
        seen += bench.machine.apply(A, kit.source(), None)
        letters = [step.message for step in seen if isinstance(step, DeadLetter)]
        assert [letter.split()[1] for letter in letters] == ["e", "g"]
        kinds = [step.kind.wire for step in seen if isinstance(step, Change)]
        assert kinds == ["positive"]


def test_an_event_that_was_not_taken_to_its_end_is_noticed() -> None:
    """The next event is refused while steps of one before were not taken, or not even begun."""
    bench = Bench()
    for event in (A, B):
        bench.apply(event)
    bench.overlay.flush()
    answer = engagement("e", "b", 10_200)
    steps = bench.machine.apply(answer, kit.source(), None)
    for taken in (0, 1):
        assert len(list(islice(steps, taken))) == taken
        with pytest.raises(RuntimeError, match="not taken to its end"):
            bench.machine.apply(closing("x", 10_300), kit.source(), None)
        with pytest.raises(RuntimeError, match="not taken to its end"):
            bench.machine.close_due(20_000)
    assert len(list(steps)) == 1
    with pytest.raises(UnknownActionError):  # a refusal gives nothing, and holds up nothing
        list(bench.machine.apply(engagement("f", "a", 10_200, "dance"), kit.source(), None))
    closed = [step for step in bench.machine.close_due(20_000) if isinstance(step, Change)]
    assert len(closed) == 2


def test_what_was_undone_may_be_begun_again() -> None:
    """Once the changes of half an event are undone, the machine takes it again and all of it."""
    bench = Bench()
    for event in (A, B):
        bench.apply(event)
    bench.overlay.flush()
    answer = engagement("e", "b", 10_200)
    next(iter(bench.machine.apply(answer, kit.source(), None)))
    bench.overlay.discard()
    bench.machine.begin_again()
    changes = bench.apply(answer)
    assert [change.application_id for change in changes] == ["a", "b"]


def test_late_engagement_is_told_from_an_orphan_until_two_windows() -> None:
    """After closing, engagements count as late until A + 2W, afterwards as unmatched."""
    bench = Bench()
    bench.apply(A)
    bench.move(12_000)
    bench.apply(engagement("e", "a", 10_500))
    assert bench.ignored["late_engagements"] == 1
    with pytest.raises(MismatchError):
        bench.apply(engagement("g", "a", 10_500, member="other"))
    bench.move(12_001)
    with pytest.raises(UnmatchedError):
        bench.apply(engagement("f", "a", 10_500))


def test_everything_is_forgotten() -> None:
    """Once the watermark is past all windows twice, not a single key is left."""
    bench = Bench()
    for event in (
        A,
        B,
        engagement("e", "b", 10_200),
        engagement("n", "a", 10_200, "note"),
        engagement("o", "nobody", 10_200),
        closing("x", 10_300),
    ):
        bench.apply(event)
    bench.move(11_500)
    bench.move(20_000)
    bench.overlay.flush()
    assert not list(bench.store.scan(b"", b"\xff"))


def test_an_application_with_many_engagements_is_forgotten_too() -> None:
    """Engagements beyond those that facts list are found and forgotten, orphans or not."""
    bench = Bench(with_settings(orphan_ttl_ms=10_000, allowed_lateness_ms=0))
    notes = [engagement(f"n{number:02}", "a", 10_010, "note") for number in range(80)]
    events: list[TestEvent] = [*notes[:40], A, *notes[40:], engagement("e", "a", 10_020)]
    for event in events:
        bench.apply(event)
    assert bench.label("a") == POSITIVE
    for note in notes:
        bench.apply(note)
    assert bench.ignored["repeats"] == len(notes)
    bench.overlay.flush()
    bench.move(11_001)
    bench.overlay.flush()
    assert not list(bench.store.scan(b"e", b"f"))
    assert not list(bench.store.scan(b"x", b"y"))


@pytest.mark.parametrize("listed", [True, False])
def test_of_many_orphans_some_expire_and_the_rest_is_adopted(listed: bool) -> None:
    """Listed with their application's id or indexed, as all were in older states: each once."""
    policy = with_settings(allowed_lateness_ms=0)
    bench = Bench(policy)
    for number in range(80):
        bench.apply(engagement(f"n{number:02}", "a", 10_000 + number, "note"))
    if not listed:
        bench.overlay.flush()
        waiting = bench.overlay.get(keys.key(keys.APPLICATION, "j", "a"))
        assert waiting is not None
        record = codec.APPLICATION.decode(waiting)
        assert isinstance(record, Waiting)
        assert len(record.listed) < record.orphans == 80
        prefix = keys.engagements_of("j", "a")
        for name in record.listed:
            bench.overlay.change(prefix, prefix + name.encode(), b"")
        bench.overlay.put(
            keys.key(keys.APPLICATION, "j", "a"), codec.APPLICATION.encode(Waiting(80))
        )
        bench.overlay.flush()
        bench.restart(policy)
    bench.move(10_150)  # past the first 50
    bench.apply(application("a", 9_990))
    assert Counter(letter.reason for letter in bench.dead) == {"unmatched": 50}
    bench.move(20_000)
    assert len(bench.dead) == 50
    bench.overlay.flush()
    assert not list(bench.store.scan(b"", b"\xff"))


def test_a_shorter_window_after_a_restart_closes_what_was_open_before() -> None:
    """What was read under a longer window ends when it would have, once, and all is forgotten."""
    bench = Bench()
    for number, name in enumerate("abc"):
        bench.apply(application(name, 10_000 + 100 * number))
    bench.overlay.flush()
    shorter = with_settings(window_ms=W // 3)
    for watermark_ms in (11_001, 11_050, 11_101, 11_300, 20_000):
        bench.restart(shorter)
        bench.move(watermark_ms)
        bench.overlay.flush()
    assert [bench.label(name) for name in "abc"] == [CONCLUSIVE] * 3
    assert len(bench.changes) == 3
    assert not list(bench.store.scan(b"", b"\xff"))


@thorough
@given(
    arrivals(),
    st.sampled_from([0, 200]),
    st.sampled_from([POLICY, AGED, msgspec.structs.replace(AGED, later_response="off")]),
    st.randoms(use_true_random=False),
)
def test_labels_are_the_oracles_at_every_moment(
    events: list[TestEvent], min_age_ms: int, policy: LabelPolicy, random: Random
) -> None:
    """After each record the labels are the oracle's verdict on the events read so far."""
    bench = Bench(msgspec.structs.replace(policy, min_age_ms=min_age_ms))
    read: list[TestEvent] = []
    largest = 0
    for event in events:
        with suppress(UnmatchedError, MismatchError):
            bench.apply(event)
        read.append(event)
        largest = max(largest, event.event_time_ms)
        bench.move(largest - LATENESS)
        if random.random() < 0.2:
            bench.overlay.flush()
        expected = oracle.verdicts(
            read,
            window_ms=W,
            min_age_ms=min_age_ms,
            later_response=policy.infers_from_responses,
            steps=STEPS if policy.aging else (),
            clock_skew_ms=SKEW,
            watermark_ms=largest - LATENESS,
        )
        assert {key: bench.label(key[1], key[0]) for key in expected} == expected
    bench.move(10_000)
    expected = oracle.verdicts(events, window_ms=W, clock_skew_ms=SKEW, watermark_ms=10_000)
    assert bench.last == expected
    bench.overlay.flush()
    assert not [key for key, _ in bench.store.scan(b"", b"\xff") if key != keys.own("aging")]


def test_deadline_kinds_are_stored() -> None:
    """The numbers of deadline kinds are in stored keys: they never change."""
    assert [kind.value for kind in DeadlineKind] == [1, 2, 3, 4, 5, 6, 7]
