"""The worker's topics and hops on stock Faust, its agents doing nothing.

Run by ``benchmarks/worker.py`` in the baselines' environment: ``python baseline_faust.py BROKER
PARTITIONS APPLICATIONS ENGAGEMENTS``. What arrives is passed on as it is, without being decoded:
applications → applications-by-job → labels; engagements end where they are. No state, no
transactions. Prints one JSON object when everything has come to its end.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from importlib import import_module
from typing import Any


class Progress:
    """What has arrived so far, and when it began."""

    def __init__(self, expected: dict[str, int]) -> None:
        self.expected = expected
        self.seen = dict.fromkeys(expected, 0)
        self._missing = sum(expected.values())
        self._start = self._start_cpu = 0.0

    def count(self, topic: str) -> None:
        """One more; at the end tell the times and leave."""
        if not self._start:
            self._start, self._start_cpu = time.perf_counter(), time.process_time()
        self.seen[topic] += 1
        self._missing -= 1
        if self._missing == 0:
            seconds = time.perf_counter() - self._start
            cpu_seconds = time.process_time() - self._start_cpu
            print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds}), flush=True)
            os._exit(0)


def make_app(broker: str, partitions: int, progress: Progress) -> Any:
    """Make the application: four agents."""
    faust = import_module("faust")
    app = faust.App(
        f"baseline-{os.getpid()}",
        broker=f"kafka://{broker}",
        datadir=tempfile.mkdtemp(),
        key_serializer="raw",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=partitions,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    names = ("applications", "engagements", "applications-by-job", "labels")
    topics = {name: app.topic(name, value_type=bytes) for name in names}

    def handle(name: str, onward: str | None) -> None:
        async def agent(stream: Any) -> None:
            async for event in stream.events():
                if onward is not None:
                    await topics[onward].send(key=event.key, value=event.value)
                progress.count(name)

        app.agent(topics[name], name=f"on-{name}")(agent)

    handle("applications", "applications-by-job")
    handle("engagements", None)
    handle("applications-by-job", "labels")
    handle("labels", None)
    return app


def main() -> None:
    """Run until everything has come to its end."""
    broker, *counts = sys.argv[1:]
    partitions, applications, engagements = map(int, counts)
    expected = {
        "applications": applications,
        "engagements": engagements,
        "applications-by-job": applications,
        "labels": applications,
    }
    app = make_app(broker, partitions, Progress(expected))
    sys.argv = sys.argv[:1]
    import_module("faust").Worker(app, loglevel="ERROR", quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
