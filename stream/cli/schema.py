"""The schema command."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.cli.terminal import OUT, tell


def schema(
    message: Annotated[
        str | None,
        typer.Argument(metavar="[MESSAGE]", help="Such as application, label or coefficients."),
    ] = None,
) -> None:
    """Print the JSON Schema of a message; without a name, which messages there are.

    Made from what the worker reads and writes by, so that a producer can check what it sends and a
    consumer can generate its types.
    """
    from rich.table import Table

    from stream.events.schemas import MESSAGES, text

    if message is not None:
        tell(text(message).rstrip("\n"))
        return
    table = Table(box=None)
    for head in ("message", "topics", "what it says"):
        table.add_column(head)
    for name, one in MESSAGES.items():
        table.add_row(name, ", ".join(one.topics), one.meaning)
    OUT.print(table)
