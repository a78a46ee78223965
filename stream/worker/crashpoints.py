"""Named places between any two steps of a session, at which a test can let the process die.

``hearback worker`` and ``bootstrap`` arm them from the environment:
``HEARBACK_CRASH_AT=committed:3`` kills the process, as ``kill -9`` would, when it comes to the
point ``committed`` for the third time;
``committed:3:freeze`` stops it there, once, until somebody sends SIGCONT.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

from stream.errors import ConfigError

VARIABLE = "HEARBACK_CRASH_AT"

POINTS = (
    "assigned",  # the partitions are known, nothing has been done about them
    "fenced",  # the previous owner can write no more
    "swept",  # nor is anything left of what it had not committed
    "recovering",  # a part of the changelog is in the store
    "recovered",  # all of it is
    "opened",  # the stage has been made from the store
    "processed",  # a unit of work is done in memory
    "begun",  # the transaction is open
    "sending",  # the outputs are on their way, the changelog's records are not
    "sent",  # all are in Kafka, in a transaction that is still open
    "committed",  # the transaction is; the store does not know
    "written",  # the store knows, memory does not
    "flushed",  # memory knows too; the input is not acknowledged
    "acknowledged",  # it is; the group's offsets are not committed yet
    "revoked",  # a rebalance has taken the partitions, sessions still stand
)
"""In the order in which a session comes to them."""

BOOTSTRAP_POINTS = (
    "marked",  # workers refuse the application id, nothing is loaded
    "loaded",  # all of it is in the changelogs, which are not complete
    "bootstrapped",  # they are; the data folder is not
)
"""Those of ``hearback bootstrap``, besides those of its transactions (``begun`` to ``sent``)."""

_left: dict[str, int] = {}
_how: dict[str, signal.Signals] = {}


def arm(environment: Mapping[str, str]) -> None:
    """Take the point, and how often it has to be reached, from the environment.

    Raises:
        ConfigError: there is no such point.

    """
    wanted = environment.get(VARIABLE)
    if not wanted:
        return
    name, _, rest = wanted.partition(":")
    times, _, how = rest.partition(":")
    times, how = times or "1", how or "die"
    if name not in POINTS + BOOTSTRAP_POINTS or not times.isdigit() or how not in {"die", "freeze"}:
        raise ConfigError(f"{VARIABLE}={wanted}: points are {', '.join(POINTS)}, as name:times")
    _left[name] = int(times)
    _how[name] = signal.SIGSTOP if how == "freeze" else signal.SIGKILL


def crash_point(name: str, before: Callable[[], object] | None = None) -> None:
    """Die here, if that was asked for, after ``before``, which makes true what the point says."""
    if name in _left:
        _left[name] -= 1
        if _left[name] == 0:
            if before is not None:
                before()
            os.kill(os.getpid(), _how[name])
