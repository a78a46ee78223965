"""Commands around the state of workers: checkpoint, state verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import OUT, Broker, doing
from stream.errors import StateError

state = typer.Typer(name="state", help="What workers keep.", no_args_is_help=True)


@state.callback()
def _group() -> None:
    """Make Typer keep the group although it has one command."""


def checkpoint(
    data: Annotated[Path, typer.Option(help="The running worker's data folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the copy; the worker makes it.")],
) -> None:
    """Copy the state of a running worker, which goes on meanwhile.

    Asks the worker, over a socket in its data folder, for a copy of the stores of its partitions,
    each between two units of work; by hard links where that is one file system. The copy is a data
    folder: start a worker on it, or on a copy of it, and it goes on from there to the ends of the
    changelogs. Check one against them with hearback state verify.
    """
    from stream.worker.requests import ask_checkpoint

    with doing("copying the state"):
        done = ask_checkpoint(data, out)
    OUT.print(
        f"{done.stores} stores, {done.size_bytes / 1e6:,.1f} MB in {out}",
        highlight=False,
        soft_wrap=True,
    )


@state.command()
def verify(
    checkpoint: Annotated[
        Path, typer.Option(help="A checkpoint, or a stopped worker's data folder.")
    ],
    broker: Broker,
) -> None:
    """Compare a checkpoint with the changelogs that it follows.

    Every key that has not changed since the checkpoint must have the changelog's value, every
    deleted one be absent; keys that have changed since are counted. Changes nothing; workers may
    go on. Exit code 1 when something differs.
    """
    from rich.table import Table

    from stream.worker.data_folder import name_of
    from stream.worker.verification import verify_checkpoint

    table = Table(box=None)
    table.add_column("store")
    for name in ("up to offset", "equal", "changed since", "different"):
        table.add_column(name, justify="right")
    different = []
    with doing("reading") as say:
        for done in verify_checkpoint(checkpoint, broker, lambda at: say(f"reading {name_of(at)}")):
            counts = (done.offset, done.equal, done.later, done.different)
            table.add_row(name_of(done.place), *(f"{count:,}" for count in counts))
            different += [f"{name_of(done.place)}: {example}" for example in done.examples]
    OUT.print(table)
    if different:
        raise StateError(
            f"{checkpoint} is not what its changelogs say: {'; '.join(different[:5])}. Do not use"
            " it: take another checkpoint, or start with an empty --data"
        )
