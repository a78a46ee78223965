"""The bootstrap command: from a replay to live workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import (
    ApplicationId,
    BrokerAddress,
    ConfigFile,
    PolicyFile,
    configured,
    connected,
)
from stream.cli.terminal import reading, tell
from stream.errors import ConfigError, StoppedError
from stream.events.records import COEFFICIENTS, LABELS
from stream.logs.files import ReadProgress
from stream.units import format_time, parse_time_ms


def bootstrap(
    run: Annotated[
        Path, typer.Option(help="The replay's folder; replayed with --model, without --close.")
    ],
    broker: BrokerAddress = None,
    app_id: ApplicationId = None,
    positions: Annotated[
        str,
        typer.Option(
            help="From where workers read the inputs: earliest, end, or a time by Kafka's record"
            " timestamps (ISO 8601 or milliseconds). Overlap is harmless, a gap is lost: when in"
            " doubt, earlier."
        ),
    ] = "earliest",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Make a worker's data folder too, so that it need not read the changelogs."
        ),
    ] = None,
    policy: PolicyFile = None,
    config: ConfigFile = None,
    replication: Annotated[
        int | None,
        typer.Option(min=1, help="Copies of each new topic. Default: 3, if there are 3 brokers."),
    ] = None,
) -> None:
    """Load a replay's state into Kafka, so that live workers go on where history ended.

    Goes into a new application id (--app-id), and makes its topics: changelogs, and outputs of its
    own (ID-labels, ID-coefficients, …; inputs are shared), so that it can run beside another one,
    with another global model too, until your consumers have switched. Then start workers with
    `hearback worker --app-id ID`, the replay's model and its policy.

    Events that history had and workers read again change nothing, and event time goes on from the
    replay's. Until it has come to its end, workers refuse the application id; interrupted, it can
    be begun again.
    """
    from stream.bootstrap.load import bootstrap as load
    from stream.bootstrap.target import Settings
    from stream.worker.crashpoints import arm

    found = configured(config, policy=policy, broker=broker, app_id=app_id)
    application_id = found.worker.application_id
    settings = Settings(
        run=run,
        broker=connected(found),
        application_id=application_id,
        labels=found.policy.labels,
        start=positions if positions in {"earliest", "end"} else _time(positions),
        data=data,
        replication=replication,
    )
    arm(os.environ)
    read = ReadProgress()
    with reading("loading", read, "records") as advance:

        def show(done: int, total: int) -> None:
            read.done_bytes, read.total_bytes = done, total
            advance(done)

        try:
            done = load(settings, show)
        except KeyboardInterrupt:
            raise StoppedError(
                f"interrupted: application id {application_id} is not complete, workers refuse"
                " it; begin the bootstrap again"
            ) from None
    reached = "" if done.watermark_ms is None else format_time(done.watermark_ms)
    tell(
        f"{done.entities:,} members and jobs in {done.partitions} partitions, event time {reached}."
        f" Workers: hearback worker --app-id {application_id}; consumers:"
        f" {done.names.of(COEFFICIENTS)}, {done.names.of(LABELS)}"
    )


def _time(text: str) -> int:
    try:
        return parse_time_ms(text)
    except ConfigError as error:
        raise typer.BadParameter(f"--positions is earliest, end or a time: {error}") from None
