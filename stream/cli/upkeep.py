"""Commands around the state of running workers: checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import OUT, doing


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
