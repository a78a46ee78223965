"""The table of transitions: every cell, against the oracle and a table written by hand."""

from __future__ import annotations

import pytest

from stream.events.ladder import KINDS, Kind, target
from stream.labels.transitions import RULES, TABLE, State, Stimulus, after
from stream.state.facts import Facts, Marker
from tests import oracle
from tests.kit import TestEvent, application, closing, engagement
from tests.labels.bench import AGED, STEPS, Bench, W

A, B = application("a", 10_000), application("b", 10_100)
CLOSED_MS, FORGOTTEN_MS = 10_000 + W + 1, 10_000 + 2 * W + 1

BEFORE: dict[str, list[TestEvent | int]] = {
    "unknown": [],
    "pending": [A],
    "inferred": [A, closing("y", 10_050)],
    "explicit": [A, engagement("d", "a", 10_020, "reject")],
    "positive": [A, engagement("m", "a", 10_020)],
    "closed": [A, CLOSED_MS],
    "aged": [A, 10_301],
}
"""What leads to each state of application ``a``; numbers move the watermark."""

HAPPENS: dict[str, list[TestEvent | int]] = {
    "read": [A],
    "read_late": [A],  # with the watermark past its window
    "passed_over": [B, engagement("e", "b", 10_200)],
    "job_closed": [closing("x", 10_300)],
    "noted": [engagement("n", "a", 10_400, "note")],
    "outside": [engagement("o", "a", 10_001 + W)],
    "declined": [engagement("r", "a", 10_400, "skip")],
    "answered": [engagement("s", "a", 10_400, "hire")],
    "window_ended": [CLOSED_MS],
    "marker_ended": [FORGOTTEN_MS],
    "aged": [10_601],
}

# By state: what it becomes, and after a colon what is counted; `never` where the two never meet.
LATE, OUT, ORPHAN = "closed:late_engagements", ":outside_window", "unknown:orphans"
WANTED = {
    "unknown": f"pending closed:late_applications unknown unknown {ORPHAN} {ORPHAN} {ORPHAN}"
    f" {ORPHAN} never never never",
    "pending": f"pending:repeats pending:repeats inferred inferred pending pending{OUT} explicit"
    " positive closed never aged",
    "inferred": "inferred:repeats inferred:repeats inferred inferred inferred"
    f" inferred{OUT} explicit positive closed never inferred",
    "explicit": "explicit:repeats explicit:repeats explicit explicit explicit"
    f" explicit{OUT} explicit positive closed never explicit",
    "positive": "positive:repeats positive:repeats positive positive positive"
    f" positive{OUT} positive positive closed never positive",
    "closed": f"closed:repeats closed:repeats closed closed {LATE} {LATE} {LATE} {LATE} never"
    " unknown never",
    "aged": f"aged:repeats aged:repeats inferred inferred aged aged{OUT} explicit positive closed"
    " never aged",
}
CELLS = [
    (state, happens, wanted)
    for state, row in WANTED.items()
    for happens, wanted in zip(HAPPENS, row.split(), strict=True)
]


def state_of(bench: Bench) -> str:
    """Name what the bench's book knows of application ``a``."""
    record = bench.book.application("j", "a")
    if isinstance(record, Facts):
        aged = record.rule == "age"
        return "aged" if aged else KINDS[record.kind].wire.removeprefix("negative_")
    return "closed" if isinstance(record, Marker) else "unknown"


def play(bench: Bench, script: list[TestEvent | int]) -> None:
    """Apply events and move the watermark."""
    for what in script:
        if isinstance(what, int):
            bench.move(what)
        else:
            bench.apply(what)


def test_the_tables_have_the_same_cells() -> None:
    """The hand-written table names every state and every stimulus, and no other."""
    assert {state.name.lower() for state in State} == BEFORE.keys() == WANTED.keys()
    assert [stimulus.name.lower() for stimulus in Stimulus] == list(HAPPENS)


def test_the_number_of_an_open_state_is_its_kinds() -> None:
    """The machine looks transitions up by the stored kind of an application."""
    numbers = {Kind.PENDING: 0, Kind.NEGATIVE_INFERRED: 1, Kind.NEGATIVE_EXPLICIT: 2}
    numbers[Kind.POSITIVE] = 4
    for kind, number in numbers.items():
        assert State(kind.value).name.lower() == kind.wire.removeprefix("negative_")
        assert number == kind.value


@pytest.mark.parametrize(("state", "happens", "wanted"), CELLS)
def test_every_cell_is_what_the_rules_say(state: str, happens: str, wanted: str) -> None:
    """From each state, each thing that happens gives the oracle's label, and what is written."""
    cell = TABLE[State[state.upper()]].get(Stimulus[happens.upper()])
    if wanted == "never":
        assert cell is None
        with pytest.raises(RuntimeError, match=happens.upper()):
            after(State[state.upper()], Stimulus[happens.upper()])
        return
    assert cell is not None
    bench = Bench(AGED)
    play(bench, BEFORE[state])
    assert state_of(bench) == state
    label, ignored, changes = bench.label("a"), bench.ignored.copy(), len(bench.changes)
    before_ms = bench.watermark_ms or 0
    if happens == "read_late":
        bench.watermark_ms = CLOSED_MS
    play(bench, HAPPENS[happens])
    given = [
        change
        for change in bench.changes[changes:]
        if change.application_id == "a" and change.label
    ]

    becomes, _, reason = wanted.partition(":")
    assert state_of(bench) == becomes == cell.state.name.lower()
    assert list(bench.ignored - ignored) == [reason] * bool(reason)
    assert cell.ignored == reason

    counted = [event for event in BEFORE[state] if not isinstance(event, int)]
    if not {"closed", "unknown"} & {state, becomes} or (state, becomes) == ("unknown", "pending"):
        counted += [event for event in HAPPENS[happens] if not isinstance(event, int)]
    now_ms = before_ms if happens == "read_late" else bench.watermark_ms or 0
    if "closed" in (becomes, state):
        now_ms = CLOSED_MS
    verdicts = oracle.verdicts(counted, window_ms=W, watermark_ms=now_ms, steps=STEPS)
    verdict = verdicts.get(("j", "a"))
    assert bench.label("a") == verdict
    assert len(given) == (verdict != label)
    if given:
        assert cell.label is given[0].kind
        weight = STEPS[1][1] if becomes == "aged" else 1.0
        assert (target(cell.label), cell.label.wire, cell.final, weight) == verdict
        assert given[0].facts.rule == cell.rule
        rules = {"passed_over": "later_response", "job_closed": "job_closed", "aged": "age"}
        assert cell.rule == rules.get(happens)
    else:
        assert cell.label is None


@pytest.mark.parametrize("happens", list(HAPPENS)[2:8])
def test_what_happened_before_the_application_was_read_counts_at_its_first_sight(
    happens: str,
) -> None:
    """An application that is read last has the oracle's verdict on all, in at most one label."""
    bench = Bench()
    play(bench, HAPPENS[happens])
    bench.apply(A)
    events = [event for event in HAPPENS[happens] if not isinstance(event, int)]
    verdict = oracle.verdicts([*events, A], window_ms=W)["j", "a"]
    assert bench.label("a") == verdict
    given = [change for change in bench.changes if change.application_id == "a"]
    assert len(given) == (verdict is not None)


def test_every_rule_that_infers_has_its_cell() -> None:
    """The rule that a pending application's label names is the one that did it."""
    for rule, stimulus in RULES.items():
        assert after(State.PENDING, stimulus).rule == rule
