"""SHELL: how much has been written to all partitions of ``engagements``, also those of others.

A job partition without engagements of its own may only be led by the members while engagements come
somewhere (:mod:`stream.partitions.clock`). One question for each worker, every few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from concurrent.futures import Executor

from stream.errors import HearbackError
from stream.events.records import ENGAGEMENTS
from stream.kafka.cluster import TopicEnds
from stream.worker.settings import WorkerSettings

_log = logging.getLogger(__name__)

_EVERY_S = 10.0
_ANSWER_S = 10.0


class EngagementsWritten:
    """Asks the broker in a thread, and keeps its newest answer.

    Attributes:
        count: records written so far, with those that were deleted since; None: not known.

    """

    def __init__(self, settings: WorkerSettings, threads: Executor) -> None:
        self.count: int | None = None
        self._settings = settings
        self._threads = threads
        self._every_s = min(_EVERY_S, settings.idle_timeout_ms / 2000)
        self._asked_s = -self._every_s
        self._ends: TopicEnds | None = None
        self._task: asyncio.Task[None] | None = None

    def tick(self) -> None:
        """Ask if it is time to; does not wait for the answer."""
        if self._task is None and time.monotonic() - self._asked_s >= self._every_s:
            self._asked_s = time.monotonic()
            self._task = asyncio.create_task(self._ask())

    async def stop(self) -> None:
        """Wait for the question under way."""
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _ask(self) -> None:
        try:
            self.count = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._written
            )
        except HearbackError as error:
            self.count = None
            _log.info("%s", error)
        finally:
            self._task = None

    def _written(self) -> int:
        settings = self._settings
        if self._ends is None:
            topic = settings.names.of(ENGAGEMENTS)
            self._ends = TopicEnds(settings.broker, topic, settings.partitions)
        return self._ends.written(_ANSWER_S)
