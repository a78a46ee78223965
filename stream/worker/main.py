"""SHELL: puts a worker together: broker, model, policy, metrics, session."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import msgspec

from stream.console.probes import Probes
from stream.console.server import Console
from stream.console.status import About
from stream.events.records import CONSUMED
from stream.metrics.process import process_registry
from stream.metrics.worker import WorkerMetrics
from stream.model.linear import load_model
from stream.policy import Policy
from stream.updaters.newton import warm_up
from stream.worker.app import GroupMembership, WorkerSettings, run
from stream.worker.control import CommandReader
from stream.worker.crashpoints import arm
from stream.worker.data_folder import DataFolder
from stream.worker.host import Host
from stream.worker.session import SessionSettings
from stream.worker.topics import check_topics

_EMBEDDED = (
    "this is an embedded broker: it keeps nothing, does not abort transactions, and is for one"
    " worker"
)

_COMPILING = "compiling the kernel: only the first start takes so long"
_LONG_S = 3.0


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What ``hearback worker`` was told."""

    broker: str
    model: Path
    data_dir: Path
    policy: Policy
    application_id: str
    metrics_host: str
    metrics_port: int
    idle_timeout_ms: int
    session_timeout_ms: int
    log_level: str
    log_format: str = "text"


def run_worker(options: WorkerOptions, say: Callable[[str], None]) -> int:
    """Run a worker until it is told to stop; return the exit code.

    Raises:
        HearbackError: it cannot start.

    """
    model = load_model(options.model)
    partitions, embedded, names = check_topics(
        options.broker, options.application_id, options.policy.labels.window_ms
    )
    data = DataFolder(options.data_dir, options.application_id)
    own_folder = options.data_dir / "faust"
    own_folder.mkdir(exist_ok=True)
    arm(os.environ)
    told = threading.Timer(_LONG_S, say, [_COMPILING])
    told.start()
    warm_up()
    told.cancel()
    registry = process_registry()
    metrics = WorkerMetrics(registry, model.version)
    probes = Probes()
    metrics.ask_ready(lambda: probes.ready()[0])
    console = Console(
        registry,
        probes,
        About(options.application_id, version("hearback"), model.version),
        options.metrics_host,
        options.metrics_port,
    )
    console.start()
    reader = CommandReader(options.broker, options.application_id)
    reader.start()
    try:
        if embedded:
            say(_EMBEDDED)
        say(
            f"worker {options.application_id} on {options.broker}: {partitions} partitions, model"
            f" {model.version}, state in {options.data_dir}, metrics on"
            f" http://{options.metrics_host}:{console.port}/metrics, a page for people on"
            f" http://{options.metrics_host}:{console.port}/"
        )
        settings = SessionSettings(
            broker=options.broker,
            application_id=options.application_id,
            partitions=partitions,
            names=names,
            idle_timeout_ms=options.idle_timeout_ms,
            embedded=embedded,
        )

        # What is loaded by now stays: a full collection would walk it for a tenth of a second.
        gc.collect()
        gc.freeze()

        def make_host(control: GroupMembership) -> Host:
            host = Host(
                control,
                settings,
                model,
                options.policy,
                metrics,
                data,
                commands=reader.commands,
            )
            probes.watch(host.why_not_ready)
            probes.beat()
            return host

        return run(
            WorkerSettings(
                broker=options.broker,
                application_id=options.application_id,
                data_dir=own_folder,
                topics=CONSUMED,
                names=names,
                partitions=partitions,
                embedded=embedded,
                session_timeout_s=options.session_timeout_ms / 1000.0,
                log_level=options.log_level,
                log_format=options.log_format,
            ),
            make_host,
        )
    finally:
        reader.stop()
        console.stop()
