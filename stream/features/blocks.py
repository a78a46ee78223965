"""Feature blocks: names, sizes, and the one place where numbers are rounded to float32.

A block arrives as a list in the order of the model's names or as an object ``{name: value}``. It
leaves as the little-endian float32 bytes of a vector of shape (d,).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stream.errors import InvalidFeaturesError

RawBlock = list[float] | dict[str, float]


class Block:
    """The names of one feature block, and packing of raw values against them."""

    def __init__(self, label: str, names: Sequence[str]) -> None:
        self.label = label
        self.names = tuple(names)
        self.size = len(self.names)
        self._index: Mapping[str, int] = {name: i for i, name in enumerate(self.names)}
        self._struct = struct.Struct(f"<{self.size}f")
        if len(self._index) != self.size:
            raise InvalidFeaturesError(f"feature names of {label} repeat")

    def pack(self, values: RawBlock) -> bytes:
        """Return float32 bytes of shape (d,); raise InvalidFeaturesError where that can't be."""
        if isinstance(values, dict):
            values = self._from_names(values)
        if len(values) != self.size:
            raise InvalidFeaturesError(
                f"features.{self.label} has {len(values)} numbers, the model has {self.size}"
            )
        try:
            return self._struct.pack(*values)
        except OverflowError:
            raise InvalidFeaturesError(
                f"features.{self.label} has a number too large for float32"
            ) from None

    def _from_names(self, values: dict[str, float]) -> list[float]:
        vector = [0.0] * self.size
        for name, value in values.items():
            at = self._index.get(name)
            if at is None:
                raise InvalidFeaturesError(
                    f"features.{self.label} has a name unknown to the model: {name[:64]!r}"
                )
            vector[at] = value
        return vector


class FeatureSpace:
    """The three blocks of one model; ``global_`` is None where every event brings its score."""

    def __init__(
        self,
        global_names: Sequence[str] | None,
        per_member_names: Sequence[str],
        per_job_names: Sequence[str],
    ) -> None:
        self.global_ = Block("global", global_names) if global_names is not None else None
        self.per_member = Block("per_member", per_member_names)
        self.per_job = Block("per_job", per_job_names)

    def block(self, name: str) -> Block:
        """Return the block of an effect's features."""
        return {block.label: block for block in (self.per_member, self.per_job)}[name]


def vector(packed: bytes) -> NDArray[np.float64]:
    """Float32 bytes → float64 vector of shape (d,)."""
    return np.frombuffer(packed, dtype="<f4").astype(np.float64)


def names_of(values: RawBlock, label: str) -> tuple[str, ...]:
    """Names to use for a block when nothing else names it: its own keys sorted, or numbered."""
    if isinstance(values, dict):
        return tuple(sorted(values))
    return tuple(f"{label}[{i}]" for i in range(len(values)))
