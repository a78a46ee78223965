"""Attributes → feature blocks: one pure function of a fitted spec and of what an application says.

Training, replay, the worker and whoever scores all make blocks here, once, where an application
enters (:class:`stream.features.blocks.FeatureSpace`). Nothing in attributes is an error: what is
missing, unknown or of another type leaves columns 0 (docs/features.md has them all).

All columns of a spec stand in one row of float32: a constant 1, then those of each feature. A block
is cut out of its bytes. Each feature fills its columns by a function that is made for it before.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from stream.features.columns import CrossStep, Place, Step, column_names, cross_step, step_of
from stream.features.fitting import Fitted, FittedSpec, attribute
from stream.features.spec import APPLIED, BLOCKS, SIDES, Cross, Match, TermList
from stream.features.values import as_items

INTERCEPT: Final = "intercept"

MOST_TERMS: Final = 64
"""Of one type, of an application, that its preferences count (:mod:`stream.histories`)."""


class Blocks(NamedTuple):
    """The blocks of an application, each the float32 bytes of its vector."""

    global_: bytes
    per_member: bytes
    per_job: bytes


class Maker:
    """Makes the blocks of applications.

    Args:
        fitted: what becomes of attributes.

    Attributes:
        names: of each block's columns.

    Raises:
        ConfigError: a cross has too many columns.

    """

    def __init__(self, fitted: FittedSpec) -> None:
        self.fitted = fitted
        self.names: dict[str, list[str]] = {block: [INTERCEPT] for block in BLOCKS}
        self._template = array("f", [1.0])
        self._steps: list[tuple[int, str, Step]] = []
        self._pairs: list[tuple[int, str, int, str, Step]] = []
        self._crosses: list[CrossStep] = []
        self._nested: set[tuple[int, str]] = set()
        self._terms: dict[tuple[str, ...], str] = {}  # attribute of the member → type
        cuts: dict[str, list[slice]] = {block: [slice(0, 4)] for block in BLOCKS}
        places: dict[str, Place] = {}
        for one in fitted.features:
            place = Place(len(self._template), column_names(one, places))
            places[one.name] = place
            self._template.extend([0.0] * len(place.names))
            self._add(one, place.at, places)
            for block in one.feature.blocks:
                self.names[block] += place.names
                begin, end = 4 * place.at, 4 * len(self._template)
                if cuts[block][-1].stop == begin:
                    begin = cuts[block].pop().start
                cuts[block].append(slice(begin, end))
        self._cuts = [cuts[block] for block in BLOCKS]

    def blocks(
        self,
        member: Mapping[str, Any],
        job: Mapping[str, Any],
        context: Mapping[str, Any],
        time_ms: int,
    ) -> Blocks:
        """Make the blocks of an application; ``time_ms``: when it was submitted."""
        sides: list[Mapping[str, Any]] = [member, job, context, {APPLIED: time_ms}]
        if self._nested:
            sides = self._flattened(sides)
        row = self._template[:]
        for side, key, step in self._steps:
            step(row, sides[side].get(key), None, time_ms)
        for side, key, other_side, other_key, step in self._pairs:
            step(row, sides[side].get(key), sides[other_side].get(other_key), time_ms)
        for cross in self._crosses:
            cross(row)
        packed = row.tobytes()
        return Blocks(
            *[
                packed[cuts[0]] if len(cuts) == 1 else b"".join([packed[cut] for cut in cuts])
                for cuts in self._cuts
            ]
        )

    def terms(self, member: Mapping[str, Any]) -> dict[str, list[str]]:
        """Terms of a member, by type: what the spec's features of kind ``terms`` say of them."""
        found = {}
        for path, kind in self._terms.items():
            items = as_items(attribute(member, path))
            if items:
                found[kind] = list(dict.fromkeys(items))[:MOST_TERMS]
        return found

    def _add(self, one: Fitted, at: int, places: Mapping[str, Place]) -> None:
        """Add how a feature fills its columns, which begin at a place of the row."""
        feature = one.feature
        if isinstance(feature, Cross):
            first, second = (places[name] for name in feature.of)
            self._crosses.append(cross_step(at, first, second))
            return
        if isinstance(feature, TermList) and feature.of.startswith("member."):
            path = tuple(feature.of.split(".")[1:])
            self._terms[path] = path[-1]
        (side, key), (other_side, other_key) = (
            self._place(path) for path in (feature.paths[0], feature.paths[-1])
        )
        step = step_of(one, at)
        if isinstance(feature, Match):
            self._pairs.append((side, key, other_side, other_key, step))
        else:
            self._steps.append((side, key, step))

    def _place(self, path: str) -> tuple[int, str]:
        """Return the side of an attribute, and its name there."""
        if path == APPLIED:
            return len(SIDES), APPLIED
        side, _, key = path.partition(".")
        if "." in key:
            self._nested.add((SIDES.index(side), key))
        return SIDES.index(side), key

    def _flattened(self, sides: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Put what stands within an attribute beside it, under its whole name."""
        found = [dict(side) for side in sides]
        for side, key in self._nested:
            found[side][key] = attribute(sides[side], key.split("."))
        return list(found)
