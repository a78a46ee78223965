"""The numbers of a feature block: how large they are, and whether they vary at all."""

from __future__ import annotations

from array import array
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.check.tallies import Tally
from stream.features.blocks import RawBlock, names_of
from stream.logs.files import LogLine

_ROWS: Final = 1024  # taken together
_MOST_SHAPES: Final = 64
MOST_NAMES: Final = 10_000
"""Columns of one block that are followed; further names are counted with none."""


class Column(msgspec.Struct):
    """One feature. ``spread`` is the sum of squares about ``mean``."""

    count: int = 0
    low: float = np.inf
    high: float = -np.inf
    mean: float = 0.0
    spread: float = 0.0

    def add(self, count: int, low: float, high: float, mean: float, spread: float) -> None:
        """Add so many more values."""
        total = self.count + count
        step = mean - self.mean
        self.spread += spread + step * step * self.count * count / total
        self.mean += step * count / total
        self.count = total
        self.low, self.high = min(self.low, low), max(self.high, high)

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        return float(np.sqrt(self.spread / self.count)) if self.count else 0.0


class _Rows:
    """Blocks of one shape that wait to be looked at together."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.values = array("d")
        self.lines: list[LogLine] = []


class Columns:
    """The columns of one block.

    Args:
        label: the block. limit: a larger number is refused (``max_feature``).

    Attributes:
        columns: by name. rows: how many blocks there were.
        shapes: how often blocks of each size (lists) or with names (0) came.
        beyond: blocks with a number beyond the limit.

    """

    def __init__(self, label: str, limit: float) -> None:
        self.label = label
        self._limit = limit
        self._rows: dict[int | tuple[str, ...], _Rows] = {}
        self.columns: dict[str, Column] = {}
        self.rows = 0
        self.shapes: dict[int, Tally] = {}
        self.beyond = Tally()

    def add(self, block: RawBlock, line: LogLine) -> None:
        """Take a block in."""
        shape: int | tuple[str, ...]
        if isinstance(block, dict):
            shape, values, size = tuple(block), list(block.values()), 0
        else:
            shape, values, size = len(block), block, len(block)
        self.rows += 1
        rows = self._rows.get(shape)
        if rows is None:
            if len(self._rows) == _MOST_SHAPES:  # names come and go: seldom any two are alike
                self.end()
                self._rows.clear()
            rows = self._rows[shape] = _Rows(names_of(block, self.label))
            if isinstance(block, dict):
                rows.names = tuple(block)
        tally = self.shapes.get(size)
        if tally is None:
            tally = self.shapes[size] = Tally()
        tally.add(line)
        rows.values.extend(values)
        rows.lines.append(line)
        if len(rows.lines) == _ROWS:
            self._look(rows)

    def end(self) -> None:
        """Look at what waits."""
        for rows in self._rows.values():
            if rows.lines:
                self._look(rows)

    def constant(self) -> list[str]:
        """Return the names of columns that never vary; an absent name is 0."""
        return [
            name
            for name, one in self.columns.items()
            if one.low == one.high and (one.count == self.rows or one.low == 0.0)
        ]

    def _look(self, rows: _Rows) -> None:
        found: NDArray[np.float64] = np.frombuffer(rows.values, dtype=np.float64)
        found = found.reshape(len(rows.lines), len(rows.names))
        beyond = (np.abs(found) > self._limit).any(axis=1)
        for at in map(int, np.flatnonzero(beyond)):
            column = int(np.argmax(np.abs(found[at])))
            self.beyond.add(rows.lines[at], f"{rows.names[column]} = {found[at, column]:g}")
        found = found[~beyond]
        count = len(found)
        if count:
            low, high, mean = found.min(axis=0), found.max(axis=0), found.mean(axis=0)
            spread = ((found - mean) ** 2).sum(axis=0)
            for at, name in enumerate(rows.names):
                column_of = self.columns.get(name)
                if column_of is None:
                    if len(self.columns) == MOST_NAMES:
                        continue
                    column_of = self.columns[name] = Column()
                column_of.add(
                    *(count, float(low[at]), float(high[at]), float(mean[at]), float(spread[at]))
                )
        rows.values = array("d")
        rows.lines = []
