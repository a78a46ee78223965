"""The worker processes of a replay: what runs in each, and how their parent starts and ends them.

A worker is a lane and its talk with the others; it ends when its parent or one of them does. Two
workers exchange what they have for each other in an order that is the same for all pairs (lower
numbers first, the lower of two sends first), so that nobody waits for somebody who waits for him.
What the parent sends is received by a thread, so that the parent never waits for a worker that
waits for another.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import combinations
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Self, TypeVar

from stream.errors import HearbackError, WorkerDiedError
from stream.features.blocks import FeatureSpace
from stream.model.folder import GlobalModel
from stream.replay.lane import Lane
from stream.replay.messages import (
    Batch,
    Failed,
    Finish,
    Finished,
    Labels,
    Output,
    Saved,
    Setup,
    ToWorker,
    encode,
    from_worker,
    labels_decoder,
    setup_decoder,
    to_worker,
)
from stream.replay.savepoint import save_rows
from stream.replay.stages import Stages
from stream.stages.succession import Rolled
from stream.state.store import RocksStore
from stream.updaters.newton import warm_up

LEFT_ALONE = 3
"""Exit code of a worker that ended because another process did."""

Peers = list["Connection | None"]
"""Connections to the other workers by their number; None in its own place."""

_SPAWN = get_context("spawn")  # a fork would copy threads' locks, RocksDB's among them
_LAST_WORDS_S = 5.0
_YOUNG = 100_000  # objects made, less those gone, before the collector looks at them

_T = TypeVar("_T")


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Let the collector walk what is in memory a hundred times less often.

    A replay holds a million objects that refer to each other without cycles and go by themselves;
    walking them after every 700 new ones would be a good part of its time.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def main(parent: Connection, peers: Peers) -> None:
    """Work until the parent says that it is over; called in a process of its own, which it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends the workers
    code = 0
    try:
        _work(parent, peers)
    except HearbackError as error:
        with suppress(OSError):
            parent.send_bytes(encode(Failed(str(error))))
    except (EOFError, ConnectionError):
        code = LEFT_ALONE
    except BaseException:  # noqa: BLE001 - the parent says that it ended; why is said here
        traceback.print_exc()
        sys.stderr.flush()
        code = 1
    # Not Python's own way out, which was seen to wait for the thread that waits for the parent.
    os._exit(code)


def _work(parent: Connection, peers: Peers) -> None:
    setup = setup_decoder.decode(parent.recv_bytes())
    inbox: SimpleQueue[Batch | Finish] = SimpleQueue()
    threading.Thread(target=_receive, args=(parent, inbox), daemon=True).start()
    warm_up()
    store = RocksStore(Path(setup.state))
    try:
        with seldom_collecting():
            _Worker(setup, store, parent, peers).run(inbox.get)
    finally:
        store.close()


def _receive(parent: Connection, inbox: SimpleQueue[Batch | Finish]) -> None:
    """Hand on what the parent sends; end the process when the parent is gone."""
    try:
        while True:
            inbox.put(to_worker.decode(parent.recv_bytes()))
    except (EOFError, OSError):
        os._exit(LEFT_ALONE)


class _Worker:
    """A lane between its parent and the other workers."""

    def __init__(self, setup: Setup, store: RocksStore, parent: Connection, peers: Peers) -> None:
        self._store = store
        self._parent = parent
        self._peers = peers
        model = None
        space = FeatureSpace(None, setup.per_member, setup.per_job)
        if setup.model is not None:
            model = GlobalModel.of(setup.model, setup.arrays)
            space = model.space
        rolls = [
            Rolled(GlobalModel.of(manifest, arrays), from_ms)
            for manifest, arrays, from_ms in setup.rolls
        ]
        stages = Stages(store, setup.policy, model, space, setup.score_from_ms, rolls=rolls)
        self._lane = Lane(setup.share, setup.shares, stages)
        self._judged = 0
        if setup.counts is not None:
            stages.restore(setup.counts, setup.rows)
            self._judged = len(stages.prequential)

    def run(self, receive: Callable[[], Batch | Finish]) -> None:
        """Work through batches to the end of the log; then send what was counted and learned."""
        while isinstance(message := receive(), Batch):
            self._batch(message)
        self._lane.stages.flush()
        self._lane.stages.drop_cached()
        self._store.flush()
        rows = self._lane.stages.prequential.rows()
        self._send(Finished(self._lane.stages.counts(), rows))
        for lines in self._lane.coefficients():
            self._send(lines)

    def _batch(self, batch: Batch) -> None:
        lane = self._lane
        answers = self._exchange(lane.answer(batch))
        rounds = lane.work(batch, answers)
        more = True
        while more:
            done = next(rounds, None)
            output = Output(False, ([], []), ([], []), ([], [])) if done is None else done.output
            handed = [([], [])] * len(self._peers) if done is None else done.handed
            received = [
                labels_decoder.decode(value) if value else Labels(False, [], [])
                for value in self._exchange(
                    [encode(Labels(output.more, numbers, labels)) for numbers, labels in handed]
                )
            ]
            lane.learn([(labels.sequences, labels.labels) for labels in received])
            more = output.more or any(labels.more for labels in received)
            output = Output(more, output.labels, output.scores, output.dead_letters)
            self._send(output)
        lane.end(batch)
        if batch.state is not None and batch.judged is not None:
            self._store.flush()
            self._store.checkpoint(Path(batch.state))
            self._judged = save_rows(Path(batch.judged), lane.stages.prequential, self._judged)
            self._send(Saved(lane.stages.counts(), self._judged))

    def _exchange(self, values: list[bytes]) -> list[bytes]:
        """Give each other worker its value, and return theirs; nothing in the own place."""
        received = []
        lower = True
        for peer, value in zip(self._peers, values, strict=True):
            if peer is None:
                lower = False
                received.append(b"")
            elif lower:
                received.append(peer.recv_bytes())
                peer.send_bytes(value)
            else:
                peer.send_bytes(value)
                received.append(peer.recv_bytes())
        return received

    def _send(self, message: Output | Saved | Finished | object) -> None:
        self._parent.send_bytes(encode(message))


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
        peers: list[Peers] = [[None] * count for _ in range(count)]
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
                    target=main, args=(its, peers[share]), name=f"replay {share}",
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
                if code not in {0, LEFT_ALONE}:
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
