"""Commands around the state of workers: checkpoint, state verify, forget."""

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
    group,
    parsed,
)
from stream.cli.terminal import OUT, doing, numbers, tell
from stream.errors import StateError
from stream.units import parse_time_ms

state = group("state", "What workers keep.")


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


@state.command()
def verify(
    checkpoint: Annotated[
        Path, typer.Option(help="A checkpoint, or a stopped worker's data folder.")
    ],
    broker: BrokerAddress = None,
    config: ConfigFile = None,
) -> None:
    """Compare a checkpoint with the changelogs that it follows.

    Every key that has not changed since the checkpoint must have the changelog's value, every
    deleted one be absent; keys that have changed since are counted. Changes nothing; workers may
    go on. Exit code 1 when something differs.
    """
    from stream.worker.data_folder import name_of
    from stream.worker.verification import verify_checkpoint

    address = connected(configured(config, broker=broker))
    table = numbers(None, "store", "up to offset", "equal", "changed since", "different")
    different = []
    with doing("reading") as say:
        for done in verify_checkpoint(
            checkpoint, address, lambda at: say(f"reading {name_of(at)}")
        ):
            counts = (done.offset, done.equal, done.later, done.different)
            table.add_row(name_of(done.place), *(f"{count:,}" for count in counts))
            different += [f"{name_of(done.place)}: {example}" for example in done.examples]
    OUT.print(table)
    if different:
        raise StateError(
            f"{checkpoint} is not what its changelogs say: {'; '.join(different[:5])}. Do not use"
            " it: take another checkpoint, or start with an empty --data"
        )
