"""Names of a feature block, learned from the events themselves where nobody gives them."""

from __future__ import annotations

from stream.errors import InvalidFeaturesError
from stream.features.blocks import RawBlock, check_size


class BlockNames:
    """Learns the names of one block from the events themselves, or holds those given.

    ``limit``: of each number's size.
    """

    def __init__(self, label: str, given: list[str] | None, limit: float) -> None:
        self.label = label
        self._limit = limit
        self._given = given
        self._size: int | None = None if given is None else len(given)
        self.index: dict[str, int] = {name: i for i, name in enumerate(given or [])}
        self._as_lists = False

    def check(self, block: RawBlock) -> None:
        """Check a block, changing nothing.

        Raises:
            InvalidFeaturesError: its size, a name or a number contradicts those before or given.

        """
        values = block.values() if isinstance(block, dict) else block
        check_size(f"features.{self.label}", values, self._limit)
        if isinstance(block, dict):
            if self._given is None and not self._as_lists:
                return
            for name in block:
                if name not in self.index:
                    raise InvalidFeaturesError(
                        f"features.{self.label} has an unknown name: {name[:64]!r}"
                    )
            return
        if self._given is None and self.index:
            raise InvalidFeaturesError(f"features.{self.label} is a list, an object before")
        if self._size is not None and len(block) != self._size:
            raise InvalidFeaturesError(
                f"features.{self.label} has {len(block)} numbers, {self._size} before"
            )

    def adopt(self, block: RawBlock) -> None:
        """Take the size or the names of a checked block over."""
        if isinstance(block, dict):
            for name in block:
                self.index.setdefault(name, len(self.index))
        elif self._size is None:
            self._size = len(block)
            self._as_lists = True

    def names(self) -> list[str]:
        """Names in the model's order: as given, sorted, or numbered."""
        if self._given is not None:
            return self._given
        if self._as_lists:
            return [f"{self.label}[{i}]" for i in range(self._size or 0)]
        return sorted(self.index)
