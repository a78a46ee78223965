"""The label machine's table: what becomes of an application, by its state and what happens.

An application's label is a function of the *set* of events known, never of their order. It can be
so because facts are kept, not conclusions: an engagement that comes before its application waits as
an orphan; what evidence has settled is remembered for as long as an application that it could
settle may still be read. An application that is read begins as ``PENDING`` and goes at once through
all that is known of it; of the labels on that way only the last is given.

Evidence about one application changes only those of which nothing but, perhaps, their age is known
(``PASSED_OVER``, ``JOB_CLOSED``), so that a response costs what it settles, not what the job holds.

``docs/labels.md`` shows the table (``make docs``).
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from stream.events.ladder import Kind
from stream.policy import LabelPolicy
from stream.state.facts import AGE, ApplicationRecord, Facts, Marker


class State(IntEnum):
    """What is known of an application. While its window is open, the number is its kind's."""

    PENDING = 0
    INFERRED = 1
    EXPLICIT = 2
    CLOSED = 3
    """Its window is over: a marker is left, which tells a late engagement from an orphan."""
    POSITIVE = 4
    UNKNOWN = 5
    """Not read yet, or forgotten; engagements may wait for it."""
    AGED = 6
    """Inferred from its age alone; its kind is that of ``INFERRED``."""


class Stimulus(IntEnum):
    """What happens to an application."""

    READ = 0
    READ_LATE = 1
    """Read when the watermark is past its window."""
    PASSED_OVER = 2
    """Evidence of another one, submitted later (the rule ``later_response``)."""
    JOB_CLOSED = 3
    NOTED = 4
    """An engagement of its own that is no evidence."""
    OUTSIDE = 5
    """One from before its submission (less ``clock_skew``), or from after its window."""
    DECLINED = 6
    ANSWERED = 7
    WINDOW_ENDED = 8
    """The watermark is strictly past A + W."""
    MARKER_ENDED = 9
    """The watermark is strictly past A + 2W."""
    AGED = 10
    """The watermark is strictly past an age at which silence weighs more."""


class Transition(msgspec.Struct, frozen=True, gc=False):
    """What becomes of an application.

    ``label`` is the kind of the label that is given, None where none is: ``rule`` says what
    inferred it, ``final`` that no other follows. ``ignored`` is the reason under which something
    is counted that changes no label; empty where nothing is.
    """

    state: State
    label: Kind | None = None
    rule: str | None = None
    final: bool = False
    ignored: str = ""


EVIDENCE = (Stimulus.DECLINED, Stimulus.ANSWERED)
"""What says something of earlier applications to the same job too."""

RULES = {"later_response": Stimulus.PASSED_OVER, "job_closed": Stimulus.JOB_CLOSED}
"""What a rule that infers does to an application, by the name that is stored and sent."""


def stimuli(policy: LabelPolicy) -> dict[str, Stimulus]:
    """What each known action is to its own application."""
    return {
        **dict.fromkeys(policy.neutral_actions, Stimulus.NOTED),
        **dict.fromkeys(policy.negative_actions, Stimulus.DECLINED),
        **dict.fromkeys(policy.positive_actions, Stimulus.ANSWERED),
    }


def _open(state: State, closing: Kind | None) -> dict[Stimulus, Transition]:
    """Transitions of an open state in which nothing climbs; ``closing``: the window's label."""
    same = Transition(state)
    repeat = Transition(state, ignored="repeats")
    return {
        Stimulus.READ: repeat,
        Stimulus.READ_LATE: repeat,
        Stimulus.PASSED_OVER: same,
        Stimulus.JOB_CLOSED: same,
        Stimulus.NOTED: same,
        Stimulus.OUTSIDE: Transition(state, ignored="outside_window"),
        Stimulus.DECLINED: same,
        Stimulus.ANSWERED: same,
        Stimulus.WINDOW_ENDED: Transition(State.CLOSED, closing, final=True),
        Stimulus.AGED: same,
    }


