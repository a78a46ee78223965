"""Feature blocks: names, sizes, and the one place where numbers are rounded to float32.

A block arrives as a list in the order of the model's names or as an object ``{name: value}``. It
leaves as the little-endian float32 bytes of a vector of shape (d,). Where events enter, numbers
beyond ``max_feature`` are refused: they are mistakes, and an entity's fit would take long for them.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence

from stream.errors import ConfigError, InvalidFeaturesError
from stream.features.making import Maker
from stream.policy import EffectSettings, Policy

RawBlock = list[float] | dict[str, float]


class Block:
    """The names of one feature block, and packing of raw values against them.

    ``limit``: of each number's size; None: what was checked before is packed.
    """

    def __init__(self, label: str, names: Sequence[str], limit: float | None = None) -> None:
        self.label = label
        self.limit = limit
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
        if self.limit is not None:
            check_size(f"features.{self.label}", values, self.limit)
        try:
            return self._struct.pack(*values)
        except OverflowError:
            raise InvalidFeaturesError(
                f"features.{self.label} has a number too large for float32"
            ) from None

    def pack_rows(self, rows: Sequence[RawBlock]) -> bytes | None:
        """Float32 bytes of shape (n, d), sizes of numbers not checked; None: not each is d numbers.

        Many rows take a third of the time that they would one by one.
        """
        pack = self._struct.pack
        try:
            return b"".join([pack(*row) for row in rows])
        except (struct.error, OverflowError):
            return None

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
    """The three blocks of one model; ``global_`` is None where every event brings its score.

    ``limit``: of the size of each number that an application brings; None: none. ``maker``: makes
    the blocks of attributes; None: applications bring them.
    """

    def __init__(
        self,
        global_names: Sequence[str] | None,
        per_member_names: Sequence[str],
        per_job_names: Sequence[str],
        limit: float | None = None,
        maker: Maker | None = None,
    ) -> None:
        self.limit = limit
        self.maker = maker
        self.global_ = Block("global", global_names, limit) if global_names is not None else None
        self.per_member = Block("per_member", per_member_names, limit)
        self.per_job = Block("per_job", per_job_names, limit)

    @classmethod
    def made(cls, maker: Maker) -> FeatureSpace:
        """Return the blocks that are made of attributes."""
        names = maker.names
        return cls(names["global"], names["per_member"], names["per_job"], maker=maker)

    def limited(self, limit: float) -> FeatureSpace:
        """Return the blocks as events enter: larger numbers are refused."""
        names = None if self.global_ is None else self.global_.names
        return FeatureSpace(names, self.per_member.names, self.per_job.names, limit, self.maker)

    def block(self, name: str) -> Block:
        """Return the block of an effect's features."""
        return {block.label: block for block in (self.per_member, self.per_job)}[name]

    def fitted(self, policy: Policy) -> dict[str, EffectSettings]:
        """Return the settings of a policy's effects for these features, by name of the effect.

        Raises:
            ConfigError: they cannot be (:meth:`stream.policy.EffectSettings.fitted`).

        """
        found = {}
        for spec in policy.declared:
            try:
                found[spec.name] = policy.effects[spec.name].fitted(self.block(spec.block).names)
            except ConfigError as error:
                raise ConfigError(f"[effects.{spec.name}] {error}") from None
        return found


def check_size(what: str, values: Collection[float], limit: float) -> None:
    """Refuse numbers that are larger than a limit.

    Raises:
        InvalidFeaturesError: one of them is.

    """
    if values and not -limit <= min(values) <= max(values) <= limit:
        worst = max(values, key=abs)
        raise InvalidFeaturesError(
            f"{what} has the number {worst:g}, beyond max_feature ({limit:g}): send it scaled, or"
            " its logarithm"
        )


def names_of(values: RawBlock, label: str) -> tuple[str, ...]:
    """Names to use for a block when nothing else names it: its own keys sorted, or numbered."""
    if isinstance(values, dict):
        return tuple(sorted(values))
    return tuple(f"{label}[{i}]" for i in range(len(values)))
