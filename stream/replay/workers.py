"""The worker processes of a replay, as its parent sees them: started, spoken to, ended."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import suppress
from itertools import combinations
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Self, TypeVar

from stream.errors import WorkerDiedError
from stream.replay import process
from stream.replay.messages import Failed, Setup, ToWorker, encode, from_worker

_SPAWN = get_context("spawn")  # a fork would copy threads' locks, RocksDB's among them
_LAST_WORDS_S = 5.0

_T = TypeVar("_T")


class Workers:
    """Worker processes, each with a connection to here and to each other; a context manager.

    Args:
        setups: what each is told first.

    """

    def __init__(self, setups: Sequence[Setup]) -> None:
        self._setups = setups

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._setups)

    def __enter__(self) -> Self:
        """Start them."""
        count = len(self._setups)
        peers: list[process.Peers] = [[None] * count for _ in range(count)]
        for one, other in combinations(range(count), 2):
            peers[one][other], peers[other][one] = _SPAWN.Pipe()
        self._connections: list[Connection] = []
        self._processes = []
        theirs: list[Connection] = []
        for share in range(count):
            mine, its = _SPAWN.Pipe()
            self._connections.append(mine)
            theirs.append(its)
            self._processes.append(
                _SPAWN.Process(
                    target=process.main, args=(its, peers[share]), name=f"replay {share}",
                    daemon=True,
                )
            )  # fmt: skip
        try:
            for each in self._processes:
                each.start()
            # An end that stayed open here would hide that the process at the other one is gone.
            for connection in [*theirs, *(end for ends in peers for end in ends if end)]:
                connection.close()
            self.send(self._setups)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End them, whatever they are doing: what counts is in the files and checkpoints."""
        self._end()

    def send(self, messages: Sequence[ToWorker]) -> None:
        """Send each worker its message.

        Raises:
            WorkerDiedError: one is gone.

        """
        for connection, message in zip(self._connections, messages, strict=True):
            try:
                connection.send_bytes(encode(message))
            except OSError:
                raise self._why() from None

    def receive(self, kind: type[_T]) -> list[_T]:
        """Receive a message of a kind from each, in their order.

        Raises:
            WorkerDiedError: one is gone, or cannot go on.

        """
        return [self.receive_from(share, kind) for share in range(len(self))]

    def receive_from(self, share: int, kind: type[_T]) -> _T:
        """Receive a message of a kind from one.

        Raises:
            WorkerDiedError: it is gone, or cannot go on.

        """
        try:
            message = from_worker.decode(self._connections[share].recv_bytes())
        except (EOFError, OSError):
            raise self._why() from None
        if isinstance(message, kind):
            return message
        raise WorkerDiedError(
            message.message
            if isinstance(message, Failed)
            else f"replay worker {share} sent {type(message).__name__}, not {kind.__name__}"
        )

    def _why(self) -> WorkerDiedError:
        """Find out which one ended first: the others end because of it."""
        running = list(self._processes)
        while running and wait([each.sentinel for each in running], _LAST_WORDS_S):
            ended = [each for each in running if each.exitcode is not None]
            for each in ended:
                running.remove(each)
                share = self._processes.index(each)
                failed = self._last_words(share)
                if failed is not None:
                    return WorkerDiedError(failed.message)
                code = each.exitcode or 0
                if code not in {0, process.LEFT_ALONE}:
                    how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
                    return WorkerDiedError(
                        f"replay worker {share} ended unexpectedly ({how}): go on with --resume"
                    )
        return WorkerDiedError("a replay worker ended unexpectedly: go on with --resume")

    def _last_words(self, share: int) -> Failed | None:
        """Look for what a worker said before it ended."""
        with suppress(EOFError, OSError):
            while self._connections[share].poll():
                message = from_worker.decode(self._connections[share].recv_bytes())
                if isinstance(message, Failed):
                    return message
        return None

    def _end(self) -> None:
        for connection in self._connections:
            connection.close()
        for each in self._processes:
            if each.pid is not None:
                each.terminate()
                each.join()
