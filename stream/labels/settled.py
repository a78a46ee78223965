"""What a job's evidence has settled: for which submission times there is an inferred negative.

A piece of evidence settles every pending application of its job that was submitted in a closed
range of times (:mod:`stream.labels.inference`). All that must be remembered of it is that range: an
application that is read later and was submitted in it is settled at its first sight. So a job keeps
the union of the ranges as disjoint *stretches*, sorted by time, each with a piece of evidence that
settles all of it. Within it nothing is pending, so that further evidence has to look only at what
it adds to the union, and costs what it settles.

A stretch ends once the watermark is past all windows that it could settle. Answers at the very end
of their windows leave short ones with gaps between, which cannot be joined. Of more than
:data:`MOST_STRETCHES` the oldest are given up: an application that is read only then, long after
others, and was submitted in one of them, waits for the end of its window.
"""

from __future__ import annotations

from stream.state.facts import Settled, Stretch

MOST_STRETCHES = 64
"""Beyond it neighbours are joined under the evidence of the later one, then the oldest go."""


def found(settled: Settled, submitted_ms: int) -> Stretch | None:
    """Return what settles an application submitted at a time."""
    for stretch in reversed(settled):
        if stretch.first_ms <= submitted_ms:
            return stretch if submitted_ms <= stretch.last_ms else None
    return None


def added(settled: Settled, first_ms: int, last_ms: int) -> list[tuple[int, int]]:
    """Return what a range adds to the union: closed ranges, sorted; none where all is settled."""
    ranges = []
    for stretch in settled:
        if stretch.last_ms < first_ms:
            continue
        if stretch.first_ms > last_ms:
            break
        if stretch.first_ms > first_ms:
            ranges.append((first_ms, stretch.first_ms - 1))
        first_ms = stretch.last_ms + 1
    if first_ms <= last_ms:
        ranges.append((first_ms, last_ms))
    return ranges


def with_stretch(settled: Settled, new: Stretch) -> Settled:
    """Return the union with a new stretch, which takes over what it covers; the newest of it."""
    kept = [new]
    for stretch in settled:
        if stretch.first_ms < new.first_ms:
            kept.append(_cut(stretch, stretch.first_ms, min(stretch.last_ms, new.first_ms - 1)))
        if stretch.last_ms > new.last_ms:
            kept.append(_cut(stretch, max(stretch.first_ms, new.last_ms + 1), stretch.last_ms))
    kept.sort(key=_first)
    return tuple(kept if len(kept) <= MOST_STRETCHES else _joined(kept)[-MOST_STRETCHES:])


def since(settled: Settled, first_ms: int) -> Settled:
    """Drop the stretches that end before a time."""
    if not settled or settled[0].last_ms >= first_ms:
        return settled
    return tuple(stretch for stretch in settled if stretch.last_ms >= first_ms)


def _first(stretch: Stretch) -> int:
    return stretch.first_ms


def _cut(stretch: Stretch, first_ms: int, last_ms: int) -> Stretch:
    if first_ms == stretch.first_ms and last_ms == stretch.last_ms:
        return stretch
    return Stretch(first_ms, last_ms, stretch.evidence_ms, stretch.rule)


def _joined(stretches: list[Stretch]) -> list[Stretch]:
    """Join stretches without a gap between them, oldest first, until few enough are left."""
    few = MOST_STRETCHES // 2
    kept: list[Stretch] = []
    left = len(stretches)
    for stretch in stretches:
        if kept and left > few and kept[-1].last_ms + 1 == stretch.first_ms:
            last = kept.pop()
            kept.append(Stretch(last.first_ms, stretch.last_ms, stretch.evidence_ms, stretch.rule))
            left -= 1
        else:
            kept.append(stretch)
    return kept
