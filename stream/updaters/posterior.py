"""The state of one entity: its mode and the examples that it follows from."""

from __future__ import annotations

import bisect

import msgspec

from stream.labels.ladder import rung


class Example(msgspec.Struct, frozen=True, array_like=True):
    """One labelled application, as one entity sees it.

    Ordered by (application time, id): the order in which examples are kept, summed and dropped.
    ``z`` is the float32 bytes of the features, shape (d,); ``offset`` the log-odds of everything
    else, fixed for life.
    """

    time_ms: int
    id: str
    kind: int
    final: bool
    weight: float
    offset: float
    z: bytes

    @property
    def rung(self) -> int:
        """Height of the label on the ladder."""
        return rung(self.kind, self.final)


class Posterior(msgspec.Struct, array_like=True):
    """All that is known of an entity.

    ``mode`` is the float64 bytes of θ, shape (d,), of the last refit. ``time_ms`` is T, the largest
    application time learned. ``retired`` counts examples that were learned but are not kept any
    more.
    """

    mode: bytes
    time_ms: int
    kept: list[Example]
    retired: int = 0

    @property
    def examples(self) -> int:
        """Applications learned so far."""
        return len(self.kept) + self.retired

    def learn(self, example: Example, *, correction: bool, capacity: int, open_limit: int) -> bool:
        """Add an example, or replace the one with its id by a label that stands higher.

        ``correction`` says that the application had a label before: when it is not kept it was
        dropped, and is not counted twice. Over ``capacity`` final or ``open_limit`` provisional
        examples, the oldest of that sort is dropped. Returns whether anything changed: a label
        that does not climb is a repeat.
        """
        at = self._find(example)
        if at is None:
            if correction and self.retired:
                self.retired -= 1
            bisect.insort(self.kept, example, key=_order)
            self.time_ms = max(self.time_ms, example.time_ms)
        elif example.rung <= self.kept[at].rung:
            return False
        else:
            # The offset is that of the first sight in every label; the label is what changed.
            self.kept[at] = example
        self._limit(example.final, capacity if example.final else open_limit)
        return True

    def _find(self, example: Example) -> int | None:
        at = bisect.bisect_left(self.kept, _order(example), key=_order)
        return at if at < len(self.kept) and _order(self.kept[at]) == _order(example) else None

    def _limit(self, final: bool, most: int) -> None:
        if len(self.kept) <= most:
            return
        same = [at for at, example in enumerate(self.kept) if example.final is final]
        for at in reversed(same[: max(len(same) - most, 0)]):
            del self.kept[at]
            self.retired += 1


def _order(example: Example) -> tuple[int, str]:
    return example.time_ms, example.id
