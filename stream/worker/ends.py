"""SHELL: how much has been written to all partitions of ``engagements``, also those of others.

A job partition without engagements of its own may only be led by the members while engagements come
somewhere (:mod:`stream.partitions.clock`). One question for each worker, every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor

from stream.events.records import ENGAGEMENTS
from stream.kafka.cluster import TopicEnds
from stream.worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

_EVERY_S = 10.0
_ANSWER_S = 10.0


class EngagementsWritten:
    """Asks in a thread, and keeps the newest answer.

    Whatever goes wrong in asking, nothing but this answer is missing: it is asked again, and said
    once.

    Args:
        ask: how many were written; called in ``threads``. every_s: between two questions.

    Attributes:
        count: records written so far, with those that were deleted since; None: not known.

    """

    def __init__(self, ask: Callable[[], int], threads: Executor, every_s: float) -> None:
        self.count: int | None = None
        self._ask = ask
        self._threads = threads
        self._every_s = every_s
        self._asked_s = -every_s
        self._task: asyncio.Task[None] | None = None
        self._told = False  # that it went wrong

    @classmethod
    def of_broker(cls, settings: WorkerSettings, threads: Executor) -> EngagementsWritten:
        """Ask the broker, as often as idleness may depend on it."""
        every_s = min(_EVERY_S, settings.idle_timeout_ms / 2000)
        return cls(_Ends(settings).written, threads, every_s)

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
        try:
            self.count = await asyncio.get_running_loop().run_in_executor(self._threads, self._ask)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is asked again
            self.count = None
            if not self._told:
                self._told = True
                _log.warning(
                    "how many engagements were written is not known, asking again: until then"
                    " partitions of engagements that get none hold event time: %s: %s",
                    type(error).__name__,
                    error,
                )
        else:
            if self._told:
                self._told = False
                _log.info("how many engagements were written is known again")


class _Ends:
    """Asks the broker; connects at the first question."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._ends: TopicEnds | None = None

    def written(self) -> int:
        settings = self._settings
        if self._ends is None:
            topic = settings.names.of(ENGAGEMENTS)
            self._ends = TopicEnds(settings.broker, topic, settings.partitions)
        return self._ends.written(_ANSWER_S)
