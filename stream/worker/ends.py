"""SHELL: what a worker asks the broker every few seconds, of partitions that may be others'.

How much was written to all of ``engagements``: a job partition without engagements of its own may
only be led by the members while engagements come somewhere (:mod:`stream.partitions.clock`). And
whether topics have got more partitions since the worker started.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

from stream.events.records import COEFFICIENTS, ENGAGEMENTS
from stream.kafka.cluster import TopicEnds, look_at_cluster
from stream.worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

_EVERY_S = 10.0
_ANSWER_S = 10.0

MOVED = (
    "keys move away from their state. Make topics anew, with a new --app-id, and play the events"
    " into them"
)
"""What it means that topics have other partitions than before."""

_WRITTEN = (
    "how many engagements were written",
    "until then partitions of engagements that get none hold event time",
)
_GROWN = ("how many partitions topics have", "until then nobody says that they have got more")

_T = TypeVar("_T")


class Asked(Generic[_T]):
    """Asks in a thread, and keeps the newest answer.

    Whatever goes wrong in asking, nothing but this answer is missing: it is asked again, and said
    once.

    Args:
        ask: what is called in ``threads``. every_s: between two questions.
        what: is asked, and what is so while it is not known.

    Attributes:
        answer: the newest one; None: not known.

    """

    def __init__(
        self, ask: Callable[[], _T], threads: Executor, every_s: float, what: tuple[str, str]
    ) -> None:
        self.answer: _T | None = None
        self._ask = ask
        self._threads = threads
        self._every_s = every_s
        self._what = what
        self._asked_s = -every_s
        self._task: asyncio.Task[None] | None = None
        self._told = False  # that it went wrong

    def tick(self) -> None:
        """Ask if it is time to; does not wait for the answer."""
        idle = self._task is None or self._task.done()
        if idle and time.monotonic() - self._asked_s >= self._every_s:
            self._asked_s = time.monotonic()
            self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Wait for the question under way."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _keep(self) -> None:
        what, meanwhile = self._what
        try:
            self.answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._ask)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is asked again
            self.answer = None
            if not self._told:
                self._told = True
                _log.warning(
                    "%s is not known, asking again: %s: %s: %s",
                    *(what, meanwhile, type(error).__name__, error),
                )
        else:
            if self._told:
                self._told = False
                _log.info("%s is known again", what)


def engagements_written(settings: WorkerSettings, threads: Executor) -> Asked[int]:
    """Ask how many engagements were written so far, with those that were deleted since.

    As often as idleness may depend on it.
    """
    ends: list[TopicEnds] = []  # connects at the first question

    def written() -> int:
        if not ends:
            topic = settings.names.of(ENGAGEMENTS)
            ends.append(TopicEnds(settings.broker, topic, settings.partitions))
        return ends[0].written(_ANSWER_S)

    return Asked(written, threads, min(_EVERY_S, settings.idle_timeout_ms / 2000), _WRITTEN)


def topics_grown(settings: WorkerSettings, threads: Executor) -> Asked[str]:
    """Ask which topics have another number of partitions now; an empty answer: none."""

    def grown() -> str:
        found = look_at_cluster(settings.broker, _ANSWER_S).partitions
        before = settings.partitions
        names = map(settings.names.of, (*settings.topics, COEFFICIENTS))
        counts = {name: found.get(name, 0) for name in names}
        other = ", ".join(f"{name} {count}" for name, count in counts.items() if count != before)
        return other and f"the topics had {before} partitions, now there are: {other}; {MOVED}"

    return Asked(grown, threads, _EVERY_S, _GROWN)
