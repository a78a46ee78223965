"""SHELL: what a worker is started with: its settings, and what all of its sessions share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore

import msgspec

from stream.errors import InterruptedSessionError
from stream.events.records import CONSUMED, PLAIN, TopicNames
from stream.metrics.worker import WorkerMetrics
from stream.model.folder import GlobalModel
from stream.policy import MINUTE_MS, Policy
from stream.worker.data_folder import DataFolder

_THREADS = 64
_LOOK_S = 0.1  # between two looks at whether to go on
_RECOVERIES = 8  # at once: Python does not do more in parallel, and each takes some MB


class Turns:
    """Lets so many threads at a time do something; the others wait."""

    def __init__(self, count: int) -> None:
        self._free = BoundedSemaphore(count)

    @contextmanager
    def take(self, go_on: Callable[[], bool]) -> Iterator[None]:
        """Wait for a turn, and have it.

        Raises:
            InterruptedSessionError: ``go_on`` said no.

        """
        while not self._free.acquire(timeout=_LOOK_S):
            if not go_on():
                raise InterruptedSessionError("a rebalance has begun")
        try:
            yield
        finally:
            self._free.release()


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has to know before it can start."""

    broker: str
    """Comma-separated ``host:port``, as for every Kafka client."""
    application_id: str
    """The consumer group; with it begin the names of all that the worker owns in Kafka."""
    data_dir: Path
    """Faust's part of the folder that belongs to this worker alone."""
    topics: tuple[str, ...] = CONSUMED
    """The input topics, by their plain names."""
    names: TopicNames = PLAIN
    """What Kafka calls them."""
    partitions: int
    """How many partitions each input topic has."""
    embedded: bool = False
    """The broker is the embedded one: its checksums are wrong, and it shows transactions that were
    never committed."""
    max_poll_records: int = 1500
    """The most records in one batch."""
    commit_interval_s: float = 1.0
    tick_s: float = 0.25
    session_timeout_s: float = 10.0
    """After how long a silent worker loses its partitions."""
    stop_timeout_s: float = 20.0
    """How long a graceful stop may take; after that the process exits with code 1."""
    broker_timeout_s: float = 10.0
    """How long to wait for the broker's first answer."""
    idle_timeout_ms: int = 30 * MINUTE_MS
    """Each time that an input has brought nothing for so long, it follows the others."""
    accept_lost_records: bool = False
    """Go on where records were deleted before they were read."""
    log_level: str = "WARNING"
    log_format: str = "text"


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What the host, its sessions and its standbys share."""

    settings: WorkerSettings
    model: GlobalModel
    """The frozen global model."""
    policy: Policy
    data: DataFolder
    """Released by the host's ``stop``."""
    metrics: WorkerMetrics
    now_ms: Callable[[], int]
    """The wall clock."""
    threads: ThreadPoolExecutor = msgspec.field(
        default_factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="session")
    )
    """Run what blocks: fences, recoveries, commits."""
    recoveries: Turns = msgspec.field(default_factory=lambda: Turns(_RECOVERIES))
    """Who reads a changelog; with that, what all of them hold of it is bounded."""
