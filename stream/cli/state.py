"""What workers keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import BrokerAddress, ConfigFile, configured, connected, group
from stream.cli.terminal import OUT, doing, numbers
from stream.errors import StateError

state = group(__doc__)


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
