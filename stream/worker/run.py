"""SHELL: runs a worker in this process until a signal or an error ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading

from stream.errors import HearbackError
from stream.worker.app import WorkerSettings
from stream.worker.contract import HandlerFactory
from stream.worker.group import Worker
from stream.worker.logs import Terse, formatter


def run(settings: WorkerSettings, handler_factory: HandlerFactory) -> int:
    """Run a worker until SIGTERM, SIGINT or an error, and return the exit code.

    Blocks; to be called from the main thread, which gets the signals. The first signal stops
    gracefully: batches in flight are finished and committed. Errors are one line on stderr.
    """
    plain = logging.StreamHandler()
    if logging.getLevelNamesMapping()[settings.log_level] > logging.INFO:
        plain.addFilter(Terse())
    plain.setFormatter(formatter(settings.log_format))
    logging.basicConfig(level=settings.log_level, handlers=[plain])
    watch = _Deadline(settings.stop_timeout_s)
    try:
        asyncio.run(_until_signalled(settings, handler_factory, watch))
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # one line for any error
        _say(_line_of(error))
        return 1
    finally:
        watch.cancel()
    return 0


class _Deadline:
    """Ends the process when a stop takes too long, whatever still runs: state survives crashes."""

    def __init__(self, after_s: float) -> None:
        self.worker: Worker | None = None
        self._after_s = after_s
        self._timer = threading.Timer(after_s, self._give_up)
        self._timer.daemon = True
        self.start = self._timer.start
        self.cancel = self._timer.cancel

    def _give_up(self) -> None:
        if self.worker is not None and self.worker.error is not None:
            _say(_line_of(self.worker.error))
        _say(
            f"not stopped within {self._after_s:g} s, a batch does not end or the broker does not "
            "answer: ending without, the next start goes on from the state"
        )
        os._exit(1)


async def _until_signalled(
    settings: WorkerSettings, handler_factory: HandlerFactory, watch: _Deadline
) -> None:
    worker = watch.worker = Worker(settings, handler_factory, on_stopping=watch.start)
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def on_signal() -> None:
        worker.request_stop()
        for number in signals:
            loop.remove_signal_handler(number)  # the next one has its usual effect

    for number in signals:
        loop.add_signal_handler(number, on_signal)
    await worker.run()


def _line_of(error: BaseException) -> str:
    if isinstance(error, HearbackError):
        return str(error)
    where = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
    return f"unexpected {type(error).__name__}{where}: {error} (log level INFO shows more)"


def _say(message: str) -> None:
    sys.stderr.write(f"hearback worker: {message}\n")
    sys.stderr.flush()
