"""Commands around the state of workers: checkpoint, forget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from stream.cli.options import (
    BrokerAddress,
    ConfigFile,
    DataFolder,
    configured,
    connected,
    parsed,
)
from stream.cli.terminal import doing, tell
from stream.units import parse_time_ms


def checkpoint(
    out: Annotated[Path, typer.Option(help="Folder of the copy; the worker makes it.")],
    data: DataFolder = None,
    config: ConfigFile = None,
) -> None:
    """Copy the state of a running worker, which goes on meanwhile.

    Asks the worker, over a socket in its data folder, for a copy of the stores of its partitions,
    each between two units of work; by hard links where that is one file system. The copy is a data
    folder: start a worker on it, or on a copy of it, and it goes on from there to the ends of the
    changelogs. Check one against them with hearback state verify.
    """
    from stream.worker.requests import ask_checkpoint

    with doing("copying the state"):
        folder = configured(config, options={"worker.data": data}).worker.data
        done = ask_checkpoint(folder, out)
    tell(f"{done.stores} stores, {done.size_bytes / 1e6:,.1f} MB in {out}")


def forget(
    kind: Annotated[Literal["member", "job"], typer.Argument(help="member or job")],
    entity_id: Annotated[str, typer.Argument(metavar="ID", help="The member's or job's id.")],
    broker: BrokerAddress = None,
    until: Annotated[
        str | None,
        typer.Option(
            help="Learn nothing more of applications up to this time. Default: now; for a played"
            " log of old, a time of the log."
        ),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Forget what was learned of a member or a job.

    Writes a record into the worker's input; the worker that has the partition removes the state,
    its changelog entry, and the coefficients. For two label windows a marker stays, so that labels
    of applications up to now don't bring it back; later ones are learned anew. The topics' own
    records stay until their retention ends, and the facts of applications for two windows at
    most.
    """
    from producers.forget import send_forget
    from producers.outbox import now_ms
    from stream.events.structs import MAX_ID_CHARS, Forget

    if not 0 < len(entity_id) <= MAX_ID_CHARS:
        raise typer.BadParameter(f"an id has 1 to {MAX_ID_CHARS} characters")
    until_ms = parsed(parse_time_ms, until)
    event = Forget(
        member_id=entity_id if kind == "member" else None,
        job_id=entity_id if kind == "job" else None,
        event_time_ms=now_ms() if until_ms is None else until_ms,
    )
    topic, partition, offset = send_forget(connected(configured(config, broker=broker)), event)
    tell(
        f"{kind} {entity_id} is forgotten as soon as a worker comes to offset {offset} of"
        f" {topic}-{partition}"
    )