_INFERRED = Kind.NEGATIVE_INFERRED
_PASSED_OVER = Transition(State.INFERRED, _INFERRED, rule="later_response")
_JOB_CLOSED = Transition(State.INFERRED, _INFERRED, rule="job_closed")
_AGED = Transition(State.AGED, _INFERRED, rule=AGE)
_DECLINED = Transition(State.EXPLICIT, Kind.NEGATIVE_EXPLICIT)
_ANSWERED = Transition(State.POSITIVE, Kind.POSITIVE, final=True)
WAITED = "orphans"
"""Of engagements that were read before their application: most take effect when it comes."""

_ORPHAN = Transition(State.UNKNOWN, ignored=WAITED)
_REPEAT = Transition(State.CLOSED, ignored="repeats")
_LATE = Transition(State.CLOSED, ignored="late_engagements")

TABLE: dict[State, dict[Stimulus, Transition]] = {
    State.UNKNOWN: {
        Stimulus.READ: Transition(State.PENDING),
        Stimulus.READ_LATE: Transition(State.CLOSED, ignored="late_applications"),
        Stimulus.PASSED_OVER: Transition(State.UNKNOWN),
        Stimulus.JOB_CLOSED: Transition(State.UNKNOWN),
        Stimulus.NOTED: _ORPHAN,
        Stimulus.OUTSIDE: _ORPHAN,
        Stimulus.DECLINED: _ORPHAN,
        Stimulus.ANSWERED: _ORPHAN,
    },
    State.PENDING: {
        **_open(State.PENDING, Kind.NEGATIVE_CONCLUSIVE),
        Stimulus.PASSED_OVER: _PASSED_OVER,
        Stimulus.JOB_CLOSED: _JOB_CLOSED,
        Stimulus.DECLINED: _DECLINED,
        Stimulus.ANSWERED: _ANSWERED,
        Stimulus.AGED: _AGED,
    },
    State.INFERRED: {
        **_open(State.INFERRED, Kind.NEGATIVE_CONCLUSIVE),
        Stimulus.DECLINED: _DECLINED,
        Stimulus.ANSWERED: _ANSWERED,
    },
    State.EXPLICIT: {
        **_open(State.EXPLICIT, Kind.NEGATIVE_EXPLICIT),
        Stimulus.ANSWERED: _ANSWERED,
    },
    State.POSITIVE: _open(State.POSITIVE, None),  # it was final
    State.CLOSED: {
        Stimulus.READ: _REPEAT,
        Stimulus.READ_LATE: _REPEAT,
        Stimulus.PASSED_OVER: Transition(State.CLOSED),
        Stimulus.JOB_CLOSED: Transition(State.CLOSED),
        Stimulus.NOTED: _LATE,
        Stimulus.OUTSIDE: _LATE,
        Stimulus.DECLINED: _LATE,
        Stimulus.ANSWERED: _LATE,
        Stimulus.MARKER_ENDED: Transition(State.UNKNOWN),
    },
    State.AGED: {
        **_open(State.AGED, Kind.NEGATIVE_CONCLUSIVE),
        Stimulus.PASSED_OVER: _PASSED_OVER,
        Stimulus.JOB_CLOSED: _JOB_CLOSED,
        Stimulus.DECLINED: _DECLINED,
        Stimulus.ANSWERED: _ANSWERED,
        Stimulus.AGED: _AGED,  # where the weight grows
    },
}
"""The table. Where a cell is missing, state and stimulus never meet."""

_UNKNOWN, _CLOSED = State.UNKNOWN, State.CLOSED  # to look them up takes 0.1 µs

# The same by number: enumerations are slow keys, and this is asked for every event and label.
_AFTER = tuple(tuple(TABLE[state].get(stimulus) for stimulus in Stimulus) for state in State)


def state_of(facts: Facts) -> int:
    """State of an open application."""
    return State.AGED if facts.rule == AGE else facts.kind


def state_of_record(record: ApplicationRecord | None) -> int:
    """State of an application by whatever is remembered of it."""
    if record is None:
        return _UNKNOWN
    if isinstance(record, Facts):
        return state_of(record)
    return _CLOSED if isinstance(record, Marker) else _UNKNOWN


def after(state: int, stimulus: Stimulus) -> Transition:
    """Look a transition up.

    Raises:
        RuntimeError: the two never meet.

    """
    transition = _AFTER[state][stimulus]
    if transition is None:
        raise RuntimeError(f"{stimulus.name} cannot happen to {State(state).name} applications")
    return transition
