"""One worker process of a replay: a lane, and its talk with the others.

It ends when its parent or one of the others does. Two workers exchange what they have for each
other in an order that is the same for all pairs (lower numbers first, the lower of two sends
first), so that nobody waits for somebody who waits for him. What the parent sends is received by a
thread, so that the parent never waits for a worker that waits for another.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from stream.errors import HearbackError
from stream.features.blocks import FeatureSpace
from stream.model.linear import GlobalModel
from stream.replay.collector import seldom_collecting
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
    encode,
    labels_decoder,
    setup_decoder,
    to_worker,
)
from stream.replay.savepoint import save_rows
from stream.state.store import RocksStore
from stream.updaters.newton import warm_up

LEFT_ALONE = 3
"""Exit code of a worker that ended because another process did."""

Peers = list["Connection | None"]
"""Connections to the other workers by their number; None in its own place."""


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
            model = GlobalModel(setup.model, np.frombuffer(setup.coefficients))
            space = model.space
        self._lane = Lane(
            setup.share, setup.shares, store, setup.policy, model, space, setup.score_from_ms
        )
        self._judged = 0
        if setup.counts is not None:
            self._lane.restore(setup.counts, setup.rows)
            self._judged = len(self._lane.tallies.prequential)

    def run(self, receive: Callable[[], Batch | Finish]) -> None:
        """Work through batches to the end of the log; then send what was counted and learned."""
        while isinstance(message := receive(), Batch):
            self._batch(message)
        self._lane.flush()
        self._lane.drop_cached()
        self._store.flush()
        rows = self._lane.tallies.prequential.rows()
        self._send(Finished(self._lane.counts(), rows))
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
            self._judged = save_rows(Path(batch.judged), lane.tallies.prequential, self._judged)
            self._send(Saved(lane.counts(), self._judged))

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
