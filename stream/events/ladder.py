"""The ladder of label kinds: a label only ever climbs.

::

    negative_inferred < negative_explicit < negative_conclusive          < positive
                                          | negative_explicit made final |

A consumer that keeps the highest rung it has seen of each application is right, whatever was
repeated or reordered.
"""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """What is thought of an application. The numbers are stored: never renumber."""

    PENDING = 0
    NEGATIVE_INFERRED = 1
    NEGATIVE_EXPLICIT = 2
    NEGATIVE_CONCLUSIVE = 3
    POSITIVE = 4

    @property
    def wire(self) -> str:
        """The name in a label message."""
        return self.name.lower()


KINDS: tuple[Kind, ...] = tuple(Kind)
"""Kinds by number: quicker than asking the enumeration."""

NAMES: tuple[str, ...] = tuple(kind.wire for kind in Kind)
"""Names in a label message, by number."""

BY_NAME: dict[str, Kind] = {kind.wire: kind for kind in Kind if kind is not Kind.PENDING}


_EXPLICIT, _CONCLUSIVE, _POSITIVE = 2, 3, 4  # plain numbers: these are asked for every example


def target(kind: int) -> int:
    """Training target of a kind: 1 for positive, else 0."""
    return 1 if kind == _POSITIVE else 0


def rung(kind: int, final: bool) -> int:
    """Height on the ladder; an explicit negative made final stands level with conclusive."""
    return _CONCLUSIVE if final and kind == _EXPLICIT else kind
