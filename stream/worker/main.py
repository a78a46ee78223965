"""SHELL: puts a worker together: broker, model, policy, metrics, session."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from stream import VERSION
from stream.configuration.load import with_model
from stream.configuration.sections import Config
from stream.console.server import Console, Probes
from stream.console.status import About
from stream.metrics.process import process_registry
from stream.metrics.worker import WorkerMetrics
from stream.model.folder import load_model
from stream.partitions.commands import check_roll
from stream.updaters.newton import NOT_KEPT, warm_up
from stream.worker.app import heed_signals, run
from stream.worker.contract import Membership
from stream.worker.control import CommandReader
from stream.worker.crashpoints import arm
from stream.worker.data_folder import KERNEL, DataFolder
from stream.worker.host import Host
from stream.worker.settings import Resources, WorkerSettings
from stream.worker.topics import check_topics

_EMBEDDED = (
    "this is an embedded broker: it keeps nothing, does not abort transactions, and is for one"
    " worker"
)

_COMPILING = "compiling the kernel: only the first start takes so long"
_LONG_S = 3.0
_LEAST_IDLE_MS = 1000
_YOUNG = 20_000  # objects made, less those gone, before the collector looks at them; 700 by itself


def run_worker(config: Config, model_folder: Path, say: Callable[[str], None]) -> int:
    """Run a worker until a signal stops it; return the exit code.

    Raises:
        HearbackError: it cannot start.

    """
    broker, application_id = config.broker, config.worker.application_id
    model = load_model(model_folder)
    config = with_model(config, model)
    model.space.fitted(config.policy)  # refused before anything is begun
    partitions, embedded, names = check_topics(
        broker, application_id, config.policy.labels.window_ms
    )
    data = DataFolder(config.worker.data, application_id)
    if data.exposed:
        say(
            f"others can read {config.worker.data}, and its mode cannot be changed: chmod 700 it"
            " as its owner, or name another --data"
        )
    own_folder = config.worker.data / "faust"
    own_folder.mkdir(exist_ok=True)
    arm(os.environ)
    notice = threading.Timer(_LONG_S, say, [_COMPILING])
    notice.start()
    kept = warm_up(config.worker.data / KERNEL)
    model.warm_up()
    notice.cancel()
    if not kept:
        say(NOT_KEPT)
    registry = process_registry()
    metrics = WorkerMetrics(registry, model.version)
    probes = Probes()
    metrics.ask_ready(lambda: probes.ready()[0])
    console = Console(
        registry,
        probes,
        About(application_id, VERSION, model.version),
        host=config.console.host,
        port=config.console.port,
    )
    console.start()
    reader = CommandReader(
        broker,
        application_id,
        lambda rolled: check_roll(rolled, model, config.policy),
        metrics.refresh_refused,
    )
    reader.start()
    try:
        if embedded:
            say(_EMBEDDED)
        asked = heed_signals()
        say(
            f"worker {application_id} on {broker}: {partitions} partitions, model"
            f" {model.version}, state in {config.worker.data}, metrics on"
            f" http://{config.console.host}:{console.port}/metrics, a status page on"
            f" http://{config.console.host}:{console.port}/"
        )
        settings = WorkerSettings(
            broker=broker,
            application_id=application_id,
            data_dir=own_folder,
            names=names,
            partitions=partitions,
            embedded=embedded,
            session_timeout_s=config.worker.session_timeout_ms / 1000.0,
            # What is empty for less than events may be late says nothing of what comes.
            idle_timeout_ms=max(
                min(config.worker.idle_timeout_ms, config.policy.labels.allowed_lateness_ms),
                _LEAST_IDLE_MS,
            ),
            accept_lost_records=config.worker.accept_lost_records,
            log_level=config.log.level,
            log_format=config.log.format,
        )
        resources = Resources(
            settings=settings,
            model=model,
            policy=config.policy,
            data=data,
            metrics=metrics,
            now_ms=lambda: time.time_ns() // 1_000_000,
        )

        # What is loaded by now stays: a full collection would walk it for a tenth of a second.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG)

        def make_host(membership: Membership) -> Host:
            host = Host(membership, resources, reader.commands)
            probes.watch(host.why_not_ready)
            probes.beat()
            return host

        return run(settings, make_host, asked)
    finally:
        reader.stop()
        console.stop()
