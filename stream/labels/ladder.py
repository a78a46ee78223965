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

    @property
    def label(self) -> int:
        """The training target: 1 for positive, else 0."""
        return int(self is Kind.POSITIVE)


BY_NAME: dict[str, Kind] = {kind.wire: kind for kind in Kind if kind is not Kind.PENDING}


def rung(kind: Kind, final: bool) -> int:
    """Height on the ladder; an explicit negative made final stands level with conclusive."""
    if final and kind is Kind.NEGATIVE_EXPLICIT:
        return int(Kind.NEGATIVE_CONCLUSIVE)
    return int(kind)
