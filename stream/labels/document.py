"""The table in ``docs/labels.md``: ``make docs`` writes it, a test keeps it equal."""

from __future__ import annotations

from pathlib import Path

from stream.labels.transitions import TABLE, State, Stimulus

PAGE = Path("docs/labels.md")

_BEGIN = "<!-- made from stream/labels/transitions.py by `make docs`; do not edit -->\n"
_END = "<!-- end -->\n"

_TEXTS = {
    Stimulus.READ: "it is read",
    Stimulus.READ_LATE: "it is read, the watermark past A+W",
    Stimulus.PASSED_OVER: "evidence of a later applicant",
    Stimulus.JOB_CLOSED: "the job is closed",
    Stimulus.NOTED: "a neutral action",
    Stimulus.OUTSIDE: "an action outside of A to A+W, the clock skew aside",
    Stimulus.DECLINED: "a negative action",
    Stimulus.ANSWERED: "a positive action",
    Stimulus.WINDOW_ENDED: "the watermark passes A+W",
    Stimulus.MARKER_ENDED: "the watermark passes A+2W",
    Stimulus.AGED: "the watermark passes an age step",
}


def table() -> str:
    """Return the table as Markdown: a row for each thing that happens, a column for each state."""
    rows = [["", *(state.name.lower() for state in TABLE)], ["---"] * (1 + len(TABLE))]
    rows += [[text, *(_cell(state, at) for state in TABLE)] for at, text in _TEXTS.items()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def page(text: str) -> str:
    """Return the page with the table as it is now."""
    head, rest = text.split(_BEGIN)
    _, tail = rest.split(_END, 1)
    return f"{head}{_BEGIN}\n{table()}\n{_END}{tail}"


def _cell(state: State, stimulus: Stimulus) -> str:
    transition = TABLE[state].get(stimulus)
    if transition is None:
        return ""
    parts = []
    if transition.label is not None:
        rule = f" ({transition.rule})" if transition.rule else ""
        final = ", final" if transition.final else ""
        parts.append(f"label `{transition.label.wire}`{rule}{final}")
    if transition.state is not state:
        parts.append(f"→ {transition.state.name.lower()}")
    if transition.ignored:
        parts.append(f"counted: {transition.ignored}")
    return "; ".join(parts) or "–"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
