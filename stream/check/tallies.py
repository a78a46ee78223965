"""Counts that remember an example, and distinct ids in bounded memory."""

from __future__ import annotations

import zlib

import msgspec

from stream.logs.files import LogLine

MOST_KEPT = 1 << 17
"""Entries of a sample; beyond it, half of the ids are left out, again and again."""


class Tally(msgspec.Struct):
    """How often something was seen, and where first."""

    count: int = 0
    where: str = ""
    example: str = ""

    def add(self, line: LogLine, example: str = "") -> None:
        """Count once more."""
        if not self.count:
            self.where = f"{line.source}:{line.number}"
            self.example = example
        self.count += 1


def left_out(name: str, mask: int) -> bool:
    """Whether a sample leaves an id out: of ``mask`` + 1 ids it keeps about one."""
    return bool(mask and zlib.crc32(name.encode()) & mask)


class Distinct:
    """How many different ids there are; above ``most`` an estimate."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._seen: set[str] = set()
        self._mask = 0

    def add(self, name: str) -> None:
        """Take an id in."""
        if name in self._seen or left_out(name, self._mask):
            return
        self._seen.add(name)
        while len(self._seen) > self._most:
            self._mask = 2 * self._mask + 1
            self._seen = {one for one in self._seen if not left_out(one, self._mask)}

    @property
    def count(self) -> int:
        """The number of different ids."""
        return len(self._seen) * (self._mask + 1)

    @property
    def exact(self) -> bool:
        """Whether the number is no estimate."""
        return not self._mask
