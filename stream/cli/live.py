"""Commands around a broker: broker, worker, produce."""

from __future__ import annotations

import math
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, SpinnerColumn, TextColumn

from stream.cli.check import look_first
from stream.cli.options import (
    ApplicationId,
    BrokerAddress,
    ConfigFile,
    DataFolder,
    Logs,
    PolicyFile,
    configured,
    connected,
    parsed,
    setting,
)
from stream.cli.terminal import ERR, bar, tell
from stream.configuration.sections import LogFormat, LogLevel
from stream.kafka.connection import client_security
from stream.units import format_time, parse_speed, parse_time_ms

_TOPIC_PARTITIONS = 4


def broker(
    partitions: Annotated[
        int, typer.Option(min=1, help="Partitions of each topic.")
    ] = _TOPIC_PARTITIONS,
    app_id: ApplicationId = None,
    config: ConfigFile = None,
) -> None:
    """Run a throw-away Kafka-protocol broker on localhost, for trying things out.

    It keeps nothing: everything is gone when it stops, and each partition holds only its newest
    5 MB. It prints its address on a line of its own, and runs until Ctrl-C.
    """
    from stream.kafka.embedded import EmbeddedBroker
    from stream.policy import DAY_MS
    from stream.worker.topics import plans

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with EmbeddedBroker() as running:
        application_id = configured(config, app_id=app_id).worker.application_id
        names = [plan.name for plan in plans(application_id, DAY_MS)]
        running.create_topics(dict.fromkeys(names, partitions))
        tell(
            "this broker keeps nothing: all is gone when it stops, and of each partition what is"
            " older than its newest 5 MB. For trying things out only. Ctrl-C stops it.",
            ERR,
        )
        tell(running.bootstrap_servers)
        stop.wait()


def worker(
    broker: BrokerAddress = None,
    model: Annotated[Path | None, setting("worker.model", "--model")] = None,
    data: DataFolder = None,
    config: ConfigFile = None,
    policy: PolicyFile = None,
    app_id: ApplicationId = None,
    metrics_host: Annotated[str | None, setting("console.host", "--metrics-host")] = None,
    metrics_port: Annotated[
        int | None, setting("console.port", "--metrics-port", min=0, max=65_535)
    ] = None,
    idle_timeout: Annotated[str | None, setting("worker.idle_timeout", "--idle-timeout")] = None,
    session_timeout: Annotated[
        str | None, setting("worker.session_timeout", "--session-timeout")
    ] = None,
    accept_lost_records: Annotated[
        bool | None, setting("worker.accept_lost_records", "--accept-lost-records")
    ] = None,
    log_level: Annotated[LogLevel | None, setting("log.level", "--log-level")] = None,
    log_format: Annotated[LogFormat | None, setting("log.format", "--log-format")] = None,
) -> None:
    """Run the learner on Kafka: labels, both effects, coefficients.

    Reads applications and engagements, writes applications-by-job, labels, coefficients and
    dead-letters; all topics must exist (hearback topics create). Several workers of one
    application id share the partitions, each with a data folder of its own. Serves Prometheus
    metrics on localhost. SIGTERM and Ctrl-C stop it gracefully: batches in flight are finished.
    """
    from stream.worker.main import run_worker

    options = {
        "worker.model": model,
        "worker.data": data,
        "worker.idle_timeout": idle_timeout,
        "worker.session_timeout": session_timeout,
        "worker.accept_lost_records": accept_lost_records,
        "console.host": metrics_host,
        "console.port": metrics_port,
        "log.level": log_level,
        "log.format": log_format,
    }
    found = configured(config, policy=policy, broker=broker, app_id=app_id, options=options)
    if found.worker.model is None:
        raise typer.BadParameter(
            "no model is named: give --model, or [worker] model in --config (hearback train makes"
            " one)"
        )
    connected(found)
    raise typer.Exit(run_worker(found, found.worker.model, partial(tell, console=ERR)))


def produce(
    logs: Logs,
    broker: BrokerAddress = None,
    speed: Annotated[
        str, typer.Option(help="How fast event time runs: 60x is a minute a second; max.")
    ] = "max",
    from_: Annotated[
        str | None, typer.Option("--from", help="Leave out events before this time.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Leave out events from this time on.")] = None,
    close: Annotated[
        bool, typer.Option("--close", help="End with a clock past every label window.")
    ] = False,
    clocks: Annotated[
        bool,
        typer.Option(
            help="Send clocks as the log goes on, so that windows close behind it. Turn them off"
            " where others write to the topics too: a clock binds them."
        ),
    ] = True,
    policy: PolicyFile = None,
    config: ConfigFile = None,
    app_id: ApplicationId = None,
    throttle: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(
            help="Wait for the worker to have read what was sent; auto: only on a broker that"
            " drops what is old, read or not (hearback broker)."
        ),
    ] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Send without a look at the logs first.")
    ] = False,
) -> None:
    """Play logs into the Kafka topics.

    Applications go to the topic applications by member, engagements and job events to engagements
    by job, each line unchanged.
    """
    from producers.kafka import ProduceProgress
    from producers.kafka import produce as play

    found = configured(config, policy=policy, broker=broker, app_id=app_id)
    address = connected(found)
    from_ms, until_ms = parsed(parse_time_ms, from_), parsed(parse_time_ms, until)
    if not force:
        look_first(
            logs,
            found.policy,
            force=False,
            from_ms=from_ms,
            until_ms=None if until_ms is None else until_ms - 1,
            whole=False,
        )
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}", markup=False))
    with bar(*columns) as shown:
        task = shown.add_task("producing", total=None)

        def show(progress: ProduceProgress) -> None:
            reached = format_time(progress.event_time_ms) if progress.event_time_ms else "start"
            shown.update(
                task,
                total=progress.read.total_bytes or None,
                completed=progress.read.done_bytes,
                description=f"{progress.sent:,} events, {reached} {progress.waiting_for or ''}",
            )

        done = play(
            logs,
            address,
            client=client_security(address),
            speed=parsed(parse_speed, speed) or math.inf,
            from_ms=from_ms,
            until_ms=until_ms,
            close=close,
            clocks=clocks,
            labels=found.policy.labels,
            throttle=throttle,
            throttle_group=found.worker.application_id,
            on_progress=show,
        )
    for problem in done.problems:
        tell(f"not sent: {problem}", ERR)
    if done.shared is not None and clocks:
        tell(
            f"{done.shared} has another writer: no further clocks were sent, because a clock binds"
            " everybody who writes to its partition (--no-clocks sends none)",
            ERR,
        )
    closed = f", closed at {format_time(done.closed_at_ms)}" if done.closed_at_ms else ""
    tell(f"{done.sent:,} events sent, {done.skipped:,} lines skipped{closed}")
